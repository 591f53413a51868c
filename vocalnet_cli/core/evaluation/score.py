"""Rows of a benchmark to rates in percent with their uncertainty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vocalnet_cli.core.data.record import Record
from vocalnet_cli.core.evaluation.cache import Row
from vocalnet_cli.core.evaluation.judge import is_right
from vocalnet_cli.core.evaluation.wer import WordErrors, word_errors, words_of

RESAMPLES = 1000
_SEED = 0
_DIGITS = 2


def percent(parts: Sequence[float], wholes: Sequence[float]) -> float:
    """100 * sum(parts) / sum(wholes), rounded."""
    return round(100 * float(np.sum(parts)) / float(np.sum(wholes)), _DIGITS)


def interval(parts: Sequence[float], wholes: Sequence[float]) -> list[float]:
    """95 % bootstrap interval of `percent`, questions drawn with replacement; the same numbers give the same interval."""
    above, below = np.asarray(parts, dtype=float), np.asarray(wholes, dtype=float)
    draws = np.random.default_rng(_SEED).integers(0, len(above), size=(RESAMPLES, len(above)))
    rates = 100 * above[draws].sum(axis=1) / below[draws].sum(axis=1)
    return [round(float(bound), _DIGITS) for bound in np.percentile(rates, (2.5, 97.5))]


def marks(record: Record, row: Row, alike: Mapping[str, str]) -> dict[str, bool]:
    """Which answers to a question are right: `s2t` as written, `s2s` as heard, `recorded` and `lookup` where they were measured."""
    said = {"s2t": row.text, "s2s": row.heard, "recorded": row.recorded, "lookup": row.lookup}
    return {name: is_right(text, record, alike) for name, text in said.items() if text is not None}


def score(records: Sequence[Record], rows: Sequence[Row], alike: Mapping[str, str]) -> dict[str, Any]:
    """The numbers of one benchmark: `records[i]` was asked and `rows[i]` came of it. Rates in percent; absent is not measured.

    `wer` compares what was heard with the model's own text (answers without a word are left out). `baselines` holds what the
    recogniser makes of the recorded answers (what perfect speech would score; its `wer` is `recorded_wer` too) and what looking up the
    most similar training question scores; `above_lookup` is the model's s2t minus the latter's, in percentage points, each question
    compared with itself for its interval. Failed questions count in `failed` only.
    """
    asked = [(record, row) for record, row in zip(records, rows, strict=True) if row.error is None]
    result: dict[str, Any] = {"n": len(asked), "failed": len(rows) - len(asked)}
    if not asked:
        return result
    marked = [marks(record, row, alike) for record, row in asked]
    ones = [1.0] * len(asked)
    result["accuracy"], result["ci"] = _accuracy({name: [one[name] for one in marked] for name in ("s2t", "s2s")})
    spoken = [word_errors(row.text, row.heard, alike) for _, row in asked if words_of(row.text)]
    if spoken:
        result["wer"], result["ci"]["wer"] = _rate(spoken)
        words = [errors.words for errors in spoken]
        parts = {"sub": [e.sub for e in spoken], "ins": [e.ins for e in spoken], "del": [e.dele for e in spoken]}
        result["wer_kinds"] = {name: percent(counts, words) for name, counts in parts.items()}
    result["truncated"] = percent([row.truncated for _, row in asked], ones)
    result["empty"] = percent([not words_of(row.text) for _, row in asked], ones)
    result["kinds"] = _by_kind(asked, marked)
    result["baselines"] = {}
    recorded = [i for i, (record, row) in enumerate(asked) if row.recorded is not None and words_of(record.answer.text)]
    if recorded:
        right, intervals = _accuracy({"s2s": [marked[i]["recorded"] for i in recorded]})
        errors = [word_errors(asked[i][0].answer.text, str(asked[i][1].recorded), alike) for i in recorded]
        result["recorded_wer"], intervals["wer"] = _rate(errors)
        result["baselines"]["recorded"] = {"accuracy": right, "wer": result["recorded_wer"], "ci": intervals}
    looked_up = [one for one in marked if "lookup" in one]
    if looked_up:
        right, intervals = _accuracy({"s2t": [one["lookup"] for one in looked_up]})
        result["baselines"]["lookup"] = {"accuracy": right, "ci": intervals}
        gained = [float(one["s2t"]) - float(one["lookup"]) for one in looked_up]
        result["above_lookup"], result["ci"]["above_lookup"] = percent(gained, [1.0] * len(gained)), interval(gained, [1.0] * len(gained))
    return result


def _accuracy(right: Mapping[str, Sequence[bool]]) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Rates of right answers, and their intervals."""
    rates = {name: percent(one, [1.0] * len(one)) for name, one in right.items()}
    return rates, {name: interval(one, [1.0] * len(one)) for name, one in right.items()}


def _rate(errors: Sequence[WordErrors]) -> tuple[float, list[float]]:
    totals, words = [e.total for e in errors], [e.words for e in errors]
    return percent(totals, words), interval(totals, words)


def _by_kind(asked: Sequence[tuple[Record, Row]], marked: Sequence[Mapping[str, bool]]) -> dict[str, dict[str, float]]:
    """Number of questions and accuracies of each kind (`meta.kind`), for sets that tell kinds."""
    kinds = [str(record.meta.get("kind", "")) for record, _ in asked]
    table: dict[str, dict[str, float]] = {}
    for kind in sorted({*kinds} - {""}):
        own = [one for one, other in zip(marked, kinds, strict=True) if other == kind]
        rates = {name: percent([one[name] for one in own], [1.0] * len(own)) for name in ("s2t", "s2s")}
        table[kind] = {"n": len(own), **rates}
    return table
