"""Ask a model the questions of benchmarks, and keep what it wrote and said."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile
import torch

from vocalnet_cli.core.audio.wav import read_question
from vocalnet_cli.core.config.schema import GenerationSettings
from vocalnet_cli.core.data.prep.sounds import file_name
from vocalnet_cli.core.data.record import Record
from vocalnet_cli.core.errors import AudioError, VocalnetError
from vocalnet_cli.core.evaluation.benchmarks import Benchmark
from vocalnet_cli.core.evaluation.cache import Row
from vocalnet_cli.core.evaluation.lookup import Bank, BankFile, question_vector
from vocalnet_cli.core.evaluation.results import file_sha256
from vocalnet_cli.core.generation.events import AudioChunk, TurnDone
from vocalnet_cli.core.generation.streaming import answer
from vocalnet_cli.core.generation.together import answer_together
from vocalnet_cli.core.model.speech_llm import SpeechLLM
from vocalnet_cli.core.model.vocoder import Voice
from vocalnet_cli.core.units import ANSWER_HZ

SOUNDS = "audio"


class Runner:
    """Asks one model; it is loaded when the first question is there, and so is the bank of training questions.

    Each question draws from a generator seeded anew, so an answer depends neither on its neighbours nor on what was asked before.
    `at_once` of them are answered together; sampled answers never are, since their draws could not be kept apart.
    """

    def __init__(
        self,
        load: Callable[[], SpeechLLM],
        settings: GenerationSettings,
        seed: int,
        bank: BankFile | None,
        voice: Voice | None = None,
        at_once: int = 1,
    ) -> None:
        self._load = load
        self._settings = settings
        self._seed = seed
        self._bank_file = bank
        self._voice = voice
        self._at_once = 1 if settings.temperature or settings.speech_temperature else at_once
        self._model: SpeechLLM | None = None
        self._bank: Bank | None = None

    def ask(self, benchmark: Benchmark, records: Sequence[Record], folder: Path) -> Iterator[Row]:
        """What becomes of each question, in order; sound is written to `folder`/audio as FLAC of 16 bits before its row is given.

        A failure is told in the row, so that one bad question does not lose the others.
        """
        for start in range(0, len(records), self._at_once):
            yield from self._ask(benchmark, records[start : start + self._at_once], folder)

    def _ask(self, benchmark: Benchmark, records: Sequence[Record], folder: Path) -> list[Row]:
        rows: dict[str, Row] = {}
        questions: dict[str, np.ndarray] = {}
        for record in records:
            try:
                questions[record.id] = self._question(benchmark, record)
            except AudioError as error:
                rows[record.id] = _failed(record, error)
        if questions:
            model = self._ready()
            good = [record for record in records if record.id in questions]
            try:
                told = self._answers(model, [questions[record.id] for record in good])
                for record, (text, sound, truncated) in zip(good, told, strict=True):
                    row = _kept(Row(record.id, text, truncated=truncated), sound, folder)
                    rows[record.id] = self._looked_up(row, model, questions[record.id])
            except (VocalnetError, RuntimeError, ValueError) as error:
                if len(good) > 1:  # one of them must not lose the others
                    return [row for record in records for row in self._ask(benchmark, [record], folder)]
                rows[good[0].id] = _failed(good[0], error)
        return [rows[record.id] for record in records]

    def look_up(self, benchmark: Benchmark, record: Record, row: Row) -> Row:
        """A row of an earlier run with the answer the bank gives."""
        model = self._ready()
        try:
            return self._looked_up(row, model, self._question(benchmark, record))
        except (VocalnetError, RuntimeError, ValueError) as error:
            return _failed(record, error)

    def _ready(self) -> SpeechLLM:
        """The model, loaded, and with it the bank: what is wrong with either ends the run before it is used."""
        if self._model is None:
            if self._bank_file is not None:
                self._bank = self._bank_file.load()
            self._model = self._load()
        return self._model

    def _question(self, benchmark: Benchmark, record: Record) -> np.ndarray:
        assert record.question.audio is not None, "load_benchmark refuses rows without a recorded question"
        return read_question(benchmark.sound(record.question.audio), self._settings.max_question_s)

    def _looked_up(self, row: Row, model: SpeechLLM, samples: np.ndarray) -> Row:
        if self._bank is None or self._bank_file is None:
            return row
        return replace(row, lookup=self._bank.nearest(question_vector(model, samples)), bank=self._bank_file.sha256)

    def _answers(self, model: SpeechLLM, questions: list[np.ndarray]) -> list[tuple[str, np.ndarray, bool]]:
        """Of each question: text, sound [n] at 24 kHz, and whether the answer was cut off."""
        if len(questions) == 1:
            return [self._answer(model, questions[0])]
        told = answer_together(model, questions, self._settings, [self._voice] * len(questions))
        return [(done.text, _joined(sound), done.truncated) for done, _, sound in told]

    def _answer(self, model: SpeechLLM, samples: np.ndarray) -> tuple[str, np.ndarray, bool]:
        sound: list[np.ndarray] = []
        text, truncated = "", False
        for event in answer(model, samples, self._settings, torch.Generator().manual_seed(self._seed), self._voice):
            if isinstance(event, AudioChunk):
                sound.append(event.samples)
            elif isinstance(event, TurnDone):
                text, truncated = event.text, event.truncated
        return text, _joined(sound), truncated


def _joined(sound: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.float32), *sound])


def _kept(row: Row, sound: np.ndarray, folder: Path) -> Row:
    """The row with its sound on disk."""
    if not len(sound):
        return row
    path = folder / SOUNDS / f"{file_name(row.id)}.flac"
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    soundfile.write(temporary, np.clip(sound, -1, 1), ANSWER_HZ, format="FLAC", subtype="PCM_16")
    temporary.replace(path)
    name = str(path.relative_to(folder))
    return replace(row, audio=name, audio_sha256=file_sha256(path), audio_s=round(len(sound) / ANSWER_HZ, 3))


def _failed(record: Record, error: Exception) -> Row:
    if isinstance(error, AudioError):
        return Row(record.id, error=f"{error.problem}. {error.hint}")
    return Row(record.id, error=" ".join(f"{type(error).__name__}: {error}".split()))
