"""Thinker states to speech tokens and sound, as early as the text allows; one kind of speaker for each way of handing text over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from vocalnet_cli.core.config.schema import GenerationSettings
from vocalnet_cli.core.generation.clock import Clock
from vocalnet_cli.core.generation.events import AudioChunk, Event, SpeechTokens
from vocalnet_cli.core.generation.segments import Groups, cut
from vocalnet_cli.core.generation.text import decode
from vocalnet_cli.core.model.compat import RULES
from vocalnet_cli.core.model.prompt import sentence_end_ids
from vocalnet_cli.core.model.speech_llm import SpeechLLM
from vocalnet_cli.core.model.talker.contract import SpeechSampling
from vocalnet_cli.core.model.vocoder import Voice


def build_speaker(
    model: SpeechLLM, settings: GenerationSettings, clock: Clock, generator: torch.Generator | None, voice: Voice | None = None
) -> Speaker:
    """The speaker of one answer in a voice, of the kind the model's `compat` and the settings ask for."""
    kind: type[Speaker] = Speaker
    if RULES[model.settings.compat].segments:
        kind = ReleasedStream if settings.streaming else ReleasedWhole
    return kind(model, settings, clock, generator, voice)


class Speaker:
    """Collects thinker states; every text chunk that is complete is spoken at once, or everything at the end."""

    def __init__(
        self, model: SpeechLLM, settings: GenerationSettings, clock: Clock, generator: torch.Generator | None, voice: Voice | None
    ) -> None:
        self.count = 0
        """Speech tokens so far."""
        self._model = model
        self._settings = settings
        self._clock = clock
        self._sampling = speech_sampling(model, settings, generator)
        self._waiting: list[Tensor] = []
        self._talker = self._begin()
        self._vocoder = model.vocoder
        self._sound: Any = model.vocoder.begin(voice) if model.vocoder is not None else None
        self._ended = False

    def hear(self, state: Tensor, token_id: int, stop: bool = False) -> Iterator[Event]:
        """One more thinker state [1, 1, H] and its token; speaks whenever a text chunk is complete."""
        self._waiting.append(state)
        if self._settings.streaming and len(self._waiting) == self._model.settings.talker.text_chunk:
            yield from self._speak(self._take(), last=False, final=False)

    def watched(self, by: Callable[[int, Tensor], None] | None) -> Speaker:
        """Itself, with what it draws tokens from shown to `by` (`SpeechSampling.watch`)."""
        self._sampling.watch = by
        return self

    def finish(self) -> Iterator[Event]:
        """The text is complete: hands the talker the end vector and speaks to the end."""
        yield from self._speak(self._take(end=True), last=True, final=True)

    def _begin(self) -> Any:
        settings = self._settings
        return self._model.talker.begin(1, settings.streaming, settings.tokens_per_step, self._sampling)

    def _take(self, end: bool = False) -> Tensor:
        """The waiting states [1, n, H], with the end vector after them if asked for."""
        states = torch.cat([*self._waiting, self._model.end_vector()] if end else self._waiting, dim=1)
        self._waiting = []
        return states

    def _speak(self, states: Tensor | None, last: bool, final: bool) -> Iterator[Event]:
        """Says what the talker can say now; `last` ends the talker's text, `final` the whole answer."""
        talker = self._talker
        while True:
            # Tokens go to the vocoder as soon as it can do something with them.
            enough = self._vocoder.wanted(self._sound) if self._vocoder is not None else None
            with self._clock.stage("talker"):
                tokens = self._model.talker.step(talker, states, last, limit=enough).tolist()
            states = None
            # A talker may end before the text does: the vocoder then need not wait for tokens that never come.
            done = talker.done and (final or not RULES[self._model.settings.compat].segments)
            yield from self._say(tokens, last=done or (final and not tokens))
            if not tokens:
                return

    def _say(self, tokens: list[int], last: bool) -> Iterator[Event]:
        self.count += len(tokens)
        if tokens:
            if self._vocoder is None:
                self._clock.mark()
            yield SpeechTokens(tokens)
        if self._vocoder is None or self._ended or not (tokens or last):
            return
        self._ended = last
        with self._clock.stage("vocoder"):
            samples = self._vocoder.push(self._sound, torch.tensor(tokens, dtype=torch.long), last)
        if len(samples):
            self._clock.mark(len(samples))
            yield AudioChunk(samples)


class ReleasedStream(Speaker):
    """Groups of states as the released streaming script sends them; the talker starts anew at sentence ends of long answers."""

    def __init__(
        self, model: SpeechLLM, settings: GenerationSettings, clock: Clock, generator: torch.Generator | None, voice: Voice | None
    ) -> None:
        super().__init__(model, settings, clock, generator, voice)
        self._groups = Groups(model.settings.talker.text_chunk, lambda ids: decode(model.tokenizer, ids))
        self._stopped = False

    def hear(self, state: Tensor, token_id: int, stop: bool = False) -> Iterator[Event]:
        self._waiting.append(state)
        self._stopped = self._stopped or stop
        for call in self._groups.push(token_id, stop):
            yield from self._speak(self._take(call.end), call.last, final=False)
            if call.restart:
                self._talker = self._begin()

    def finish(self) -> Iterator[Event]:
        if not self._stopped:  # cut off at the longest
            for call in self._groups.finish():
                yield from self._speak(self._take(call.end), call.last, final=False)
        yield from self._say([], last=True)


class ReleasedWhole(Speaker):
    """The whole text first; its segments are then spoken all at once, and said in order."""

    def __init__(
        self, model: SpeechLLM, settings: GenerationSettings, clock: Clock, generator: torch.Generator | None, voice: Voice | None
    ) -> None:
        super().__init__(model, settings, clock, generator, voice)
        self._ids: list[int] = []

    def hear(self, state: Tensor, token_id: int, stop: bool = False) -> Iterator[Event]:
        self._waiting.append(state)
        self._ids.append(token_id)
        yield from ()

    def finish(self) -> Iterator[Event]:
        with self._clock.stage("talker"):
            spoken = speak_whole(self._model, [(self._take(), self._ids)], self._settings, self._sampling)[0]
        yield from self._say(spoken, last=True)


def speak_whole(
    model: SpeechLLM, answers: list[tuple[Tensor, list[int]]], settings: GenerationSettings, sampling: SpeechSampling
) -> list[list[int]]:
    """Speech codes of whole answers, each its states [1, n, H] and their token ids; all of them, segment by segment, in one batch.

    What is said is what the speaker of `build_speaker` would say of each answer by itself.
    """
    end = model.end_vector()[0]
    rows, owners = [], []
    for number, (states, ids) in enumerate(answers):
        for start, stop in _segments(model, settings, ids):
            rows.append(torch.cat([states[0, start:stop], end]))
            owners.append(number)
    spoken: list[list[int]] = [[] for _ in answers]
    if not rows:
        return spoken
    lengths = torch.tensor([len(row) for row in rows])
    batch = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    streaming = settings.streaming
    for owner, tokens in zip(owners, model.talker.speak(batch, lengths, streaming, settings.tokens_per_step, sampling), strict=True):
        spoken[owner] += tokens
    return spoken


def _segments(model: SpeechLLM, settings: GenerationSettings, ids: list[int]) -> list[tuple[int, int]]:
    """Where an answer's states are cut into pieces that are spoken by themselves."""
    if not RULES[model.settings.compat].segments:
        return [(0, len(ids))]
    if not settings.streaming:
        return cut(ids, sentence_end_ids(model.tokenizer))
    groups = Groups(model.settings.talker.text_chunk, lambda some: decode(model.tokenizer, some))
    stops = model.end_ids
    calls = [call for token_id in ids for call in groups.push(token_id, token_id in stops)]
    if not ids or ids[-1] not in stops:
        calls += groups.finish()
    segments, start, here = [], 0, 0
    for call in calls:
        here += call.count or 0
        if call.last:
            segments.append((start, here))
            start = here
    return segments


def speech_sampling(model: SpeechLLM, settings: GenerationSettings, generator: torch.Generator | None) -> SpeechSampling:
    """How the model's speech tokens are drawn; what the settings leave open is as its `compat` has it."""
    rules = RULES[model.settings.compat]
    window = rules.penalty_window[1 if settings.streaming else 0]
    return SpeechSampling(
        temperature=settings.speech_temperature,
        top_k=settings.speech_top_k,
        repetition_penalty=rules.penalty if settings.repetition_penalty is None else settings.repetition_penalty,
        repetition_window=window if settings.repetition_window is None else settings.repetition_window,
        max_speech_tokens=settings.max_speech_tokens,
        steps=None if settings.steps == "auto" else settings.steps,
        threshold=settings.certain_from,
        confidence=settings.confidence,
        gumbel=settings.gumbel,
        generator=generator,
    )
