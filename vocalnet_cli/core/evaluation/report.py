"""The object `eval --json` prints, the rows of its table, and the answers it writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from importlib.metadata import version
from typing import Any

from vocalnet_cli import __version__
from vocalnet_cli.core.data.record import Record
from vocalnet_cli.core.evaluation.cache import Row
from vocalnet_cli.core.evaluation.judge import JUDGE
from vocalnet_cli.core.evaluation.score import marks
from vocalnet_cli.core.evaluation.wer import NORMALISER

COLUMNS = ("benchmark", "n", "failed", "text right %", "speech right %", "WER %", "cut off %")
KIND_COLUMNS = ("benchmark", "kind", "n", "text right %", "speech right %")
BASELINES = {"lookup": "  lookup", "recorded": "  recorded answers"}
"""What a model is compared with: key in the report, and name in the table."""


def report(model: str, recipe: str | None, measured: Mapping[str, Any], benchmarks: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that was found: `benchmarks` maps names to what `score` returned, `measured` says with which weights and settings."""
    return {
        "model": model,
        "recipe": recipe,
        **measured,
        "benchmarks": dict(benchmarks),
        "judge": JUDGE,
        "normaliser": NORMALISER,
        "versions": {"vocalnet": __version__, **{name: version(name) for name in ("torch", "transformers", "pocketsphinx", "jiwer")}},
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def answers(records: Sequence[Record], rows: Sequence[Row], alike: Mapping[str, str]) -> list[dict[str, Any]]:
    """Each question with its answers, as `eval -o` writes them: asked, expected, what came of it, and `right` as `marks` tells."""
    lines = []
    for record, row in zip(records, rows, strict=True):
        facts = {name: value for name, value in asdict(row).items() if name not in ("id", "bank") and value is not None}
        right = {} if row.error is not None else {"right": marks(record, row, alike)}
        lines.append({"id": row.id, "question": record.question.text, "expected": record.answer.text, **facts, **right})
    return lines


def table(benchmarks: Mapping[str, Mapping[str, Any]]) -> list[Sequence[object]]:
    """A row a benchmark and one for each of its baselines, rates with their 95 % intervals."""
    rows: list[Sequence[object]] = []
    for name, scores in benchmarks.items():
        rows.append((name, scores["n"], scores["failed"], *_rates(scores, "-"), _plain(scores.get("truncated"))))
        baselines = scores.get("baselines", {})
        rows += [(shown, "", "", *_rates(baselines[key], ""), "") for key, shown in BASELINES.items() if key in baselines]
    return rows


def _rates(scores: Mapping[str, Any], absent: str) -> list[str]:
    """Text right, speech right and word errors; `absent` for what was not measured."""
    found = {**scores.get("accuracy", {}), **({"wer": scores["wer"]} if "wer" in scores else {})}
    return [_with_interval(found[name], scores["ci"][name]) if name in found else absent for name in ("s2t", "s2s", "wer")]


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


def _with_interval(rate: float, interval: Sequence[float]) -> str:
    low, high = interval
    return f"{rate:.1f} ({low:.1f}-{high:.1f})"
