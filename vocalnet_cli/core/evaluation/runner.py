"""Ask a model the questions of benchmarks, and keep what it wrote and what a recogniser hears in its voice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from vocalnet_cli.core.audio.wav import read_audio, read_question
from vocalnet_cli.core.config.schema import GenerationSettings
from vocalnet_cli.core.data.record import Record
from vocalnet_cli.core.errors import AudioError, VocalnetError
from vocalnet_cli.core.evaluation.benchmarks import Benchmark
from vocalnet_cli.core.evaluation.cache import Row
from vocalnet_cli.core.evaluation.lookup import Bank, BankFile, question_vector
from vocalnet_cli.core.evaluation.wer import Recogniser
from vocalnet_cli.core.generation.events import AudioChunk, TurnDone
from vocalnet_cli.core.generation.streaming import answer
from vocalnet_cli.core.model.speech_llm import SpeechLLM
from vocalnet_cli.core.model.vocoder import Voice
from vocalnet_cli.core.units import ANSWER_HZ


class Runner:
    """Asks one model; it is loaded when the first question is there, and so are the recognisers and the bank of training questions.

    Each question draws from a generator seeded anew, so an answer depends neither on its neighbours nor on what was asked before.
    """

    def __init__(
        self, load: Callable[[], SpeechLLM], settings: GenerationSettings, seed: int, bank: BankFile | None, voice: Voice | None = None
    ) -> None:
        self._load = load
        self._settings = settings
        self._seed = seed
        self._bank_file = bank
        self._voice = voice
        self._model: SpeechLLM | None = None
        self._bank: Bank | None = None
        self._recognisers: dict[tuple[str, ...], Recogniser] = {}
        self._recorded: dict[tuple[Recogniser, Path], str] = {}  # several questions can share a recorded answer

    def recogniser(self, benchmark: Benchmark) -> Recogniser:
        """The recogniser that knows the words of a benchmark's answers."""
        words = tuple(benchmark.words)
        if words not in self._recognisers:
            self._recognisers[words] = Recogniser(words)
        return self._recognisers[words]

    def ask(self, benchmark: Benchmark, record: Record) -> Row:
        """What becomes of one question. A failure is told in the row, so that one bad question does not lose the others."""
        recogniser = self.recogniser(benchmark)
        try:
            samples = self._question(benchmark, record)
            recorded = self._hear_recorded(recogniser, benchmark, record)
        except AudioError as error:
            return _failed(record, error)
        model = self._ready()
        try:
            text, sound, truncated = self._answer(model, samples)
            row = Row(record.id, text, "", recorded, round(len(sound) / ANSWER_HZ, 3), truncated)
            row = self._looked_up(row, model, samples)
        except (VocalnetError, RuntimeError, ValueError) as error:
            return _failed(record, error)
        return replace(row, heard=recogniser.hear(sound, ANSWER_HZ))

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

    def _answer(self, model: SpeechLLM, samples: np.ndarray) -> tuple[str, np.ndarray, bool]:
        """Text, sound [n] at 24 kHz, and whether the answer was cut off."""
        sound = [np.zeros(0, np.float32)]
        text, truncated = "", False
        for event in answer(model, samples, self._settings, torch.Generator().manual_seed(self._seed), self._voice):
            if isinstance(event, AudioChunk):
                sound.append(event.samples)
            elif isinstance(event, TurnDone):
                text, truncated = event.text, event.truncated
        return text, np.concatenate(sound), truncated

    def _hear_recorded(self, recogniser: Recogniser, benchmark: Benchmark, record: Record) -> str | None:
        """What the recogniser makes of the recorded answer: its own error, apart from the model's."""
        if record.answer.audio is None:
            return None
        key = recogniser, benchmark.sound(record.answer.audio)
        if key not in self._recorded:
            self._recorded[key] = recogniser.hear(read_audio(key[1], ANSWER_HZ), ANSWER_HZ)
        return self._recorded[key]


def _failed(record: Record, error: Exception) -> Row:
    if isinstance(error, AudioError):
        return Row(record.id, error=f"{error.problem}. {error.hint}")
    return Row(record.id, error=" ".join(f"{type(error).__name__}: {error}".split()))
