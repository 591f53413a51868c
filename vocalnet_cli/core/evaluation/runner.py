"""Ask a model every question of a benchmark, and keep what it wrote and what a recogniser hears in its voice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from vocalnet_cli.core.audio.wav import read_audio, read_question
from vocalnet_cli.core.config.schema import GenerationSettings
from vocalnet_cli.core.data.record import Record
from vocalnet_cli.core.errors import AudioError, VocalnetError
from vocalnet_cli.core.evaluation.benchmarks import Benchmark
from vocalnet_cli.core.evaluation.results import ResultsFile, Row
from vocalnet_cli.core.evaluation.wer import Recogniser
from vocalnet_cli.core.generation.events import AudioChunk, TurnDone
from vocalnet_cli.core.generation.streaming import answer
from vocalnet_cli.core.model.speech_llm import SpeechLLM
from vocalnet_cli.core.units import ANSWER_HZ


class Runner:
    """Measures one model with one recogniser; the model is loaded when the first unanswered question is there.

    Each question draws from a generator seeded anew, so an answer depends neither on its neighbours nor on a resumed run.
    """

    def __init__(self, load: Callable[[], SpeechLLM], settings: GenerationSettings, recogniser: Recogniser, seed: int) -> None:
        self._load = load
        self._settings = settings
        self.recogniser = recogniser
        self._seed = seed
        self._model: SpeechLLM | None = None
        self._recorded: dict[Path, str] = {}  # several questions can share a recorded answer

    def run(self, benchmark: Benchmark, records: Sequence[Record], results: ResultsFile) -> Iterator[Row]:
        """One row for each of `records`, in order, on disk when it is given; those `results` holds already are not asked again."""
        for record in records:
            row = results.rows.get(record.id)
            if row is None:
                row = self._ask(benchmark, record)
                results.add(row)
            yield row

    def _ask(self, benchmark: Benchmark, record: Record) -> Row:
        assert record.question.audio is not None, "load_benchmark refuses rows without a recorded question"
        try:
            samples = read_question(benchmark.sound(record.question.audio), self._settings.max_question_s)
            recorded = self._hear_recorded(benchmark, record)
        except AudioError as error:
            return Row(record.id, error=f"{error.problem}. {error.hint}")
        if self._model is None:
            self._model = self._load()
        try:
            text, sound, truncated = self._answer(self._model, samples)
        except (VocalnetError, RuntimeError, ValueError) as error:  # one bad answer must not lose the others
            return Row(record.id, error=" ".join(f"{type(error).__name__}: {error}".split()))
        heard = self.recogniser.hear(sound, ANSWER_HZ)
        return Row(record.id, text, heard, recorded, round(len(sound) / ANSWER_HZ, 3), truncated)

    def _answer(self, model: SpeechLLM, samples: np.ndarray) -> tuple[str, np.ndarray, bool]:
        """Text, sound [n] at 24 kHz, and whether the answer was cut off."""
        sound = [np.zeros(0, np.float32)]
        text, truncated = "", False
        for event in answer(model, samples, self._settings, torch.Generator().manual_seed(self._seed)):
            if isinstance(event, AudioChunk):
                sound.append(event.samples)
            elif isinstance(event, TurnDone):
                text, truncated = event.text, event.truncated
        return text, np.concatenate(sound), truncated

    def _hear_recorded(self, benchmark: Benchmark, record: Record) -> str | None:
        """What the recogniser makes of the recorded answer: its own error, apart from the model's."""
        if record.answer.audio is None:
            return None
        path = benchmark.sound(record.answer.audio)
        if path not in self._recorded:
            self._recorded[path] = self.recogniser.hear(read_audio(path, ANSWER_HZ), ANSWER_HZ)
        return self._recorded[path]
