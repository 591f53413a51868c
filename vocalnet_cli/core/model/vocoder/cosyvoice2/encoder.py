"""The flow's encoder: embedded speech tokens at 25 Hz to states at 50 Hz (arXiv 2412.10117, section 2.3 and figure 2).

Relative positions (arXiv 1901.02860) are computed without a table: sin and cos of a difference are products of those of its terms, so
a key needs the features of its own position only, the same for all layers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vocalnet_cli.core.config.vocoder_schema import FlowSettings
from vocalnet_cli.core.model.vocoder.cosyvoice2.attention import Attending
from vocalnet_cli.core.model.vocoder.cosyvoice2.products import Made, Product, fits
from vocalnet_cli.core.model.vocoder.cosyvoice2.stream import Memory, Remembers, StreamConv1d
from vocalnet_cli.core.units import FRAMES_PER_TOKEN

_EPS_LAYER = 1e-12  # of the norms inside the blocks (as released)


def position_features(positions: Tensor, width: int, device: torch.device | None = None) -> Tensor:
    """Sinusoids of positions (or distances; negative ones too) [n]: float32 [n, width], sines at even channels."""
    rates = torch.exp(torch.arange(0, width, 2, dtype=torch.float64) * (-math.log(10000.0) / width))
    angles = positions.double()[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1).float().to(device)


@lru_cache(maxsize=8)
def _table(rows: int, width: int, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # it outlives the call, and others may want gradients
        return position_features(torch.arange(rows), width, device)


def key_features(positions: Tensor, width: int, device: torch.device) -> Tensor:
    """`position_features` of distinct positions as caches hold them, out of a table all utterances share; of 0..n - 1 a view of it."""
    newest = int(positions.max())
    table = _table(1 << max(10, newest.bit_length()), width, device)
    return table[: newest + 1] if newest + 1 == len(positions) else table[positions.to(device)]


@dataclass
class Places:
    """Where the queries of a pass are, and the keys each utterance's queries may see."""

    queries: Tensor
    """Features [utterances, n, D] of the queries' positions."""
    keys: Sequence[Tensor]
    """For each utterance, features [keys, D] of the keys' positions."""


class RelativeAttention(nn.Module):
    """Multi-head attention with content and position scores; `linear_pos` projects the features of distances."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.linear_q, self.linear_k, self.linear_v, self.linear_out = (nn.Linear(hidden, hidden) for _ in range(4))
        self.linear_pos = nn.Linear(hidden, hidden, bias=False)
        self.pos_bias_u, self.pos_bias_v = (nn.Parameter(torch.zeros(heads, hidden // heads)) for _ in range(2))
        self._in, self._in_bias, self._out = Product(), Made(), Product()

    def forward(self, x: Tensor, layer: int, attending: Attending, places: Places) -> Tensor:
        """[B, n, D] to [B, n, D]; `layer` is the number of this layer in its stack."""
        inputs = self.linear_q, self.linear_k, self.linear_v
        ready = fits(x, self.linear_out.weight)
        if ready:
            bias = self._in_bias.of(None, _stacked, *(linear.bias for linear in inputs))
            rows = self._in(x, _stacked, *(linear.weight for linear in inputs), bias=bias).chunk(3, dim=-1)
        else:
            rows = tuple(linear(x) for linear in inputs)
        q, k, v = (self._split(part) for part in rows)
        out = attending(layer, q + self.pos_bias_u[:, None], k, v, self._position_scores(q, places)).transpose(1, 2).flatten(2)
        return self._out.linear(out, self.linear_out) if ready else self.linear_out(out)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _position_scores(self, q: Tensor, places: Places) -> list[Tensor]:
        """For each utterance float32 [B / utterances, heads, n, keys]: (q + v) . linear_pos(features(i - j)), scaled."""
        weight = self.linear_pos.weight.unflatten(0, (self.heads, -1)).float()
        along = (q + self.pos_bias_v[:, None]).float() @ weight * q.shape[-1] ** -0.5
        sine, cosine = along[..., 0::2], along[..., 1::2]
        at = places.queries.repeat_interleave(len(q) // len(places.queries), dim=0)[:, None]
        sin_i, cos_i = at[..., 0::2], at[..., 1::2]
        turned = torch.stack([cosine * sin_i - sine * cos_i, sine * sin_i + cosine * cos_i], dim=-1).flatten(-2)
        return [part @ keys.T for part, keys in zip(turned.chunk(len(places.keys)), places.keys, strict=True)]


class FeedForward(nn.Module):
    """Two linear layers with SiLU between."""

    def __init__(self, hidden: int, inner: int) -> None:
        super().__init__()
        self.w_1, self.w_2 = nn.Linear(hidden, inner), nn.Linear(inner, hidden)
        self._up, self._down = Product(), Product()

    def forward(self, x: Tensor) -> Tensor:
        if fits(x, self.w_1.weight):
            return self._down.linear(F.silu(self._up.linear(x, self.w_1)), self.w_2)
        return self.w_2(F.silu(self.w_1(x)))


def _stacked(*weights: Tensor) -> Tensor:
    return torch.cat(weights)


class ConformerLayer(nn.Module):
    """Attention and feed-forward, both residual and with the norm before. No convolution module."""

    def __init__(self, settings: FlowSettings) -> None:
        super().__init__()
        self.self_attn = RelativeAttention(settings.hidden, settings.heads)
        self.feed_forward = FeedForward(settings.hidden, settings.ffn)
        self.norm_mha, self.norm_ff = (nn.LayerNorm(settings.hidden, eps=_EPS_LAYER) for _ in range(2))

    def forward(self, x: Tensor, layer: int, attending: Attending, places: Places) -> Tensor:
        """[B, n, D] to [B, n, D]."""
        x = x + self.self_attn(self.norm_mha(x), layer, attending, places)
        return x + self.feed_forward(self.norm_ff(x))


class InputLayer(nn.Module):
    """Linear and norm, times sqrt(D)."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.out = nn.Sequential(nn.Linear(hidden, hidden), nn.LayerNorm(hidden))

    def forward(self, x: Tensor) -> Tensor:
        return self.out(x) * math.sqrt(x.shape[-1])


class LookAhead(nn.Module):
    """Lets a token see those after it, then two before: residual convolutions."""

    def __init__(self, hidden: int, tokens: int) -> None:
        super().__init__()
        self.tokens = tokens
        self.conv1 = StreamConv1d(hidden, hidden, tokens + 1)
        self.conv2 = StreamConv1d(hidden, hidden, 3, left=2)

    def forward(self, x: Tensor, following: int, memory: Remembers) -> Tensor:
        """[B, n + following, D] to [B, n, D]: the last `following` are only looked at; those missing are zeros."""
        count = x.shape[1] - following
        padded = F.pad(x.transpose(1, 2), (0, self.tokens - following))
        y = self.conv2(F.leaky_relu(self.conv1(padded, Memory())), memory)
        return y.transpose(1, 2) + x[:, :count]


class Upsample(nn.Module):
    """Doubles the rate: every state twice, then a causal convolution. [B, D, n] to [B, D, 2 n]."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.conv = StreamConv1d(hidden, hidden, 2 * FRAMES_PER_TOKEN + 1, left=2 * FRAMES_PER_TOKEN)

    def forward(self, x: Tensor, memory: Remembers) -> Tensor:
        return self.conv(x.repeat_interleave(FRAMES_PER_TOKEN, dim=-1), memory)


@dataclass
class EncoderPass:
    """What one pass through the encoder needs beside its input."""

    tokens: Attending
    token_places: Places
    frames: Attending
    frame_places: Places
    memory: Remembers
    valid: Tensor | None = None
    """1 for tokens, 0 for padding [B, n, 1]; none = no padding."""


class UpsampleEncoder(nn.Module):
    """Conformer at 25 Hz, doubling, conformer at 50 Hz. Causal but for the look-ahead and the blocks of the mask."""

    def __init__(self, settings: FlowSettings) -> None:
        super().__init__()
        hidden = settings.hidden
        self.embed, self.up_embed = InputLayer(hidden), InputLayer(hidden)
        self.pre_lookahead_layer = LookAhead(hidden, settings.lookahead_tokens)
        self.encoders = nn.ModuleList(ConformerLayer(settings) for _ in range(settings.layers))
        self.up_layer = Upsample(hidden)
        self.up_encoders = nn.ModuleList(ConformerLayer(settings) for _ in range(settings.up_layers))
        self.after_norm = nn.LayerNorm(hidden)

    def forward(self, x: Tensor, following: int, doing: EncoderPass) -> Tensor:
        """Embedded tokens [B, n + following, D], the last `following` only looked at, to states [B, 2 n, D]."""
        x = self.embed(x)
        if doing.valid is not None:  # what is looked ahead at past the end is silence, whatever else shares the batch
            x = x * doing.valid
        x = self.pre_lookahead_layer(x, following, doing.memory)
        for i, layer in enumerate(self.encoders):
            x = layer(x, i, doing.tokens, doing.token_places)
        x = self.up_embed(self.up_layer(x.transpose(1, 2), doing.memory).transpose(1, 2))
        for i, layer in enumerate(self.up_encoders):
            x = layer(x, i, doing.frames, doing.frame_places)
        return self.after_norm(x)
