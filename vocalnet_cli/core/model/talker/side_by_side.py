"""The rows of a batch side by side, without padding, and who sees whom among them: what layers that train on a CPU work on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

SCORES_AT_ONCE = 2**21
"""Attention scores computed together: 8 MB in single precision."""
LIKE = 0.75
"""Samples this much shorter than the longest of a group are attended to in another one."""
UNSEEN = -1e30
"""Added to a score that does not count: finite, so that a row of padding, which sees nothing, stays a number."""


@dataclass(frozen=True)
class Group:
    """Samples of like length, padded to the longest: the places of their rows in attention are [start, start + samples * rows)."""

    samples: int
    rows: int
    start: int
    seen: Tensor
    """What is added to their scores: [samples or 1, 1, rows, rows], single precision."""

    @property
    def places(self) -> slice:
        return slice(self.start, self.start + self.samples * self.rows)


@dataclass(frozen=True)
class SideBySide:
    """T rows of a batch, sample after sample."""

    groups: list[Group]
    cos: Tensor
    sin: Tensor
    """Of each row's position: [T, 1, head_dim / 2], single precision."""
    order: Tensor | None = None
    """Which row stands at each place in attention, long [places] (the first one where none does); None: places are rows."""
    back: Tensor | None = None
    """The place of each row, long [T]."""
    empty: Tensor | None = None
    """Places at which no row stands."""

    @classmethod
    def whole(cls, mask: Tensor, rotary: tuple[Tensor, Tensor], batch: int, heads: int) -> SideBySide:
        """All rows of bool `mask` [B or 1, 1, N, N], padding among them."""
        n = mask.shape[-1]
        at_once = max(1, SCORES_AT_ONCE // (heads * n * n))
        seen = _added(mask)
        groups = [
            Group(min(at_once, batch - first), n, first * n, seen if len(seen) == 1 else seen[first : first + at_once])
            for first in range(0, batch, at_once)
        ]
        cos, sin = (_halved(table).expand(batch, -1, -1).reshape(batch * n, 1, -1) for table in rotary)
        return cls(groups, cos, sin)

    @classmethod
    def packed(cls, mask: Tensor, rotary: tuple[Tensor, Tensor], there: Tensor, heads: int) -> SideBySide:
        """The rows of a batch that are true in `there` [B, N]; `mask` bool [B, 1, N, N]."""
        counts = there.sum(1).tolist()
        first = torch.tensor([0, *counts]).cumsum(0)
        columns = there.int().argsort(dim=1, descending=True, stable=True)  # those that are there, in order, then the others
        groups, order, empty = [], [], []
        back = torch.empty(sum(counts), dtype=torch.long)
        start = 0
        for samples in _alike(counts, heads):
            n = counts[samples[0]]
            rows, real = columns[samples, :n], torch.arange(n) < torch.tensor(counts)[samples][:, None]
            seen = mask[samples, 0].gather(1, rows[:, :, None].expand(-1, -1, mask.shape[-1])).gather(2, rows[:, None].expand(-1, n, -1))
            groups.append(Group(len(samples), n, start, _added((seen & real[:, None])[:, None])))
            own = first[samples][:, None] + torch.arange(n)
            order.append(torch.where(real, own, 0).flatten())
            empty.append(start + (~real).flatten().nonzero()[:, 0])
            back[own[real]] = (start + torch.arange(len(samples) * n).view(-1, n))[real]
            start += len(samples) * n
        cos, sin = (_halved(table).expand(len(there), -1, -1)[there][:, None] for table in rotary)
        return cls(groups, cos, sin, torch.cat(order), back, torch.cat(empty))

    def to_places(self, rows: Tensor, blank: bool = False) -> Tensor:
        """`rows` [T, ...] as they stand in attention [places, ...]; where none does, the first one, or with `blank` zeros."""
        if self.order is None:
            return rows
        places = rows.index_select(0, self.order)
        if blank and self.empty is not None:
            places.index_fill_(0, self.empty, 0)
        return places

    def to_rows(self, places: Tensor) -> Tensor:
        """The reverse of `to_places`: [T, ...]."""
        return places if self.back is None else places.index_select(0, self.back)


def _alike(counts: list[int], heads: int) -> Iterator[list[int]]:
    """Numbers of samples, the longest first, in groups of like length whose scores are computed at once."""
    group: list[int] = []
    for sample in sorted(range(len(counts)), key=lambda number: -counts[number]):
        longest = counts[group[0]] if group else 0
        if group and (counts[sample] < LIKE * longest or (len(group) + 1) * heads * longest**2 > SCORES_AT_ONCE):
            yield group
            group = []
        group.append(sample)
    yield group


def _added(mask: Tensor) -> Tensor:
    return torch.zeros(mask.shape).masked_fill(~mask, UNSEEN)


def _halved(table: Tensor) -> Tensor:
    """A rotary table [B or 1, N, head_dim], whose halves are the same, in single precision."""
    return table[..., : table.shape[-1] // 2].float()
