"""What every vocoder owes: speech tokens in, sound out, piece by piece."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from torch import Tensor


class Vocoder(Protocol):
    """Turns speech tokens (25 a second) into 24 kHz sound, 960 samples a token.

    All that is remembered between two calls lives in the state; one vocoder serves many utterances at once.
    """

    def begin(self, voice: Tensor | None = None) -> Any:
        """A fresh utterance's state. `voice` is the speaker vector of vocoders that have several voices."""
        ...

    def push(self, state: Any, tokens: Tensor, last: bool) -> np.ndarray:
        """Take the next tokens [n] (n may be 0) and return the samples that are final now: float32 [m], m may be 0.

        `last` says that no token follows; then all samples still owed come out. How the tokens are split over calls never
        changes the sound.
        """
        ...
