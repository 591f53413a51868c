"""Scores against the passes a block takes, as a picture: what quality costs in a masked-diffusion talker (arXiv 2602.08607)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vocalnet_cli.core.data.picture import new_figure, write_png
from vocalnet_cli.core.errors import UsageError


def steps_of(text: str) -> list[str]:
    """`1,4,auto` as its parts. Raises UsageError for a part that is neither a number nor auto."""
    parts = [part.strip() for part in text.split(",")]
    wrong = [part for part in parts if not (part == "auto" or part.isdecimal())]
    if wrong:
        raise UsageError(f"--steps {text}: {wrong[0]!r} is neither a number nor auto", "Write them like this: --steps 1,2,4,auto")
    return parts


def draw_curve(results: Sequence[dict[str, Any]], path: Path) -> None:
    """A PNG of word errors, and of right answers in speech, by `steps` of each result, a line a benchmark.

    Raises VocalnetError where matplotlib is not installed.
    """
    figure = new_figure(9, 4)
    panels = figure.subplots(1, 2)
    steps = [str(result["steps"]) for result in results]
    for name in results[0]["benchmarks"]:
        scores = [result["benchmarks"][name] for result in results]
        for panel, values in zip(panels, ([s.get("wer") for s in scores], [s.get("accuracy", {}).get("s2s") for s in scores]), strict=True):
            panel.plot(steps, [float("nan") if value is None else value for value in values], marker="o", label=name)
    for panel, title in zip(panels, ("word errors of the speech, %", "right answers in speech, %"), strict=True):
        panel.set(title=title, xlabel="passes a block", ylim=(0, None))
        panel.legend()
    write_png(figure, path)
