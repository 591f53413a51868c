"""Layers that work piece by piece: what they return for the pieces of a signal is what they return for the whole, cut elsewhere.

A `Memory` holds what the layers of one utterance still need; the layers hold weights only. A layer with right context returns
less than it is given and makes up for it later; `last` says that nothing follows, then it returns all it owes. A whole signal is one
call with an empty memory and `last`.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vocalnet_cli.core.model.vocoder.cosyvoice2.products import Convolution, Made, Product, fits, lays_out


class Remembers(Protocol):
    """Where layers keep what their next call needs."""

    def get(self, key: Hashable) -> Any:
        """What was put last, or none."""

    def put(self, key: Hashable, value: Any) -> None:
        """Replace it. Values are never changed in place, so that copies of a memory may share them."""


class Memory:
    """What the layers of one utterance (or one batch that runs in step) keep between two calls."""

    def __init__(self, kept: dict[Hashable, Any] | None = None) -> None:
        self._kept = dict(kept or {})

    def get(self, key: Hashable) -> Any:
        """What the layer put last, or none at the start."""
        return self._kept.get(key)

    def put(self, key: Hashable, value: Any) -> None:
        """Replace what the layer keeps."""
        self._kept[key] = value

    def copy(self) -> Memory:
        """A memory that starts with the same values and goes its own way."""
        return Memory(self._kept)


class Rows:
    """The memories of several utterances as one batch, in this order along dimension 0. Tensors only."""

    def __init__(self, memories: Sequence[Memory]) -> None:
        self._memories = memories

    def get(self, key: Hashable) -> Any:
        """The utterances' values, stacked; zeros for those that have none yet, as is before every start here."""
        parts = [memory.get(key) for memory in self._memories]
        known = next((part for part in parts if part is not None), None)
        return None if known is None else torch.cat([torch.zeros_like(known) if part is None else part for part in parts])

    def put(self, key: Hashable, value: Tensor) -> None:
        """Give each utterance its rows."""
        for memory, part in zip(self._memories, value.chunk(len(self._memories)), strict=True):
            memory.put(key, part)


class StreamConv1d(nn.Module):
    """Conv1d over [B, C, T] in pieces, zeros before the start (`left` of them) and after the end (`right`). Not grouped."""

    def __init__(self, channels: int, out: int, kernel: int, *, left: int = 0, right: int = 0, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out, channels, kernel))
        self.bias = nn.Parameter(torch.empty(out))
        self.left, self.right, self.stride, self.dilation = left, right, stride, dilation
        self._convolution, self._typed = Convolution(), Made()
        _init(self.weight, self.bias, channels * kernel)

    def forward(self, x: Tensor, memory: Remembers, last: bool = True) -> Tensor:
        """The next [B, C, n] to as many outputs [B, out, m] as have all their inputs."""
        held = memory.get(self)
        ready = lays_out(x) and fits(x, self.weight)
        span = (self.weight.shape[-1] - 1) * self.dilation + 1
        if ready and held is None and last and self.left == self.right and x.shape[-1] + 2 * self.left >= span:  # the whole
            return self._convolution(x, self.weight, self.bias, self.stride, self.dilation, self.left)
        parts = [x.new_zeros(*x.shape[:2], self.left) if held is None else held, x]
        if last and self.right:
            parts.append(x.new_zeros(*x.shape[:2], self.right))
        joined = joined_up(parts, by_frames=ready)
        count = max(0, (joined.shape[-1] - span) // self.stride + 1)
        memory.put(self, joined[..., count * self.stride :].clone())
        if not count:
            return x.new_zeros(x.shape[0], self.weight.shape[0], 0)
        if ready:
            return self._convolution(joined, self.weight, self.bias, self.stride, self.dilation)
        weight = self.weight if x.dtype == self.weight.dtype else self._in(x.dtype)
        return F.conv1d(joined, weight, self.bias.to(x.dtype), self.stride, dilation=self.dilation)

    def _in(self, dtype: torch.dtype) -> Tensor:
        """The weight in another type, kept if it does not learn."""
        return self.weight.to(dtype) if self.weight.requires_grad else self._typed.of(dtype, lambda weight: weight.to(dtype), self.weight)


class CausalConv1d(StreamConv1d):
    """`StreamConv1d` over frames in rows, [B, n, C] to [B, n, out], that sees nothing to its right.

    On a CPU it is one matrix product: convolutions there take up to twice as long for as much.
    """

    def __init__(self, channels: int, out: int, kernel: int) -> None:
        super().__init__(channels, out, kernel, left=kernel - 1)
        self._product = Product()

    def forward(self, x: Tensor, memory: Remembers, last: bool = True) -> Tensor:
        """The next rows to as many."""
        count, kernel = x.shape[1], self.weight.shape[-1]
        held = memory.get(self)
        joined = torch.cat([x.new_zeros(len(x), self.left, x.shape[-1]) if held is None else held, x], dim=1)
        memory.put(self, joined[:, count:].clone())
        if lays_out(x) and fits(x, self.weight):
            seen = torch.cat([joined[:, i : i + count] for i in range(kernel)], dim=-1)
            return self._product(seen, _in_rows, self.weight, bias=self.bias)
        return F.conv1d(joined.mT, self.weight.to(x.dtype), self.bias.to(x.dtype)).mT


def _in_rows(weight: Tensor) -> Tensor:
    """[out, C, kernel] to [out, kernel x C]."""
    return weight.transpose(1, 2).flatten(1)


class StreamConvTranspose1d(nn.Module):
    """ConvTranspose1d over [B, C, T] in pieces: [B, out, rate T] in all, (kernel - rate) / 2 cut at both ends."""

    def __init__(self, channels: int, out: int, kernel: int, rate: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, out, kernel))
        self.bias = nn.Parameter(torch.empty(out))
        self.rate, self.cut = rate, (kernel - rate) // 2
        self._convolution = Convolution()
        _init(self.weight, self.bias, channels * kernel)

    def forward(self, x: Tensor, memory: Remembers, last: bool = True) -> Tensor:
        """The next [B, C, n] to the outputs that no later input reaches."""
        batch, out, kernel = x.shape[0], *self.weight.shape[1:]
        tail, drop = memory.get(self) or (x.new_zeros(batch, out, kernel - self.rate), self.cut)
        if x.shape[-1] and lays_out(x) and fits(x, self.weight):
            sound = self._convolution.transposed(x, self.weight, self.rate)
            sound[..., : tail.shape[-1]] += tail
        elif x.shape[-1]:
            spread = F.conv_transpose1d(x, self.weight, stride=self.rate)
            sound = torch.cat([spread[..., : tail.shape[-1]] + tail, spread[..., tail.shape[-1] :]], dim=-1)
        else:
            sound = tail
        end = x.shape[-1] * self.rate
        memory.put(self, (sound[..., end:].clone(), max(0, drop - end)))
        done = sound[..., : sound.shape[-1] - self.cut] if last else sound[..., :end]
        return done[..., drop:] + self.bias[:, None]


def delayed(key: Hashable, x: Tensor, count: int, memory: Remembers) -> Tensor:
    """The next `count` of a signal [..., n] that waits for a slower one; the rest is held."""
    held = memory.get(key)
    joined = x if held is None else joined_up([held, x])
    memory.put(key, joined[..., count:].clone())
    return joined[..., :count]


def together(key: Hashable, signals: Sequence[Tensor], memory: Remembers) -> list[Tensor]:
    """Signals [..., n_i] of different delay, each cut to what all of them have; the rest is held."""
    held = memory.get(key) or [x[..., :0] for x in signals]
    joined = [joined_up(pair) for pair in zip(held, signals, strict=True)]
    count = min(x.shape[-1] for x in joined)
    memory.put(key, [x[..., count:].clone() for x in joined])
    return [x[..., :count] for x in joined]


def joined_up(parts: Sequence[Tensor], by_frames: bool = False) -> Tensor:
    """Parts [B, C, n_i] of a signal as one, in memory frame by frame if the newest is or as asked for."""
    parts = [part for part in parts if part.shape[-1]] or parts[-1:]
    if len(parts) == 1:
        return parts[0]
    if by_frames or (parts[-1].dim() == 3 and parts[-1].stride(1) == 1):
        return torch.cat([part.mT for part in parts], dim=-2).mT
    return torch.cat(list(parts), dim=-1)


def _init(weight: Tensor, bias: Tensor, fan_in: int) -> None:
    bound = 1 / math.sqrt(fan_in)
    nn.init.uniform_(weight, -bound, bound)
    nn.init.uniform_(bias, -bound, bound)
