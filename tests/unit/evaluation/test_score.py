"""Rates, their intervals, and what is left out of them."""

from __future__ import annotations

import numpy as np
import pytest

from vocalnet_cli.core.data.record import Record, Utterance
from vocalnet_cli.core.evaluation.cache import Row
from vocalnet_cli.core.evaluation.report import answers, kinds_table, table
from vocalnet_cli.core.evaluation.score import interval, percent, score
from vocalnet_cli.core.evaluation.wer import word_errors


def asked(number: int, answer: str = "You said six.", alias: str = "six", kind: str = "digit") -> Record:
    return Record(
        id=str(number),
        source="s",
        split="test",
        question=Utterance(text="six"),
        answer=Utterance(text=answer),
        meta={"kind": kind, "aliases": [alias]},
    )


def test_word_errors_by_hand():
    errors = word_errors("The cat, sat down.", "the dog sat down there")
    assert (errors.words, errors.sub, errors.ins, errors.dele, errors.total) == (4, 1, 1, 0, 2)
    assert word_errors("one two", "").dele == 2
    assert word_errors("you said six", "u said six", {"you": "u"}).total == 0


def test_scores_by_hand():
    records = [asked(0), asked(1), asked(2), asked(3), asked(4, "Paris is big.", "paris", "capital")]
    rows = [
        Row("0", "You said six.", "u said six", "you said six", 1.0, lookup="You said six."),
        Row("1", "You said five.", "you said six", "you said sick", 1.0, truncated=True, lookup="You said six."),
        Row("2", "", "", None, lookup="You said two."),
        Row("3", error="damaged"),
        Row("4", "Paris.", "paris a", None, lookup="Paris is big."),
    ]
    result = score(records, rows, {"you": "u"})
    assert (result["n"], result["failed"]) == (4, 1)
    assert result["accuracy"] == {"s2t": 50.0, "s2s": 75.0}
    assert result["wer"] == pytest.approx(100 * 2 / 7, abs=0.01)
    assert result["wer_kinds"] == {"sub": pytest.approx(14.29), "ins": pytest.approx(14.29), "del": 0.0}
    assert result["recorded_wer"] == pytest.approx(100 / 6, abs=0.01)
    recorded, lookup = result["baselines"]["recorded"], result["baselines"]["lookup"]
    assert (recorded["accuracy"], recorded["wer"], set(recorded["ci"])) == ({"s2s": 50.0}, result["recorded_wer"], {"s2s", "wer"})
    assert (lookup["accuracy"], set(lookup["ci"])) == ({"s2t": 75.0}, {"s2t"})
    assert result["above_lookup"] == -25.0 and result["ci"]["above_lookup"][0] < 0 == result["ci"]["above_lookup"][1]
    assert (result["truncated"], result["empty"]) == (25.0, 25.0)
    assert result["kinds"]["digit"] == {"n": 3, "s2t": pytest.approx(33.33), "s2s": pytest.approx(66.67)}
    assert set(result["ci"]) == {"s2t", "s2s", "wer", "above_lookup"}
    assert all(low <= rate <= high for rate, (low, high) in [(50.0, result["ci"]["s2t"]), (result["wer"], result["ci"]["wer"])])
    model, lookup_row, recorded_row = table({"x": result})
    assert model[:3] == ("x", 4, 1) and str(model[3]).startswith("50.0 (") and model[6] == "25.0"
    assert lookup_row[0] == "  lookup" and str(lookup_row[3]).startswith("75.0 (") and lookup_row[4:] == ("", "", "")
    assert recorded_row[:4] == ("  recorded answers", "", "", "") and str(recorded_row[5]).startswith("16.7 (")
    assert [row[1] for row in kinds_table({"x": result})] == ["capital", "digit"]


def test_answers_are_told_with_what_was_asked_and_what_was_right():
    rows = [Row("0", "You said six.", "you said", None, 1.0, lookup="You said two.", bank="b"), Row("1", error="damaged")]
    good, bad = answers([asked(0), asked(1)], rows, {})
    assert (good["question"], good["expected"], good["heard"]) == ("six", "You said six.", "you said")
    assert good["right"] == {"s2t": True, "s2s": False, "lookup": False} and "recorded" not in good
    assert bad["error"] == "damaged" and "right" not in bad


def test_what_was_not_measured_is_absent():
    result = score([asked(0)], [Row("0", "", "")], {})
    assert "wer" not in result and "recorded_wer" not in result and "above_lookup" not in result
    assert result["baselines"] == {} and result["accuracy"] == {"s2t": 0.0, "s2s": 0.0}
    failed = score([asked(0)], [Row("0", error="damaged")], {})
    assert failed == {"n": 0, "failed": 1}
    assert table({"x": failed})[0][3:] == ("-",) * 4


def test_interval_covers_the_true_rate_about_95_times_of_100():
    chance = np.random.default_rng(3)
    inside = 0
    for _ in range(200):
        marks = chance.random(120) < 0.7
        low, high = interval(marks, np.ones(120))
        inside += low <= 70 <= high
    assert 0.9 <= inside / 200 <= 0.98
    assert interval([1, 0, 1], [1, 1, 1]) == interval([1, 0, 1], [1, 1, 1]), "the same numbers, the same interval"
    assert interval([1, 1], [1, 1]) == [100.0, 100.0] and percent([1, 2], [4, 4]) == 37.5
