"""A benchmark out of a corpus: some rows of one split, small enough to travel with the package."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any, TypeVar

import soundfile

from vocalnet_cli.core.audio.wav import read_audio
from vocalnet_cli.core.data.manifest import read_manifest
from vocalnet_cli.core.data.record import Record, Utterance, write_manifest
from vocalnet_cli.core.errors import UsageError, VocalnetError
from vocalnet_cli.core.evaluation.benchmarks import MANIFEST
from vocalnet_cli.core.evaluation.wer import Recogniser, known_words, words_of
from vocalnet_cli.core.model.tensor_file import whole_folder
from vocalnet_cli.core.units import ANSWER_HZ, QUESTION_HZ

ROWS = 120
"""Rows of a benchmark unless told otherwise."""

_COMPRESSION = 0.9
"""libsndfile's scale for Opus, 0 (256 kbit/s) to 1 (6): about 31 kbit/s."""
_META = ("kind", "aliases", "speaker", "file")
"""Notes a benchmark keeps: how to judge, and whose recording it is."""

T = TypeVar("T")


def choose(records: Iterable[Record], count: int, seed: int) -> list[Record]:
    """At most `count` rows by seed alone, kinds in turn, and within a kind the answers in turn.

    Any first part of the result is spread in the same way, so that a limit keeps every kind.
    """
    chance = random.Random(f"{seed} benchmark")
    kinds: dict[str, dict[str, list[Record]]] = {}
    for record in sorted(records, key=lambda record: record.id):
        kinds.setdefault(str(record.meta.get("kind", "")), {}).setdefault(record.answer.text, []).append(record)
    queues = []
    for kind in sorted(kinds):
        answers = list(kinds[kind].values())
        chance.shuffle(answers)
        for rows in answers:
            chance.shuffle(rows)
        queues.append(_in_turn(answers))
    return _in_turn(queues)[:count]


def _in_turn(queues: list[list[T]]) -> list[T]:
    """The first of each queue, then the second of each, until all are empty."""
    return [item for item in chain.from_iterable(zip_longest(*queues)) if item is not None]


def pack_benchmark(
    manifest: Path,
    split: str,
    output: Path,
    count: int = ROWS,
    seed: int = 0,
    advance: Callable[[int, int], None] = lambda done, total: None,
    *,
    without: Collection[str] = (),
    clear: bool = False,
) -> dict[str, Any]:
    """Write `output`/manifest.jsonl and its sound as Ogg Opus: questions at 16 kHz, recorded answers at 24 kHz, both mono.

    Rows with an id in `without` stay out; with `clear` also those in whose recorded answer the recogniser hears a wrong word: then
    what is wrong in a model's speech is the model's. `advance(done, total)` hears of each row. Returns `{"rows_in", "rows_out",
    "kinds", "megabytes"}`. Raises UsageError for a split without rows, VocalnetError for a folder that is not empty or cannot be
    written, AudioError for bad sound.
    """
    records = read_manifest(manifest)
    rows = [record for record in records if record.split == split]
    if not rows:
        raise UsageError(f"{manifest}: no row of split {split!r}", f"Its splits: {', '.join(sorted({r.split for r in records}))}.")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise VocalnetError(f"{output}: already there and not empty", "Remove it first, or name another folder with -o.")
    fit = choose((row for row in rows if row.id not in without), len(rows), seed)
    if clear:
        fit = _clear(fit, manifest.parent, count, advance)
    chosen = fit[:count]
    with whole_folder(output) as folder:
        (folder / "audio").mkdir()
        packed = []
        answers: dict[str, str] = {}
        for number, record in enumerate(chosen):
            packed.append(_pack(record, number, manifest.parent, folder, answers))
            advance(number + 1, len(chosen))
        write_manifest(folder / MANIFEST, packed)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    kinds = [str(record.meta.get("kind", "")) for record in packed]
    return {
        "rows_in": len(rows),
        "rows_out": len(packed),
        "kinds": {kind: kinds.count(kind) for kind in sorted(set(kinds))},
        "megabytes": round(size / 1e6, 2),
    }


def _clear(records: Sequence[Record], folder: Path, count: int, advance: Callable[[int, int], None]) -> list[Record]:
    """The first `count` rows whose recorded answers are heard without error."""
    words = known_words(record.answer.text for record in records)
    recogniser = Recogniser(words)
    clear: list[Record] = []
    for record in records:
        if len(clear) == count:
            break
        if record.answer.audio is not None:
            heard = recogniser.hear(read_audio(folder / record.answer.audio, ANSWER_HZ), ANSWER_HZ)
            if words_of(heard, recogniser.hearing.alike) == words_of(record.answer.text, recogniser.hearing.alike):
                clear.append(record)
                advance(len(clear), count)
    return clear


def _pack(record: Record, number: int, source: Path, folder: Path, answers: dict[str, str]) -> Record:
    """One row with its sound re-encoded; an answer that several rows share is written once."""
    if record.question.audio is None:
        raise VocalnetError(f"row `{record.id}` has no recorded question", "Every row needs question.audio.")
    question = f"audio/q{number:03}.opus"
    _write_opus(folder / question, source / record.question.audio, QUESTION_HZ)
    spoken = record.answer.audio
    if spoken is not None and spoken not in answers:
        answers[spoken] = f"audio/a{len(answers):03}.opus"
        _write_opus(folder / answers[spoken], source / spoken, ANSWER_HZ)
    return Record(
        id=record.id,
        source=record.source,
        split=record.split,
        question=Utterance(text=record.question.text, audio=question, voice=record.question.voice),
        answer=Utterance(text=record.answer.text, audio=answers[spoken] if spoken else None, voice=record.answer.voice),
        meta={name: record.meta[name] for name in _META if name in record.meta},
    )


def _write_opus(path: Path, source: Path, rate: int) -> None:
    samples = read_audio(source, rate)
    soundfile.write(path, samples, rate, format="OGG", subtype="OPUS", compression_level=_COMPRESSION)
