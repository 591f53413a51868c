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
    """

    def __init__(
        self,
        examples: Sequence[Any],
        count: int,
        batch: int,
        seed: int,
        length: Callable[[Any], int],
        kinds: Sequence[str] | None = None,
        start: int = 0,
    ) -> None:
        self.examples = examples
        self.start = start
        lengths = np.array([length(example) for example in examples])
        passes: list[np.ndarray] = []
        drawn = 0
        while drawn < count:
            chance = np.random.default_rng((seed, len(passes)))
            order = chance.permutation(len(examples)) if kinds is None else _balanced(kinds, chance)
            passes.append(_grouped(order, lengths, batch, chance))
            drawn += len(order)
        self.order = np.concatenate(passes)[:count]

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


def _grouped(order: np.ndarray, lengths: np.ndarray, batch: int, chance: np.random.Generator) -> np.ndarray:
    """`order` with similar lengths brought together into batches inside windows of GROUP batches."""
    out: list[np.ndarray] = []
    window = GROUP * batch
    for at in range(0, len(order), window):
        rows = order[at : at + window]
        rows = rows[np.argsort(lengths[rows], kind="stable")]
        batches = [rows[i : i + batch] for i in range(0, len(rows), batch)]
        out += [batches[i] for i in chance.permutation(len(batches))]
    return np.concatenate(out) if out else order
