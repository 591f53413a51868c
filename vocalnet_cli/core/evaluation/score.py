"""Rows of a benchmark to rates in percent with their uncertainty."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from vocalnet_cli.core.data.record import Record
from vocalnet_cli.core.evaluation.results import QuestionResult, Scale
from vocalnet_cli.core.evaluation.wer import WordErrors, differences, words_of

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


def score(
    records: Sequence[Record], results: Sequence[QuestionResult], words: Callable[[str], list[str]] = words_of, scale: Scale = "right"
) -> dict[str, Any]:
    """The numbers of one benchmark: `records[i]` was asked and `results[i]` came of it. Rates in percent; absent is not measured.

    `score` is the papers' 0 to 10: the mean mark, or a tenth of the right answers in percent (arXiv 2504.04060, section 4.1), and
    `accuracy` those percent; `ci` is in percent or in marks, by `scale`. Answers without a verdict count in `unjudged` only.
    `wer` compares the `words` heard with those of the model's own text (answers without a word are left out). `baselines` holds what the
    recogniser makes of the recorded answers (what perfect speech would score; its `wer` is `recorded_wer` too) and what looking up the
    most similar training question scores; `above_lookup` is the model's s2t minus the latter's, in percentage points, each question
    compared with itself for its interval. Failed questions count in `failed` only.
    """
    asked = [(record, one) for record, one in zip(records, results, strict=True) if one.error is None]
    result: dict[str, Any] = {"n": len(asked), "failed": len(results) - len(asked)}
    if not asked:
        return result
    result |= _verdicts([one for _, one in asked], scale)
    spoken = [differences(words(one.text), words(one.heard)) for _, one in asked if one.heard is not None and words(one.text)]
    if spoken:
        result["wer"], result["ci"]["wer"] = _rate(spoken)
        counted = [errors.words for errors in spoken]
        parts = {"sub": [e.sub for e in spoken], "ins": [e.ins for e in spoken], "del": [e.dele for e in spoken]}
        result["wer_kinds"] = {name: percent(counts, counted) for name, counts in parts.items()}
    ones = [1.0] * len(asked)
    result["truncated"] = percent([one.truncated for _, one in asked], ones)
    result["empty"] = percent([not words_of(one.text) for _, one in asked], ones)
    result["kinds"] = _by_kind([one for _, one in asked]) if scale == "right" else {}
    result["baselines"] = {}
    recorded = [(record, one) for record, one in asked if one.recorded is not None and words(record.answer.text)]
    if recorded:
        right, intervals = _accuracy({"s2s": _values([one for _, one in recorded], "recorded")})
        errors = [differences(words(record.answer.text), words(str(one.recorded))) for record, one in recorded]
        result["recorded_wer"], intervals["wer"] = _rate(errors)
        result["baselines"]["recorded"] = {"accuracy": right, "wer": result["recorded_wer"], "ci": intervals}
    looked_up = [one for _, one in asked if "lookup" in one.verdicts]
    if looked_up:
        right, intervals = _accuracy({"s2t": _values(looked_up, "lookup")})
        result["baselines"]["lookup"] = {"accuracy": right, "ci": intervals}
        gained = [ours - theirs for ours, theirs in zip(_values(looked_up, "s2t"), _values(looked_up, "lookup"), strict=True)]
        result["above_lookup"], result["ci"]["above_lookup"] = percent(gained, [1.0] * len(gained)), interval(gained, [1.0] * len(gained))
    return result


def _values(results: Sequence[QuestionResult], name: str) -> list[float]:
    """The verdicts there are on answers of one sort."""
    verdicts = [one.verdicts[name] for one in results if name in one.verdicts]
    return [verdict.value for verdict in verdicts if verdict.value is not None]


def _verdicts(results: Sequence[QuestionResult], scale: Scale) -> dict[str, Any]:
    """`accuracy`, `score`, `unjudged` and `ci` of what was written and of what was heard."""
    found = {name: values for name in ("s2t", "s2s") if (values := _values(results, name))}
    missing = {name: sum(name in one.verdicts and one.verdicts[name].value is None for one in results) for name in ("s2t", "s2s")}
    told: dict[str, Any] = {"ci": {}, **({"unjudged": missing} if any(missing.values()) else {})}
    if scale == "right":
        told["accuracy"], told["ci"] = _accuracy(found)
        told["score"] = {name: round(rate / 10, _DIGITS) for name, rate in told["accuracy"].items()}
        return told
    told["score"] = {name: round(float(np.mean(values)), _DIGITS) for name, values in found.items()}
    told["ci"] = {name: [round(bound / 100, _DIGITS) for bound in interval(values, [1.0] * len(values))] for name, values in found.items()}
    return told


def _accuracy(right: Mapping[str, Sequence[float]]) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Rates of right answers, and their intervals, of those there are verdicts on."""
    judged = {name: one for name, one in right.items() if one}
    rates = {name: percent(one, [1.0] * len(one)) for name, one in judged.items()}
    return rates, {name: interval(one, [1.0] * len(one)) for name, one in judged.items()}


def _rate(errors: Sequence[WordErrors]) -> tuple[float, list[float]]:
    totals, words = [e.total for e in errors], [e.words for e in errors]
    return percent(totals, words), interval(totals, words)


def _by_kind(results: Sequence[QuestionResult]) -> dict[str, dict[str, float]]:
    """Number of questions and accuracies of each kind, for sets that tell kinds."""
    table: dict[str, dict[str, float]] = {}
    for kind in sorted({one.kind for one in results} - {""}):
        own = [one for one in results if one.kind == kind]
        rates = {name: percent(values, [1.0] * len(values)) for name in ("s2t", "s2s") if (values := _values(own, name))}
        table[kind] = {"n": len(own), **rates}
    return table
