"""Rows of a benchmark to rates in percent with their uncertainty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vocalnet_cli.core.data.record import Record
from vocalnet_cli.core.evaluation.judge import is_right
from vocalnet_cli.core.evaluation.results import Row
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


def score(records: Sequence[Record], rows: Sequence[Row], alike: Mapping[str, str]) -> dict[str, Any]:
    """The numbers of one benchmark: `records[i]` was asked and `rows[i]` came of it. Rates in percent; absent is not measured.

    `wer` compares what was heard with the model's own text (answers without a word are left out), `recorded_wer` the
    recogniser's hearing of the recorded answers with their text; `recorded_accuracy` is what perfect speech would score as s2s.
    Failed questions count in `failed` only.
    """
    asked = [(record, row) for record, row in zip(records, rows, strict=True) if row.error is None]
    result: dict[str, Any] = {"n": len(asked), "failed": len(rows) - len(asked)}
    if not asked:
        return result
    right = {
        "s2t": [is_right(row.text, record, alike) for record, row in asked],
        "s2s": [is_right(row.heard, record, alike) for record, row in asked],
    }
    ones = [1.0] * len(asked)
    result["accuracy"] = {name: percent(marks, ones) for name, marks in right.items()}
    result["ci"] = {name: interval(marks, ones) for name, marks in right.items()}
    spoken = [word_errors(row.text, row.heard, alike) for _, row in asked if words_of(row.text)]
    if spoken:
        result["wer"], result["ci"]["wer"] = _rate(spoken)
        words = [errors.words for errors in spoken]
        parts = {"sub": [e.sub for e in spoken], "ins": [e.ins for e in spoken], "del": [e.dele for e in spoken]}
        result["wer_kinds"] = {name: percent(counts, words) for name, counts in parts.items()}
    recorded = [(record, row.recorded) for record, row in asked if row.recorded is not None and words_of(record.answer.text)]
    if recorded:
        errors = [word_errors(record.answer.text, heard, alike) for record, heard in recorded]
        result["recorded_wer"], result["ci"]["recorded_wer"] = _rate(errors)
        result["recorded_accuracy"] = percent([is_right(heard, record, alike) for record, heard in recorded], [1.0] * len(recorded))
    result["truncated"] = percent([row.truncated for _, row in asked], ones)
    result["empty"] = percent([not words_of(row.text) for _, row in asked], ones)
    result["kinds"] = _by_kind(asked, right)
    return result


def _rate(errors: Sequence[WordErrors]) -> tuple[float, list[float]]:
    totals, words = [e.total for e in errors], [e.words for e in errors]
    return percent(totals, words), interval(totals, words)


def _by_kind(asked: Sequence[tuple[Record, Row]], right: Mapping[str, Sequence[bool]]) -> dict[str, dict[str, float]]:
    """Number of questions and accuracies of each kind (`meta.kind`), for sets that tell kinds."""
    kinds = [str(record.meta.get("kind", "")) for record, _ in asked]
    table: dict[str, dict[str, float]] = {}
    for kind in sorted({*kinds} - {""}):
        at = [i for i, other in enumerate(kinds) if other == kind]
        rates = {name: percent([marks[i] for i in at], [1.0] * len(at)) for name, marks in right.items()}
        table[kind] = {"n": len(at), **rates}
    return table
