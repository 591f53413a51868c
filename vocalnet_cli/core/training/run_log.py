"""What a run tells: a progress bar for people, metrics.jsonl for programs, and what it was made with."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from transformers import TrainerCallback

from vocalnet_cli import __version__
from vocalnet_cli.core.training.processes import world

PACKAGES = ("torch", "transformers", "peft", "accelerate", "numpy", "soundfile", "soxr")


class RunLog(TrainerCallback):
    """Writes `{"step", "epoch", "loss", "lr", "tokens_per_s", "eta_s"}` each log step, and dev losses as `{"step", "dev_loss"}`.

    Where a stage's loss is a sum, its terms are in `terms`, by name: means since the last line.
    """

    def __init__(self, path: Path, resumed_at: int, draws_per_step: float, examples: int, quiet: bool, writes: bool = True) -> None:
        self.path = path
        self.epoch_per_step = draws_per_step / max(1, examples)
        self.writes = writes
        self.tokens: list[Tensor] = []
        self.terms: dict[str, list[Tensor]] = {}
        self.started = self.logged = time.monotonic()
        self.first_step = resumed_at
        self.progress: Progress | None = None
        show = not quiet and sys.stderr.isatty()
        if show:
            text = TextColumn("{task.description}"), TextColumn("{task.fields[note]}")
            bar = BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
            self.progress = Progress(text[0], *bar, text[1], console=Console(stderr=True))
        self.plain = not quiet and not show
        if writes:
            _keep_lines(path, resumed_at)

    def count(self, tokens: Tensor, terms: Mapping[str, Tensor]) -> None:
        """Add the targets of a batch to the throughput, and its loss's terms to their means; the device is asked when they are told."""
        self.tokens.append(tokens.detach())
        for name, value in terms.items():
            self.terms.setdefault(name, []).append(value.detach())

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.progress is not None:
            self.progress.start()
            self.task = self.progress.add_task("training", total=state.max_steps, completed=state.global_step, note="")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == state.max_steps:
            control.should_log = True  # a run that ends between two lines tells its last steps too
        if self.progress is not None:
            self.progress.update(self.task, completed=state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        logs = logs or {}
        if "eval_loss" in logs:
            self._write({"step": state.global_step, "dev_loss": round(logs["eval_loss"], 5)})
        if "loss" not in logs:
            return
        now = time.monotonic()
        per_step = (now - self.started) / max(1, state.global_step - self.first_step)
        line: dict[str, Any] = {
            "step": state.global_step,
            "epoch": round(state.global_step * self.epoch_per_step, 4),
            "loss": logs["loss"],
            "lr": logs.get("learning_rate", 0.0),
            "tokens_per_s": round(self._counted() / max(1e-9, now - self.logged), 1),
            "eta_s": round(per_step * (state.max_steps - state.global_step), 1),
        }
        if self.terms:
            line["terms"] = {name: round(float(torch.stack(values).mean()), 5) for name, values in self.terms.items()}
        self.tokens, self.logged, self.terms = [], now, {}
        self._write(line)
        if self.progress is not None:
            self.progress.update(self.task, note=f"loss {line['loss']:.4f}  {line['tokens_per_s']:.0f} tokens/s  lr {line['lr']:.1e}")

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.close()

    def close(self) -> None:
        if self.progress is not None:
            self.progress.stop()

    def _counted(self) -> float:
        """Targets since the last line; the other processes had about as many."""
        return float(torch.stack(self.tokens).sum()) * world() if self.tokens else 0.0

    def _write(self, line: dict[str, Any]) -> None:
        if not self.writes:
            return
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        if self.plain:
            print(json.dumps(line), file=sys.stderr, flush=True)


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The lines of a run's metrics.jsonl; none if there is no file. The last line of a killed run may be cut, and is left out."""
    lines = []
    for text in path.read_text().splitlines() if path.is_file() else []:
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            continue
    return lines


def _keep_lines(path: Path, last_step: int) -> None:
    """Drop lines past the step a run resumes from, so that the file reads like one straight run."""
    if not path.is_file():
        return
    kept = [line for line in read_metrics(path) if line.get("step", 0) <= last_step]
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(json.dumps(line) + "\n" for line in kept))
    os.replace(temporary, path)


def origin(seed: int, device: str) -> dict[str, Any]:
    """Versions, commit, seed and machine a result was made with."""
    git = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent, check=False)
    return {
        "vocalnet": __version__,
        "git": git.stdout.strip() or None,
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "device": device,
        "seed": seed,
        "argv": sys.argv[1:],
    }
