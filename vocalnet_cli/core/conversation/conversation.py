"""One spoken conversation: its turns follow each other with one model, and all its state is in one object."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import numpy as np
import torch

from vocalnet_cli.core.config.schema import GenerationSettings
from vocalnet_cli.core.generation.clock import Cancelled
from vocalnet_cli.core.generation.events import AudioChunk, Event, TextDelta, TurnDone
from vocalnet_cli.core.generation.memory import Memory, Turn
from vocalnet_cli.core.generation.streaming import answer
from vocalnet_cli.core.generation.text import letters
from vocalnet_cli.core.model.speech_llm import SpeechLLM
from vocalnet_cli.core.model.vocoder import Voice

LETTERS_A_SECOND = 13.0
"""Letters a voice says in a second, until the conversation's own answers tell better."""
_ROUNDING = 1e-6


class Conversation:
    """Questions in, answers out, each knowing the turns before it: the questions as they were heard, the answers as text.

    `settings.history` is how many earlier turns that are, `system_prompt` what the thinker is told first (none: the model's own).
    `voice` is that of all answers (none: the vocoder's own). With a `seed` the draws of the whole conversation are repeatable.
    `note(line)` hears when turns no longer fit.
    """

    def __init__(
        self,
        model: SpeechLLM,
        settings: GenerationSettings,
        system_prompt: str | None = None,
        seed: int | None = None,
        voice: Voice | None = None,
        note: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.settings = settings
        self.memory = Memory(model, system_prompt, settings.history)
        """What the thinker knows: the turns kept, and the cache over them."""
        self._model = model
        self._generator = None if seed is None else torch.Generator().manual_seed(seed)
        self._voice = voice
        self._note = note
        self._dropped = 0
        self._rate = LETTERS_A_SECOND
        self._text = ""
        self._sound_s = 0.0
        self._whole = False

    def ask(self, samples_16k: np.ndarray, stop: Callable[[], bool] | None = None) -> Iterator[Event]:
        """The events of the answer to a question (mono float32, 16 kHz). The last is `TurnDone`, unless the answer was cut off.

        It is cut off by closing the iterator, or from another thread by `stop`, which is asked before every step of any part and ends
        the events. What was written until then is remembered; say with `heard` how much of it was really played.
        """
        self._text, self._sound_s, self._whole = "", 0.0, False
        self.memory.begin()
        try:
            for event in answer(self._model, samples_16k, self.settings, self._generator, self._voice, self.memory, stop):
                self._follow(event)
                yield event
        except Cancelled:
            return
        finally:
            self.memory.answered(self._text)

    def heard(self, seconds: float) -> str:
        """Only `seconds` of the last answer's sound were played: what was not heard leaves the history. Returns the words that stay.

        Nothing tells which word a sample belongs to, so words are counted off evenly by their letters: over the answer's own length if
        it was said whole, else at the rate of the answers before.
        """
        total_s = self._sound_s if self._whole else letters(self._text) / self._rate
        self._text = first_words(self._text, seconds / total_s if total_s else 0.0)
        self.memory.answered(self._text)
        return self._text

    def prepare(self) -> None:
        """Reads ahead for the next question, so that it waits for nothing but itself: call it while nobody waits."""
        self.memory.prepare(self.settings.max_text_tokens)
        self._remark()

    @property
    def turns(self) -> list[Turn]:
        """The turns the next answer takes into account, oldest first."""
        return self.memory.turns

    def _follow(self, event: Event) -> None:
        if isinstance(event, TextDelta):
            self._text += event.text
        elif isinstance(event, AudioChunk):
            self._sound_s += len(event.samples) / event.rate
        elif isinstance(event, TurnDone):
            self._whole = True
            if self._sound_s and not event.cut and not event.truncated:
                self._rate = letters(self._text) / self._sound_s or self._rate
        self._remark()

    def _remark(self) -> None:
        if (new := self.memory.dropped - self._dropped) > 0:
            self._dropped += new
            turns = "the oldest turn was" if new == 1 else f"the {new} oldest turns were"
            self._note(f"note: {turns} forgotten: the conversation is longer than the model's {self._positions} positions")

    @property
    def _positions(self) -> int:
        return self._model.settings.thinker.max_positions


def first_words(text: str, share: float) -> str:
    """The words of `text` that were said whole when `share` (0 to 1) of its sound was played; letters take equal time."""
    if share >= 1:
        return text
    budget = share * letters(text)
    end = 0
    for word in re.finditer(r"\S+", text):
        budget -= letters(word.group())
        if budget < -_ROUNDING:
            break
        end = word.end()
    return text[:end]
