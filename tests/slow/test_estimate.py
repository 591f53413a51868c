"""What `--dry-run` says a run holds, against what it holds: one step of a stage on the CPU, the process's high-water mark.

Not run by default (a minute): `pytest -m slow -s tests/slow/test_estimate.py` prints both for each setting.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.slow.memory import peak_bytes
from tests.slow.written import recipe, write_corpus
from vocalnet_cli.core.config.load import load_recipe
from vocalnet_cli.core.training.estimate import dry_run
from vocalnet_cli.core.training.loop import train_stage
from vocalnet_cli.core.training.run import prepared
from vocalnet_cli.core.training.stage_plan import parts_to_train

SETTINGS = {
    "talker": {"stage": "speak", "width": 384, "answer_s": 12, "train": {"batch_size": 8, "dtype": "bf16"}},
    "recomputed": {"stage": "speak", "width": 640, "answer_s": 8, "train": {"batch_size": 6, "gradient_checkpointing": True}},
    "text": {"stage": "lm", "width": 384, "answer_s": 24, "train": {"batch_size": 24}},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_the_estimate_is_within_15_percent_of_the_peak(name, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = SETTINGS[name]
    tokenizer = write_corpus([asked["answer_s"]] * asked["train"]["batch_size"])
    Path("recipe.yaml").write_text(json.dumps(recipe(**asked)))
    loaded = load_recipe("recipe.yaml")
    told = dry_run(loaded, "cpu")

    def step() -> None:
        torch.manual_seed(0)
        stage = prepared(loaded.recipe, {}, parts_to_train(loaded))
        stage.model.tokenizer = tokenizer
        stage.load_examples()
        train_stage(stage, tmp_path / "run", "cpu", resume=False, quiet=True)

    measured = peak_bytes(step) / 1e9
    print(f"\n{name}: estimate {told['memory_gb']:.3f} GB, measured {measured:.3f} GB, ratio {told['memory_gb'] / measured:.2f}")
    assert told["memory_gb"] == pytest.approx(measured, rel=0.15)
