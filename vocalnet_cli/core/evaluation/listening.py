"""What a recogniser hears in answers, kept on disk apart from them: another recogniser asks no question again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from pydantic import TypeAdapter, ValidationError

from vocalnet_cli.core.audio.wav import read_audio
from vocalnet_cli.core.data.record import Record
from vocalnet_cli.core.errors import AudioError
from vocalnet_cli.core.evaluation.benchmarks import Benchmark
from vocalnet_cli.core.evaluation.cache import AnswerCache, Heard, Row, RowsFile
from vocalnet_cli.core.evaluation.wer import Hearing, Recogniser, recogniser_identity
from vocalnet_cli.core.units import ANSWER_HZ

_HEARING = TypeAdapter(Hearing)


class Listener(Protocol):
    """A recogniser that is loaded."""

    hearing: Hearing

    def hear(self, samples: np.ndarray, rate: int) -> str:
        """The words in mono sound [n] at `rate`; empty if there are none."""


class Ear(Protocol):
    """Who is to listen; nothing is loaded before there is something to hear."""

    def identity(self, benchmark: Benchmark) -> dict[str, Any]:
        """All that decides what is heard in the answers to a benchmark, as plain JSON values."""

    def recogniser(self, benchmark: Benchmark) -> Listener:
        """The recogniser, ready to hear them."""


class WordLoop:
    """pocketsphinx, which knows the words of each benchmark's answers."""

    def identity(self, benchmark: Benchmark) -> dict[str, Any]:
        return dict(recogniser_identity(benchmark.words))

    def recogniser(self, benchmark: Benchmark) -> Listener:
        return Recogniser(benchmark.words)


def listen(
    benchmark: Benchmark,
    records: Sequence[Record],
    rows: Sequence[Row],
    folder: Path,
    answers: AnswerCache,
    ear: Ear,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[Heard], Hearing]:
    """What is heard in the answers `rows` to `records`, whose sound lies in `folder`, and who listened; what
    `answers` knows of this `ear` is kept.

    Of an answer in which nothing was said nothing is heard (""); one that was given as text only has nothing to hear (None).
    """
    found = []
    file = answers.heard(ear.identity(benchmark))
    recogniser: Listener | None = None
    recorded: dict[Path, str | None] = {}  # several questions can share a recorded answer
    hearing = _known(file)
    with file:
        for number, (record, row) in enumerate(zip(records, rows, strict=True), 1):
            kept = file.rows.get(row.id)
            if kept is None or kept.audio_sha256 != row.audio_sha256:
                if recogniser is None:
                    recogniser = ear.recogniser(benchmark)
                    hearing = hearing or recogniser.hearing
                    file.begin(asdict(hearing))
                kept = Heard(row.id, row.audio_sha256, _heard(recogniser, row, folder), _recorded(recogniser, benchmark, record, recorded))
                if row.error is None:
                    file.add(kept)
            found.append(kept)
            advance(number, len(rows))
    assert hearing is not None, "a benchmark holds a question"
    return found, hearing


def _known(file: RowsFile[Heard]) -> Hearing | None:
    try:
        return _HEARING.validate_python(file.extra)
    except ValidationError:
        file.rows.clear()  # without knowing who listened they say nothing
        return None


def _heard(recogniser: Listener, row: Row, folder: Path) -> str | None:
    if row.error is not None or not row.spoken:
        return None
    return recogniser.hear(read_audio(folder / row.audio, ANSWER_HZ), ANSWER_HZ) if row.audio else ""


def _recorded(recogniser: Listener, benchmark: Benchmark, record: Record, known: dict[Path, str | None]) -> str | None:
    """What the recogniser makes of the recorded answer: its own error, apart from the model's."""
    if record.answer.audio is None:
        return None
    path = benchmark.sound(record.answer.audio)
    if path not in known:
        try:
            known[path] = recogniser.hear(read_audio(path, ANSWER_HZ), ANSWER_HZ)
        except AudioError:
            known[path] = None
    return known[path]
