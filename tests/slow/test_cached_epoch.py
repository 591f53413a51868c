"""What reading the cache of frozen outputs costs: an epoch of stage `speak` against the talker alone on tensors that are there.

Not run by default (a minute): `pytest -m slow -s tests/slow/test_cached_epoch.py` prints both.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.slow.written import recipe, write_corpus
from vocalnet_cli.core.config.load import load_recipe
from vocalnet_cli.core.training.run import prepared
from vocalnet_cli.core.training.stage_plan import parts_to_train
from vocalnet_cli.core.training.stages.stage import batches

BATCH, ROUNDS = 8, 3


@pytest.mark.slow
def test_a_cached_epoch_takes_at_most_5_percent_longer_than_the_talker_alone(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)
    seconds = [2 + number // BATCH for number in range(4 * BATCH)]
    tokenizer = write_corpus(seconds)
    Path("recipe.yaml").write_text(json.dumps(recipe("speak", 256, max(seconds), {"batch_size": BATCH, "dtype": "bf16"})))
    loaded = load_recipe("recipe.yaml", ["data.cache=true"])
    torch.manual_seed(0)
    stage = prepared(loaded.recipe, {}, parts_to_train(loaded), tmp_path / "cache").train()
    stage.model.tokenizer = tokenizer
    stage.load_examples()
    assert stage.states_cached and list((tmp_path / "cache").glob("read-*"))
    groups = list(batches([(example, number) for number, example in enumerate(stage.examples)], BATCH))
    loaded_before = [stage.collate(group) for group in groups]

    def cached() -> None:
        for group in groups:
            learned(lambda group=group: stage(**stage.collate(group))["loss"])

    def alone() -> None:
        for batch in loaded_before:
            lengths = stage._lengths(*(batch[name] for name in ("speech", "streaming", "answers", "draws")))
            learned(lambda batch=batch, lengths=lengths: stage.model.talker.loss(batch["states"], batch["speech"], lengths).total)

    def learned(loss: Callable[[], Tensor]) -> None:
        stage.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16):
            found = loss()
        found.backward()

    took: dict[str, list[float]] = {"cached": [], "alone": []}
    for _ in range(1 + ROUNDS):
        for name, epoch in (("cached", cached), ("alone", alone)):
            start = time.process_time()
            epoch()
            took[name].append(time.process_time() - start)
    times = {name: statistics.median(all_[1:]) for name, all_ in took.items()}  # the first round warms up
    print(f"\ncached epoch {times['cached']:.2f} s, talker alone {times['alone']:.2f} s, ratio {times['cached'] / times['alone']:.3f}")
    assert times["cached"] <= 1.05 * times["alone"]
