"""What a prepared stage trains, in parameters, part by part: told before every run, and what `--dry-run` counts."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from vocalnet_cli.core.config.parts import PART_NAMES
from vocalnet_cli.core.training.stages.stage import Stage

HEADS = "heads"
"""What a stage trains beside the model and throws away at its end."""


@dataclass(frozen=True)
class Count:
    """One line: a part, how many of its parameters learn, and how many it has."""

    part: str
    learns: int
    total: int

    @property
    def how(self) -> str:
        if not self.learns:
            return "frozen"
        return "learns" if self.learns == self.total else f"{self.learns / 1e6:.3f} M learn"


def tally(stage: Stage) -> list[Count]:
    """Parameters of every part, in the order of the signal path; the stage's own heads last, if it has any."""
    counts = [Count(name, *_sizes(part)) for name in PART_NAMES if isinstance(part := getattr(stage.model, name, None), nn.Module)]
    own = nn.ModuleList(module for name, module in stage.named_children() if name not in ("model", "teacher"))
    learns, total = _sizes(own)
    return [*counts, Count(HEADS, learns, total)] if total else counts


def halved(dtype: str, parts: tuple[str, ...]) -> tuple[str, ...]:
    """Parts that `train.frozen_dtype` puts in bfloat16 where `parts` learn. The encoder has the type of the adaptor it feeds."""
    if dtype != "bf16":
        return ()
    return tuple(
        name for name in ("encoder", "adaptor", "thinker", "talker") if name not in parts and (name != "encoder" or "adaptor" not in parts)
    )


def table_lines(counts: list[Count]) -> list[str]:
    """The tally as lines of text."""
    lines = [f"  {one.part:<10}{one.total / 1e6:>12.3f} M  {one.how}" for one in counts]
    learns, total = (sum(getattr(one, key) for one in counts) for key in ("learns", "total"))
    return [*lines, f"  {'together':<10}{total / 1e6:>12.3f} M  {learns / 1e6:.3f} M learn"]


def _sizes(module: nn.Module) -> tuple[int, int]:
    """Parameters that learn, and all; tied ones count once."""
    parameters = list(module.parameters())
    return sum(p.numel() for p in parameters if p.requires_grad), sum(p.numel() for p in parameters)
