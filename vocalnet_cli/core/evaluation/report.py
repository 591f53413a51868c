"""The object `eval --json` prints, the rows of its table, and the answers it writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

from vocalnet_cli import __version__
from vocalnet_cli.core.evaluation.results import Judging, RunReport

COLUMNS = ("benchmark", "n", "failed", "text", "speech", "WER %", "cut off %", "no verdict")
KIND_COLUMNS = ("benchmark", "kind", "n", "text right %", "speech right %")
_PACKAGES = ("torch", "transformers", "pocketsphinx", "jiwer")
BASELINES = {"lookup": "  lookup", "recorded": "  recorded answers"}
"""What a model is compared with: key in the report, and name in the table."""


def report(
    model: str,
    recipe: str | None,
    measured: Mapping[str, Any],
    benchmarks: Mapping[str, Any],
    judging: Mapping[str, Judging],
    manifests: Mapping[str, str],
) -> RunReport:
    """Everything that was found: `benchmarks` maps names to what `score` returned, `measured` says with which weights and settings, and who
    listened."""
    return RunReport(
        model=model,
        recipe=recipe,
        **measured,
        benchmarks=dict(benchmarks),
        manifests=dict(manifests),
        judge=judge_shown(judging),
        judging=dict(judging),
        versions={"vocalnet": __version__, **{name: version(name) for name in _PACKAGES if find_spec(name) is not None}},
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


def judge_shown(judging: Mapping[str, Judging]) -> str:
    """Who judged, in words: the rule, or the model and its prompts."""
    shown = (one.rule or f"{one.judge}, prompt {one.prompt}, temperature {one.temperature:g}" for one in judging.values())
    return "; ".join(dict.fromkeys(shown)) or "nobody"


def table(benchmarks: Mapping[str, Mapping[str, Any]]) -> list[Sequence[object]]:
    """A row a benchmark and one for each of its baselines, rates with their 95 % intervals."""
    rows: list[Sequence[object]] = []
    for name, scores in benchmarks.items():
        missing = sum(scores.get("unjudged", {}).values())
        rows.append((name, scores["n"], scores["failed"], *_rates(scores, "-"), _plain(scores.get("truncated")), missing or ""))
        baselines = scores.get("baselines", {})
        rows += [(shown, "", "", *_rates(baselines[key], ""), "", "") for key, shown in BASELINES.items() if key in baselines]
    return rows


def _rates(scores: Mapping[str, Any], absent: str) -> list[str]:
    """Text, speech and word errors; right answers in percent, marks out of ten; `absent` for what was not measured."""
    found = {**scores.get("accuracy", {}), **({"wer": scores["wer"]} if "wer" in scores else {})}
    shown = {name: _with_interval(rate, scores["ci"][name]) for name, rate in found.items()}
    if "accuracy" not in scores:
        shown |= {name: f"{_with_interval(mark, scores['ci'][name], 2)} of 10" for name, mark in scores.get("score", {}).items()}
    return [shown.get("s2t", absent), shown.get("s2s", absent), shown.get("wer", absent)]


def kinds_table(benchmarks: Mapping[str, Mapping[str, Any]]) -> list[Sequence[object]]:
    """Accuracy by kind of question, for sets of more than one kind."""
    rows: list[Sequence[object]] = []
    for name, scores in benchmarks.items():
        kinds = scores.get("kinds", {})
        if len(kinds) > 1:
            rows += [(name, kind, one["n"], _plain(one.get("s2t")), _plain(one.get("s2s"))) for kind, one in kinds.items()]
    return rows


def _plain(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:.1f}"


def _with_interval(rate: float, interval: Sequence[float], digits: int = 1) -> str:
    low, high = interval
    return f"{rate:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"
