"""What every talker owes: a training loss, and decoding whose whole state lives outside the weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from vocalnet_cli.core.model.cache import GrowingCache


@dataclass
class Lengths:
    """Valid rows of a right-padded batch."""

    text: Tensor
    """Long [B]: rows of the thinker's states, end vector included."""
    speech: Tensor
    """Long [B]: speech tokens."""
    streaming: Tensor
    """Bool [B]: whether the sample is seen under the streaming mask."""
    draw: Tensor | None = None
    """Long [B]: decides what is random about a sample, for talkers that hide tokens; none draws anew."""
    targets: Tensor | None = None
    """[heads]: the targets of all batches whose gradients are summed (`Talker.counts`), which means are then over; none is this batch's."""


@dataclass
class TalkerLoss:
    """Scalars of one training batch."""

    total: Tensor
    """What is minimised."""
    heads: list[Tensor]
    """Cross-entropy of each head in nats a token, unweighted: main head first, or places of a group in order."""


@dataclass
class SpeechSampling:
    """How speech tokens are drawn, and how many at most."""

    temperature: float = 0.0
    """0 is greedy."""
    top_k: int = 0
    """Keep the k likeliest; 0 keeps all."""
    top_p: float = 1.0
    """Keep the likeliest tokens whose probabilities reach this sum; 1 keeps all."""
    repetition_penalty: float = 1.0
    """Divides the probability of each recent token, once however often it occurred (or by the released rule); 1 is off."""
    repetition_window: int = 0
    """How many recent tokens that covers."""
    max_speech_tokens: int = 2048
    """Longest answer, in speech tokens (25 a second)."""
    steps: int | None = 4
    """Passes over a block of a masked-diffusion talker; none stops as soon as all is certain (`threshold`)."""
    threshold: float = 0.9
    """Probability from which a token counts as certain."""
    confidence: str = "prob"
    """What is revealed first: the likeliest tokens (`prob`), or those whose likelihood rose most over the prior's (`calibrated`)."""
    gumbel: float = 0.0
    """Gumbel noise on the log-probabilities that decide what is revealed first."""
    generator: torch.Generator | None = None
    """Source of randomness, on the CPU; none uses torch's own."""
    watch: Callable[[int, Tensor], None] | None = None
    """Is shown what every token is drawn from: the first head's number and scores [..., m, V] of m heads, before penalty and
    temperature. Of a masked-diffusion talker, the pass as the number and the places it reveals [n, 1, V]."""


@dataclass
class TalkerState:
    """Everything one answer being spoken needs. Rows are numbered as in `masks`; caches keep them in order of arrival."""

    streaming: bool
    tokens_per_step: int
    sampling: SpeechSampling
    projector: GrowingCache
    stacks: list[GrowingCache]
    """Caches of the decoder and of each prediction module that is run."""
    rows: Tensor
    """Long [B, N]: row numbers of what the stacks' caches hold."""
    pending: Tensor
    """Long [B, n]: tokens drawn last, not yet read; at first SOS in every place of a row."""
    recent: Tensor
    """Long [B, n]: the newest tokens drawn, as many as the repetition penalty looks back on."""
    total: Tensor
    """Long [B]: text rows of each answer, BOS included, as far as they are known."""
    waiting: list[Tensor] = field(default_factory=list)
    """Projected text [B, n, H] that the decoder has not read yet (only when not streaming)."""
    text: int = 0
    """Text columns the decoder has read, BOS included."""
    speech: int = 0
    """Speech rows the decoder has read."""
    drawn: int = 0
    """Speech tokens drawn."""
    text_complete: bool = False
    done: bool = False
    """The answer has ended: EOS was drawn, or the limit is reached."""


class Talker(nn.Module, ABC):
    """Turns thinker states into speech tokens. Holds weights only, so one talker serves many answers at once."""

    @abstractmethod
    def loss(self, hidden: Tensor, speech: Tensor, lengths: Lengths) -> TalkerLoss:
        """Training loss of thinker states [B, L, H] against speech tokens long [B, S] (padding may hold anything, usually -100)."""

    @abstractmethod
    def counts(self, speech: Tensor, lengths: Lengths) -> Tensor:
        """How many targets each head has in a batch, long [heads]: what its part of the loss is a mean over."""

    @abstractmethod
    def begin(self, batch: int = 1, streaming: bool = True, tokens_per_step: int = 1, sampling: SpeechSampling | None = None) -> Any:
        """State of a new answer. Raises VocalnetError if the talker cannot draw `tokens_per_step` tokens at once."""

    @abstractmethod
    def step(self, state: Any, hidden: Tensor | None, last: bool, limit: int | None = None) -> Tensor:
        """Reads new thinker states [1, n, H] (or none) and speaks as far as the text allows; `last` says that no text follows.

        Returns the new speech codes, long [n_new]; special ids never leave. With `limit`, stops as soon as that many are out:
        call again without text to go on. An empty result means that the talker waits for text, or that `state.done`.
        """

    @abstractmethod
    def speak(
        self, hidden: Tensor, lengths: Tensor, streaming: bool, tokens_per_step: int, sampling: SpeechSampling | None = None
    ) -> list[list[int]]:
        """The speech codes of several answers whose whole text is there: states [B, L, H], of which `lengths` long [B] are real.

        Each answer is the one that `step` would give it by itself under the same mode.
        """
