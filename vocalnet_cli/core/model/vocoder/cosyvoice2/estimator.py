"""The velocity field of the ODE: causal convolution blocks and transformers at 50 Hz (arXiv 2412.10117, section 2.3).

Called a U-Net upstream; with one resolution it is a stack with one skip connection.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vocalnet_cli.core.config.vocoder_schema import FlowSettings
from vocalnet_cli.core.model.vocoder.cosyvoice2.attention import Attending
from vocalnet_cli.core.model.vocoder.cosyvoice2.products import Product, fits
from vocalnet_cli.core.model.vocoder.cosyvoice2.stream import CausalConv1d, Remembers
from vocalnet_cli.core.units import VOCODER_MEL_BINS

INPUTS = 4 * VOCODER_MEL_BINS
"""Channels of the input: x, mu, speaker, prompt mel. Also the width of the sinusoids of the time."""

_TIME_SCALE = 1000.0


@dataclass
class EstimatorPass:
    """What one call of the estimator needs beside its input."""

    times: Sequence[Tensor]
    """The time's part of each convolution block, as `Estimator.times` made them."""
    attending: Attending
    memory: Remembers
    valid: Tensor | None = None
    """1 for frames, 0 for padding [B, n, 1]; none = no padding."""


def _kept(x: Tensor, valid: Tensor | None) -> Tensor:
    return x if valid is None else x * valid


class ConvBlock(nn.Module):
    """Causal convolution, norm over channels, Mish. Frames are rows throughout, so that nothing is transposed between the parts."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.block = nn.ModuleList([_causal(channels, out), nn.Identity(), nn.LayerNorm(out)])  # keys as released

    def forward(self, x: Tensor, doing: EstimatorPass) -> Tensor:
        """[B, n, C] to [B, n, out]."""
        y = self.block[0](_kept(x, doing.valid), doing.memory)
        return _kept(F.mish(self.block[2](y)), doing.valid)


class ResnetBlock(nn.Module):
    """Two convolution blocks with the time added between, and a linear shortcut."""

    def __init__(self, channels: int, out: int, time: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Mish(), nn.Linear(time, out))
        self.block1, self.block2 = ConvBlock(channels, out), ConvBlock(out, out)
        self.res_conv = nn.Conv1d(channels, out, 1)
        self._across = Product()

    def forward(self, x: Tensor, time: Tensor, doing: EstimatorPass) -> Tensor:
        """[B, n, C] and the time's part [B or 1, out] to [B, n, out]."""
        y = self.block2(self.block1(x, doing) + time[:, None], doing)
        if fits(x, self.res_conv.weight):
            return self._across.each(_kept(x, doing.valid), self.res_conv, onto=y)
        return y + _each(self.res_conv, _kept(x, doing.valid))


class Attention(nn.Module):
    """Multi-head attention without positions; its inner width is heads x head_dim, not C."""

    def __init__(self, channels: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q, self.to_k, self.to_v = (nn.Linear(channels, heads * head_dim, bias=False) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(heads * head_dim, channels)])
        self._in, self._out = Product(), Product()

    def forward(self, x: Tensor, layer: int, attending: Attending, onto: Tensor) -> Tensor:
        """[B, n, C] to [B, n, C], added to `onto`."""
        out = self.to_out[0]
        assert isinstance(out, nn.Linear)
        if fits(x, out.weight):
            rows = self._in(x, self._joined, self.to_q.weight, self.to_k.weight, self.to_v.weight)
            heard = attending.in_one(layer, rows.view(*x.shape[:2], 3, self.heads, -1))
            return self._out.linear(heard, out, onto=onto)
        q, k, v = (linear(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for linear in (self.to_q, self.to_k, self.to_v))
        return onto + out(attending(layer, q, k, v).transpose(1, 2).flatten(2))

    def _joined(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """One matrix that makes queries, scaled, keys and values."""
        return torch.cat([q * (len(q) // self.heads) ** -0.5, k, v])


class Gelu(nn.Module):
    """Linear layer and exact GELU."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(channels, inner)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.proj(x))


class FeedForward(nn.Module):
    """Fourfold inner width."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.net = nn.Sequential(Gelu(channels, 4 * channels), nn.Identity(), nn.Linear(4 * channels, channels))
        self._up, self._down = Product(), Product()

    def forward(self, x: Tensor, onto: Tensor) -> Tensor:
        """[B, n, C] to [B, n, C], added to `onto`."""
        up, _, down = self.net
        assert isinstance(up, Gelu) and isinstance(down, nn.Linear)
        if not fits(x, down.weight):
            return onto + self.net(x)
        return self._down.linear(self._up.linear(x, up.proj, gelu=True), down, onto=onto)


class Transformer(nn.Module):
    """Attention and feed-forward, both residual and with the norm before. Knows nothing of the time."""

    def __init__(self, settings: FlowSettings) -> None:
        super().__init__()
        self.norm1, self.norm3 = nn.LayerNorm(settings.channels), nn.LayerNorm(settings.channels)
        self.attn1 = Attention(settings.channels, settings.estimator_heads, settings.head_dim)
        self.ff = FeedForward(settings.channels)

    def forward(self, x: Tensor, layer: int, attending: Attending) -> Tensor:
        """[B, n, C] to [B, n, C]."""
        x = self.attn1(self.norm1(x), layer, attending, x)
        return self.ff(self.norm3(x), x)


class TimeEmbedding(nn.Module):
    """Time in 0..1 to a vector: sinusoids, two linear layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear_1, self.linear_2 = nn.Linear(INPUTS, width), nn.Linear(width, width)

    @staticmethod
    def sinusoids(t: Tensor) -> Tensor:
        """[B] to float32 [B, 320]: sines, then cosines."""
        half = INPUTS // 2
        rates = torch.exp(torch.arange(half, device=t.device, dtype=torch.float32) * (-math.log(10000.0) / (half - 1)))
        angles = _TIME_SCALE * t.float()[:, None] * rates
        return torch.cat([angles.sin(), angles.cos()], dim=-1)

    def forward(self, t: Tensor) -> Tensor:
        """[B] to [B, 4 C]."""
        return self.linear_2(F.silu(self.linear_1(self.sinusoids(t).to(self.linear_1.weight.dtype))))


class Estimator(nn.Module):
    """Velocity dx/dt of the mel at a time, given mu, speaker and prompt mel."""

    def __init__(self, settings: FlowSettings) -> None:
        super().__init__()
        width = settings.channels
        self._transformers = settings.transformers
        self.time_mlp = TimeEmbedding(4 * width)

        def group(channels: int, conv: bool) -> nn.ModuleList:
            transformers = nn.ModuleList(Transformer(settings) for _ in range(settings.transformers))
            parts: list[nn.Module] = [ResnetBlock(channels, width, 4 * width), transformers]
            return nn.ModuleList([*parts, _causal(width, width)] if conv else parts)

        self.down_blocks = nn.ModuleList([group(INPUTS, conv=True)])
        self.mid_blocks = nn.ModuleList(group(width, conv=False) for _ in range(settings.groups))
        self.up_blocks = nn.ModuleList([group(2 * width, conv=True)])
        self.final_block = ConvBlock(width, width)
        self.final_proj = nn.Conv1d(width, VOCODER_MEL_BINS, 1)
        self._out = Product()

    @property
    def attention_layers(self) -> int:
        """Attention layers of one call."""
        return len(self._groups()) * self._transformers

    def times(self, t: Tensor) -> list[Tensor]:
        """What the times [B] add in each convolution block: [B, C] each. Depends on weights only, so a caller may keep it."""
        embedded = self.time_mlp(t)
        return [_resnet(group).mlp(embedded) for group in self._groups()]

    def forward(self, x: Tensor, mu: Tensor, speaker: Tensor, prompt: Tensor, doing: EstimatorPass) -> Tensor:
        """x, mu and prompt mel [B, 80, n], projected speaker [B, 80]: velocity [B, 80, n]."""
        y = torch.cat([x, mu, speaker[:, :, None].expand(-1, -1, x.shape[-1]), prompt], dim=1).mT
        skip = y
        groups = self._groups()
        for i, group in enumerate(groups):
            if i == len(groups) - 1:
                y = torch.cat([y, skip], dim=-1)
            y = self._group(y, i, group, doing)
            if i == 0:
                skip = y
            if len(group) == 3:
                y = group[2](_kept(y, doing.valid), doing.memory)
        y = self.final_block(y, doing)
        mel = self._out.each(y, self.final_proj) if fits(y, self.final_proj.weight) else _each(self.final_proj, y)
        return _kept(mel, doing.valid).mT

    def _groups(self) -> list[nn.ModuleList]:
        return [*self.down_blocks, *self.mid_blocks, *self.up_blocks]  # type: ignore[list-item]

    def _group(self, x: Tensor, index: int, group: nn.ModuleList, doing: EstimatorPass) -> Tensor:
        y = _resnet(group)(x, doing.times[index], doing)
        for i, transformer in enumerate(group[1].children()):
            y = transformer(y, index * self._transformers + i, doing.attending)
        return y


def _resnet(group: nn.ModuleList) -> ResnetBlock:
    block = group[0]
    assert isinstance(block, ResnetBlock)
    return block


def _causal(channels: int, out: int) -> CausalConv1d:
    return CausalConv1d(channels, out, 3)


def _each(conv: nn.Conv1d, x: Tensor) -> Tensor:
    """A convolution of one frame on rows [B, n, C]."""
    return F.linear(x, conv.weight[..., 0], conv.bias)
