"""What every vocoder owes: speech tokens in, sound out, piece by piece."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from vocalnet_cli.core.model.speech_tokenizer import SpeechTokenizer


@dataclass(frozen=True, eq=False)
class Voice:
    """A recorded sentence whose voice the answer takes, as the vocoders that copy voices need it."""

    tokens: Tensor
    """Its speech tokens, long [P]."""
    mel: Tensor
    """Its log-mel [80, F] as `vocoder_mel` makes it, two frames a token."""
    speaker: Tensor
    """Its speaker vector [192]; the length does not matter."""


class Vocoder(nn.Module, ABC):
    """Turns speech tokens (25 a second) into 24 kHz sound, 960 samples a token.

    All that is remembered between two calls lives in the state; one vocoder serves many utterances at once.
    """

    tokenizer: SpeechTokenizer
    """What makes its tokens from sound; vocoders without one of their own raise VocalnetError when asked for it."""

    @abstractmethod
    def begin(self, voice: Voice | None = None) -> Any:
        """A fresh utterance's state. `voice` is for vocoders that copy voices; none is the vocoder's own."""

    @abstractmethod
    def push(self, state: Any, tokens: Tensor, last: bool) -> np.ndarray:
        """Take the next tokens [n] (n may be 0) and return the samples that are final now: float32 [m], m may be 0.

        `last` says that no token follows; then all samples still owed come out. How the tokens are split over calls never
        changes the sound.
        """
