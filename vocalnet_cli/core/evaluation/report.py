"""The object `eval --json` prints, and the rows of its table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from typing import Any

from vocalnet_cli import __version__
from vocalnet_cli.core.evaluation.judge import JUDGE
from vocalnet_cli.core.evaluation.wer import NORMALISER

COLUMNS = ("benchmark", "n", "failed", "text right %", "speech right %", "WER %", "recorded: right %", "recorded: WER %", "cut off %")
KIND_COLUMNS = ("benchmark", "kind", "n", "text right %", "speech right %")


def report(model: str, measured: Mapping[str, Any], benchmarks: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that was found: `benchmarks` maps names to what `score` returned, `measured` says with which weights and settings."""
    return {
        "model": model,
        "recipe": None,
        **measured,
        "benchmarks": dict(benchmarks),
        "judge": JUDGE,
        "normaliser": NORMALISER,
        "versions": {"vocalnet": __version__, **{name: version(name) for name in ("torch", "transformers", "pocketsphinx", "jiwer")}},
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def table(benchmarks: Mapping[str, Mapping[str, Any]]) -> list[Sequence[object]]:
    """A row a benchmark, rates with their 95 % intervals."""
    return [
        (
            name,
            scores["n"],
            scores["failed"],
            _with_interval(scores.get("accuracy", {}).get("s2t"), scores, "s2t"),
            _with_interval(scores.get("accuracy", {}).get("s2s"), scores, "s2s"),
            _with_interval(scores.get("wer"), scores, "wer"),
            _plain(scores.get("recorded_accuracy")),
            _with_interval(scores.get("recorded_wer"), scores, "recorded_wer"),
            _plain(scores.get("truncated")),
        )
        for name, scores in benchmarks.items()
    ]


def kinds_table(benchmarks: Mapping[str, Mapping[str, Any]]) -> list[Sequence[object]]:
    """Accuracy by kind of question, for sets of more than one kind."""
    rows: list[Sequence[object]] = []
    for name, scores in benchmarks.items():
        kinds = scores.get("kinds", {})
        if len(kinds) > 1:
            rows += [(name, kind, one["n"], f"{one['s2t']:.1f}", f"{one['s2s']:.1f}") for kind, one in kinds.items()]
    return rows


def _plain(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:.1f}"


def _with_interval(rate: float | None, scores: Mapping[str, Any], name: str) -> str:
    if rate is None:
        return "-"
    low, high = scores["ci"][name]
    return f"{rate:.1f} ({low:.1f}-{high:.1f})"
