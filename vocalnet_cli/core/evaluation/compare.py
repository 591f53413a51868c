"""Two runs on the same questions: how much better one is, and whether that could be chance."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb
from typing import Any

import numpy as np

from vocalnet_cli.core.errors import UsageError
from vocalnet_cli.core.evaluation.results import Run
from vocalnet_cli.core.evaluation.score import interval

FLIPS = 10_000
_SEED = 0


def compare(first: Run, second: Run) -> dict[str, Any]:
    """What `second` has over `first` on the benchmarks both measured: for each `{"n", "scale", "s2t": {...}, "s2s": {...}}`.

    Only questions on which both have a verdict count, each compared with itself. `first`, `second` and `difference` are percent, or
    marks; `ci` is the difference's 95 % bootstrap interval; `p` the chance of a difference at least as large if the two were alike:
    McNemar's exact test of right and wrong, sign flips drawn at random for marks.

    Raises UsageError where the two do not compare: no benchmark in common, another manifest, judge, prompt or scale, another recogniser.
    """
    names = [name for name in first.report.benchmarks if name in second.report.benchmarks]
    if not names:
        raise UsageError(f"{first.folder} and {second.folder}: no benchmark in common", "Measure both on the same benchmarks.")
    return {name: _compared(first, second, name) for name in names}


def _compared(first: Run, second: Run, name: str) -> dict[str, Any]:
    ours, theirs = first.report, second.report
    if ours.manifests.get(name) != theirs.manifests.get(name):
        raise UsageError(f"{name}: the two runs asked different versions of it", "Measure one of them again.")
    if name not in ours.judging or name not in theirs.judging:
        raise UsageError(f"{name}: was not judged in both runs", "Measure again with a judge that can (--judge).")
    how, other = ours.judging[name], theirs.judging[name]
    if not how.same_as(other):
        told = f"{how.judge} ({how.prompt}, {how.scale}) and {other.judge} ({other.prompt}, {other.scale})"
        raise UsageError(f"{name}: judged differently: {told}", "Measure one again with the judge and prompts of the other.")
    if ours.recogniser != theirs.recogniser:
        raise UsageError(f"{name}: heard by {ours.recogniser!r} and {theirs.recogniser!r}", "Measure one again.")
    paired: dict[str, Any] = {"scale": how.scale}
    for kind in ("s2t", "s2s"):
        pairs = _pairs(first, second, name, kind)
        if len(pairs):
            paired[kind] = _difference(pairs, how.scale)
    return paired


def _pairs(first: Run, second: Run, name: str, kind: str) -> np.ndarray:
    """[n, 2]: the verdicts on the questions that both have one on."""
    values = []
    for run in (first, second):
        verdicts = {one.id: one.verdicts[kind].value for one in run.questions[name] if kind in one.verdicts}
        values.append({own: value for own, value in verdicts.items() if value is not None})
    return np.array([(values[0][own], values[1][own]) for own in values[0] if own in values[1]], dtype=float).reshape(-1, 2)


def _difference(pairs: np.ndarray, scale: str) -> dict[str, Any]:
    factor = 100.0 if scale == "right" else 1.0
    gained = pairs[:, 1] - pairs[:, 0]
    low, high = (round(bound * factor / 100, 2) for bound in interval(gained.tolist(), [1.0] * len(gained)))
    means = (pairs.mean(axis=0) * factor).tolist()
    return {
        "n": len(pairs),
        "first": round(means[0], 2),
        "second": round(means[1], 2),
        "difference": round(float(gained.mean()) * factor, 2),
        "ci": [low, high],
        "p": mcnemar(int((gained > 0).sum()), int((gained < 0).sum())) if scale == "right" else sign_flips(gained.tolist()),
    }


def mcnemar(gained: int, lost: int) -> float:
    """Two-sided exact p of McNemar's test: `gained` and `lost` are the questions only one of the two got right."""
    total = gained + lost
    tail = sum(comb(total, k) for k in range(min(gained, lost) + 1))
    return round(min(1.0, 2 * tail / 2**total), 5)


def sign_flips(differences: Sequence[float]) -> float:
    """Two-sided p of a paired permutation test on the mean: how often random signs make it as large. The same numbers, the same p."""
    values = np.asarray(differences, dtype=float)
    signs = np.random.default_rng(_SEED).integers(0, 2, size=(FLIPS, len(values))) * 2 - 1
    as_large = np.abs(signs @ values) >= abs(values.sum()) - 1e-9
    return round(float((as_large.sum() + 1) / (FLIPS + 1)), 5)
