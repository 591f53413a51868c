"""Runs a step: cut the input, work on what is not done, put the shards together. The outcome does not tell how it was computed."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vocalnet_cli.core.data.prep.shards import Shard, cut, find_inputs
from vocalnet_cli.core.data.prep.step import STATE, Done, Step, has_changed, is_done, may_improve, shard_file, write_bytes
from vocalnet_cli.core.data.prep.workers import run_local
from vocalnet_cli.core.data.record import write_text_atomically
from vocalnet_cli.core.errors import UsageError, VocalnetError

ENGINES = ("local", "ray")
DUPLICATE, SAME_ID = "duplicate", "id twice"


@dataclass(frozen=True)
class Manner:
    """How a step is run; none of it changes what comes out, save `shard_rows` where rows of a shard are computed together."""

    workers: int = 0
    """Processes; 0 means one for each core."""
    engine: str = "local"
    part: tuple[int, int] = (1, 1)
    """(i, n): only every n-th shard, the i-th of them first; from 1."""
    shard_rows: int = 500
    limit: int | None = None
    """Work on the first rows only."""


def parse_part(text: str) -> tuple[int, int]:
    """`3/8` as (3, 8). Raises UsageError."""
    head, _, tail = text.partition("/")
    if not (head.isdigit() and tail.isdigit() and 1 <= int(head) <= int(tail)):
        raise UsageError(f"--shard {text}: not I/N with 1 <= I <= N", "Write for example --shard 3/8 in the third of eight jobs.")
    return int(head), int(tail)


@dataclass
class Tally:
    """What is told while shards come in."""

    total: int
    rows: int = 0
    audio_s: float = 0.0
    by_worker: Counter[str] = field(default_factory=Counter)


def run_step(
    step: Step,
    inputs: Sequence[str],
    output: Path,
    manner: Manner | None = None,
    advance: Callable[[Tally], None] = lambda tally: None,
) -> dict[str, Any]:
    """Work through `inputs` into `output`: manifest.jsonl, rejects.jsonl, stats.json. What an earlier run finished is kept.

    With a part of the shards (`manner.part`) the files are put together by whoever finishes last. Returns the stats; `unfinished`
    counts shards that are still missing. Raises UsageError, VocalnetError.
    """
    manner = manner or Manner()
    started = time.monotonic()
    if manner.engine not in ENGINES:
        raise UsageError(f"--engine {manner.engine}: no such engine", f"There are: {', '.join(ENGINES)}.")
    files = find_inputs(inputs)
    _own(output, step, files)
    shards = _limited(cut(files, manner.shard_rows), manner.limit)
    index, count = manner.part
    todo = []
    for shard in shards[index - 1 :: count]:
        done = is_done(step, shard, output)
        if done is None or may_improve(done) or has_changed(shard, output):
            todo.append(shard)
    tally = Tally(sum(shard.rows for shard in todo))

    def finished(shard: Shard, done: Done) -> None:
        tally.rows += shard.rows
        tally.audio_s += done.audio_s
        tally.by_worker[done.worker] += shard.rows
        advance(tally)

    advance(tally)
    _engine(manner, step, todo, output, finished)
    spent = time.monotonic() - started
    missing = sum(not is_done(step, shard, output) for shard in shards)
    stats: dict[str, Any] = {"step": step.name, "settings": step.settings(), "rows_in": sum(shard.rows for shard in shards)}
    run = {
        "seconds": round(spent, 1),
        "rows_per_s": round(tally.rows / spent, 1) if spent else 0.0,
        "engine": manner.engine,
        "rows_by_worker": dict(sorted(tally.by_worker.items())),
        "rows_kept": stats["rows_in"] - tally.rows if not missing else None,
    }
    if missing:
        return {**stats, "unfinished": missing, **run}
    stats |= _put_together(shards, output)
    stats |= run
    write_text_atomically(output / "stats.json", json.dumps(stats) + "\n")
    return stats


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _limited(shards: list[Shard], limit: int | None) -> list[Shard]:
    """The shards that hold the first `limit` rows, the last of them cut short."""
    if limit is None:
        return shards
    kept, left = [], limit
    for shard in shards:
        if left > 0:
            kept.append(replace(shard, rows=min(shard.rows, left)))
            left -= shard.rows
    return kept


def _own(output: Path, step: Step, inputs: Sequence[Path]) -> None:
    """Make the folder, or see that it is this step's."""
    if any(path.resolve().parent == output.resolve() for path in inputs):
        raise UsageError(f"{output}: the input lies in it", "Name another folder with -o.")
    mark = output / STATE / "step"
    try:
        mark.parent.mkdir(parents=True, exist_ok=True)
        owner = mark.read_text(encoding="utf-8") if mark.is_file() else None
    except OSError as error:
        raise VocalnetError(f"cannot make the folder {output}: {error.strerror}", "choose another folder: -o DIR") from error
    if owner is not None and owner != step.name:
        raise UsageError(f"{output}: holds what `vocalnet prep {owner}` made", "Name another folder with -o, or remove that one first.")
    if owner is None and (output / "manifest.jsonl").exists():
        raise UsageError(f"{output}: holds a manifest of another making", "Name another folder with -o, or remove that one first.")
    write_bytes(mark, step.name.encode(), output)


def _engine(manner: Manner, step: Step, todo: list[Shard], output: Path, finished: Callable[[Shard, Done], None]) -> None:
    if not todo:
        return
    workers = manner.workers or cores()
    if manner.engine == "ray":
        from vocalnet_cli.core.data.prep.ray_engine import run_ray

        run_ray(step, todo, output, workers, finished)
    else:
        run_local(step, todo, output, workers, finished)


def _put_together(shards: Sequence[Shard], output: Path) -> dict[str, Any]:
    """Shards into manifest.jsonl and rejects.jsonl, a row that stood earlier left out. Memory: 16 bytes a row and their set."""
    seen: set[bytes] = set()
    rejected: Counter[str] = Counter()
    rows, audio_s = 0, 0.0
    temporary = output / STATE / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    names = {name: temporary / f"{os.getpid()}.{name}" for name in ("manifest.jsonl", "rejects.jsonl")}
    with names["manifest.jsonl"].open("wb") as manifest, names["rejects.jsonl"].open("wb") as rejects:
        for shard in shards:
            with shard_file(output, shard).open("rb") as file:
                for line in file:
                    kind, *cells = line.rstrip(b"\n").split(b"\t", 4)
                    if kind == b"R":
                        reason = _twice(cells[0], cells[1], seen)
                        if reason is None:
                            manifest.write(cells[3] + b"\n")
                            rows += 1
                        else:
                            name, number, own = json.loads(cells[2])
                            told = {"id": own, "file": name, "line": number, "reason": reason}
                            rejects.write(json.dumps(told).encode() + b"\n")
                            rejected[reason] += 1
                    elif kind == b"X":
                        rejects.write(b"\t".join(cells[1:]) + b"\n")
                        rejected[cells[0].decode()] += 1
                    elif kind == b"D":
                        audio_s += json.loads(cells[1])["audio_s"]
    for name, path in names.items():
        os.replace(path, output / name)
    for stale in (output / STATE).glob("*.tsv"):
        if int(stale.stem) >= len(shards):
            stale.unlink()
    return {"rows_out": rows, "rejected": dict(sorted(rejected.items())), "audio_hours": round(audio_s / 3600, 3)}


def _twice(own: bytes, same: bytes, seen: set[bytes]) -> str | None:
    """Why a row that stood earlier is left out, if it did."""
    if b"i" + own in seen:
        return SAME_ID
    if same != b"-" and b"s" + same in seen:
        return DUPLICATE
    seen.add(b"i" + own)
    if same != b"-":
        seen.add(b"s" + same)
    return None
