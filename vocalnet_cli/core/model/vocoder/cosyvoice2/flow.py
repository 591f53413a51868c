"""Speech tokens to mel by an ODE, in pieces with caches (conditional flow matching, arXiv 2412.10117, section 2.3)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vocalnet_cli.core.config.vocoder_schema import FlowSettings
from vocalnet_cli.core.model.vocoder.cosyvoice2.attention import Attending, Blocks, KeyCache
from vocalnet_cli.core.model.vocoder.cosyvoice2.encoder import EncoderPass, Places, UpsampleEncoder, key_features
from vocalnet_cli.core.model.vocoder.cosyvoice2.estimator import Estimator, EstimatorPass
from vocalnet_cli.core.model.vocoder.cosyvoice2.stream import Memory, Remembers, Rows
from vocalnet_cli.core.units import FRAMES_PER_TOKEN, VOCODER_MEL_BINS

_NOISE_FRAMES = 15_000
"""Frames drawn from one seed; the first five minutes are upstream's own noise."""


@dataclass(frozen=True)
class OdeStep:
    """One Euler step."""

    length: float
    times: list[Tensor]
    """The time's part of each of the estimator's convolution blocks."""


@dataclass
class FlowState:
    """What one utterance (or one voice prompt, before it is forked) keeps of what was spoken."""

    speaker: Tensor
    """Projected speaker vector [rows, 80]; with guidance a second row of zeros."""
    ode: list[OdeStep]
    guidance: float
    memory: Memory
    """Convolution tails of the encoder."""
    tokens: KeyCache
    """Keys of the encoder's layers at 25 Hz."""
    frames: KeyCache
    """Keys of its layers at 50 Hz."""
    steps: list[tuple[Memory, KeyCache]]
    """Convolution tails and keys of the estimator at every step of the ODE."""
    prompt: int = 0
    """Tokens of the voice prompt."""
    window: int | None = None
    """Tokens before a block that it sees beside the prompt; none = all."""
    last: bool = False
    """Whether nothing follows the next pass, so that none of its keys are kept."""
    layers: tuple[int, int, int] = field(default=(0, 0, 0), repr=False)

    @property
    def position(self) -> int:
        """Tokens so far, those of the prompt included."""
        return self.tokens.end

    @property
    def nbytes(self) -> int:
        """Memory of this utterance's own keys, in bytes; those of the voice are not counted."""
        return self.tokens.nbytes + self.frames.nbytes + sum(keys.nbytes for _, keys in self.steps)

    def pack(self) -> None:
        """Takes no more memory than its keys need: for a prompt that is whole."""
        for keys in (self.tokens, self.frames, *(keys for _, keys in self.steps)):
            keys.pack()

    def fork(self, window: int | None = None, largest: int = 0) -> FlowState:
        """An utterance that continues this prompt, whose activations it shares.

        With a `window` no more than `window + largest` tokens are kept, `largest` being the most one pass may add.
        """
        limit = None if window is None else window + largest
        finer = None if limit is None else FRAMES_PER_TOKEN * limit
        tokens, frames, estimator = self.layers
        return FlowState(
            speaker=self.speaker,
            ode=self.ode,
            guidance=self.guidance,
            memory=self.memory.copy(),
            tokens=KeyCache(tokens, limit, self.tokens),
            frames=KeyCache(frames, finer, self.frames),
            steps=[(memory.copy(), KeyCache(estimator, finer, keys)) for memory, keys in self.steps],
            prompt=self.position,
            window=window,
            layers=self.layers,
        )


class Flow(nn.Module):
    """Encoder, projections and ODE solver. Holds weights only; utterances are `FlowState`s."""

    def __init__(self, settings: FlowSettings, codes: int) -> None:
        super().__init__()
        self.settings = settings
        self.input_embedding = nn.Embedding(codes, settings.hidden)
        self.spk_embed_affine_layer = nn.Linear(settings.speaker, VOCODER_MEL_BINS)
        self.encoder = UpsampleEncoder(settings)
        self.encoder_proj = nn.Linear(settings.hidden, VOCODER_MEL_BINS)
        self.decoder = nn.ModuleDict({"estimator": Estimator(settings)})

    @property
    def estimator(self) -> Estimator:
        """The velocity field."""
        estimator = self.decoder["estimator"]
        assert isinstance(estimator, Estimator)
        return estimator

    def speaker(self, vector: Tensor) -> Tensor:
        """Speaker vectors [B, 192] of any length to [B, 80]."""
        weight = self.spk_embed_affine_layer.weight
        return self.spk_embed_affine_layer(F.normalize(vector.to(weight), dim=-1, eps=1e-12))

    def begin(self, speaker: Tensor, steps: int = 10, guidance: float = 0.7) -> FlowState:
        """An empty utterance in the voice of a speaker vector [192], solved in `steps` Euler steps.

        The times are 1 - cos(pi/2 k / steps), dense at the start. `guidance` (classifier-free) 0 halves the work.
        """
        row = self.speaker(speaker[None])
        rows = torch.cat([row, torch.zeros_like(row)]) if guidance else row
        span = 1 - torch.cos(torch.linspace(0, 1, steps + 1, device=row.device) * (math.pi / 2))
        ode = [OdeStep(float(span[k + 1] - span[k]), self.estimator.times(span[k : k + 1])) for k in range(steps)]
        layers = (self.settings.layers, self.settings.up_layers, self.estimator.attention_layers)
        return FlowState(
            speaker=rows,
            ode=ode,
            guidance=guidance,
            memory=Memory(),
            tokens=KeyCache(layers[0]),
            frames=KeyCache(layers[1]),
            steps=[(Memory(), KeyCache(layers[2])) for _ in ode],
            layers=layers,
        )

    def extend(
        self, states: Sequence[FlowState], tokens: Tensor, blocks: Sequence[int], mel: Tensor | None = None, noise: Tensor | None = None
    ) -> Tensor:
        """Log-mel [S, 80, 2 n] of the next n = sum(blocks) tokens of S utterances that have the same steps and guidance.

        tokens: [S, n + k] with k <= 3 tokens after them to look at; missing ones count as silence, as at the end of a sentence.
        blocks: tokens of each attention block; a block sees itself and what came before (see `Blocks`). One call with several
        blocks gives what a call for each gives. Upstream lifts this mask in the last chunk of a stream, which then differs from
        what the chunks before it were made with; here it always holds.
        mel: known frames [S, 80, 2 n], for prompts. noise: start of the ODE [S, 80, 2 n]; none = the fixed noise, which depends on
        the absolute frame alone.
        """
        mu = self.encode(states, tokens, blocks)
        return self.solve(states, mu, blocks, mel, noise)

    def encode(self, states: Sequence[FlowState], tokens: Tensor, blocks: Sequence[int]) -> Tensor:
        """The first half of `extend`: tokens [S, n + k] to the ODE's condition mu [S, 80, 2 n]."""
        x = self.input_embedding(tokens.clamp_min(0))
        following = tokens.shape[1] - sum(blocks)
        return self.encoder_proj(self.encoder(x, following, self._encoder_pass(states, blocks, x.device))).transpose(1, 2)

    def solve(
        self, states: Sequence[FlowState], mu: Tensor, blocks: Sequence[int], mel: Tensor | None = None, noise: Tensor | None = None
    ) -> Tensor:
        """The second half of `extend`: Euler's method, its state in float32; with guidance two estimator rows an utterance."""
        guidance = states[0].guidance
        rows = 2 if guidance else 1
        cuts = [_cut(state, state.steps[0][1], blocks, FRAMES_PER_TOKEN) for state in states]
        if noise is None:
            noise = torch.stack([fixed_noise(cut.start, sum(cut.sizes), mu.device) for cut in cuts])
        known = torch.zeros_like(mu) if mel is None else mel.to(mu)
        speaker = torch.cat([state.speaker for state in states])
        if guidance:
            mu, known = (torch.stack([part, torch.zeros_like(part)], dim=1).flatten(0, 1) for part in (mu, known))
        x = noise.float()
        for k, step in enumerate(states[0].ode):
            caches = [state.steps[k][1] for state in states]
            attending = Attending(_opened(states, caches, cuts, x.device), caches)
            doing = EstimatorPass(step.times, attending, _memory([state.steps[k][0] for state in states]))
            velocity = self.estimator(x.repeat_interleave(rows, dim=0).to(mu.dtype), mu, speaker, known, doing).float()
            if guidance:
                velocity = (1 + guidance) * velocity[0::2] - guidance * velocity[1::2]
            x = x + step.length * velocity
        return x

    def _encoder_pass(self, states: Sequence[FlowState], blocks: Sequence[int], device: torch.device) -> EncoderPass:
        memory = _memory([state.memory for state in states])
        tokens, token_places = self._half(states, [state.tokens for state in states], blocks, 1, device)
        frames, frame_places = self._half(states, [state.frames for state in states], blocks, FRAMES_PER_TOKEN, device)
        return EncoderPass(tokens, token_places, frames, frame_places, memory)

    def _half(
        self, states: Sequence[FlowState], caches: list[KeyCache], blocks: Sequence[int], rate: int, device: torch.device
    ) -> tuple[Attending, Places]:
        cuts = [_cut(state, cache, blocks, rate) for state, cache in zip(states, caches, strict=True)]
        attending = Attending(_opened(states, caches, cuts, device), caches)
        hidden = self.settings.hidden
        queries = [key_features(torch.arange(cut.start, cut.start + sum(cut.sizes)), hidden, device) for cut in cuts]
        return attending, Places(torch.stack(queries), [key_features(cache.positions, hidden, device) for cache in caches])


def _cut(state: FlowState, cache: KeyCache, blocks: Sequence[int], rate: int) -> Blocks:
    """The blocks of a pass at `rate` positions a token, from where a cache stands."""
    window = None if state.window is None else rate * state.window
    return Blocks(tuple(rate * size for size in blocks), cache.end, rate * state.prompt, window)


def _opened(states: Sequence[FlowState], caches: list[KeyCache], cuts: list[Blocks], device: torch.device) -> list[Tensor | None]:
    """Makes room in the caches for a pass; what its positions see of each."""
    masks = []
    for state, cache, cut in zip(states, caches, cuts, strict=True):
        cache.open(sum(cut.sizes), state.last)
        mask = cut.mask(cache.positions)
        masks.append(None if mask is None else mask.to(device))
    return masks


def _memory(memories: list[Memory]) -> Remembers:
    return memories[0] if len(memories) == 1 else Rows(memories)


@lru_cache(maxsize=4)
def _noise_piece(index: int, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # it outlives the call, and others may want gradients
        generator = torch.Generator().manual_seed(index)
        return torch.randn(VOCODER_MEL_BINS, _NOISE_FRAMES, generator=generator).to(device)


def fixed_noise(start: int, count: int, device: torch.device | str = "cpu") -> Tensor:
    """The ODE's start [80, count] for frames from `start` on (prompt included), the same in every utterance and process."""
    pieces, end = [], start + count
    while start < end:
        index, offset = divmod(start, _NOISE_FRAMES)
        pieces.append(_noise_piece(index, torch.device(device))[:, offset : offset + end - start])
        start += pieces[-1].shape[1]
    return torch.cat(pieces, dim=1)
