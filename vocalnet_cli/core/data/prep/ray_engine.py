"""Shards over a Ray cluster, the one that is running or one on this machine. Output and inputs lie where every node sees them."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vocalnet_cli.core.data.prep.shards import Shard
from vocalnet_cli.core.data.prep.step import Done, Step, work_shard
from vocalnet_cli.core.errors import VocalnetError

_CPUS = 0.5
"""Of an actor. With whole ones the actors would take every core of a small machine, and the task that feeds them could never start."""


class _Actor:
    def __init__(self, step: Step, output: str) -> None:
        self.step, self.output = step, Path(output)
        step.begin()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        told = []
        for text in batch["shard"]:
            shard = Shard(**json.loads(text))
            done = work_shard(self.step, shard, self.output)
            done.worker = f"{os.uname().nodename}:{os.getpid()}"
            told.append(json.dumps([shard.number, {**vars(done), "rejected": dict(done.rejected)}]))
        return {"done": told}


@contextmanager
def cluster(workers: int) -> Iterator[Any]:
    """`ray.data` on the cluster that is running (RAY_ADDRESS), or one on this machine. Raises VocalnetError without Ray."""
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise VocalnetError("--engine ray: ray is not installed", "Install it: pip install 'vocalnet-cli[ray]'") from error
    own = not ray.is_initialized()
    if own:
        address = os.environ.get("RAY_ADDRESS")
        cpus = None if address else max(2, workers)
        ray.init(
            address=address, num_cpus=cpus, include_dashboard=None if address else False, log_to_driver=False, logging_level=logging.ERROR
        )
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    try:
        yield ray
    finally:
        if own:
            ray.shutdown()


def run_ray(step: Step, shards: Sequence[Shard], output: Path, workers: int, finished: Callable[[Shard, Done], None]) -> None:
    """Work on shards with `workers` actors; `finished(shard, done)` is called here as each is written. Raises VocalnetError."""
    numbered = {shard.number: shard for shard in shards}
    with cluster(workers) as ray:
        data = ray.data.from_items(
            [{"shard": json.dumps(asdict(shard))} for shard in shards], override_num_blocks=min(len(shards), 1000)
        ).map_batches(
            _Actor,
            fn_constructor_args=(step, str(output.resolve())),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=min(workers, len(shards))),
            num_cpus=_CPUS,
        )
        for row in data.iter_rows():
            number, told = json.loads(row["done"])
            finished(numbered[number], Done(**told))


def actors(kind: type, arguments: tuple[Any, ...], items: Sequence[Any], workers: int = 0) -> Iterator[Any]:
    """`kind(*arguments)(item)` for each item (JSON values), as they are done, by `workers` actors; 0: one a GPU of the cluster, or one.

    Each actor has a GPU where there are any. Raises VocalnetError.
    """
    with cluster(workers or 1) as ray:
        gpus = int(ray.cluster_resources().get("GPU", 0))
        count = min(workers or max(1, gpus), len(items))
        data = ray.data.from_items([{"item": json.dumps(item)} for item in items], override_num_blocks=min(len(items), 1000)).map_batches(
            _Each,
            fn_constructor_args=(kind, arguments),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=count),
            num_cpus=_CPUS,
            num_gpus=min(1.0, gpus / count) if gpus else None,
        )
        for row in data.iter_rows():
            yield json.loads(row["done"])


class _Each:
    def __init__(self, kind: type, arguments: tuple[Any, ...]) -> None:
        self._worker = kind(*arguments)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {"done": [json.dumps(self._worker(json.loads(item))) for item in batch["item"]]}
