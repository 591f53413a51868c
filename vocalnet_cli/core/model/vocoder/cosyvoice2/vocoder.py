"""The CosyVoice2 vocoder behind the common contract: voices prepared once, chunks by a schedule, nothing computed twice."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vocalnet_cli.core.config.vocoder_schema import CosyVoice2Settings
from vocalnet_cli.core.errors import VocalnetError
from vocalnet_cli.core.model.device import DTYPES
from vocalnet_cli.core.model.speech_tokenizer import SpeechTokenizer
from vocalnet_cli.core.model.vocoder.contract import Vocoder, Voice
from vocalnet_cli.core.model.vocoder.cosyvoice2.checkpoint import load_released, read_settings
from vocalnet_cli.core.model.vocoder.cosyvoice2.flow import Flow, FlowState
from vocalnet_cli.core.model.vocoder.cosyvoice2.hift import Hift
from vocalnet_cli.core.model.vocoder.cosyvoice2.speaking import SoundState, next_sound
from vocalnet_cli.core.units import FRAMES_PER_TOKEN, VOCODER_MEL_BINS

_VOICES = 8
"""Prepared voices kept."""


@dataclass(frozen=True)
class Schedule:
    """Where an answer's chunks end, counted from the end of the voice prompt: `first` tokens, then twice as many until `largest`.

    A chunk is also the attention block of the flow, so the sound is a function of tokens, voice and schedule.
    """

    first: int
    largest: int

    def __post_init__(self) -> None:
        if not 0 < self.first <= self.largest:
            raise ValueError(f"a schedule of {self.first}, then at most {self.largest} tokens: needs 0 < first <= largest")

    def size(self, index: int) -> int:
        """Tokens of chunk `index` (0 is the first)."""
        return min(self.first << min(index, 32), self.largest)

    def sizes(self, count: int) -> list[int]:
        """Tokens of each chunk of an answer of `count` tokens; the last is what is left."""
        sizes: list[int] = []
        while count > 0:
            sizes.append(min(self.size(len(sizes)), count))
            count -= sizes[-1]
        return sizes


@dataclass
class CosyVoice2State:
    """One utterance."""

    schedule: Schedule
    flow: FlowState
    sound: SoundState
    pending: Tensor
    """Tokens [n] that wait for their chunk to fill, or for the look-ahead after it."""
    chunks: int = 0
    """Chunks done."""
    ended: bool = False


class CosyVoice2Vocoder(Vocoder):
    """Flow matching and HiFT (arXiv 2412.10117, sections 2.3 and 2.4), streaming with caches.

    A chunk needs its tokens and the three after them. It costs its own frames plus attention over kept keys: those of the voice
    prompt, computed once a voice and shared by all utterances, and of what was spoken (`context`). The last chunk keeps the same
    mask; upstream drops it there, and so computes the last frames under another mask than those before.

    Differs from upstream in the prompt: it is cut to its last whole blocks and ends as a sentence of its own (its last tokens look
    ahead at silence), because what is shared by utterances cannot see their first tokens.
    """

    takes_voices = True

    def __init__(self, settings: CosyVoice2Settings) -> None:
        super().__init__()
        self.settings = settings
        self.flow = Flow(settings.flow, settings.codes).to(DTYPES[settings.flow_dtype or "fp32"])
        self.hift = Hift(settings.hift, smooth=settings.release == "2025")
        if settings.tokenizer is not None:  # kept where modules are; the property below tells who has none
            size = settings.tokenizer
            own = SpeechTokenizer(settings.codes, size.latent, size.hidden, size.blocks, decoder=False)
            self._modules["tokenizer"] = own
        self._voices: OrderedDict[Any, FlowState] = OrderedDict()

    @classmethod
    def released(cls, folder: Path, settings: CosyVoice2Settings | None = None) -> CosyVoice2Vocoder:
        """The vocoder of a CosyVoice2 folder; `settings` are the folder's (`read_settings`), some of those `TUNED` changed.

        Raises MissingWeights or VocalnetError.
        """
        vocoder = cls(settings or read_settings(folder))
        load_released(vocoder.flow, vocoder.hift, folder)
        return vocoder.eval().requires_grad_(False)

    @property
    def tokenizer(self) -> SpeechTokenizer:  # type: ignore[override]
        """What makes its tokens from sound. Raises VocalnetError if it has none of its own: its tokens are then CosyVoice2's."""
        own = self._modules.get("tokenizer")
        if not isinstance(own, SpeechTokenizer):
            raise VocalnetError("the cosyvoice2 vocoder has no speech tokenizer", "Make the tokens first: `vocalnet prep tokens`.")
        return own

    @torch.no_grad()
    def begin(self, voice: Voice | None = None, schedule: Schedule | None = None) -> CosyVoice2State:
        """A fresh utterance, without a voice in `own_voice`; without that either it has no prompt and a neutral speaker.

        Raises VocalnetError for a voice that does not fit.
        `schedule` is this utterance's alone; none takes the settings'.
        """
        s = self.settings
        schedule = schedule or self.schedule
        window = s.window_tokens if s.context == "window" else None
        device = self.hift.conv_pre.weight.device
        return CosyVoice2State(
            schedule=schedule,
            flow=self._prepared(voice or self.own_voice).fork(window, schedule.largest),
            sound=SoundState(),
            pending=torch.zeros(0, dtype=torch.long, device=device),
        )

    @property
    def schedule(self) -> Schedule:
        """That of its settings."""
        return Schedule(self.settings.first_tokens, self.settings.block_tokens)

    def chunks(self, count: int) -> list[int]:
        """Tokens of each chunk of an answer of `count` tokens."""
        return self.schedule.sizes(count)

    def push(self, state: CosyVoice2State, tokens: Tensor, last: bool) -> np.ndarray:
        """Next tokens [n] to the samples that are final now (see `Vocoder.push`); 960 T in all for T tokens."""
        return self.push_many([state], [tokens], [last])[0]

    def wanted(self, state: CosyVoice2State) -> int:
        """Tokens, at least one, until the next chunk and those it looks ahead at are there."""
        return max(1, state.schedule.size(state.chunks) + self.settings.flow.lookahead_tokens - len(state.pending))

    @torch.no_grad()
    def push_many(self, states: Sequence[CosyVoice2State], tokens: Sequence[Tensor], last: Sequence[bool]) -> list[np.ndarray]:
        """`push` for several utterances; chunks of the same size share the flow's matrix products, whatever came before them."""
        for state, new in zip(states, tokens, strict=True):
            assert not state.ended, "nothing may follow the last push"
            state.pending = torch.cat([state.pending, self._checked(new)])
        sounds: list[list[Tensor]] = [[] for _ in states]
        waiting = set(range(len(states)))
        while waiting:
            batches: dict[tuple[int, int], list[int]] = defaultdict(list)
            for i in sorted(waiting):
                size = self._ready(states[i], last[i])
                if size:
                    following = min(self.settings.flow.lookahead_tokens, len(states[i].pending) - size)
                    batches[size, following].append(i)
                else:
                    waiting.discard(i)
            for (size, following), members in batches.items():
                for i in members:
                    states[i].flow.last = last[i] and size == len(states[i].pending)
                mels = self._mel([states[i] for i in members], size, following)
                for i, mel in zip(members, mels.split(1), strict=True):
                    final = last[i] and not len(states[i].pending)
                    sounds[i].append(self._sound(states[i], mel, final))
        for i, state in enumerate(states):
            if last[i] and not state.ended:  # the end came after its last chunk was computed
                sounds[i].append(self._sound(state, torch.zeros(1, VOCODER_MEL_BINS, 0, device=state.pending.device), True))
        return [torch.cat(parts).cpu().numpy() if parts else np.zeros(0, np.float32) for parts in sounds]

    def _ready(self, state: CosyVoice2State, last: bool) -> int:
        """Tokens of the next chunk, 0 if it cannot be computed yet.

        One chunk, however many tokens wait: so how tokens arrive changes no bit of the sound.
        """
        size, left = state.schedule.size(state.chunks), len(state.pending)
        if left >= size + self.settings.flow.lookahead_tokens:
            return size
        return min(size, left) if last else 0

    def _mel(self, states: list[CosyVoice2State], size: int, following: int) -> Tensor:
        """Log-mel [S, 80, 2 size] of the next `size` pending tokens of each, which then pend no more."""
        tokens = torch.stack([state.pending[: size + following] for state in states])
        mel = self.flow.extend([state.flow for state in states], tokens, [size])
        for state in states:
            state.pending = state.pending[size:]
            state.chunks += 1
        return mel

    def _sound(self, state: CosyVoice2State, mel: Tensor, last: bool) -> Tensor:
        state.ended = last
        return next_sound(self.hift, state.sound, mel, last, self.settings.lookahead_frames, self.settings.hold_mel)

    def _checked(self, tokens: Tensor) -> Tensor:
        if len(tokens) and not 0 <= int(tokens.min()) <= int(tokens.max()) < self.settings.codes:
            raise VocalnetError(
                f"speech token {int(tokens.max() if tokens.max() >= self.settings.codes else tokens.min())} is outside "
                f"0..{self.settings.codes - 1}",
                "Special tokens must be removed before the vocoder.",
            )
        return tokens.to(self.hift.conv_pre.weight.device)

    # --- voices ----------------------------------------------------------------------------------------------------

    def _prepared(self, voice: Voice | None) -> FlowState:
        """A voice's activations in every layer at every step of the ODE, computed once for its content and these weights."""
        kept = self._cut(voice)
        weights = hash(tuple((w.data_ptr(), 0 if w.is_inference() else w._version) for w in self.flow.parameters()))
        key = (voice.sha256 if voice is not None else None, weights, self.settings.steps, self.settings.guidance)
        state = self._voices.pop(key, None)
        if state is None:
            state = self._prepare(kept)
        self._voices[key] = state
        while len(self._voices) > _VOICES:
            self._voices.popitem(last=False)
        return state

    def _prepare(self, voice: Voice) -> FlowState:
        device, block = self.hift.conv_pre.weight.device, self.settings.trained_block
        state = self.flow.begin(voice.speaker.to(device), self.settings.steps, self.settings.guidance)
        for start in range(0, len(voice.tokens), block):
            tokens = voice.tokens[start : start + block].to(device)
            frames = slice(FRAMES_PER_TOKEN * start, FRAMES_PER_TOKEN * (start + len(tokens)))
            # The next block's first tokens are looked at; after the last there is silence.
            seen = voice.tokens[start : start + len(tokens) + self.settings.flow.lookahead_tokens].to(device)
            self.flow.extend([state], seen[None], [len(tokens)], voice.mel[frames].T[None].to(device))
        state.pack()
        return state

    def _cut(self, voice: Voice | None) -> Voice:
        """The voice checked, and cut to the last whole blocks; one shorter than a block is kept whole."""
        s = self.settings
        if voice is None:
            return Voice(torch.zeros(0, dtype=torch.long), torch.zeros(0, VOCODER_MEL_BINS), torch.zeros(s.flow.speaker))
        if voice.speaker.shape != (s.flow.speaker,):
            raise VocalnetError(
                f"a voice of {len(voice.speaker)} speaker values does not fit this vocoder, which wants {s.flow.speaker}",
                "Make the voice with the files of the same CosyVoice2 folder.",
            )
        self._checked(voice.tokens)
        count = len(voice.tokens)
        kept = count - count % s.trained_block if count >= s.trained_block else count
        return replace(voice, tokens=voice.tokens[count - kept :], mel=voice.mel[FRAMES_PER_TOKEN * (count - kept) :])
