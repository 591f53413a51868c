"""`vocalnet eval`: scores in text and JSON, results that survive a stop, bad questions among good ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.tiny import save_tiny, tone
from vocalnet_cli.core.audio.wav import write_wav
from vocalnet_cli.core.data.record import Record, Utterance, write_manifest
from vocalnet_cli.core.evaluation import runner
from vocalnet_cli.core.evaluation.benchmarks import load_benchmark
from vocalnet_cli.core.generation.events import AudioChunk, TextDelta, TurnDone
from vocalnet_cli.core.units import ANSWER_HZ, QUESTION_HZ

pytest.importorskip("pocketsphinx")

DIGITS = ("six", "two", "four")


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)


@pytest.fixture
def manifest(tmp_path) -> Path:
    """Three questions of different length, none with a recorded answer."""
    folder = tmp_path / "digits"
    folder.mkdir()
    rows = []
    for number, word in enumerate(DIGITS):
        write_wav(folder / f"{word}.wav", tone(0.5 + 0.1 * number), QUESTION_HZ)
        rows.append(
            Record(
                id=f"q{number}",
                source="s",
                split="test",
                question=Utterance(text=word, audio=f"{word}.wav"),
                answer=Utterance(text=f"You said {word}."),
                meta={"kind": "digit", "aliases": [word]},
            )
        )
    write_manifest(folder / "manifest.jsonl", rows)
    return folder / "manifest.jsonl"


@pytest.fixture
def knowing(monkeypatch) -> list[int]:
    """The model answers every question by its length with the right text, in a tone; returns the lengths it was asked."""
    asked: list[int] = []

    def answer(model, samples, settings, generator):
        asked.append(len(samples))
        text = f"You said {DIGITS[round(len(samples) / 1600) - 5]}."
        yield TextDelta(text, 1)
        yield AudioChunk(tone(0.3, rate=ANSWER_HZ))
        yield TurnDone(text, {}, {}, truncated=False)

    monkeypatch.setattr(runner, "answer", answer)
    return asked


def test_random_model_end_to_end(vocalnet, tiny_folder, manifest):
    result = vocalnet("eval", "--model", tiny_folder, "--benchmark", manifest, "--json")
    assert result.code == 0, result.err
    report = json.loads(result.out)
    assert set(report) >= {"model", "recipe", "benchmarks", "judge", "recogniser", "normaliser", "versions", "date"}
    scores = report["benchmarks"]["digits"]
    assert (scores["n"], scores["failed"], scores["accuracy"]) == (3, 0, {"s2t": 0.0, "s2s": 0.0})
    assert scores["truncated"] == 100.0 and "recorded_wer" not in scores
    assert "pocketsphinx" in report["recogniser"] and report["settings"]["max_text_tokens"] == 7
    lines = Path("eval/tiny/digits.jsonl").read_text().splitlines()
    assert len(lines) == 4 and json.loads(lines[0])["weights_sha256"] == report["weights_sha256"]
    assert (
        vocalnet("eval", "--model", tiny_folder, "--benchmark", manifest, "--json").out.split('"date"')[0] == result.out.split('"date"')[0]
    )


def test_right_answers_are_counted_and_shown(vocalnet, tiny_folder, manifest, knowing):
    result = vocalnet("eval", "--model", tiny_folder, "--benchmark", manifest.parent, "--limit", "2", "--quiet")
    assert result.code == 0 and result.err == ""
    assert "digits" in result.out and "100.0 (100.0-100.0)" in result.out and len(knowing) == 2


def test_resume_asks_only_what_is_missing(vocalnet, tiny_folder, manifest, knowing):
    command = ("eval", "--model", tiny_folder, "--benchmark", manifest, "--json", "-o", "out")
    vocalnet(*command, "--limit", "2")
    results = Path("out/digits.jsonl")
    results.write_text(results.read_text()[:-10])  # killed in the middle of a line
    del knowing[:]
    scores = json.loads(vocalnet(*command, "--resume").out)["benchmarks"]["digits"]
    assert len(knowing) == 2 and scores["accuracy"]["s2t"] == 100.0
    assert [json.loads(line).get("id") for line in results.read_text().splitlines()] == [None, "q0", "q1", "q2"]
    vocalnet(*command, "--resume")
    assert len(knowing) == 2, "nothing was missing"
    vocalnet(*command)
    assert len(knowing) == 5, "without --resume everything is asked anew"


def test_resume_refuses_results_of_another_model_or_setting(vocalnet, tiny_folder, manifest, knowing, tmp_path):
    command = ("eval", "--benchmark", manifest, "-o", "out", "--limit", "1")
    assert vocalnet(*command, "--model", tiny_folder).code == 0
    before = Path("out/digits.jsonl").read_text()
    other = save_tiny(tmp_path / "other", seed=1, max_text_tokens=7, max_speech_tokens=20, tokens_per_step=2)
    result = vocalnet(*command, "--model", other, "--resume")
    assert result.code == 1 and "weights_sha256" in result.err and "--resume" in result.err
    result = vocalnet(*command, "--model", tiny_folder, "--resume", "--set", "generation.max_text_tokens=3")
    assert result.code == 1 and "settings" in result.err
    assert Path("out/digits.jsonl").read_text() == before


def test_bad_questions_are_told_and_counted(vocalnet, tiny_folder, manifest, knowing, monkeypatch):
    write_wav(manifest.parent / "two.wav", np.zeros(8000, np.float32), QUESTION_HZ)
    known = runner.answer

    def fails_on_the_last(model, samples, *rest):
        if len(samples) > 10_000:
            raise RuntimeError("shapes do not fit")
        return known(model, samples, *rest)

    monkeypatch.setattr(runner, "answer", fails_on_the_last)
    result = vocalnet("eval", "--model", tiny_folder, "--benchmark", manifest, "--json")
    scores = json.loads(result.out)["benchmarks"]["digits"]
    assert (scores["n"], scores["failed"], scores["accuracy"]["s2t"]) == (1, 2, 100.0)
    assert result.code == 1 and "silence" in result.err and "shapes do not fit" in result.err and "2 questions" in result.err
    write_wav(manifest.parent / "two.wav", tone(0.6), QUESTION_HZ)
    monkeypatch.setattr(runner, "answer", known)
    result = vocalnet("eval", "--model", tiny_folder, "--benchmark", manifest, "--json", "--resume")
    assert result.code == 0 and json.loads(result.out)["benchmarks"]["digits"]["n"] == 3, "failed ones are asked again"


def test_recorded_answers_give_the_recognisers_own_error(vocalnet, tiny_folder, knowing, monkeypatch):
    from vocalnet_cli.core.audio.wav import read_audio

    benchmark = load_benchmark("nano-human")
    spoken = {r.question.audio: (r.answer.text, read_audio(benchmark.sound(str(r.answer.audio)), ANSWER_HZ)) for r in benchmark.records[:3]}
    turn = iter(spoken.values())

    def answer(*_):
        text, sound = next(turn)
        yield AudioChunk(sound[:5000])
        yield AudioChunk(sound[5000:])
        yield TurnDone(text, {}, {}, truncated=False)

    monkeypatch.setattr(runner, "answer", answer)
    result = vocalnet("eval", "--model", tiny_folder, "--benchmark", "nano-human", "--limit", "3", "--json")
    scores = json.loads(result.out)["benchmarks"]["nano-human"]
    assert scores["accuracy"]["s2t"] == 100.0 and scores["wer"] == scores["recorded_wer"], "the same sound, the same errors"


@pytest.mark.parametrize(
    ("options", "code", "told"),
    [
        (("--benchmark", "nano-voise"), 2, "Nearest: nano-voice"),
        (("--model", "VocalNet/VocalNet-1B"), 1, "VocalNet/VocalNet-1B"),
        (("--device", "abacus"), 2, "abacus"),
        (("--set", "train.lr=1"), 2, "train.lr"),
    ],
)
def test_mistakes_are_told_in_two_lines(vocalnet, tiny_folder, options, code, told):
    more = () if "--model" in options else ("--model", tiny_folder)
    result = vocalnet("eval", *options, *more)
    assert result.code == code and told in result.err and result.out == "" and len(result.err.strip().splitlines()) == 2
    assert not Path("eval").exists()


def test_two_manifests_of_one_name_and_empty_ones_are_refused(vocalnet, tiny_folder, manifest, tmp_path):
    result = vocalnet("eval", "--model", tiny_folder, "--benchmark", manifest, "--benchmark", manifest)
    assert result.code == 2 and "two benchmarks are called digits" in result.err
    (tmp_path / "none.jsonl").write_text("")
    assert "no rows" in vocalnet("eval", "--model", tiny_folder, "--benchmark", tmp_path / "none.jsonl").err


def test_prep_benchmark_packs_what_eval_reads(vocalnet, tiny_folder, manifest, knowing):
    result = vocalnet("prep", "benchmark", manifest.parent, "--split", "test", "-o", "packed", "--limit", "2", "--json")
    assert result.code == 0 and json.loads(result.out)["rows_out"] == 2
    assert vocalnet("eval", "--model", tiny_folder, "--benchmark", "packed", "--quiet").code == 0 and len(knowing) == 2
    assert vocalnet("prep", "benchmark", manifest.parent, "--split", "test", "-o", "packed").code == 1
    assert vocalnet("prep", "benchmark", manifest.parent, "--split", "test").code == 2
