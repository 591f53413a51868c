"""One question in, a stream of text, speech tokens and sound out, while the answer is still being written."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from vocalnet_cli.core.config.schema import GenerationSettings
from vocalnet_cli.core.generation.clock import Clock
from vocalnet_cli.core.generation.events import Event, TextDelta, TurnDone
from vocalnet_cli.core.generation.memory import Memory
from vocalnet_cli.core.generation.speaker import build_speaker
from vocalnet_cli.core.generation.text import TextStream, draw_token, penalised, too_short
from vocalnet_cli.core.model.compat import RULES
from vocalnet_cli.core.model.speech_llm import SpeechLLM
from vocalnet_cli.core.model.vocoder import Voice


@torch.inference_mode()
def answer(
    model: SpeechLLM,
    samples_16k: np.ndarray,
    settings: GenerationSettings,
    generator: torch.Generator | None = None,
    voice: Voice | None = None,
    memory: Memory | None = None,
    stop: Callable[[], bool] | None = None,
    watch: Callable[[int, Tensor], None] | None = None,
) -> Iterator[Event]:
    """Answer one spoken question (mono float32, 16 kHz); the last event is always `TurnDone`.

    Under `compat: paper` each text token is read by the thinker before its state goes to the talker, and the end vector follows the
    last one (arXiv 2504.04060, section 3.3); under `released` the states that predicted the tokens go, the stop's too (vocalnet.md,
    section 4). `generator` (CPU) drives all sampling; none uses torch's own. `voice` is this answer's alone; none is the vocoder's own.
    A model without a vocoder gives no sound, only tokens.
    `memory` is what the thinker knows of the conversation so far; who asks says with `Memory.answered` what of the answer it keeps.
    `stop` is called before every step of any part; once it says yes, `Cancelled` is raised. `watch` is shown what every speech token is
    drawn from (`SpeechSampling.watch`). Nothing else is kept outside the iterator:
    one model serves many conversations, and an abandoned iterator leaves nothing behind.
    """
    clock = Clock(model.device, stop)
    text = TextStream(model.tokenizer)
    thinker = _Thinker(model, settings, clock, generator, memory or Memory(model))
    speaker = build_speaker(model, settings, clock, generator, voice).watched(watch)
    predicting = RULES[model.settings.compat].states_that_predict
    thinker.listen(samples_16k)
    truncated = False
    while True:
        token_id = thinker.draw(text.ids)
        if token_id in thinker.ends:
            if predicting and text.ids:
                yield from speaker.hear(thinker.state, token_id, stop=True)
            break
        if len(text.ids) == settings.max_text_tokens:
            truncated = True
            break
        if piece := text.push(token_id):
            yield TextDelta(piece, token_id)
        before = thinker.state
        yield from speaker.hear(before if predicting else thinker.told(token_id), token_id)
        if predicting:
            thinker.read(token_id)
    if rest := text.finish():
        yield TextDelta(rest, text.ids[-1])
    if text.ids:  # an empty answer is not spoken
        yield from speaker.finish()
    counts = {"text": len(text.ids), "speech": speaker.count}
    truncated = truncated or speaker.count >= settings.max_speech_tokens
    yield TurnDone(text.text, clock.timings(), counts, truncated, clock.began_ms, clock.marks, cut=too_short(text.text, speaker.count))


class _Thinker:
    """Hears the question once, then draws and reads text tokens one by one."""

    def __init__(
        self, model: SpeechLLM, settings: GenerationSettings, clock: Clock, generator: torch.Generator | None, memory: Memory
    ) -> None:
        self._model = model
        self._settings = settings
        self._clock = clock
        self._generator = generator
        self._memory = memory
        self.ends = model.end_ids
        """Token ids that end the answer."""
        self.state: Tensor
        """The newest state [1, 1, H]: what the next token is predicted from."""
        self._logits: Tensor

    def listen(self, samples_16k: np.ndarray) -> None:
        """Encoder, adaptor and the prompt around the speech."""
        with self._clock.stage("encoder"):
            heard = self._model.hear([samples_16k])[0]
        with self._clock.stage("thinker"):
            self._logits, self.state = self._memory.listen(heard, self._settings.max_text_tokens)

    def draw(self, written: list[int]) -> int:
        """The next text token after the `written` ones."""
        settings = self._settings
        with self._clock.stage("thinker"):
            logits = penalised(self._logits, written, settings.text_repetition_penalty)
            return draw_token(logits, settings.temperature, settings.top_p, self._generator)

    def read(self, token_id: int) -> Tensor:
        """Feeds a drawn token back; returns the state [1, 1, H] that has read it."""
        with self._clock.stage("thinker"):
            self._logits, self.state = self._memory.read(token_id)
        return self.state

    def told(self, token_id: int) -> Tensor:
        """The same, as the talker reads it."""
        state = self.read(token_id)
        return self._model.talker_rows(state, torch.tensor([[token_id]], device=state.device))
