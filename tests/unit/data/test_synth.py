"""The nano corpus: what is held out is never trained on, every value is trained on, and the command makes it."""

import dataclasses
import json
import shutil
from collections import Counter
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import soundfile

from vocalnet_cli.core.data.manifest import read_manifest
from vocalnet_cli.core.data.prep.validate import validate_manifest
from vocalnet_cli.core.data.record import Record
from vocalnet_cli.core.data.synth import plan, render
from vocalnet_cli.core.data.synth import voices as synthetic_voices
from vocalnet_cli.core.data.synth.domain import number_words
from vocalnet_cli.core.data.synth.people import plan_human
from vocalnet_cli.core.data.synth.questions import Item, domain_vocabulary, listed_items, repeat, spoken_words
from vocalnet_cli.core.data.synth.split import HeldOut, check_split, draw_held_out, load_held_out, save_held_out
from vocalnet_cli.core.data.synth.voices import TRAIN_VOICES, Manner, VoiceFailed, speak, speak_by_festival, usable_voices
from vocalnet_cli.core.errors import VocalnetError

SETTINGS = plan.SynthSettings()


@lru_cache(maxsize=1)
def held_out() -> HeldOut:
    return draw_held_out(SETTINGS.seed)


@lru_cache(maxsize=1)
def records() -> list[Record]:
    return [job.record() for job in plan.plan_synthetic(SETTINGS, held_out(), TRAIN_VOICES)]


def usable_voices_here() -> dict[str, float]:
    return usable_voices()[0] if shutil.which("flite") else {}


def of(split: str) -> list[Record]:
    return [record for record in records() if record.split == split]


def neighbours(record: Record) -> set[tuple[str, str]]:
    words = record.meta["values"]
    return set(zip(words, words[1:], strict=False))


def test_questions_are_spoken_words_and_answers_are_written() -> None:
    for item in listed_items():
        assert " ".join(spoken_words(item.question)) == item.question
        assert item.answer[0].isupper() and item.answer.endswith(".") and not any(letter.isdigit() for letter in item.answer)
        assert all(f" {alias} " in f" {' '.join(spoken_words(item.answer))} " for alias in item.aliases)
    by_question = {item.question: item.answer for item in listed_items()}
    assert by_question["what is three plus four"] == "Three plus four is seven."
    assert by_question["how much is twenty minus zero"] == "Twenty minus zero is twenty."
    assert by_question["what comes after monday"] == "Tuesday comes after Monday."
    assert by_question["which letter comes before b"] == "A comes before B."
    assert by_question["what is the capital of france"] == "The capital of France is Paris."
    assert by_question["how do you spell cat"] == "Cat is spelled C, A, T."
    assert repeat(("red", "house"), 0).answer == "Red house."


def test_the_vocabulary_covers_every_row() -> None:
    known = set(domain_vocabulary())
    assert len(known) <= 500
    for record in records():
        assert set(spoken_words(record.question.text) + spoken_words(record.answer.text)) <= known


def test_sizes_of_the_splits() -> None:
    sizes = Counter(record.split for record in records())
    assert 11_000 <= sizes["train"] <= 13_000 and 140 <= sizes["dev"] <= 260
    assert sizes["test-combination"] == 300 and sizes["test-voice"] == 150
    answers = {record.answer.text for record in of("train")}
    assert 5000 <= len(answers) <= 7000
    assert 5000 <= len({record.answer.text for record in of("answers")} - answers) == sizes["answers"]
    assert all(record.question.audio is None for record in of("answers"))


def test_the_encoder_hears_every_word_often_in_any_company() -> None:
    heard = Counter(word for record in of("words") for word in record.question.text.split())
    asked = {word for record in of("train") for word in record.question.text.split() if record.source == "synth"}
    assert set(heard) == asked and min(heard.values()) >= 60
    assert all(record.answer.audio is None for record in of("words"))
    for record in of("words") + of("answers"):
        assert held_out().broken_by(record.question.text, record.answer.text) is None


def test_the_tokenizer_hears_every_word_of_the_answers_often_in_any_company() -> None:
    sayings, train = of("sayings"), of("train")
    assert len(sayings) == SETTINGS.saying_rows
    said = Counter(word for record in sayings for word in spoken_words(record.answer.text))
    answered = {word for record in train for word in spoken_words(record.answer.text) if record.source == "synth"}
    assert set(said) == answered and min(said.values()) >= 150
    assert {len(record.meta["values"]) for record in sayings} == {2, 3, 4, 5}
    assert 0.1 < sum(", " in record.answer.text for record in sayings) / len(sayings) < 0.14
    assert all(record.question.audio is None and record.answer.audio for record in sayings)
    assert all(held_out().broken_by(record.question.text, record.answer.text) is None for record in sayings)


def test_other_voices_say_answers_again() -> None:
    usual = {record.answer.audio: record.answer for record in of("train") + of("answers") + of("test-combination")}
    for split, count in (("voices", SETTINGS.voice_answers), ("test-voices", SETTINGS.voice_answers_tested)):
        assert Counter(record.answer.voice for record in of(split)) == {"flite:rms": count, "flite:awb": count}
        for record in of(split):
            first = usual[record.meta["parallel"]]
            assert first.text == record.answer.text and first.voice == "flite:slt"
            assert record.answer.audio not in usual and record.question.audio is None
    check_split(of("voices"), held_out())
    with pytest.raises(VocalnetError, match="test-voices"):
        check_split(of("test-voices"), held_out())


def test_no_training_row_holds_what_is_tested() -> None:
    training = of("train") + of("dev")
    questions = {record.question.text for record in training}
    sums = {frozenset(record.meta["values"]) for record in training if record.meta["kind"] == "plus"}
    differences = {tuple(record.meta["values"]) for record in training if record.meta["kind"] == "minus"}
    pairs = set().union(*(neighbours(record) for record in training if record.meta["kind"] == "repeat"))
    unseen_values = 0
    for record in of("test-combination"):
        kind = record.meta["kind"]
        assert record.question.text not in questions
        assert kind != "plus" or frozenset(record.meta["values"]) not in sums
        assert kind != "minus" or tuple(record.meta["values"]) not in differences
        assert kind != "repeat" or not neighbours(record) & pairs
        unseen_values += kind in ("plus", "minus", "repeat")
    assert unseen_values >= 0.3 * len(of("test-combination"))
    assert all("kal" not in str(record.question.voice) for record in training)
    assert {record.question.voice for record in of("test-voice")} == {"flite:kal16"}


def test_every_tested_value_is_trained_on_often() -> None:
    seen = Counter(word for record in of("train") for word in set(spoken_words(record.question.text)))
    for record in of("test-combination"):
        for word in spoken_words(record.question.text):
            assert seen[word] >= 5, f"{word} is heard {seen[word]} times in training"


def test_no_recording_is_in_train_and_dev() -> None:
    files = [record.question.audio for record in of("train") + of("dev")]
    assert len(files) == len(set(files))


def test_the_seed_decides_everything() -> None:
    assert draw_held_out(3) == draw_held_out(3)
    assert draw_held_out(3).plus != draw_held_out(4).plus
    assert plan.plan_synthetic(SETTINGS, held_out(), TRAIN_VOICES) == plan.plan_synthetic(SETTINGS, held_out(), TRAIN_VOICES)


def test_check_split_passes_the_planned_rows() -> None:
    texts = plan.text_records(dataclasses.replace(SETTINGS, text_phrases=2000), held_out())
    for rows in (records(), texts):
        check_split([row for row in rows if row.split in ("train", "dev")], held_out())


def test_check_split_reads_the_split_file_beside_the_manifest(tmp_path: Path) -> None:
    row = of("test-combination")[0].model_copy(update={"split": "train"})
    with pytest.raises(VocalnetError, match="split.json"):
        check_split([row], tmp_path)
    check_split([row.model_copy(update={"source": "another corpus"})], tmp_path)
    save_held_out(tmp_path, held_out())
    with pytest.raises(VocalnetError, match="held-out combination"):
        check_split([row], tmp_path)


def test_check_split_refuses_a_test_split() -> None:
    for split in ("test-combination", "test-voice"):
        with pytest.raises(VocalnetError, match="belongs to the test split"):
            check_split(of(split)[:1], held_out())


def test_check_split_refuses_relabelled_rows() -> None:
    """Judged from the content: a test row called `train`, with its notes wiped, is refused all the same."""
    for record in of("test-combination"):
        moved = record.model_copy(update={"split": "train", "id": "moved", "meta": {}})
        with pytest.raises(VocalnetError, match="held-out combination"):
            check_split([moved], held_out())
    for record in of("test-voice")[:5]:
        moved = record.model_copy(update={"split": "dev", "meta": {}})
        with pytest.raises(VocalnetError, match="kal16"):
            check_split([moved], held_out())
        moved.question = record.question.model_copy(update={"voice": "flite:slt"})
        with pytest.raises(VocalnetError, match="kal16"):
            check_split([moved], held_out())


def test_check_split_reads_the_answer_too() -> None:
    first, second = sorted(held_out().minus)[-1]
    item = next(item for item in listed_items() if item.kind == "minus" and not held_out().holds(item))
    row = plan.Job("x", "train", item, Manner("flite:slt")).record()
    check_split([row], held_out())
    row.answer.text = f"{number_words(first).capitalize()} minus {number_words(second)} is something."
    with pytest.raises(VocalnetError, match="held-out combination"):
        check_split([row], held_out())


def test_the_split_file_reads_back(tmp_path: Path) -> None:
    save_held_out(tmp_path, held_out())
    assert load_held_out(tmp_path) == held_out()
    (tmp_path / "split.json").write_text('{"seed": 0}', encoding="utf-8")
    with pytest.raises(VocalnetError, match="not a split file"):
        load_held_out(tmp_path)


def test_text_pairs_hold_more_phrases_than_are_recorded() -> None:
    rows = plan.text_records(SETTINGS, held_out())
    assert sum(row.meta["kind"] == "repeat" for row in rows) > 18_000
    assert len({row.question.text for row in rows}) == len(rows)
    assert {row.split for row in rows} == {"train", "dev", "test-combination"}


def people(folder: Path) -> Path:
    """Two takes of two digits by two speakers, 8 kHz tones."""
    folder.mkdir()
    tone = 0.3 * np.sin(np.arange(3200) * 0.4)
    for speaker in ("george", "theo"):
        for name in ("0", "7"):
            for take in range(2):
                soundfile.write(folder / f"{name}_{speaker}_{take}.wav", tone, 8000)
    return folder


def test_the_held_out_speaker_is_only_tested(tmp_path: Path) -> None:
    jobs = plan_human(SETTINGS, held_out(), people(tmp_path / "people"))
    assert len(jobs) == 8
    for job in jobs:
        assert (job.split == "test-human") == ("theo" in job.id)
        moved = job.record().model_copy(update={"split": "train"})
        if "theo" not in job.id:
            check_split([moved], held_out())
        else:
            moved.question.voice = "human:george"
            with pytest.raises(VocalnetError, match="theo"):
                check_split([moved], held_out())
    with pytest.raises(VocalnetError, match="no recordings"):
        plan_human(SETTINGS, held_out(), tmp_path)


def test_another_speaker_can_be_held_out(tmp_path: Path) -> None:
    other = draw_held_out(SETTINGS.seed, "george")
    assert (other.speakers, other.pairs, other.wordings) == (("george",), held_out().pairs, held_out().wordings)
    jobs = plan_human(SETTINGS, other, people(tmp_path / "people"))
    assert {job.split == "test-human" for job in jobs if "george" in job.id} == {True}
    training = [job.record() for job in jobs if "theo" in job.id]
    assert training and all(row.split != "test-human" for row in training)
    check_split(training, other)
    with pytest.raises(VocalnetError, match="DIGIT_nobody_TAKE.wav"):
        plan_human(SETTINGS, draw_held_out(SETTINGS.seed, "nobody"), tmp_path / "people")


@pytest.mark.skipif(shutil.which("flite") is None, reason="needs the Debian package flite")
def test_a_small_corpus_is_made_and_kept(tmp_path: Path) -> None:
    folder, digits = tmp_path / "corpus", people(tmp_path / "people")
    stats = render.make_corpus(folder, digits=digits, limit=6)
    assert (stats["rows_in"], stats["rows_out"], stats["rejected"]) == (6, 6, {})
    assert json.loads((folder / "stats.json").read_text()) == stats
    assert validate_manifest(folder / "manifest.jsonl")["bad"] == 0
    rows = read_manifest(folder / "manifest.jsonl")
    for row in rows:
        for said, rate in ((row.question, 16_000), (row.answer, 24_000)):
            if said.audio is not None:
                sound = soundfile.info(folder / said.audio)
                assert sound.samplerate == rate and sound.subtype == "PCM_16" and 0.2 < sound.duration < 6
    made = {path: path.stat().st_mtime_ns for path in folder.rglob("*.flac")}
    (folder / next(row.answer.audio for row in rows if row.answer.audio)).unlink()
    render.make_corpus(folder, digits=digits, limit=6)
    kept = {path: path.stat().st_mtime_ns for path in folder.rglob("*.flac")}
    assert set(kept) == set(made) and sum(kept[path] != made[path] for path in made) == 1


@pytest.mark.skipif("festival:ked_diphone" not in usable_voices_here(), reason="needs the Debian packages festival, festvox-kdlpc16k")
def test_one_process_of_festival_says_many_questions_as_many_processes_say_them(tmp_path: Path) -> None:
    manners = [Manner("festival:ked_diphone", 1.1, 1.0, 0.95), Manner("festival:ked_diphone")]
    said = list(zip(["what comes after tuesday", "spell a z cat"], manners, strict=True))
    together = speak_by_festival([*said, ("hello", Manner("festival:no_such_voice"))], 16_000)
    for (text, manner), samples in zip(said, together, strict=False):
        assert np.array_equal(samples, speak(text, manner, 16_000))
    assert isinstance(together[2], VoiceFailed)
    tasks = {f"{n}.flac": (tmp_path / f"{n}.flac", text, manner, None, 16_000) for n, (text, manner) in enumerate(said)}
    tasks["bad.flac"] = (tmp_path / "bad.flac", "hello", Manner("festival:no_such_voice"), None, 16_000)
    told: list[tuple[int, int]] = []
    failed = render._make_all(tasks, lambda *numbers: told.append(numbers))
    assert list(failed) == ["bad.flac"] and told == [(3, 3)]
    assert {path.name for path in tmp_path.iterdir()} == {"0.flac", "1.flac"}


@pytest.mark.skipif(shutil.which("flite") is None, reason="needs the Debian package flite")
def test_an_answer_in_another_voice_comes_with_the_usual_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = plan.Job("again", "voices", listed_items()[0], Manner("flite:rms"), answer_voice="flite:rms")
    monkeypatch.setattr(render, "plan_synthetic", lambda *_: [job])
    assert render.make_corpus(tmp_path)["rejected"] == {}
    (row,) = read_manifest(tmp_path / "manifest.jsonl")
    lengths = [soundfile.info(tmp_path / name).duration for name in (row.answer.audio, row.meta["parallel"])]
    assert len(list(tmp_path.rglob("*.flac"))) == 2 and lengths[0] != lengths[1] and min(lengths) > 0.5


@pytest.mark.skipif(shutil.which("flite") is None, reason="needs the Debian package flite")
def test_a_recording_that_fails_is_rejected_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    item: Item = listed_items()[0]
    gone = plan.Job("bad", "train", item, Manner("human:george"), tmp_path / "gone.wav")
    jobs = [plan.Job("good", "train", item, Manner("flite:slt")), gone]
    monkeypatch.setattr(render, "plan_synthetic", lambda *_: jobs)
    monkeypatch.setattr(render, "plan_follow_ups", lambda *_: [])
    stats = render.make_corpus(tmp_path)
    assert stats["rows_out"] == 1 and sum(stats["rejected"].values()) == 1
    assert json.loads((tmp_path / "rejects.jsonl").read_text())["id"] == "bad"


def test_without_flite_the_error_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda program: None)
    with pytest.raises(VocalnetError, match="flite") as caught:
        render.make_corpus(tmp_path)
    assert "apt install flite" in caught.value.hint


def test_a_missing_engine_leaves_its_voices_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda program: None if program in ("espeak-ng", "text2wave") else program)
    monkeypatch.setattr(synthetic_voices, "find_spec", lambda name: None)
    (tmp_path / "bdl").mkdir()
    monkeypatch.setitem(synthetic_voices._VOICE_FOLDERS, "rhvoice", (str(tmp_path),))
    voices, notices = usable_voices()
    assert set(voices) == {"flite:slt", "flite:rms", "flite:awb", "rhvoice:bdl"} and len(notices) == 5, notices
    for told in ("`espeak-ng`", "`text2wave`", "`py_nanotts`", "`rhvoice:clb`", "`rhvoice:alan`"):
        assert any(told in notice for notice in notices), told
