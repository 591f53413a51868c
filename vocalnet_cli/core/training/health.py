"""Stops a run whose loss is no longer a number, before anything of it is saved, and names the rows it first happened on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback

from vocalnet_cli.core.errors import VocalnetError


class Health(TrainerCallback):
    """Keeps the losses since the last look on the device; looks when the run logs or saves, so no step waits for the device."""

    def __init__(self, names: Callable[[Sequence[int]], list[str]], kept: Callable[[], tuple[Any, int] | None]) -> None:
        self.names = names
        self.kept = kept
        self.seen: list[tuple[int, Tensor, Tensor]] = []
        self.step = 0

    def note(self, loss: Tensor, draws: Tensor) -> None:
        """Remember the loss of a batch and the numbers of its draws."""
        self.seen.append((self.step + 1, loss.detach(), draws))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.step = state.global_step
        if control.should_log or control.should_save or control.should_training_stop:
            self.look()

    def look(self) -> None:
        """Raise VocalnetError if a loss noted since the last look is not a number."""
        seen, self.seen = self.seen, []
        if not seen:
            return
        fine = torch.isfinite(torch.stack([loss for _, loss, _ in seen])).tolist()
        for good, (step, loss, draws) in zip(fine, seen, strict=True):
            if not good:
                rows = self.names(draws.tolist())
                told = ", ".join(rows[:8]) + (f" and {len(rows) - 8} more" if len(rows) > 8 else "")
                kept = self.kept()
                back = f"the checkpoint of step {kept[1]} is kept: --resume goes on from it" if kept else "nothing was saved yet"
                raise VocalnetError(
                    f"the loss is {float(loss)} at step {step}, rows {told}",
                    f"Look at these rows, lower train.lr, or set train.dtype to fp32; {back}.",
                )
