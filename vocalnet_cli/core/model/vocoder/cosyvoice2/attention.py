"""Attention over keys that are kept: caches that grow in place or run in a ring, a shared voice in front, and the block mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

FIRST_ROWS = 64
"""Rows allocated at first."""


class KeyCache:
    """Keys and values of a stack of attention layers. Rows are written in place; the buffer doubles when it is full.

    With a `limit` the oldest rows are overwritten once that many are kept, so `positions` tells which row holds what. `shared` is a
    cache (of the voice prompt) that others read too: it stands in front and is never written to.
    """

    def __init__(self, layers: int, limit: int | None = None, shared: KeyCache | None = None) -> None:
        self._layers, self._limit, self.shared = layers, limit, shared
        self._buffer: Tensor | None = None
        self._first = self._next = shared.end if shared is not None else 0
        self._own = torch.zeros(0, dtype=torch.long)
        self._slots = torch.zeros(0, dtype=torch.long)

    @property
    def end(self) -> int:
        """Position after the newest row."""
        return self._next

    @property
    def positions(self) -> Tensor:
        """Position of each kept row, shared ones first: long [rows] on the CPU."""
        return self._own if self.shared is None else torch.cat([self.shared.positions, self._own])

    @property
    def nbytes(self) -> int:
        """Memory of the own rows, in bytes."""
        return 0 if self._buffer is None else self._buffer.numel() * self._buffer.element_size()

    def open(self, count: int) -> None:
        """Make room for the next `count` positions; every layer must then `write` them."""
        assert self._limit is None or count <= self._limit
        fresh = torch.arange(self._next, self._next + count)
        self._slots = fresh - self._first if self._limit is None else (fresh - self._first) % self._limit
        used = min(self._next - self._first + count, self._limit or self._next + count)
        own = torch.cat([self._own, fresh.new_zeros(used - len(self._own))])
        own[self._slots] = fresh
        self._own, self._next = own, self._next + count

    def write(self, layer: int, keys: Tensor, values: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Store one layer's rows [R, heads, count, d]; returns views of all kept (keys, values), shared ones first."""
        buffer, used = self._room(keys), len(self._own)
        first, count = int(self._slots[0]), len(self._slots)
        for part, rows in enumerate((keys, values)):
            whole = min(count, buffer.shape[-2] - first) if self._limit is not None else count
            buffer[layer, part, :, :, first : first + whole] = rows[..., :whole, :]
            if whole < count:  # the ring's end: the rest goes to its start
                buffer[layer, part, :, :, : count - whole] = rows[..., whole:, :]
        return [*self._shared(layer), (buffer[layer, 0, :, :, :used], buffer[layer, 1, :, :, :used])]

    def _shared(self, layer: int) -> list[tuple[Tensor, Tensor]]:
        if self.shared is None or self.shared._buffer is None:
            return []
        buffer, used = self.shared._buffer, len(self.shared._own)
        return [*self.shared._shared(layer), (buffer[layer, 0, :, :, :used], buffer[layer, 1, :, :, :used])]

    def _room(self, like: Tensor) -> Tensor:
        used = len(self._own)
        capacity = 0 if self._buffer is None else self._buffer.shape[-2]
        if self._buffer is not None and used <= capacity:
            return self._buffer
        capacity = max(FIRST_ROWS, 2 * capacity, used)
        if self._limit is not None:
            capacity = min(capacity, self._limit)
        rows, heads, _, width = like.shape
        grown = like.new_empty(self._layers, 2, rows, heads, capacity, width)
        if self._buffer is not None:
            grown[..., : self._buffer.shape[-2], :] = self._buffer
        self._buffer = grown
        return grown


@dataclass(frozen=True)
class Blocks:
    """The mask of a pass as a function of the schedule: the attention blocks its positions fall into."""

    sizes: tuple[int, ...]
    """Positions of each block; a position sees its own block and all before it."""
    start: int = 0
    """Position of the first."""
    prompt: int = 0
    """Positions before this one are the voice prompt, seen by all."""
    window: int | None = None
    """Positions before its block that a position sees beside the prompt; none = all."""

    def finer(self, rate: int) -> Blocks:
        """The same where each position is `rate` positions."""
        window = None if self.window is None else rate * self.window
        return Blocks(tuple(rate * size for size in self.sizes), rate * self.start, rate * self.prompt, window)

    def mask(self, keys: Tensor) -> Tensor | None:
        """True where a position (row) sees the key at a position (column): bool [n, len(keys)]; none if all see all."""
        if len(self.sizes) == 1 and self.window is None:
            return None  # keys never lie after the pass
        sizes = torch.tensor(self.sizes)
        ends = self.start + sizes.cumsum(0)
        seen = keys < ends.repeat_interleave(sizes)[:, None]
        if self.window is not None:
            oldest = (ends - sizes - self.window).repeat_interleave(sizes)[:, None]
            seen &= (keys >= oldest) | (keys < self.prompt)
        return None if bool(seen.all()) else seen


@dataclass
class Attending:
    """What the layers of a stack share in one pass over a batch: caches and masks of its utterances."""

    masks: Sequence[Tensor | None]
    """For each utterance, what its queries see: bool, broadcastable to [R, heads, n, keys]; none = everything."""
    caches: Sequence[KeyCache] | None = None
    """Caches of the utterances, opened for this pass; none: a whole pass that nothing is kept of (R is then the batch)."""

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor, biases: Sequence[Tensor] | None = None) -> Tensor:
        """Queries, keys and values [utterances x R, heads, n, d] of a layer to [utterances x R, heads, n, d].

        `biases`, float32 and one an utterance, are added to the scaled scores.
        """
        rows = len(q) // len(self.masks)
        outs = []
        for i, mask in enumerate(self.masks):
            part = slice(i * rows, (i + 1) * rows)
            segments = [(k[part], v[part])] if self.caches is None else self.caches[i].write(layer, k[part], v[part])
            outs.append(_attend(q[part], segments, mask, None if biases is None else biases[i]))
        return outs[0] if len(outs) == 1 else torch.cat(outs)


def _attend(q: Tensor, segments: list[tuple[Tensor, Tensor]], mask: Tensor | None, bias: Tensor | None) -> Tensor:
    """Softmax attention in float32 over keys that lie in several places, without copying them together."""
    q = q * q.shape[-1] ** -0.5
    scores = torch.cat([(q @ keys.mT).float() for keys, _ in segments], dim=-1)
    if bias is not None:
        scores = scores + bias
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    weights = scores.softmax(-1).to(q.dtype).split([keys.shape[-2] for keys, _ in segments], dim=-1)
    out = weights[0] @ segments[0][1]
    for weight, (_, values) in zip(weights[1:], segments[1:], strict=True):
        out = out + weight @ values
    return out
