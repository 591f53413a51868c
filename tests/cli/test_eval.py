"""`vocalnet eval`: scores in text and JSON, answers that are asked once, baselines, bad questions among good ones."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.tiny import save_tiny, tone
from vocalnet_cli.core.audio.wav import read_audio, write_wav
from vocalnet_cli.core.data.record import Record, Utterance, write_manifest
from vocalnet_cli.core.evaluation import runner
from vocalnet_cli.core.evaluation.benchmarks import load_benchmark
from vocalnet_cli.core.evaluation.results import read_run
from vocalnet_cli.core.generation.events import AudioChunk, TextDelta, TurnDone
from vocalnet_cli.core.units import ANSWER_HZ, QUESTION_HZ

pytest.importorskip("pocketsphinx")

DIGITS = ("six", "two", "four")
ROOT = Path(__file__).parents[2]


def cached() -> Path:
    """The one file of answers there is."""
    (found,) = Path("cache/eval").iterdir()
    return found / "answers.jsonl"


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.delenv("VOCALNET_CACHE", raising=False)


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

    def answer(model, samples, settings, generator, voice):
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
    assert report["recipe"] is None and scores["baselines"] == {}
    lines = cached().read_text().splitlines()
    assert len(lines) == 4 and json.loads(lines[0])["weights_sha256"] == report["weights_sha256"]
    again = vocalnet("eval", "--model", tiny_folder, "--benchmark", manifest, "--json", "--fresh")
    assert json.loads(again.out)["benchmarks"] == report["benchmarks"], "asked again, the same is answered"


def test_right_answers_are_counted_and_shown(vocalnet, tiny_folder, manifest, knowing):
    result = vocalnet("eval", "--model", tiny_folder, "--benchmark", manifest.parent, "--limit", "2", "--quiet")
    assert result.code == 0 and result.err == ""
    assert "digits" in result.out and "100.0 (100.0-100.0)" in result.out and len(knowing) == 2


def test_what_is_cached_is_not_asked_again(vocalnet, tiny_folder, manifest, knowing):
    command = ("eval", "--model", tiny_folder, "--benchmark", manifest, "--json")
    vocalnet(*command, "--limit", "2")
    results = cached()
    header, first, second = results.read_text().splitlines()
    results.write_text(f"{header}\n{first}\n{second[:-10]}")  # killed in the middle of a line
    del knowing[:]
    scores = json.loads(vocalnet(*command).out)["benchmarks"]["digits"]
    assert len(knowing) == 2 and scores["accuracy"]["s2t"] == 100.0
    assert [json.loads(line).get("id") for line in results.read_text().splitlines()] == [None, "q0", "q1", "q2"]
    vocalnet(*command, "--limit", "1", "--fresh")
    assert len(knowing) == 3, "--fresh asks what is cached"
    vocalnet(*command)
    assert len(knowing) == 3, "and loses nothing else"
    results.write_text("{" + results.read_text())
    vocalnet(*command)
    assert len(knowing) == 6, "without its first line a file says nothing"


def test_another_model_setting_or_manifest_is_another_file(vocalnet, tiny_folder, manifest, knowing, tmp_path, monkeypatch):
    monkeypatch.setenv("VOCALNET_CACHE", str(tmp_path / "kept"))
    other = save_tiny(tmp_path / "other", seed=1, max_text_tokens=7, max_speech_tokens=20, tokens_per_step=2)
    first, *others = [
        ("--model", tiny_folder),
        ("--model", other),
        ("--model", tiny_folder, "--set", "generation.max_text_tokens=3"),
        ("--model", tiny_folder, "--seed", "1"),
        ("--model", tiny_folder, "--dtype", "bf16"),
    ]
    command = ("eval", "--benchmark", manifest, "--limit", "1", "--quiet")
    for number, more in enumerate((first, *others), 1):
        assert vocalnet(*command, *more).code == 0
        assert len(knowing) == len(list((tmp_path / "kept" / "eval").iterdir())) == number, more
    rows = manifest.read_text()
    manifest.write_text(rows + "\n")
    vocalnet(*command, *first)
    manifest.write_text(rows)
    vocalnet(*command, *first)
    assert len(knowing) == len(others) + 2 and not Path("cache").exists()


def test_from_the_cache_neither_model_nor_recogniser_is_loaded(vocalnet, tiny_folder, manifest, knowing, monkeypatch):
    command = ["eval", "--model", str(tiny_folder), "--benchmark", str(manifest), "--json"]
    first = json.loads(vocalnet(*command).out)
    code = (
        "import sys\n"
        "from vocalnet_cli.cli.app import run_cli\n"
        f"code = run_cli({command!r})\n"
        "print('loaded:', *{name.split('.')[0] for name in sys.modules} & {'transformers', 'peft', 'pocketsphinx'}, file=sys.stderr)\n"
        "sys.exit(code)\n"
    )
    again = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert again.returncode == 0 and again.stderr == "loaded:\n"
    assert json.loads(again.stdout)["benchmarks"] == first["benchmarks"]

    def never(*_):
        raise AssertionError("nothing was missing")

    monkeypatch.setattr(runner, "Runner", never)
    assert vocalnet(*command).code == 0


def test_with_a_folder_the_report_and_every_answer_are_written(vocalnet, tiny_folder, manifest, knowing):
    result = vocalnet("eval", "--model", tiny_folder, "--benchmark", manifest, "-o", "out/here", "--json")
    assert json.loads(Path("out/here/report.json").read_text()) == json.loads(result.out)
    rows = [json.loads(line) for line in Path("out/here/digits.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == ["q0", "q1", "q2"]
    assert sorted(path.name for path in Path("out/here").iterdir()) == ["digits", "digits.jsonl", "report.json"]
    assert (rows[0]["question"], rows[0]["references"], rows[0]["text"]) == ("six", ["You said six.", "six"], "You said six.")
    assert rows[0]["verdicts"]["s2t"]["value"] == 1.0 and rows[0]["verdicts"]["s2s"]["value"] in (0.0, 1.0)
    run = read_run("out/here")
    for one in run.questions["digits"]:
        for field in ("audio", "question_audio"):
            path = run.sound(getattr(one, field))
            assert path.parent.parent == Path("out/here/digits") and hashlib.sha256(path.read_bytes()).hexdigest() == one.hashes[field]
    assert read_audio(run.sound(run.questions["digits"][0].audio), ANSWER_HZ) == pytest.approx(tone(0.3, rate=ANSWER_HZ), abs=1e-4)
    assert run.report.judging["digits"].judge == "rule" and run.report.manifests["digits"]


def test_steps_are_measured_one_after_the_other_and_drawn(vocalnet, tiny_folder, manifest, knowing):
    pytest.importorskip("matplotlib")
    command = ("eval", "--model", tiny_folder, "--benchmark", manifest, "--limit", 2, "-o", "out")
    told = vocalnet(*command, "--steps", "1,auto", "--json")
    assert told.code == 0, told.err
    results = json.loads(told.out)
    assert [one["steps"] for one in results] == [one["settings"]["steps"] for one in results] == [1, "auto"]
    assert json.loads(Path("out/steps-auto/report.json").read_text())["settings"]["steps"] == "auto"
    assert Path("out/steps.png").read_bytes().startswith(b"\x89PNG")
    wrong = vocalnet(*command, "--steps", "1,two")
    assert wrong.code == 2 and "'two' is neither a number nor auto" in wrong.err


def test_the_finished_run_of_a_recipe_is_measured_under_its_name(vocalnet, manifest, knowing):
    command = ("eval", "--recipe", "mtp5", "--benchmark", manifest, "--json")
    missing = vocalnet(*command)
    assert missing.code == 1 and "runs/vocalnet/mtp5/model" in missing.err and "vocalnet train --recipe mtp5\n" in missing.err
    Path("runs/vocalnet/mtp5/checkpoints").mkdir(parents=True)
    assert "vocalnet train --recipe mtp5 --resume\n" in vocalnet(*command).err
    save_tiny(Path("runs/vocalnet/mtp5/model"))
    assert json.loads(vocalnet(*command).out)["recipe"] is None, "nothing tells what made it"
    Path("runs/vocalnet/mtp5/recipe.yaml").write_text("# vocalnet/mtp5, resolved from recipes/vocalnet/mtp5.yaml\nstage: speak\n")
    assert json.loads(vocalnet(*command).out)["recipe"] == "vocalnet/mtp5"
    config = Path("runs/vocalnet/mtp5/model/config.json")
    config.write_text(json.dumps({**json.loads(config.read_text()), "recipe": "own/mtp5"}))
    assert json.loads(vocalnet(*command).out)["recipe"] == "own/mtp5", "the model's own word counts first"
    both = vocalnet(*command, "--model", "nano")
    assert both.code == 2 and "--model nano and --recipe mtp5" in both.err


@pytest.fixture
def remembering(tmp_path, manifest) -> Path:
    """A model whose bank holds recordings of `six` and `two`, and not of `four`."""
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    training = manifest.parent / "training.jsonl"
    lines = [json.dumps({**row, "split": "train" if row["id"] != "q2" else "test"}) for row in rows]
    training.write_text("\n".join(lines) + "\n")
    return save_tiny(tmp_path / "remembering", max_text_tokens=7, max_speech_tokens=20, tokens_per_step=2)


def test_lookup_answers_with_the_nearest_training_question(vocalnet, remembering, manifest, knowing):
    command = ("eval", "--model", remembering, "--benchmark", manifest, "-o", "out", "--json")
    assert "lookup" not in json.loads(vocalnet(*command).out)["benchmarks"]["digits"]["baselines"]
    made = vocalnet("prep", "lookup", manifest.parent / "training.jsonl", "--model", remembering, "--json")
    assert made.code == 0, made.err
    told = json.loads(made.out)
    assert (told["rows_in"], told["rows_out"], told["questions"]) == (2, 2, 2) and told["file"] == str(remembering / "lookup.safetensors")
    scores = json.loads(vocalnet(*command).out)["benchmarks"]["digits"]
    assert len(knowing) == 3, "answers stay when a bank joins: only the looked-up ones are missing"
    assert scores["accuracy"]["s2t"] == 100.0 and scores["baselines"]["lookup"]["accuracy"] == {"s2t": pytest.approx(66.67)}
    assert scores["above_lookup"] == pytest.approx(33.33) and len(scores["baselines"]["lookup"]["ci"]["s2t"]) == 2
    rows = [json.loads(line) for line in Path("out/digits.jsonl").read_text().splitlines()]
    assert [row["lookup"] for row in rows[:2]] == ["You said six.", "You said two."] and rows[2]["verdicts"]["lookup"]["value"] == 0.0
    before = cached().read_bytes()
    assert "  lookup" in vocalnet(*command[:-1]).out and cached().read_bytes() == before
    (remembering / "lookup.safetensors").unlink()
    gone = json.loads(vocalnet(*command).out)["benchmarks"]["digits"]
    assert gone["baselines"] == {} and "above_lookup" not in gone and len(knowing) == 3


def test_banks_of_another_encoder_and_damaged_ones_are_refused(vocalnet, remembering, manifest, knowing, tmp_path):
    command = ("eval", "--model", remembering, "--benchmark", manifest)
    other = save_tiny(tmp_path / "other", seed=1)
    assert vocalnet("prep", "lookup", manifest.parent / "training.jsonl", "--model", other, "-o", remembering).code == 0
    bank = remembering / "lookup.safetensors"
    for content, reason in ((bank.read_bytes(), "another encoder"), (b"\0" * 40, "cannot be read")):
        bank.write_bytes(content)
        result = vocalnet(*command)
        assert result.code == 1 and reason in result.err and "vocalnet prep lookup" in result.err
        assert len(result.err.strip().splitlines()) == 2 and not knowing


def test_lookup_takes_recordings_of_each_question_and_refuses_held_out_ones(vocalnet, remembering, manifest):
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    more = [{**row, "id": f"{row['id']}-{take}", "split": "train"} for row in rows for take in range(3)]
    source = manifest.parent / "takes.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in more))
    command = ("prep", "lookup", source, "--model", remembering, "--json")
    for options, expected in (((), (9, 3, 3)), (("--per-question", "2"), (9, 6, 3)), (("--limit", "1", "--per-question", "5"), (9, 3, 1))):
        told = json.loads(vocalnet(*command, *options).out)
        assert (told["rows_in"], told["rows_out"], told["questions"]) == expected
    assert vocalnet(*command, "--split", "dev").code == 2
    source.write_text(json.dumps({**more[0], "split": "test-voice"}) + "\n")
    (manifest.parent / "split.json").write_text(
        '{"seed": 0, "plus": [], "minus": [], "pairs": [], "wordings": {}, "voices": [], "speakers": []}'
    )
    refused = vocalnet(*command, "--split", "test-voice")
    assert refused.code == 1 and "belongs to the test split" in refused.err


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
    result = vocalnet("eval", "--model", tiny_folder, "--benchmark", manifest, "--json")
    assert result.code == 0 and json.loads(result.out)["benchmarks"]["digits"]["n"] == 3, "failed ones are asked again"


def test_recorded_answers_give_the_recognisers_own_error(vocalnet, tiny_folder, knowing, monkeypatch):
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
    recorded = scores["baselines"]["recorded"]
    assert recorded["wer"] == scores["wer"] and recorded["accuracy"] == {"s2s": scores["accuracy"]["s2s"]}


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
    assert not Path("cache").exists()


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


def test_options_before_a_command_are_refused(vocalnet):
    told = vocalnet("eval", "--limit", "3", "rescore", "answers.jsonl")
    assert told.code == 2 and "before `rescore`" in told.err and "vocalnet eval rescore" in told.err
