"""What every vocoder owes: speech tokens in, sound out, piece by piece."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from vocalnet_cli.core.model.speech_tokenizer import SpeechTokenizer
from vocalnet_cli.core.units import FRAMES_PER_TOKEN, VOCODER_MEL_BINS

if TYPE_CHECKING:
    from vocalnet_cli.core.model.vocoder.voices import VoiceTable


@dataclass(frozen=True, eq=False)
class Voice:
    """A recorded sentence whose voice the answer takes: a vocoder continues its tokens, and the mel that belongs to them."""

    tokens: Tensor
    """Speech tokens int64 [P], 25 a second."""
    mel: Tensor
    """Log-mel float32 [2 P, 80], as `vocoder_mel` transposed; two frames a token."""
    speaker: Tensor
    """Speaker vector float32 [192] of CAM++, or one learned with the flow; not normalised."""

    def __post_init__(self) -> None:
        if self.tokens.ndim != 1 or self.speaker.ndim != 1 or self.mel.shape != (FRAMES_PER_TOKEN * len(self.tokens), VOCODER_MEL_BINS):
            raise ValueError(f"{len(self.tokens)} tokens do not go with a mel {list(self.mel.shape)}")

    @cached_property
    def sha256(self) -> str:
        """Hash of its content."""
        content = hashlib.sha256()
        for part in (self.tokens, self.mel, self.speaker):
            content.update(repr(tuple(part.shape)).encode() + part.detach().cpu().contiguous().numpy().tobytes())
        return content.hexdigest()

    def to(self, device: torch.device | str) -> Voice:
        """The same voice on `device`."""
        return Voice(self.tokens.to(device), self.mel.to(device), self.speaker.to(device))


class Vocoder(nn.Module, ABC):
    """Turns speech tokens (25 a second) into 24 kHz sound, 960 samples a token.

    All that is remembered between two calls lives in the state; one vocoder serves many utterances at once.
    """

    takes_voices: ClassVar[bool] = False
    """Whether `begin` takes a voice to copy."""
    own_voice: Voice | None = None
    """The voice of utterances that are begun without one; none = the vocoder's own, whatever that is."""
    tokenizer: SpeechTokenizer
    """What makes its tokens from sound; vocoders without one of their own raise VocalnetError when asked for it."""

    voices: VoiceTable | None = None
    """Voices it knows by name (see `know`); none = it knows none."""

    def know(self, voices: VoiceTable | None) -> None:
        """Takes the voices it goes by, the first of them as `own_voice`; nothing changes for none."""
        if voices is not None:
            self.voices, self.own_voice = voices, voices[voices.names[0]]

    @abstractmethod
    def begin(self, voice: Voice | None = None) -> Any:
        """A fresh utterance's state. `voice` is for vocoders that take voices, the others raise VocalnetError; none is `own_voice`."""

    @abstractmethod
    def push(self, state: Any, tokens: Tensor, last: bool) -> np.ndarray:
        """Take the next tokens [n] (n may be 0) and return the samples that are final now: float32 [m], m may be 0.

        `last` says that no token follows; then all samples still owed come out. How the tokens are split over calls never
        changes the sound.
        """

    @abstractmethod
    def wanted(self, state: Any) -> int:
        """Tokens, at least one, that `push` still waits for before it can compute more: there is no use in calling it with fewer."""

    def push_many(self, states: Sequence[Any], tokens: Sequence[Tensor], last: Sequence[bool]) -> list[np.ndarray]:
        """`push` for several utterances; vocoders that can share work among them do."""
        return [self.push(state, new, end) for state, new, end in zip(states, tokens, last, strict=True)]

    @abstractmethod
    def chunks(self, count: int) -> list[int]:
        """Tokens of each piece in which an answer of `count` tokens is computed, in order."""
