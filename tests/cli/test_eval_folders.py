"""`vocalnet eval` on published and own benchmarks, with a judge, in parts, and beside the answers of others."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from tests.judge import FakeJudge, serving
from tests.tiny import save_tiny_whisper, tone
from vocalnet_cli.core.audio.wav import write_wav
from vocalnet_cli.core.evaluation import runner
from vocalnet_cli.core.evaluation.results import read_run
from vocalnet_cli.core.evaluation.whisper import Whisper
from vocalnet_cli.core.generation.events import AudioChunk, TurnDone
from vocalnet_cli.core.units import ANSWER_HZ, QUESTION_HZ

pytest.importorskip("pocketsphinx")

SETS = {
    "alpaca_eval": (("dataset", "instruction", "output", "generator", "audio_filename"), [("v", "How do I sleep well?", "Well.", "g")]),
    "llama_questions": (("Questions", "Answer", "audio_filename"), [("What is the capital of china? ", "beijing"), ("Who?", "Ann")]),
    "web_questions": (("question", "answers", "audio_filename"), [("Where?", "Peking;Beijing"), ("When?", "1999")]),
    "reasoning_qa": (("Prompt", "参考答案", "audio_filename"), [("1+1", "2")]),
}
SAID = "It is Beijing."


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VOCALNET_CACHE", raising=False)
    monkeypatch.delenv("DASHSCOPE_API_KEY", raising=False)


@pytest.fixture
def openaudiobench(tmp_path) -> Path:
    """Four sets laid out as OpenAudioBench is."""
    for name, (columns, rows) in SETS.items():
        folder = tmp_path / "OpenAudioBench" / "eval_datas" / name
        (folder / "audios").mkdir(parents=True)
        with (folder / f"{name}.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(columns)
            for number, row in enumerate(rows):
                write_wav(folder / "audios" / f"{name}_{number}.wav", tone(0.5 + 0.1 * number), QUESTION_HZ)
                table.writerow([*row, f"{name}_{number}.wav"])
    return tmp_path / "OpenAudioBench"


@pytest.fixture
def own(tmp_path) -> Path:
    """A folder of one's own: a JSONL and its recordings."""
    folder = tmp_path / "mine"
    folder.mkdir()
    with (folder / "questions.jsonl").open("w") as file:
        for number, answer in enumerate(("Beijing", "Paris", "Rome")):
            write_wav(folder / f"{number}.wav", tone(0.5 + 0.1 * number), QUESTION_HZ)
            file.write(json.dumps({"id": f"q{number}", "question": "Which?", "audio": f"{number}.wav", "references": [answer]}) + "\n")
    return folder


@pytest.fixture
def asked(monkeypatch) -> list[int]:
    """The model always answers the same; returns the lengths it was asked."""
    lengths: list[int] = []

    def answer(model, samples, settings, generator, voice):
        lengths.append(len(samples))
        yield AudioChunk(tone(0.3, rate=ANSWER_HZ))
        yield TurnDone(SAID, {}, {}, truncated=False)

    monkeypatch.setattr(runner, "answer", answer)
    return lengths


def test_openaudiobench_is_judged_as_its_sets_are(vocalnet, tiny_folder, openaudiobench, asked):
    fake = FakeJudge()
    with serving(fake) as url:
        command = ("eval", "--model", tiny_folder, "--benchmark", openaudiobench, "--judge-url", url, "-o", "out", "--json")
        told = vocalnet(*command)
        assert told.code == 0, told.err
        report = json.loads(told.out)
        scores = report["benchmarks"]
        assert list(scores) == ["alpaca_eval", "llama_questions", "web_questions"], "the Chinese set is not in the papers"
        assert scores["alpaca_eval"]["score"]["s2t"] == 4.0 and "accuracy" not in scores["alpaca_eval"]
        assert scores["llama_questions"]["accuracy"]["s2t"] == 50.0 and scores["web_questions"]["score"]["s2t"] == 5.0
        prompts = {name: (how["prompt"], how["scale"], how["models"]) for name, how in report["judging"].items()}
        assert prompts == {
            "alpaca_eval": ("vocalnet-1/open", "0-10", ["fake-judge-2026"]),
            "llama_questions": ("vocalnet-1/short", "right", ["fake-judge-2026"]),
            "web_questions": ("vocalnet-1/references", "right", ["fake-judge-2026"]),
        }
        calls, questions = sum(fake.paid.values()), len(asked)
        again = vocalnet(*command)
    assert json.loads(again.out)["benchmarks"] == scores and (sum(fake.paid.values()), len(asked)) == (calls, questions)
    rows = read_run("out").questions["web_questions"]
    assert rows[0].references == ["Peking", "Beijing"] and rows[0].verdicts["s2t"].model == "fake-judge-2026"
    assert "analysis" in str(rows[0].verdicts["s2t"].reply) and rows[0].verdicts["s2t"].date and rows[0].verdicts["s2s"].value in (0.0, 1.0)


def test_the_rule_leaves_open_questions_out_and_says_so(vocalnet, tiny_folder, openaudiobench, asked):
    told = vocalnet("eval", "--model", tiny_folder, "--benchmark", openaudiobench, "--json")
    scores = json.loads(told.out)["benchmarks"]
    assert told.code == 0 and "only a model can judge" in told.err and scores["alpaca_eval"]["accuracy"] == {}
    assert scores["llama_questions"]["accuracy"]["s2t"] == 50.0 and "wer" in scores["alpaca_eval"]


def test_a_missing_key_is_told_before_any_question(vocalnet, tiny_folder, own, asked):
    told = vocalnet("eval", "--model", tiny_folder, "--benchmark", own, "--judge", "qwen-max")
    assert told.code == 1 and "DASHSCOPE_API_KEY is not set" in told.err and not asked and not Path("cache").exists()


def test_an_own_folder_in_parts_gives_the_same_as_whole(vocalnet, tiny_folder, own, asked, monkeypatch):
    command = ("eval", "--model", tiny_folder, "--benchmark", own, "--json")
    whole = json.loads(vocalnet(*command).out)["benchmarks"]["mine"]
    assert whole["n"] == 3 and whole["accuracy"]["s2t"] == pytest.approx(33.33)
    monkeypatch.setenv("VOCALNET_CACHE", "elsewhere")
    first = json.loads(vocalnet(*command, "--shard", "1/2").out)
    assert first["unfinished"] == {"mine": 1} and len(asked) == 5
    second = json.loads(vocalnet(*command, "--shard", "2/2").out)
    assert second["benchmarks"]["mine"] == whole and len(asked) == 6
    assert json.loads(vocalnet(*command).out)["benchmarks"]["mine"] == whole and len(asked) == 6, "parts are known to a whole run"


def test_answers_of_others_are_scored_in_the_same_run(vocalnet, tiny_folder, own, asked, tmp_path):
    rival = tmp_path / "rival"
    rival.mkdir()
    for number, text in enumerate(("Beijing.", "Paris, of course.", "No idea.")):
        (rival / f"q{number}.txt").write_text(text)
        if number:
            write_wav(rival / f"q{number}.wav", tone(0.4, rate=ANSWER_HZ), ANSWER_HZ)
    command = ("eval", "--benchmark", own, "--answers", rival, "--json")
    ours, theirs = json.loads(vocalnet(*command, "--model", tiny_folder, "-o", "out").out)
    assert ours["model"] == str(tiny_folder) and theirs["model"] == "rival" and theirs["answers"] == str(rival)
    scores = theirs["benchmarks"]["mine"]
    assert scores["accuracy"]["s2t"] == pytest.approx(66.67) and scores["accuracy"]["s2s"] == 0.0 and scores["failed"] == 0
    assert read_run("out/rival").questions["mine"][0].heard is None, "there was nothing to hear"
    asked.clear()
    assert json.loads(vocalnet(*command).out)["benchmarks"] == theirs["benchmarks"] and not asked, "alone, no model is asked"
    shutil.copytree(read_run("out").folder, "saved")
    saved = json.loads(vocalnet("eval", "--benchmark", own, "--answers", "saved", "--json").out)
    assert saved["benchmarks"]["mine"] == ours["benchmarks"]["mine"], "what -o wrote can be scored again"
    (rival / "q2.txt").unlink()
    (rival / "q2.wav").unlink()
    missing = vocalnet(*command)
    assert missing.code == 1 and json.loads(missing.out)["benchmarks"]["mine"]["failed"] == 1 and "no answer in the folder" in missing.err


def test_a_whisper_hears_what_is_judged(vocalnet, tiny_folder, own, asked, tmp_path, monkeypatch):
    """The answers are those of another recogniser's run, and what Whisper heard is kept beside what that one did."""
    pytest.importorskip("whisper_normalizer")
    whisper = save_tiny_whisper(tmp_path / "whisper-tiny")
    command = ("eval", "--model", tiny_folder, "--benchmark", own, "--json")
    before = json.loads(vocalnet(*command).out)
    with serving(FakeJudge()) as url:
        told = vocalnet(*command, "--asr", whisper, "--judge-url", url, "-o", "out")
        assert told.code == 0, told.err
        report = json.loads(told.out)
        assert report["recogniser"].startswith(f"{whisper} (") and "Whisper's English normaliser" in report["normaliser"]
        assert "pocketsphinx" in before["recogniser"] and len(asked) == 3, "no question is asked again"
        rows = read_run("out").questions["mine"]
        assert len({row.heard for row in rows}) == 1 and rows[0].heard, "the same sound is heard the same"
        assert [row.verdicts["s2s"].value for row in rows] == [0.0] * 3 and "Beijing" not in rows[0].heard
        assert report["benchmarks"]["mine"]["accuracy"]["s2s"] == 0.0 and report["benchmarks"]["mine"]["wer"] > 0

        monkeypatch.setattr(Whisper, "hear", None)
        again = json.loads(vocalnet(*command, "--asr", whisper, "--judge-url", url).out)
        assert again["benchmarks"] == report["benchmarks"], "nothing is heard twice"
    saved = json.loads(vocalnet(*command).out)
    assert saved["benchmarks"] == before["benchmarks"] and saved["recogniser"] == before["recogniser"]
    missing = vocalnet(*command, "--asr", "whisper-none")
    assert missing.code == 1 and "openai/whisper-none" in missing.err


def test_two_runs_are_compared_through_the_command(vocalnet, tiny_folder, own, asked, tmp_path):
    for name, word in (("a", "Rome"), ("b", "Beijing Paris Rome")):
        (tmp_path / name).mkdir()
        for number in range(3):
            (tmp_path / name / f"q{number}.txt").write_text(word)
        vocalnet("eval", "--benchmark", own, "--answers", name, "-o", f"out-{name}")
    told = vocalnet("eval", "compare", "out-a", "out-b", "--json")
    one = json.loads(told.out)["benchmarks"]["mine"]["s2t"]
    assert (one["n"], one["first"], one["second"], one["p"]) == (3, 33.33, 100.0, 0.5)
    assert "+66.67" in vocalnet("eval", "compare", "out-a", "out-b").out
    nothing = vocalnet("eval", "compare", "out-a", "none")
    assert nothing.code == 1 and "none/report.json" in nothing.err


def test_questions_that_are_judged_in_two_ways_are_refused(vocalnet, tiny_folder, own, asked):
    with (own / "questions.jsonl").open("a") as file:
        file.write(json.dumps({"id": "open", "question": "How?", "audio": "0.wav"}) + "\n")
    told = vocalnet("eval", "--model", tiny_folder, "--benchmark", own)
    assert told.code == 2 and "judged in different ways" in told.err and not asked


def test_rows_without_a_recording_are_told(vocalnet, tiny_folder, own, asked):
    (own / "1.wav").unlink()
    told = vocalnet("eval", "--model", tiny_folder, "--benchmark", own, "--json")
    assert json.loads(told.out)["benchmarks"]["mine"]["n"] == 2 and "1 of 3 rows are left out" in told.err
    for path in own.glob("*.wav"):
        path.unlink()
    none = vocalnet("eval", "--model", tiny_folder, "--benchmark", own)
    assert none.code == 1 and "no row that can be asked" in none.err
