"""How certain a talker is: the largest probability and the entropy of what it draws tokens from (figure 4 of arXiv 2504.04060)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vocalnet_cli import __version__
from vocalnet_cli.core.config.schema import GenerationSettings
from vocalnet_cli.core.data.picture import new_figure, write_png
from vocalnet_cli.core.data.record import write_text_atomically
from vocalnet_cli.core.errors import VocalnetError
from vocalnet_cli.core.generation.streaming import answer
from vocalnet_cli.core.model.speech_llm import SpeechLLM

PAPER_TOKENS = 70_000
LOW, HIGH = 0.25, 3.0
"""In the paper's 70 000 distributions most largest probabilities lie below 0.25 and most entropies above 3 (nats)."""

_BINS = 40
_DIGITS = 4


class Watcher:
    """Keeps, for each head of a talker, the largest probability and the entropy in nats of every distribution it drew from."""

    def __init__(self) -> None:
        self.largest: dict[int, list[float]] = {}
        self.entropy: dict[int, list[float]] = {}
        self.vocab = 0

    def __call__(self, head: int, scores: Tensor) -> None:
        """Scores [..., m, V] of heads `head` to `head` + m - 1, before penalty, temperature and choice."""
        self.vocab = scores.shape[-1]
        log = scores.double().log_softmax(-1)
        chances = log.exp()
        entropy = -(chances * log).nan_to_num(0.0).sum(-1)  # 0 log 0 is 0
        for place in range(scores.shape[-2]):
            self.largest.setdefault(head + place, []).extend(chances[..., place, :].amax(-1).flatten().tolist())
            self.entropy.setdefault(head + place, []).extend(entropy[..., place].flatten().tolist())

    def count(self) -> int:
        """Distributions of the first head."""
        return len(self.largest.get(0, ()))


def watch_talker(
    model: SpeechLLM,
    questions: Iterable[np.ndarray],
    settings: GenerationSettings,
    tokens: int,
    seed: int = 0,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> Watcher:
    """What a talker drew from while it answered `questions` (16 kHz), until its first head has drawn `tokens` or they are all answered.

    Raises VocalnetError if it drew nothing.
    """
    watcher = Watcher()
    for samples in questions:
        for _ in answer(model, samples, settings, torch.Generator().manual_seed(seed), watch=watcher):
            pass
        advance(min(watcher.count(), tokens), tokens)
        if watcher.count() >= tokens:
            break
    if watcher.count() == 0:
        raise VocalnetError("the talker drew no token", "Ask other questions (--benchmark), or another model (--model).")
    for told in (watcher.largest, watcher.entropy):
        for values in told.values():
            del values[tokens:]
    return watcher


def figure_4(watcher: Watcher, told: Mapping[str, Any]) -> dict[str, Any]:
    """The object of the figure: `told` (which model, settings and questions), and for each head its histograms."""
    top = float(np.log(watcher.vocab))
    heads = {
        str(head): {
            "n": len(values),
            "max_probability": {**_spread(values, 1.0), f"below_{LOW:g}": _part(np.asarray(values) < LOW)},
            "entropy": {**_spread(watcher.entropy[head], top), f"above_{HIGH:g}": _part(np.asarray(watcher.entropy[head]) > HIGH)},
        }
        for head, values in sorted(watcher.largest.items())
    }
    return {
        **told,
        "figure": "4 of arXiv 2504.04060",
        "unit": "nats",
        "vocabulary": watcher.vocab,
        "heads": heads,
        "versions": {"vocalnet": __version__, "torch": version("torch")},
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def _spread(values: list[float], most: float) -> dict[str, Any]:
    counts, edges = np.histogram(np.clip(values, 0, most), bins=_BINS, range=(0, most))
    middle = {name: round(float(value), _DIGITS) for name, value in (("mean", np.mean(values)), ("p50", np.median(values)))}
    return {**middle, "histogram": {"edges": [round(float(edge), _DIGITS) for edge in edges], "counts": counts.tolist()}}


def _part(there: np.ndarray) -> float:
    """Percent."""
    return round(100 * float(there.mean()), 2)


def write_figure_4(figure: Mapping[str, Any], folder: Path) -> None:
    """`folder`/figure-4.json and figure-4.png. Raises VocalnetError where matplotlib is not installed, or the folder refuses."""
    canvas = new_figure(9, 4)
    panels = canvas.subplots(1, 2)
    titles = {"max_probability": ("largest probability", LOW), "entropy": ("entropy, nats", HIGH)}
    for panel, (name, (title, line)) in zip(panels, titles.items(), strict=True):
        for head, one in figure["heads"].items():
            counts, edges = np.asarray(one[name]["histogram"]["counts"]), one[name]["histogram"]["edges"]
            first = head == "0"
            panel.stairs(counts / one["n"], edges, fill=first, alpha=0.6 if first else 1, label=f"head {head}, {one['n']} tokens")
        panel.axvline(line, color="black", linestyle=":", label=f"the paper's mark, {line:g}")
        panel.set(title=title, ylabel="part of the distributions", xlim=(0, None))
        panel.legend()
    write_png(canvas, folder / "figure-4.png")
    write_text_atomically(folder / "figure-4.json", json.dumps(figure, ensure_ascii=False, indent=1) + "\n")
