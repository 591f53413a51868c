"""`vocalnet eval` that is killed on its way, and that is shared out over Ray: the same report, nothing asked or paid twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.judge import FakeJudge, serving
from tests.tiny import tone
from vocalnet_cli.core.audio.wav import write_wav
from vocalnet_cli.core.evaluation.results import read_run
from vocalnet_cli.core.units import QUESTION_HZ

pytest.importorskip("pocketsphinx")

ROOT = Path(__file__).parents[2]
KILLS, QUESTIONS = 20, 32


@pytest.fixture
def own(tmp_path, monkeypatch) -> Path:
    """Questions of one's own, some open to doubt."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "mine"
    folder.mkdir()
    with (folder / "questions.jsonl").open("w") as file:
        for number in range(QUESTIONS):
            write_wav(folder / f"{number}.wav", tone(0.3 + 0.02 * number, hz=200 + 10 * number), QUESTION_HZ)
            row = {"id": f"q{number}", "question": f"Which is number {number}?", "audio": f"{number}.wav", "references": [str(number), "e"]}
            file.write(json.dumps(row) + "\n")
    return folder


def results(folder: str) -> tuple[dict, dict]:
    """Report and rows, without what every run has of its own: when it was, and where the judge lived."""
    run = read_run(folder)
    report = run.report.model_dump(mode="json", exclude={"date": True})
    for judging in report["judging"].values():
        judging.pop("url")
    rows = {name: [row.model_dump(mode="json") for row in rows] for name, rows in run.questions.items()}
    for verdict in (verdict for sets in rows.values() for row in sets for verdict in row["verdicts"].values()):
        verdict.pop("date")
    return report, rows


def test_twenty_kills_of_a_run_change_nothing_and_pay_nothing_twice(vocalnet, tiny_folder, own, tmp_path, monkeypatch):
    command = ["eval", "--model", str(tiny_folder), "--benchmark", str(own), "--judge", "fake", "--judge-workers", "4"]
    command += ["--judge-timeout", "3", "--quiet"]
    calm = FakeJudge(moody=True)
    with serving(calm) as url:
        monkeypatch.setenv("VOCALNET_CACHE", str(tmp_path / "other"))
        whole = vocalnet(*command, "--judge-url", url, "-o", "whole")
        monkeypatch.setenv("VOCALNET_CACHE", str(tmp_path / "cache"))
    fake = FakeJudge(moody=True, delay_s=0.02)
    with serving(fake) as url:
        killer = [sys.executable, str(ROOT / "tests" / "killed_eval.py"), str(tmp_path / "cache"), str(KILLS), "4"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [*killer, *command, "--judge-url", url], capture_output=True, text=True, env=environment, timeout=500, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        killed, answers, heard, replies = map(int, done.stdout.split())
        told = vocalnet(*command, "--judge-url", url, "-o", "killed")
    assert killed == KILLS and answers == heard == QUESTIONS + 1, "a first line, and one a question"
    assert 5 <= replies < sum(calm.paid.values()), "it was killed on its way"
    assert told.code == whole.code == 1 and "no verdict" in told.err, "some replies nobody can read"
    assert results("killed") == results("whole")
    assert fake.paid == calm.paid, "every reply was paid as often as it was needed"
    (path,) = (tmp_path / "cache" / "eval").glob("*/answers.jsonl")
    asked = Counter(json.loads(line).get("id") for line in path.read_text().splitlines()[1:])
    assert set(asked.values()) == {1} and len(asked) == QUESTIONS, "no question was asked again"


def test_ray_gives_the_same_answers(vocalnet, tiny_folder, own, monkeypatch):
    pytest.importorskip("ray")
    command = ["eval", "--model", tiny_folder, "--benchmark", own, "--limit", "5", "--json", "--batch-size", "2"]
    monkeypatch.setenv("VOCALNET_CACHE", "local")
    here = vocalnet(*command, "-o", "here")
    monkeypatch.setenv("VOCALNET_CACHE", "ray")
    shared = vocalnet(*command, "-o", "shared", "--engine", "ray", "--workers", "2")
    assert here.code == shared.code == 0, shared.err
    assert results("here") == results("shared")
    assert [row.audio_s > 0 for row in read_run("shared").questions["mine"]] == [True] * 5
