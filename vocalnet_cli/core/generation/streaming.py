"""One question in, a stream of text, speech tokens and sound out, while the answer is still being written."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from vocalnet_cli.core.config.schema import GenerationSettings
from vocalnet_cli.core.generation.events import AudioChunk, Event, SpeechTokens, TextDelta, TurnDone
from vocalnet_cli.core.generation.text import TextStream, draw_token
from vocalnet_cli.core.model.speech_llm import SpeechLLM
from vocalnet_cli.core.model.talker.contract import SpeechSampling

STAGES = ("encoder", "thinker", "talker", "vocoder")


@torch.inference_mode()
def answer(
    model: SpeechLLM, samples_16k: np.ndarray, settings: GenerationSettings, generator: torch.Generator | None = None
) -> Iterator[Event]:
    """Answer one spoken question (mono float32, 16 kHz); the last event is always `TurnDone`.

    Each text token is read by the thinker before its state goes to the talker, and the end vector follows the last one
    (arXiv 2504.04060, section 3.3; the states of `compat: paper`). `generator` (CPU) drives all sampling; none uses torch's own.
    Nothing is kept outside the iterator: one model serves many conversations, and an abandoned iterator leaves nothing behind.
    """
    clock = _Clock(model.device)
    text = TextStream(model.tokenizer)
    thinker = _Thinker(model, settings, clock, generator)
    speaker = _Speaker(model, settings, clock, generator)
    thinker.listen(samples_16k)
    truncated = False
    while (token_id := thinker.draw()) is not None:
        if len(text.ids) == settings.max_text_tokens:
            truncated = True
            break
        if piece := text.push(token_id):
            yield TextDelta(piece, token_id)
        yield from speaker.hear(thinker.read(token_id))
    if rest := text.finish():
        yield TextDelta(rest, text.ids[-1])
    if text.ids:  # an empty answer is not spoken
        yield from speaker.finish()
    counts = {"text": len(text.ids), "speech": speaker.count}
    yield TurnDone(text.text, clock.timings(), counts, truncated or speaker.count >= settings.max_speech_tokens)


class _Clock:
    """Time spent in each stage, and since the start of the turn."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._begin = time.perf_counter()
        self._spent = dict.fromkeys(STAGES, 0.0)
        self._first_audio: float | None = None

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Adds the time of the body to stage `name`."""
        begin = self._now()
        yield
        self._spent[name] += self._now() - begin

    def sound(self) -> None:
        """Marks the moment a chunk of sound is ready; only the first counts."""
        if self._first_audio is None:
            self._first_audio = time.perf_counter() - self._begin

    def timings(self) -> dict[str, float]:
        """Milliseconds, as `TurnDone.timings_ms` describes them."""
        seconds = dict(self._spent)
        if self._first_audio is not None:
            seconds["first_audio"] = self._first_audio
        seconds["total"] = time.perf_counter() - self._begin
        return {name: round(1000 * value, 3) for name, value in seconds.items()}

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


class _Thinker:
    """Hears the question once, then draws and reads text tokens one by one."""

    def __init__(self, model: SpeechLLM, settings: GenerationSettings, clock: _Clock, generator: torch.Generator | None) -> None:
        self._model = model
        self._settings = settings
        self._clock = clock
        self._generator = generator
        self._cache = model.new_cache()
        self._ends = model.end_ids
        self._logits: Tensor

    def listen(self, samples_16k: np.ndarray) -> None:
        """Encoder, adaptor and the prompt around the speech."""
        with self._clock.stage("encoder"):
            heard = self._model.hear([samples_16k])[0]
        with self._clock.stage("thinker"):
            self._logits, _ = self._model.read(self._model.prompt(heard), self._cache)

    def draw(self) -> int | None:
        """The next text token, or none when the answer ends."""
        with self._clock.stage("thinker"):
            token_id = draw_token(self._logits, self._settings.temperature, self._settings.top_p, self._generator)
        return None if token_id in self._ends else token_id

    def read(self, token_id: int) -> Tensor:
        """Feeds a drawn token back; returns the state [1, 1, H] that has read it."""
        with self._clock.stage("thinker"):
            self._logits, state = self._model.read(self._model.embed([token_id]), self._cache)
        return state


class _Speaker:
    """Collects thinker states, and turns them into speech tokens and sound as early as the talker's text chunks allow."""

    def __init__(self, model: SpeechLLM, settings: GenerationSettings, clock: _Clock, generator: torch.Generator | None) -> None:
        assert model.vocoder is not None and model.settings.vocoder is not None, "load_speaker refuses models without a voice"
        self.count = 0
        """Speech tokens so far."""
        self._model = model
        self._clock = clock
        self._text_chunk = model.settings.talker.text_chunk if settings.streaming else None
        self._waiting: list[Tensor] = []
        self._talker = model.talker.begin(1, settings.streaming, settings.tokens_per_step, _sampling(settings, generator))
        self._vocoder = model.vocoder
        self._sound = model.vocoder.begin()
        self._ended = False
        # Tokens go to the vocoder as soon as they can fill one of its windows.
        self._at_once = min(model.settings.vocoder.first_tokens, model.settings.vocoder.block_tokens)

    def hear(self, state: Tensor) -> Iterator[Event]:
        """One more thinker state [1, 1, H]; speaks whenever a text chunk is complete."""
        self._waiting.append(state)
        if len(self._waiting) == self._text_chunk:
            yield from self._speak(last=False)

    def finish(self) -> Iterator[Event]:
        """The text is complete: hands the talker the end vector and speaks to the end."""
        self._waiting.append(self._model.end_vector())
        yield from self._speak(last=True)

    def _speak(self, last: bool) -> Iterator[Event]:
        states: Tensor | None = torch.cat(self._waiting, dim=1)
        self._waiting = []
        while True:
            with self._clock.stage("talker"):
                tokens = self._model.talker.step(self._talker, states, last, limit=self._at_once).tolist()
            states = None
            self.count += len(tokens)
            if tokens:
                yield SpeechTokens(tokens)
            # A talker may end before the text does: the vocoder then need not wait for tokens that never come.
            yield from self._push(tokens, last=self._talker.done or (last and not tokens))
            if not tokens:
                return

    def _push(self, tokens: list[int], last: bool) -> Iterator[Event]:
        if self._ended or not (tokens or last):
            return
        self._ended = last
        with self._clock.stage("vocoder"):
            samples = self._vocoder.push(self._sound, torch.tensor(tokens, dtype=torch.long), last)
        if len(samples):
            self._clock.sound()
            yield AudioChunk(samples)


def _sampling(settings: GenerationSettings, generator: torch.Generator | None) -> SpeechSampling:
    return SpeechSampling(
        temperature=settings.speech_temperature,
        top_k=settings.speech_top_k,
        repetition_penalty=settings.repetition_penalty,
        repetition_window=settings.repetition_window,
        max_speech_tokens=settings.max_speech_tokens,
        generator=generator,
    )
