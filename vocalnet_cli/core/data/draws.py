"""The order of training examples as a pure function of seed and draw number, so that a resumed run needs no state to continue."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset

GROUP = 40
"""Batches sorted by length together: little padding, while the order stays random."""


class Draws(Dataset):
    """Draw i of a run: an example and its number (the seed of everything random about this draw).

    Each pass over the examples is a fresh permutation; inside windows of GROUP batches, examples of similar length share a
    batch, and the batches are shuffled. `start` leaves out the draws that were already trained on.

    With a `budget`, batches hold as many examples as times the longest of them stay within it; `count` and `start` are then batches.
    """

    batches: list[list[int]] | None = None
    """With a budget: the indices of each batch still to come."""

    def __init__(
        self,
        examples: Sequence[Any],
        count: int,
        batch: int,
        seed: int,
        length: Callable[[Any], int],
        kinds: Sequence[str] | None = None,
        start: int = 0,
        budget: int | None = None,
    ) -> None:
        self.examples = examples
        self.start = start
        lengths = np.array([length(example) for example in examples])
        batches: list[np.ndarray] = []
        drawn = number = 0
        while drawn < count:
            chance = np.random.default_rng((seed, number))
            order = chance.permutation(len(examples)) if kinds is None else _balanced(kinds, chance)
            found = _grouped(order, lengths, batch, chance, budget)
            batches += found
            drawn += len(order) if budget is None else len(found)
            number += 1
        if budget is None:
            self.order = np.concatenate(batches)[:count]
            return
        self.order = np.concatenate(batches[:count])
        self.start = sum(len(rows) for rows in batches[:start])
        ends = np.cumsum([0, *(len(rows) for rows in batches[start:count])]).tolist()
        self.batches = [list(range(*span)) for span in zip(ends, ends[1:], strict=False)]

    def __len__(self) -> int:
        return len(self.order) - self.start

    def __getitem__(self, i: int) -> tuple[Any, int]:
        draw = i + self.start
        return self.examples[self.order[draw]], draw


def _balanced(kinds: Sequence[str], chance: np.random.Generator) -> np.ndarray:
    """A pass in which every kind stands equally often; small kinds repeat, large ones are sampled."""
    names = np.array(kinds)
    members = [np.flatnonzero(names == kind) for kind in sorted(set(kinds))]
    share = len(names) // len(members) + 1
    picks = [np.concatenate([chance.permutation(rows) for _ in range(-(-share // len(rows)))])[:share] for rows in members]
    return chance.permutation(np.concatenate(picks))


def _grouped(order: np.ndarray, lengths: np.ndarray, batch: int, chance: np.random.Generator, budget: int | None) -> list[np.ndarray]:
    """`order` as batches of similar lengths, brought together inside windows of GROUP batches."""
    out: list[np.ndarray] = []
    window = GROUP * batch
    for at in range(0, len(order), window):
        rows = order[at : at + window]
        rows = rows[np.argsort(lengths[rows], kind="stable")]
        batches = [rows[i : i + batch] for i in range(0, len(rows), batch)] if budget is None else _cut(rows, lengths, budget)
        out += [batches[i] for i in chance.permutation(len(batches))]
    return out


def _cut(rows: np.ndarray, lengths: np.ndarray, budget: int) -> list[np.ndarray]:
    """Rows, shortest first, in batches of which count times longest is at most `budget` (or which are one row)."""
    batches, begin = [], 0
    for end in range(1, len(rows) + 1):
        if end == len(rows) or (end + 1 - begin) * int(lengths[rows[end]]) > budget:
            batches.append(rows[begin:end])
            begin = end
    return batches
