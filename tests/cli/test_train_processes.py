"""`vocalnet train` in several processes, as torchrun starts them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.tiny import save_tiny, tiny_settings
from tests.train_runs import ROOT, metrics, parts


def test_shared_weights_learn_what_whole_copies_learn(corpus: Path) -> None:
    """FSDP2 and DDP, two processes each: the same losses and the same talker."""
    vocab = json.loads((save_tiny(corpus / "start") / "config.json").read_text())["model"]["thinker"]["vocab"]
    rows = [json.loads(line) for line in (corpus / "manifest.jsonl").read_text().splitlines()][:4]
    lines = [json.dumps({**row, "speech_tokens": [(5 * n + place) % 16 for place in range(9)]}) for n, row in enumerate(rows)]
    (corpus / "manifest.jsonl").write_text("\n".join(lines))
    settings = {
        "stage": "speak",
        "model": tiny_settings(vocab).model_dump(mode="json"),
        "init": {part: "start" for part in ("tokenizer", "thinker", "talker", "vocoder")},
        "data": {"manifest": "manifest.jsonl", "questions": "written"},
        "train": {"steps": 2, "batch_size": 2, "log_every": 1, "lr": 0.01, "warmup": 0.0},
    }
    (corpus / "speak.yaml").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "vocalnet_cli", "train"]
    for strategy in ("ddp", "fsdp"):
        done = subprocess.run(
            [*command, "--recipe", "speak.yaml", "-o", strategy, "--device", "cpu", "--set", f"distributed.strategy={strategy}"],
            capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
    losses = {name: [line["loss"] for line in metrics(corpus / name) if "loss" in line] for name in ("ddp", "fsdp")}
    assert len(losses["ddp"]) == 2 and losses["fsdp"] == pytest.approx(losses["ddp"], rel=1e-3)
    whole, shared = parts("ddp")["talker"], parts("fsdp")["talker"]
    for key, tensor in whole.items():
        torch.testing.assert_close(shared[key], tensor, rtol=1e-3, atol=1e-4)


def test_a_dry_run_of_several_processes_is_told_once(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "vocalnet_cli", "train"]
    done = subprocess.run(
        [*command, "--recipe", "nano/mtp5", "--dry-run", "--json"],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout)
    assert told["trainable"] > 0 and told["tokens_per_step"] > 0 and not list(tmp_path.iterdir())
