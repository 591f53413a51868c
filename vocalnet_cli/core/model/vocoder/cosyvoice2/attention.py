"""Attention over keys that are kept: caches that grow in place or run in a ring, a shared voice in front, and the block mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor

from vocalnet_cli.core.model.vocoder.cosyvoice2.products import half_on_cpu


class KeyCache:
    """Keys and values of a stack of attention layers, in pages. Rows are written in place and never copied.

    The first page is as long as the first pass, each further one half of what there is: rows that stay free lie between those of
    the layers, and memory that is touched here and there takes a chunk longer to get than what it computes with it.
    With a `limit` the oldest rows are overwritten once that many are kept, so `positions` tells which row holds what. `shared` is a
    cache (of the voice prompt) that others read too: it stands in front and is never written to.
    """

    def __init__(self, layers: int, limit: int | None = None, shared: KeyCache | None = None) -> None:
        self._layers, self._limit, self.shared = layers, limit, shared
        self._pages: list[Tensor] = []
        self._first = self._next = shared.end if shared is not None else 0
        self._own = torch.zeros(0, dtype=torch.long)
        self._passing: Tensor | None = None
        self._runs: list[tuple[int, int]] = []
        self._places: list[tuple[Tensor, slice]] | None = None
        self._views: list[Tensor] | None = None

    @property
    def end(self) -> int:
        """Position after the newest row."""
        return self._next

    @property
    def positions(self) -> Tensor:
        """Position of each row that a pass sees, shared ones first: long [rows] on the CPU."""
        own = self._own if self._passing is None else torch.cat([self._own, self._passing])
        return own if self.shared is None else torch.cat([self.shared.positions, own])

    @property
    def nbytes(self) -> int:
        """Memory of the own rows, in bytes."""
        return sum(page.numel() * page.element_size() for page in self._pages)

    def open(self, count: int, last: bool = False) -> None:
        """Make room for the next `count` positions; every layer must then `write` them. Of the `last` ones nothing is kept."""
        assert self._passing is None, "nothing may follow the last pass"
        if last:
            self._passing = torch.arange(self._next, self._next + count)
            self._next += count
            return
        assert self._limit is None or count <= self._limit
        before = self._next - self._first
        start = before if self._limit is None else before % self._limit
        whole = count if self._limit is None else min(count, self._limit - start)
        self._runs = [(start, whole), *([(0, count - whole)] if whole < count else [])]  # the ring's end: the rest goes to its start
        fresh = torch.arange(self._next, self._next + count)
        used = min(before + count, self._limit or before + count)
        own = torch.cat([self._own, fresh.new_zeros(used - len(self._own))])
        for (row, rows), part in zip(self._runs, fresh.split([rows for _, rows in self._runs]), strict=True):
            own[row : row + rows] = part
        self._own, self._next = own, self._next + count
        self._places = self._views = None

    def write(self, layer: int, keys: Tensor, values: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Store one layer's rows [R, heads, count, d]; returns views of all (keys, values), shared ones first."""
        fresh = [(keys, values)] if self._passing is not None else []
        for place, part in self._room(keys):
            into = place[layer]
            into[0].copy_(keys[..., part, :])
            into[1].copy_(values[..., part, :])
        return [(both[0], both[1]) for both in self._segments(layer)] + fresh

    def write_both(self, layer: int, both: Tensor) -> list[Tensor]:
        """`write` for keys and values in one tensor [2, R, heads, count, d], which gives such views."""
        fresh = [both] if self._passing is not None else []
        for place, part in self._room(both[0]):
            place[layer].copy_(both if both.shape[-2] == place.shape[-2] else both[..., part, :])
        return self._segments(layer) + fresh

    def _room(self, like: Tensor) -> list[tuple[Tensor, slice]]:
        if self._passing is not None:
            return []
        if self._places is None:
            self._places = self._found(like)
        return self._places

    def _found(self, like: Tensor) -> list[tuple[Tensor, slice]]:
        """Where the rows of this pass go: parts of pages, and the rows that belong there."""
        self._reserve(like)
        found, done = [], 0
        for row, count in self._runs:
            start = 0
            for page in self._pages:
                low, high = max(row, start), min(row + count, start + page.shape[-2])
                if low < high:
                    found.append((page[..., low - start : high - start, :], slice(done + low - row, done + high - row)))
                start += page.shape[-2]
            done += count
        return found

    def pack(self) -> None:
        """One page without a free row: for a cache that others share and that grows no more."""
        if self._pages:
            used = len(self._own)
            self._places = self._views = None
            self._pages = [torch.cat(self._pages, dim=-2)[..., :used, :].contiguous()]

    def _segments(self, layer: int) -> list[Tensor]:
        segments = [] if self.shared is None else self.shared._segments(layer)
        if self._views is None:
            starts = [0, *accumulate(page.shape[-2] for page in self._pages)]
            self._views = [page[..., : len(self._own) - start, :] for page, start in zip(self._pages, starts, strict=False)]
        return segments + [view[layer] for view in self._views]

    def _reserve(self, like: Tensor) -> None:
        """Pages for all rows that are open."""
        used, capacity = len(self._own), sum(page.shape[-2] for page in self._pages)
        if used > capacity:
            size = max(capacity // 2, used - capacity)
            size = size if self._limit is None else min(size, self._limit - capacity)
            rows, heads, _, width = like.shape
            self._pages.append(like.new_empty(self._layers, 2, rows, heads, size, width))


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

    def in_one(self, layer: int, rows: Tensor) -> Tensor:
        """The same for queries (already scaled), keys and values in one tensor [utterances x R, n, 3, heads, d], without biases.

        To [utterances x R, n, heads x d]. A chunk is so small that operations cost as much as what they compute: here they are fewest.
        """
        count = len(rows) // len(self.masks)
        outs = []
        for i, mask in enumerate(self.masks):
            parts = (rows if len(self.masks) == 1 else rows[i * count : (i + 1) * count]).permute(2, 0, 3, 1, 4)
            segments = [parts[1:]] if self.caches is None else self.caches[i].write_both(layer, parts[1:])
            outs.append(_attend_in_one(parts[0], segments, mask))
        return outs[0] if len(outs) == 1 else torch.cat(outs)


def _attend(q: Tensor, segments: list[tuple[Tensor, Tensor]], mask: Tensor | None, bias: Tensor | None) -> Tensor:
    """Softmax attention in float32 over keys that lie in several places, without copying them together."""
    q = q.contiguous() * q.shape[-1] ** -0.5  # each product would make it contiguous for itself
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


def _attend_in_one(q: Tensor, segments: list[Tensor], mask: Tensor | None) -> Tensor:
    """The same for queries [R, heads, n, d] and keys with their values [2, R, heads, rows, d] to [R, n, heads x d].

    They are copied together for torch's fused kernel; in half precision on a CPU two products do the same in half its time.
    """
    rows, heads, count, width = q.shape
    joined = torch.cat(segments, dim=-2)
    if not half_on_cpu(q):
        out = F.scaled_dot_product_attention(q, joined[0], joined[1], attn_mask=mask, scale=1.0)
        return out.transpose(1, 2).reshape(rows, count, heads * width)
    keys, values = joined.view(2, rows * heads, -1, width).unbind(0)
    scores = torch.bmm(q.reshape(rows * heads, count, width), keys.mT)
    if mask is not None:
        scores = scores.view(rows, heads, count, -1).masked_fill(~mask, float("-inf")).view_as(scores)
    out = torch.bmm(scores.softmax(-1, dtype=torch.float32).to(q.dtype), values)
    return out.view(rows, heads, count, width).transpose(1, 2).reshape(rows, count, heads * width)
