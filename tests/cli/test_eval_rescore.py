"""`vocalnet eval rescore`: verdicts on saved answers, by rule and by a judge that fails in every way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.judge import FakeJudge, serving

ROOT = Path(__file__).parents[2]
RECORDED = ROOT / "tests" / "assets" / "model_outputs" / "llama_omni_vocalbench_knowledge_240.jsonl"
KILLS = 20


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VOCALNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DASHSCOPE_API_KEY", raising=False)


@pytest.fixture
def answers(tmp_path) -> Path:
    """A model's recorded answers as rescore reads them."""
    path = tmp_path / "answers.jsonl"
    with path.open("w") as file:
        for line in RECORDED.read_text().splitlines():
            row = json.loads(line)
            told = {"id": row["question_id"], "question": row["question"], "references": [row["answer"]], "text": row["prediction"]}
            file.write(json.dumps({**told, "heard": row["asr_pred"]}) + "\n")
    return path


def test_the_rule_gives_the_recorded_flags(vocalnet, answers):
    told = vocalnet("eval", "rescore", answers, "--json")
    assert told.code == 0, told.err
    flags = {row["question_id"]: row for row in map(json.loads, RECORDED.read_text().splitlines())}
    rows = [json.loads(line) for line in told.out.splitlines()]
    agree = [row[name] == bool(flags[row["id"]][f"{name}_right"]) for row in rows for name in ("s2t", "s2s")]
    assert len(rows) == 240 and sum(agree) >= 0.99 * len(agree) and {type(row["s2t"]) for row in rows} == {bool}


def test_open_questions_get_marks_and_missing_speech_gets_none(vocalnet, tmp_path):
    rows = [
        {"id": "a", "question": "How?", "text": "Like this and that.", "heard": "like this"},
        {"id": "b", "question": "Who?", "references": ["Ann", "Bob"], "text": "It was Bob."},
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    refused = vocalnet("eval", "rescore", "a.jsonl")
    assert refused.code == 2 and "row `a`: an open question" in refused.err
    with serving(FakeJudge()) as url:
        told = vocalnet("eval", "rescore", "a.jsonl", "--judge-url", url, "--json", "--judge-price", "1,2")
        assert [json.loads(line) for line in told.out.splitlines()] == [
            {"id": "a", "s2t": 5.0, "s2s": 3.0},
            {"id": "b", "s2t": True, "s2s": None},
        ]
        assert "judge: 3 calls, 0 replies kept" in told.err
        assert "judge: 0 calls, 3 replies kept" in vocalnet("eval", "rescore", "a.jsonl", "--judge-url", url).err
        short = vocalnet("eval", "rescore", "a.jsonl", "--judge-url", url, "--prompt", "short")
    assert short.code == 2 and "needs references" in short.err


def test_a_missing_key_and_bad_rows_are_told_in_two_lines(vocalnet, answers, tmp_path):
    missing = vocalnet("eval", "rescore", answers, "--judge", "qwen-max")
    assert missing.code == 1 and "DASHSCOPE_API_KEY is not set" in missing.err and len(missing.err.strip().splitlines()) == 2
    (tmp_path / "bad.jsonl").write_text('{"id": "a", "question": "q"}\n{"id": "b", "references": []}\n')
    bad = vocalnet("eval", "rescore", "bad.jsonl")
    assert bad.code == 1 and "bad.jsonl:2: question" in bad.err


def test_twenty_kills_change_nothing_and_pay_nothing_twice(vocalnet, answers, tmp_path, monkeypatch):
    answers.write_text("\n".join(answers.read_text().splitlines()[:120]) + "\n")
    command = ("eval", "rescore", answers, "--json", "--quiet", "--judge", "fake", "--judge-workers", "4", "--judge-timeout", "3")
    calm = FakeJudge(moody=True)
    with serving(calm) as url:
        monkeypatch.setenv("VOCALNET_CACHE", str(tmp_path / "other"))
        whole = vocalnet(*command, "--judge-url", url)
        monkeypatch.setenv("VOCALNET_CACHE", str(tmp_path / "cache"))
    fake = FakeJudge(moody=True, delay_s=0.02)
    killer = [sys.executable, str(ROOT / "tests" / "killed_judging.py")]
    with serving(fake) as url:
        done = subprocess.run(
            [*killer, str(answers), url, str(tmp_path / "cache" / "judge"), str(KILLS)],
            capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=500,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        killed, written = map(int, done.stdout.split())
        told = vocalnet(*command, "--judge-url", url)
    assert killed == KILLS and 20 <= written < sum(calm.paid.values()), "it was killed on its way"
    assert told.out == whole.out and told.code == whole.code == 1 and "no verdict" in told.err
    assert fake.paid == calm.paid, "every reply was paid as often as it was needed"
