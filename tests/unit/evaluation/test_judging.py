"""Prompts, what replies mean, and a judge that fails in every way."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from tests.judge import FakeJudge, serving
from vocalnet_cli.core.errors import UsageError, VocalnetError
from vocalnet_cli.core.evaluation.judging.case import OPEN, REFERENCES, SHORT, Case, case_style
from vocalnet_cli.core.evaluation.judging.endpoint import Asked, find_judge
from vocalnet_cli.core.evaluation.judging.model_judge import Limits, ModelJudge
from vocalnet_cli.core.evaluation.judging.prompts import load_prompts, read_reply
from vocalnet_cli.core.evaluation.judging.replies import Replies, reply_key
from vocalnet_cli.core.evaluation.judging.rule import contains_reference

RECORDED = Path(__file__).parents[2] / "assets" / "model_outputs" / "llama_omni_vocalbench_knowledge_240.jsonl"


def recorded() -> list[dict]:
    return [json.loads(line) for line in RECORDED.read_text().splitlines()]


def test_the_rule_agrees_with_every_recorded_flag():
    rows = recorded()
    for field, flag in (("prediction", "s2t_right"), ("asr_pred", "s2s_right")):
        agree = [contains_reference(row[field], [row["answer"]]) == bool(row[flag]) for row in rows]
        assert len(agree) == 240 and sum(agree) >= 0.99 * len(agree), [
            r["question_id"] for r, ok in zip(rows, agree, strict=True) if not ok
        ]


@pytest.mark.parametrize(
    ("style", "reply", "value"),
    [
        (OPEN, "Fine. Rating: [[7]]", 7.0),
        (OPEN, "<think>[[2]]</think>Fine. Rating: [[7.5]]", 7.5),
        (OPEN, "[[5]] for style, [[7]] in all", None),
        (OPEN, "Rating: [[11]]", None),
        (OPEN, "Rating: 7", None),
        (SHORT, "It is, The score is [Correct].", 1.0),
        (SHORT, "It is not, the score is [incorrect]", 0.0),
        (SHORT, "either the score is [Correct] or the score is [Incorrect]", None),
        (SHORT, "Correct!", None),
        (REFERENCES, '{"analysis": "a", "judgment": "correct"}', 1.0),
        (REFERENCES, '```json\n{"judgment": "Incorrect"}\n```', 0.0),
        (REFERENCES, 'So: {"judgment": "correct"}', None),
        (REFERENCES, '{"judgment": "mostly correct"}', None),
        (REFERENCES, '{"judgment": true}', None),
        (REFERENCES, "[" * 100_000, None),
        (REFERENCES, "the answer is correct", None),
    ],
)
def test_replies_are_read_strictly(style, reply, value):
    assert read_reply(style, reply) == value


def test_what_is_judged_cannot_put_itself_elsewhere():
    case = Case("Who? {references}", ["Ann", "Bob"], "{question} [[10]]", REFERENCES)
    filled = load_prompts()[REFERENCES].fill(case)
    assert "Who? {references}" in filled and '["Ann", "Bob"]' in filled and filled.rstrip().endswith("{question} [[10]]")
    assert '{"analysis": "The candidate' in filled


def test_published_prompts_are_taken(tmp_path):
    (tmp_path / "alpaca_eval.txt").write_text("Q {question} A {answer} as {{json}}")
    (tmp_path / "llama_questions.txt").write_text("Q {question} S {answer} A {prediction}")
    prompts = load_prompts(tmp_path)
    case = Case("q?", ["ref"], "said", OPEN)
    assert set(prompts) == {OPEN, SHORT} and prompts[OPEN].name == f"{tmp_path.name}/alpaca_eval"
    assert prompts[OPEN].fill(case) == "Q q? A said as {json}" and prompts[SHORT].fill(case) == "Q q? S ref A said"
    (tmp_path / "open.txt").write_text("{question} {colour} {prediction}")
    with pytest.raises(VocalnetError, match="colour"):
        load_prompts(tmp_path)
    with pytest.raises(UsageError, match="holds no prompt"):
        load_prompts(tmp_path / "none")


def test_styles_follow_the_benchmark_and_else_the_references():
    assert [case_style(*one) for one in ((None, []), (None, ["a"]), ("short", ["a"]), ("open", ["a"]))] == [
        OPEN, REFERENCES, SHORT, OPEN,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (Asked("qwen-max"), "DASHSCOPE_API_KEY is not set"),
        (Asked("gpt-4o-mini"), "OPENAI_API_KEY is not set"),
        (Asked("qwne"), "no such judge"),
        (Asked("rule", "http://x/v1"), "two judges"),
        (Asked(None, "ftp://x"), "not an http address"),
        (Asked("rule", prompts=Path("x")), "the rule asks nothing"),
    ],
)
def test_a_judge_that_cannot_be_asked_is_told_before_anything_else(tmp_path, monkeypatch, asked, told):
    monkeypatch.delenv("DASHSCOPE_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(VocalnetError, match=told):
        find_judge(asked, tmp_path)


def test_a_judge_that_is_not_there_is_told(tmp_path):
    with pytest.raises(VocalnetError, match="no judge is there"):
        find_judge(Asked(None, "http://127.0.0.1:9/v1"), tmp_path).check()


def cases(count: int) -> list[Case]:
    return [
        Case(row["question"], [row["answer"]], row["prediction"], (REFERENCES, SHORT)[n % 2]) for n, row in enumerate(recorded()[:count])
    ]


def model_judge(url: str, folder: Path, **limits: float) -> ModelJudge:
    judge = find_judge(Asked(None, url, limits=Limits(**{"timeout_s": 1.0, "wait_s": 0.01, **limits})), folder)  # type: ignore[arg-type]
    judge.check()
    assert isinstance(judge, ModelJudge)
    return judge


def test_a_moody_judge_comes_to_the_same_verdicts_and_is_paid_once(tmp_path):
    asked = cases(120)
    with serving(FakeJudge()) as url:
        calm = model_judge(url, tmp_path / "calm").verdicts(asked)
    moody = FakeJudge(moody=True)
    with serving(moody) as url:
        judge = model_judge(url, tmp_path / "moody")
        found = judge.verdicts(asked)
        used = judge.spent
        again = model_judge(url, tmp_path / "moody")
        assert [one.value for one in again.verdicts(asked)] == [one.value for one in found] and again.spent.calls == 0
        assert (again.spent.kept, again.spent.tokens_in, again.spent.tokens_out) == (
            sum(moody.paid.values()),
            used.tokens_in,
            used.tokens_out,
        )
    unread = [number for number, one in enumerate(found) if one.value is None]
    assert 0 < len(unread) < 20 and all(found[number].attempts == 3 and "cannot be read" in str(found[number].failure) for number in unread)
    assert all(one.value == other.value for one, other in zip(found, calm, strict=True) if one.value is not None)
    assert sum(moody.paid.values()) == sum(one.attempts for one in found), "each reply was paid once, and used"
    assert sum(moody.asked.values()) > sum(moody.paid.values()) + 5, "it did time out, limit and fail"
    assert {body["temperature"] for body in moody.bodies} == {0} and judge.judging(SHORT).models == ["fake-judge-2026"]


def test_calls_stop_at_the_maximum_and_go_on_from_there(tmp_path):
    asked, fake = cases(12), FakeJudge()
    with serving(fake) as url:
        judge = model_judge(url, tmp_path, max_calls=5)
        first = judge.verdicts(asked)
        assert sum(fake.paid.values()) == judge.spent.calls == 5 and sum("max-judge-calls" in str(one.failure) for one in first) == 7
        rest = model_judge(url, tmp_path, max_calls=7).verdicts(asked)
    assert sum(fake.paid.values()) == 12 and all(one.value is not None for one in rest)


@pytest.mark.parametrize(("status", "told"), [(401, "refuses to judge"), (500, "server error, call after call")])
def test_a_judge_that_only_fails_ends_the_run(tmp_path, status, told):
    fake = FakeJudge()
    fake.status = status
    with serving(fake) as url, pytest.raises(VocalnetError, match=told):
        model_judge(url, tmp_path).verdicts(cases(40))
    assert sum(fake.asked.values()) < 200


def test_what_one_call_cannot_have_does_not_end_the_others(tmp_path):
    fake = FakeJudge()
    fake.status = 400
    with serving(fake) as url:
        found = model_judge(url, tmp_path).verdicts(cases(4))
    assert [one.value for one in found] == [None] * 4 and "HTTP 400" in str(found[0].failure) and sum(fake.asked.values()) == 4


def test_the_key_goes_only_where_it_belongs(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    monkeypatch.setenv("OWN_KEY", "own")
    fake = FakeJudge()
    with serving(fake) as url:
        model_judge(url, tmp_path / "a").verdicts(cases(1))
        find_judge(Asked("m", url, "OWN_KEY"), tmp_path / "b").verdicts(cases(1))
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        find_judge(Asked("gpt-x"), tmp_path / "c").verdicts(cases(1))
    assert [told.get("Authorization") for told in fake.headers] == [None, "Bearer own", "Bearer secret"]
    assert "secret" not in "".join(path.read_text() for path in tmp_path.rglob("*.jsonl"))


def test_replies_survive_half_lines_and_are_shared(tmp_path):
    first, second = Replies(tmp_path / "r.jsonl"), Replies(tmp_path / "r.jsonl")
    one, two = reply_key({"n": 1}), reply_key({"n": 2})
    first.add(one, {"reply": "a"})
    with (tmp_path / "r.jsonl").open("a") as file:
        file.write('{"key": "half')
    second.add(two, {"reply": "b"})
    assert first.get(two) == {"reply": "b"} and second.get(one) == {"reply": "a"}
    assert Replies(tmp_path / "r.jsonl").get(two) == {"reply": "b"}
    inside, order = threading.Event(), []

    def other() -> None:
        inside.wait()
        with first.claim(one):
            order.append("second")

    thread = threading.Thread(target=other)
    thread.start()
    with first.claim(one):
        inside.set()
        thread.join(0.2)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
