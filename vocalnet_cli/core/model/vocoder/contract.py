"""What every vocoder owes: speech tokens in, sound out, piece by piece."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vocalnet_cli.core.model.speech_tokenizer import SpeechTokenizer
from vocalnet_cli.core.units import FRAMES_PER_TOKEN, VOCODER_MEL_BINS


@dataclass(frozen=True, eq=False)
class Voice:
    """A recorded sentence whose voice the answer takes: a vocoder continues its tokens, and the mel that belongs to them."""

    tokens: Tensor
    """Speech tokens int64 [P], 25 a second."""
    mel: Tensor
    """Log-mel float32 [2 P, 80], as `vocoder_mel` transposed; two frames a token."""
    speaker: Tensor
    """Speaker vector of CAM++ float32 [192], not normalised."""

    def __post_init__(self) -> None:
        if self.tokens.ndim != 1 or self.speaker.ndim != 1 or self.mel.shape != (FRAMES_PER_TOKEN * len(self.tokens), VOCODER_MEL_BINS):
            raise ValueError(f"{len(self.tokens)} tokens do not go with a mel {list(self.mel.shape)}")

    def to(self, device: torch.device | str) -> Voice:
        """The same voice on `device`."""
        return Voice(self.tokens.to(device), self.mel.to(device), self.speaker.to(device))


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
