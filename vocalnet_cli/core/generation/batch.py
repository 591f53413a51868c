"""Answer recorded questions, one by one or several at once: find them, name the answers, go on after a bad file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vocalnet_cli.core.audio.wav import SOUND_SUFFIXES, read_question, write_wav
from vocalnet_cli.core.config.schema import GenerationSettings
from vocalnet_cli.core.errors import AudioError, VocalnetError
from vocalnet_cli.core.generation.events import AudioChunk, SpeechTokens, TextDelta, TurnDone
from vocalnet_cli.core.generation.streaming import answer
from vocalnet_cli.core.generation.together import answer_together
from vocalnet_cli.core.model.speech_llm import SpeechLLM
from vocalnet_cli.core.model.vocoder import Voice
from vocalnet_cli.core.units import ANSWER_HZ, QUESTION_HZ

_DIGITS = 3
"""Decimals of seconds in results."""


@dataclass
class Answered:
    """What became of one question. `error` is set if it failed; then there is no text and no audio."""

    file: Path
    text: str = ""
    audio: Path | None = None
    """Sound file that was written; none if nothing was said."""
    audio_s: float = 0.0
    question_s: float = 0.0
    timings_ms: dict[str, float] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    truncated: bool = False
    cut: bool = False
    """Too little was said for the text."""
    speech_tokens: Path | None = None
    """File of the speech tokens; only written when the model has no vocoder."""
    together: int = 1
    """Questions that were answered at once; `timings_ms` are then those of them all."""
    error: VocalnetError | None = None

    def as_json(self) -> dict[str, Any]:
        """The row `infer --json` prints."""
        if self.error is not None:
            return {"file": str(self.file), "error": f"{self.error.problem}. {self.error.hint}"}
        return {
            "file": str(self.file),
            "text": self.text,
            "audio": str(self.audio) if self.audio else None,
            "audio_s": round(self.audio_s, _DIGITS),
            "question_s": round(self.question_s, _DIGITS),
            "timings_ms": self.timings_ms,
            "tokens": self.tokens,
            "truncated": self.truncated,
            "cut": self.cut,
            **({"speech_tokens": str(self.speech_tokens)} if self.speech_tokens else {}),
            **({"together": self.together} if self.together > 1 else {}),
        }


def find_questions(given: Sequence[Path], limit: int | None = None) -> list[Path]:
    """The files to answer: folders stand for the sound files in them, sorted by name. At most `limit` of them.

    Files that are named are kept whatever they are, so that each bad one is reported. Raises AudioError for a folder without sound.
    """
    found: list[Path] = []
    for path in given:
        if path.is_dir():
            try:
                inside = sorted(file for file in path.iterdir() if file.suffix.lower() in SOUND_SUFFIXES and file.is_file())
            except OSError as error:
                raise AudioError(f"{path}: cannot be read ({error.strerror})", "Check the permissions of the folder.") from error
            if not inside:
                raise AudioError(f"{path}: no sound file in this folder", f"Sound files end in {', '.join(sorted(SOUND_SUFFIXES))}.")
            found += inside
        else:
            found.append(path)
    return found[:limit]


def name_answers(questions: Iterable[Path], folder: Path) -> list[Path]:
    """A wav in `folder` for each question, by its stem: all different, and none of them one of the questions."""
    questions = list(questions)
    taken = {_key(path) for path in questions}
    names: list[Path] = []
    for question in questions:
        number, name = 1, folder / f"{question.stem}.wav"
        while _key(name) in taken:
            number += 1
            name = folder / f"{question.stem}-{number}.wav"
        taken.add(_key(name))
        names.append(name)
    return names


def _key(path: Path) -> str:
    """Equal for paths that could be one file, on file systems that ignore case too."""
    return os.path.realpath(path).casefold()


class Batch:
    """Answers questions with one model, which is loaded when the first usable question is there; `batch_size` of them at once.

    `note(line)` hears remarks; `start(file)` and then `piece(text)` hear the text while it is being written. With a `seed` each
    file draws from a generator of its own, so its answer does not depend on its neighbours. `voice` is that of all answers; none is
    the vocoder's own.
    """

    def __init__(
        self,
        load: Callable[[], SpeechLLM],
        settings: GenerationSettings,
        seed: int | None = None,
        note: Callable[[str], None] = lambda line: None,
        piece: Callable[[str], None] = lambda text: None,
        start: Callable[[Path], None] = lambda file: None,
        batch_size: int = 1,
        voice: Voice | None = None,
    ) -> None:
        self._load = load
        self._settings = settings
        self._seed = seed
        self._note = note
        self._piece = piece
        self._start = start
        self._voice = voice
        self._model: SpeechLLM | None = None
        self._at_once = batch_size
        if batch_size > 1 and (settings.temperature or settings.speech_temperature):
            note("note: sampled answers are made one by one, so that each has its own draws")
            self._at_once = 1

    def run(self, questions: Sequence[Path], folder: Path) -> Iterator[Answered]:
        """One result for each question, in order; each sound file is on disk when its result is given."""
        waiting: list[tuple[Path, Path, np.ndarray | AudioError]] = []
        for question, target in zip(questions, name_answers(questions, folder), strict=True):
            try:
                waiting.append((question, target, read_question(question, self._settings.max_question_s)))
            except AudioError as error:
                waiting.append((question, target, error))
            if sum(not isinstance(item, AudioError) for _, _, item in waiting) in (0, self._at_once):  # bad files need not wait
                yield from self._flush(waiting, folder)
                waiting = []
        yield from self._flush(waiting, folder)

    def _flush(self, waiting: list[tuple[Path, Path, np.ndarray | AudioError]], folder: Path) -> Iterator[Answered]:
        """Answers what waits, in order; bad files among it are told in their places."""
        good = [(question, target, item) for question, target, item in waiting if not isinstance(item, AudioError)]
        if good and self._model is None:
            make_folder(folder)  # a folder that cannot be written is told before the first answer, not after
            self._model = self._ready(self._load())
        for question, _, samples in good:
            self._remark_windows(question, samples)
        told = self._together(good) if len(good) > 1 else iter(())
        for question, target, item in waiting:
            if isinstance(item, AudioError):
                yield Answered(question, error=item)
            elif len(good) > 1:
                yield self._write(question, target, len(item), *next(told), together=len(good))
            else:
                yield self._write(question, target, len(item), *self._alone(question, item))

    def _ready(self, model: SpeechLLM) -> SpeechLLM:
        """The model with its voice prepared, so that the first answer need not wait for it; what is unusual about either is told."""
        if model.vocoder is None:
            self._note(
                "note: this model has no vocoder, so no sound can be made; its speech tokens are saved as .npy (--vocoder names one)"
            )
            return model
        if model.vocoder.takes_voices and self._voice is None and model.vocoder.own_voice is None:
            self._note("note: no --voice, and no models to make one: the vocoder speaks as nobody, which it was not trained for")
        with torch.inference_mode():
            model.vocoder.begin(self._voice)
        return model

    def _remark_windows(self, question: Path, samples: np.ndarray) -> None:
        assert self._model is not None
        windows = self._model.windows(len(samples))
        if windows > 1:
            window_s = self._model.settings.encoder.window_s
            self._note(f"note: {question} is {len(samples) / QUESTION_HZ:.1f} s; heard in {windows} windows of {window_s:g} s")

    def _together(self, good: list[tuple[Path, Path, np.ndarray]]) -> Iterator[tuple[TurnDone, list[int], list[np.ndarray]]]:
        assert self._model is not None
        for (question, _, _), (done, tokens, sound) in zip(
            good, answer_together(self._model, [samples for _, _, samples in good], self._settings, [self._voice] * len(good)), strict=True
        ):
            self._start(question)
            self._piece(done.text)
            yield done, tokens, sound

    def _alone(self, question: Path, samples: np.ndarray) -> tuple[TurnDone, list[int], list[np.ndarray]]:
        assert self._model is not None
        generator = None if self._seed is None else torch.Generator().manual_seed(self._seed)
        self._start(question)
        sound: list[np.ndarray] = []
        tokens: list[int] = []
        done: TurnDone | None = None
        for event in answer(self._model, samples, self._settings, generator, self._voice):
            if isinstance(event, TextDelta):
                self._piece(event.text)
            elif isinstance(event, SpeechTokens):
                tokens += event.tokens
            elif isinstance(event, AudioChunk):
                sound.append(event.samples)
            else:
                done = event
        assert done is not None, "every answer ends with TurnDone"
        return done, tokens, sound

    def _write(
        self, question: Path, target: Path, samples: int, done: TurnDone, tokens: list[int], sound: list[np.ndarray], together: int = 1
    ) -> Answered:
        """The result of an answer, its sound (or speech tokens) on disk."""
        assert self._model is not None
        result = Answered(question, done.text, None, 0.0, samples / QUESTION_HZ, done.timings_ms, done.tokens, done.truncated)
        result.together, result.cut = together, done.cut
        if sound:
            spoken = np.concatenate(sound)
            write_wav(target, spoken)
            result.audio, result.audio_s = target, len(spoken) / ANSWER_HZ
        elif tokens and self._model.vocoder is None:
            result.speech_tokens = target.with_suffix(".npy")
            part = result.speech_tokens.with_suffix(".npy.part")
            with part.open("wb") as file:
                np.save(file, np.array(tokens, dtype=np.int32), allow_pickle=False)
            os.replace(part, result.speech_tokens)
        else:
            self._note(f"note: {question}: the answer is empty, no sound was written")
        if done.truncated:
            self._note(f"note: {question}: the answer was cut off at its longest (generation.max_text_tokens or max_speech_tokens)")
        elif done.cut and self._model.vocoder is not None:
            self._note(f"note: {question}: {len(tokens)} speech tokens are too few for the text, not all of it was said")
        return result


def make_folder(folder: Path) -> None:
    """Create the answers' folder. Raises AudioError if that cannot be done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AudioError(f"{folder}: cannot be made ({error.strerror})", "Name another folder with -o.") from error
