"""`vocalnet infer`: answers on stdout, sound in a folder, bad files among good ones, names that never collide."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.tiny import WINDOW_S, tone
from vocalnet_cli.core.audio.wav import write_wav
from vocalnet_cli.core.units import ANSWER_HZ, QUESTION_HZ


@pytest.fixture
def model(tiny_folder) -> str:
    return str(tiny_folder)


@pytest.fixture
def question(tmp_path) -> Path:
    return ask(tmp_path / "question.wav")


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    """Every command starts in an empty folder: nothing may be written outside it."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)


def ask(path: Path, seconds: float = 0.5) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_wav(path, tone(seconds), QUESTION_HZ)
    return path


def lines(text: str) -> list[str]:
    return text.strip().splitlines()


def test_answers_in_text_and_sound(vocalnet, model, question):
    result = vocalnet("infer", question, "--model", model)
    assert result.code == 0
    wav = Path("answers/question.wav")
    assert soundfile.info(wav).samplerate == ANSWER_HZ and soundfile.info(wav).frames > 0
    assert len(lines(result.out)) == 1 and "question.wav" not in result.out
    assert str(wav) in result.err


def test_json_rows_have_the_stable_names(vocalnet, model, tmp_path, question):
    bad = tmp_path / "missing.wav"
    result = vocalnet("infer", question, bad, "--model", model, "--json", "-o", tmp_path / "out")
    good, failed = [json.loads(line) for line in lines(result.out)]
    assert result.code == 1
    assert set(good) >= {"file", "text", "audio", "audio_s", "question_s", "timings_ms", "tokens"} and "error" not in good
    assert set(good["timings_ms"]) >= {"encoder", "thinker", "talker", "vocoder", "total"} and set(good["tokens"]) == {"text", "speech"}
    assert good["question_s"] == 0.5 and good["tokens"]["text"] == 7
    assert good["audio_s"] == pytest.approx(soundfile.info(good["audio"]).frames / ANSWER_HZ, abs=1e-3)
    assert failed["file"] == str(bad) and "no such file" in failed["error"] and "text" not in failed


def half(path: Path) -> None:
    whole = ask(path).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def fifty_minutes(path: Path) -> None:
    count = 50 * 60 * 8000
    head = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + count, b"WAVE", b"fmt ", 16, 1, 1, 8000, 8000, 1, 8, b"data", count)
    with path.open("wb") as file:
        file.write(head + bytes(np.random.default_rng(0).integers(0, 255, 8000, dtype=np.uint8)))
        file.truncate(len(head) + count)


BAD = {
    "empty": (lambda path: path.write_bytes(b""), "0 bytes"),
    "text": (lambda path: path.write_text("I am not a sound\n"), "not a sound file"),
    "cut": (half, "cut off"),
    "long": (fifty_minutes, "3000.0 s"),
    "silent": (lambda path: write_wav(path, np.zeros(8000, np.float32), QUESTION_HZ), "silence"),
    "missing": (lambda path: None, "no such file"),
}


def test_bad_files_do_not_stop_the_good_ones(vocalnet, model, tmp_path):
    files = [ask(tmp_path / "a.wav")]
    for name, (make, _) in BAD.items():
        make(tmp_path / f"{name}.wav")
        files.append(tmp_path / f"{name}.wav")
    files.append(ask(tmp_path / "b.wav"))
    result = vocalnet("infer", *files, "--model", model)
    assert result.code == 1
    assert sorted(p.name for p in Path("answers").iterdir()) == ["a.wav", "b.wav"]
    assert [line.split(": ")[0] for line in lines(result.out)] == [str(files[0]), str(files[-1])]
    told = lines(result.err)
    for name, (_, reason) in BAD.items():
        at = [i for i, line in enumerate(told) if str(tmp_path / f"{name}.wav") in line and reason in line]
        assert len(at) == 1, f"{name}: one line with {reason!r} in {told}"
        assert str(tmp_path) not in told[at[0] + 1], "then one line with what to do"
    assert f"{len(BAD)} of {len(files)}" in told[-2]
    assert "Traceback" not in result.err and "defect" not in result.err


@pytest.mark.parametrize("name", BAD)
def test_one_bad_file_fails_without_loading_a_model(vocalnet, model, tmp_path, name, monkeypatch):
    from vocalnet_cli.core.model import weights

    def refuse(*_, **__):
        raise AssertionError("the model was loaded for nothing")

    monkeypatch.setattr(weights, "load_model", refuse)
    path = tmp_path / f"{name}.wav"
    BAD[name][0](path)
    result = vocalnet("infer", path, "--model", model)
    assert result.code == 1 and BAD[name][1] in result.err and "Traceback" not in result.err and "defect" not in result.err
    assert result.out == "" and not Path("answers").exists()


def test_inputs_with_one_stem_get_answers_of_their_own(vocalnet, model, tmp_path):
    first, second = ask(tmp_path / "x" / "q.wav"), ask(tmp_path / "y" / "q.wav", 0.7)
    assert vocalnet("infer", first, second, "--model", model).code == 0
    assert sorted(p.name for p in Path("answers").iterdir()) == ["q-2.wav", "q.wav"]


def test_a_question_is_never_overwritten(vocalnet, model, question):
    before = question.read_bytes()
    assert vocalnet("infer", question, "--model", model, "-o", question.parent).code == 0
    assert question.read_bytes() == before
    assert (question.parent / "question-2.wav").exists()


def test_long_question_is_heard_in_windows_and_says_so(vocalnet, model, tmp_path):
    path = ask(tmp_path / "long.wav", 2 * WINDOW_S - 0.5)
    result = vocalnet("infer", path, "--model", model)
    assert result.code == 0
    assert f"note: {path} is 3.5 s; heard in 2 windows of 2 s" in result.err


def test_folder_means_its_sound_files_sorted_and_limit_cuts(vocalnet, model, tmp_path):
    for name in ("c.wav", "a.wav", "b.wav"):
        ask(tmp_path / "qs" / name)
    (tmp_path / "qs" / "notes.txt").write_text("not a question")
    result = vocalnet("infer", tmp_path / "qs", "--model", model, "--limit", "2", "--quiet")
    assert [Path(line.split(": ")[0]).name for line in lines(result.out)] == ["a.wav", "b.wav"]
    assert result.code == 0 and result.err == ""


def test_empty_folder_is_refused(vocalnet, model, tmp_path):
    (tmp_path / "none").mkdir()
    result = vocalnet("infer", tmp_path / "none", "--model", model)
    assert result.code == 1 and "no sound file" in result.err and len(lines(result.err)) == 2


def test_same_seed_same_answer_other_seed_another(vocalnet, model, tmp_path):
    files = [ask(tmp_path / "a.wav"), ask(tmp_path / "b.wav")]
    hot = ["--model", model, "--set", "generation.temperature=1", "--set", "generation.max_text_tokens=12", "--json"]

    def texts(*more):
        return [json.loads(line)["text"] for line in lines(vocalnet("infer", *files, *hot, *more).out)]

    both = texts("--seed", "3")
    assert both == texts("--seed", "3") and both != texts("--seed", "4")
    alone = json.loads(vocalnet("infer", files[1], *hot, "--seed", "3").out)["text"]
    assert alone == both[1], "an answer does not depend on the files before it"


def test_set_changes_the_answer_and_mistakes_are_told(vocalnet, model, question):
    row = json.loads(vocalnet("infer", question, "--model", model, "--json", "--set", "generation.max_text_tokens=2").out)
    assert row["tokens"]["text"] == 2 and row["truncated"]
    for mistake in ("generation.max_text_tokens=many", "generation.max_txt_tokens=2", "generation.top_p=2", "nonsense"):
        result = vocalnet("infer", question, "--model", model, "--set", mistake)
        assert result.code in (1, 2) and "Traceback" not in result.err and "defect" not in result.err and result.out == ""
        assert mistake.split("=")[0].split(".")[-1] in result.err


@pytest.mark.parametrize(
    ("option", "value", "code"),
    [("--device", "abacus", 2), ("--device", "cuda:99", 2), ("--dtype", "int3", 2), ("--model", "VocalNet/VocalNet-1B", 1)],
)
def test_wrong_options_are_told_in_two_lines(vocalnet, model, question, option, value, code):
    args = ["infer", question, option, value] + (["--model", model] if option != "--model" else [])
    result = vocalnet(*args)
    assert result.code == code and value in result.err and result.out == ""
    if option == "--model":
        assert len(lines(result.err)) == 2 and "nano" in result.err


def test_unwritable_folder_is_told_before_the_first_answer(vocalnet, model, question, tmp_path):
    (tmp_path / "taken").write_text("a file, not a folder")
    result = vocalnet("infer", question, "--model", model, "-o", tmp_path / "taken")
    assert result.code == 1 and "taken" in result.err and result.out == "" and len(lines(result.err)) == 2


def test_interrupted_keeps_what_is_finished(vocalnet, model, tmp_path, monkeypatch):
    from vocalnet_cli.core.generation import batch

    files = [ask(tmp_path / "a.wav"), ask(tmp_path / "b.wav")]
    real, calls = batch.answer, []

    def interrupt(*args):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(batch, "answer", interrupt)
    result = vocalnet("infer", *files, "--model", model)
    assert result.code == 130 and "Traceback" not in result.err and "defect" not in result.err
    assert [p.name for p in Path("answers").iterdir()] == ["a.wav"]


def test_help_shows_examples(vocalnet):
    result = vocalnet("infer", "--help")
    assert result.code == 0 and result.out.count("vocalnet infer ") >= 2
