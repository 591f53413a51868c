"""Rates, their intervals, and what is left out of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vocalnet_cli.core.data.record import Record, Utterance
from vocalnet_cli.core.errors import UsageError
from vocalnet_cli.core.evaluation.compare import compare, mcnemar, sign_flips
from vocalnet_cli.core.evaluation.judge import is_right
from vocalnet_cli.core.evaluation.report import kinds_table, table
from vocalnet_cli.core.evaluation.results import Judging, QuestionResult, Run, RunReport, Verdict
from vocalnet_cli.core.evaluation.score import interval, percent, score
from vocalnet_cli.core.evaluation.wer import Hearing, word_errors


def asked(number: int, answer: str = "You said six.", alias: str = "six", kind: str = "digit") -> Record:
    return Record(
        id=str(number),
        source="s",
        split="test",
        question=Utterance(text="six"),
        answer=Utterance(text=answer),
        meta={"kind": kind, "aliases": [alias]},
    )


def answered(
    record: Record, text: str, heard: str | None, recorded: str | None = None, lookup: str | None = None, truncated: bool = False
) -> QuestionResult:
    """What the rule makes of an answer; `you` sounds like `u`."""
    said = {"s2t": text, "s2s": heard, "recorded": recorded, "lookup": lookup}
    right = {name: Verdict(value=is_right(one, record, {"you": "u"})) for name, one in said.items() if one is not None}
    return QuestionResult(
        id=record.id, question="six", kind=str(record.meta["kind"]), text=text, heard=heard, recorded=recorded, lookup=lookup,
        truncated=truncated, verdicts=right,
    )  # fmt: skip


def failed(number: int) -> QuestionResult:
    return QuestionResult(id=str(number), question="six", error="damaged")


def test_word_errors_by_hand():
    errors = word_errors("The cat, sat down.", "the dog sat down there")
    assert (errors.words, errors.sub, errors.ins, errors.dele, errors.total) == (4, 1, 1, 0, 2)
    assert word_errors("one two", "").dele == 2
    assert word_errors("you said six", "u said six", {"you": "u"}).total == 0


def test_scores_by_hand():
    records = [asked(0), asked(1), asked(2), asked(3), asked(4, "Paris is big.", "paris", "capital")]
    rows = [
        answered(records[0], "You said six.", "u said six", "you said six", "You said six."),
        answered(records[1], "You said five.", "you said six", "you said sick", "You said six.", truncated=True),
        answered(records[2], "", "", None, "You said two."),
        failed(3),
        answered(records[4], "Paris.", "paris a", None, "Paris is big."),
    ]
    result = score(records, rows, Hearing("", {"you": "u"}).words)
    assert (result["n"], result["failed"]) == (4, 1) and result["score"] == {"s2t": 5.0, "s2s": 7.5} and "unjudged" not in result
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
    assert lookup_row[0] == "  lookup" and str(lookup_row[3]).startswith("75.0 (") and lookup_row[4:] == ("", "", "", "")
    assert recorded_row[:4] == ("  recorded answers", "", "", "") and str(recorded_row[5]).startswith("16.7 (")
    assert [row[1] for row in kinds_table({"x": result})] == ["capital", "digit"]


def test_marks_are_means_and_answers_without_a_verdict_stay_out():
    records = [asked(number) for number in range(4)]
    rows = [
        QuestionResult(id=str(n), question="q", text="a b", heard="a c", verdicts={"s2t": Verdict(value=mark)})
        for n, mark in enumerate((7, 9, None, 5))
    ]
    result = score(records, rows, scale="0-10")
    assert result["score"] == {"s2t": 7.0} and "accuracy" not in result and result["unjudged"] == {"s2t": 1, "s2s": 0}
    assert 5 <= result["ci"]["s2t"][0] < 7 < result["ci"]["s2t"][1] <= 9 and result["wer"] == 50.0
    shown = table({"x": result})[0]
    assert str(shown[3]).startswith("7.00 (") and str(shown[3]).endswith("of 10") and shown[4] == "-" and shown[7] == 1


def run(values: list[float | None], **judging: object) -> Run:
    how = Judging(**{"judge": "m", "scale": "0-10", **judging})  # type: ignore[arg-type]
    report = RunReport(
        model="m",
        benchmarks={"x": {}},
        manifests={"x": "1"},
        judge="m",
        judging={"x": how},
        recogniser="r",
        normaliser="n",
        versions={},
        date="",
    )
    return Run(
        Path("r"),
        report,
        {"x": [QuestionResult(id=str(n), question="q", verdicts={"s2t": Verdict(value=v)}) for n, v in enumerate(values)]},
    )


def test_two_runs_are_compared_question_by_question():
    told = compare(run([1, 5, None, 7, 4]), run([3, 6, 9, 9, None]))["x"]["s2t"]
    assert (told["n"], told["first"], told["second"], told["difference"]) == (3, 4.33, 6.0, 1.67) and 1 <= told["ci"][0] <= told["ci"][
        1
    ] <= 2
    assert told["p"] == pytest.approx(0.25, abs=0.03), "two of the eight sign patterns are as extreme"
    right = compare(run([0, 0, 0, 0, 0, 0, 1], scale="right"), run([1, 1, 1, 1, 1, 1, 1], scale="right"))["x"]["s2t"]
    assert right["difference"] == pytest.approx(85.71) and right["p"] == pytest.approx(2 / 2**6, abs=1e-5)
    assert mcnemar(0, 0) == 1.0 and mcnemar(8, 2) == mcnemar(2, 8) == pytest.approx(0.10938) and sign_flips([0.0, 0.0]) == 1.0


@pytest.mark.parametrize("change", [{"judge": "other"}, {"prompt_sha256": "2"}, {"scale": "right"}, {"temperature": 1.0}])
def test_runs_that_were_judged_differently_do_not_compare(change):
    with pytest.raises(UsageError, match="judged differently"):
        compare(run([1]), run([1], **change))


def test_what_was_not_measured_is_absent():
    result = score([asked(0)], [answered(asked(0), "", "")])
    assert "wer" not in result and "recorded_wer" not in result and "above_lookup" not in result
    assert result["baselines"] == {} and result["accuracy"] == {"s2t": 0.0, "s2s": 0.0}
    none = score([asked(0)], [failed(0)])
    assert none == {"n": 0, "failed": 1} and table({"x": none})[0][3:] == (*("-",) * 4, "")


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
