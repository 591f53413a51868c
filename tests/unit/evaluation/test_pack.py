"""Packing a benchmark: spread, the same for the same seed, small, and never over something else. The sets the package carries."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from tests.tiny import tone
from vocalnet_cli.core.audio.wav import audio_seconds, read_audio, write_wav
from vocalnet_cli.core.data.manifest import read_manifest
from vocalnet_cli.core.data.prep.validate import validate_manifest
from vocalnet_cli.core.data.record import Record, Utterance, write_manifest
from vocalnet_cli.core.data.synth.split import TEST_SPLITS, draw_held_out
from vocalnet_cli.core.errors import UsageError, VocalnetError
from vocalnet_cli.core.evaluation.benchmarks import BENCHMARKS, load_benchmark
from vocalnet_cli.core.evaluation.pack import choose, pack_benchmark
from vocalnet_cli.core.units import ANSWER_HZ, QUESTION_HZ


def row(number: int, kind: str, answer: str, split: str = "test", audio: str | None = "q.wav") -> Record:
    return Record(
        id=f"row-{number}",
        source="s",
        split=split,
        question=Utterance(text="what", audio=audio, voice="flite:slt"),
        answer=Utterance(text=answer, audio="a.wav"),
        meta={"kind": kind, "aliases": [answer], "rate": 1.1},
    )


@pytest.fixture
def corpus(tmp_path):
    """Manifest of 40 rows of one kind, 3 of another, and one of another split."""
    write_wav(tmp_path / "q.wav", tone(0.7), QUESTION_HZ)
    write_wav(tmp_path / "a.wav", tone(0.5, rate=ANSWER_HZ), ANSWER_HZ)
    rows = [row(i, "many", f"answer {i % 10}") for i in range(40)] + [row(40 + i, "few", "one") for i in range(3)]
    write_manifest(tmp_path / "manifest.jsonl", [*rows, row(99, "few", "one", "train")])
    return tmp_path / "manifest.jsonl"


def test_every_kind_and_every_answer_is_spread(corpus):
    rows = [record for record in read_manifest(corpus) if record.split == "test"]
    chosen = choose(rows, 13, seed=0)
    assert [record.meta["kind"] for record in chosen].count("few") == 3
    assert len({record.answer.text for record in chosen if record.meta["kind"] == "many"}) == 10
    assert chosen == choose(list(reversed(rows)), 13, seed=0), "the order of the manifest does not matter"
    assert chosen != choose(rows, 13, seed=1) and choose(rows, 500, seed=0)[:13] == chosen
    assert {record.meta["kind"] for record in chosen[:2]} == {"few", "many"}, "a limit keeps every kind"


def test_packs_sound_as_opus_and_answers_once(corpus, tmp_path):
    target = tmp_path / "sets" / "small"
    stats = pack_benchmark(corpus, "test", target, count=13)
    assert (stats["rows_in"], stats["rows_out"], stats["kinds"]) == (43, 13, {"few": 3, "many": 10})
    report = validate_manifest(target / "manifest.jsonl")
    assert (report["rows"], report["bad"]) == (13, 0)
    records = read_manifest(target / "manifest.jsonl")
    assert len({record.question.audio for record in records}) == 13 and {record.answer.audio for record in records} == {"audio/a000.opus"}
    assert {record.split for record in records} == {"test"} and set(records[0].meta) == {"kind", "aliases"}
    info = soundfile.info(target / str(records[0].question.audio))
    assert (info.format, info.subtype, info.samplerate, info.channels) == ("OGG", "OPUS", QUESTION_HZ, 1)
    packed = read_audio(target / str(records[0].question.audio), QUESTION_HZ)
    assert np.corrcoef(packed, tone(0.7))[0, 1] > 0.95 and len(packed) == round(0.7 * QUESTION_HZ)
    assert [path.name for path in target.parent.iterdir()] == ["small"], "nothing temporary is left"


def test_refuses_what_it_would_overwrite_or_cannot_find(corpus, tmp_path):
    with pytest.raises(VocalnetError, match="not empty"):
        pack_benchmark(corpus, "test", tmp_path)
    with pytest.raises(UsageError, match="test, train"):
        pack_benchmark(corpus, "tset", tmp_path / "out")
    write_manifest(corpus, [row(0, "few", "one", audio="missing.wav")])
    with pytest.raises(VocalnetError, match="missing.wav"):
        pack_benchmark(corpus, "test", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.wav", "manifest.jsonl", "q.wav"]


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_carried_sets_are_whole_small_and_held_out(name):
    benchmark = load_benchmark(name)
    assert len(benchmark.records) >= (60 if name == "nano-ablation" else 100) and validate_manifest(benchmark.manifest)["bad"] == 0
    assert (
        {record.split for record in benchmark.records}
        == {name.replace("nano", "test").replace("ablation", "combination")}
        <= {*TEST_SPLITS}
    )
    held_out = draw_held_out()
    for record in benchmark.records:
        if name in ("nano-combination", "nano-ablation"):
            assert held_out.broken_by(record.question.text, record.answer.text), record.id
        else:
            assert held_out.broken_by_voice(record), record.id
        assert 0.1 < audio_seconds(benchmark.sound(str(record.question.audio))) < 10


def test_the_carried_sets_stay_below_6_megabytes():
    folders = [load_benchmark(name).manifest.parent for name in BENCHMARKS]
    assert sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file()) < 6e6
    kinds = [record.meta["kind"] for record in load_benchmark("nano-combination").records]
    assert sum(kind in ("plus", "minus", "repeat") for kind in kinds) >= 0.3 * len(kinds)


def test_rows_of_another_set_and_unclear_recordings_stay_out(tmp_path):
    pytest.importorskip("pocketsphinx")
    human = load_benchmark("nano-combination")
    clear, unclear = (next(r for r in human.records if r.meta["kind"] == kind) for kind in ("capital", "plus"))
    rows = []
    (tmp_path / "human").symlink_to(human.manifest.parent)
    for record, sound in ((clear, clear), (unclear, clear), (clear, clear)):
        answer = Utterance(text=record.answer.text, audio=f"human/{sound.answer.audio}")
        question = Utterance(text="what", audio=f"human/{clear.question.audio}")
        rows.append(Record(id=f"r{len(rows)}", source="s", split="test", question=question, answer=answer))
    write_manifest(tmp_path / "m.jsonl", rows)
    stats = pack_benchmark(tmp_path / "m.jsonl", "test", tmp_path / "set", without={"r2"}, clear=True)
    assert (stats["rows_in"], stats["rows_out"]) == (3, 1)
    assert [record.id for record in read_manifest(tmp_path / "set/manifest.jsonl")] == ["r0"]
