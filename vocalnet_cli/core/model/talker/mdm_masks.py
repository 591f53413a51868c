"""Who sees whom in the masked-diffusion talker, which tokens are hidden, and where the text goes: pure functions of lengths and draws.

A block is B speech tokens (arXiv 2602.08607; block diffusion, arXiv 2503.09573). Training sees the sequence twice, [noisy | clean], both
at positions 0 ... L-1, so that a block is learned as it is decoded: itself partly hidden, everything before it clean. B = 2, two blocks:

                 noisy 0 1 | 2 3   clean 0 1 | 2 3
    noisy 0, 1         x x | . .         . . | . .     a noisy block sees itself
    noisy 2, 3         . . | x x         x x | . .     and the clean blocks before it
    clean 0, 1         . . | . .         x x | . .     a clean block sees itself and those before, as the cache keeps them
    clean 2, 3         . . | . .         x x | x x

Layout `single` keeps the noisy half alone, block-causal: block b is learned beside noisy earlier blocks.
Text: block b carries thinker states Q b ... Q b + Q - 1 (its anchors) and none later; with `slot` they stand in columns of their
own before the block's tokens, with `add` they are added to its first Q tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vocalnet_cli.core.config.talker_schema import MdmSettings

SHARES = {"bernoulli": (0.3, 0.8), "block": (0.5, 1.0), "inside": (0.3, 1.0)}
"""Ranges that the masking ratios are drawn from: gamma_g, gamma_c, gamma_t (arXiv 2602.08607, section 3)."""


@dataclass(frozen=True)
class Columns:
    """What stands where in one half of the sequence: `blocks` blocks, each with `slots` anchor columns and then its tokens."""

    blocks: int
    size: int
    slots: int

    @property
    def width(self) -> int:
        """Columns a block."""
        return self.slots + self.size

    def block(self, device: torch.device | str | None = None) -> Tensor:
        """Block of each column, long [N]."""
        return torch.arange(self.blocks * self.width, device=device) // self.width

    def position(self, start: int = 0, device: torch.device | str | None = None) -> Tensor:
        """Rotary position of each column, long [N], the first block being block `start`; anchor slot q stands where token q stands."""
        inside = torch.arange(self.width, device=device)
        inside = torch.where(inside < self.slots, inside, inside - self.slots)
        blocks = torch.arange(start, start + self.blocks, device=device)
        return (blocks[:, None] * self.size + inside).flatten()

    def is_token(self, device: torch.device | str | None = None) -> Tensor:
        """Bool [N]."""
        return torch.arange(self.blocks * self.width, device=device) % self.width >= self.slots


def block_causal(block: Tensor) -> Tensor:
    """Bool [N, N]: a column sees its own block and those before."""
    return block[None] <= block[:, None]


def doubled(block: Tensor) -> Tensor:
    """Bool [2 N, 2 N] over [noisy | clean], `block` long [N] being that of each column of a half."""
    same = block[None] == block[:, None]
    before = block[None] < block[:, None]
    noisy = torch.cat([same, before], dim=1)
    clean = torch.cat([torch.zeros_like(same), same | before], dim=1)
    return torch.cat([noisy, clean])


def doubled_rule(block: Tensor, there: Tensor) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """`doubled`, but over [clean | noisy] columns, as a function of numbers (sample, head, query, key), which flex attention wants.

    `there` bool [B, N]: columns of a half that hold something.
    """
    half = len(block)

    def sees(sample: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        own, other = block[query % half], block[key % half]
        same = ((query < half) == (key < half)) & (own == other)
        return (same | ((key < half) & (other < own))) & there[sample, key % half]

    return sees


def hidden_tokens(length: int, settings: MdmSettings, chance: np.random.Generator) -> np.ndarray:
    """Bool [length]: the tokens one training sample does not show. At least one is hidden.

    `bernoulli`: each token with one ratio a sample. `hierarchical`: a share of the blocks, and inside each its own share of the tokens.
    `block-uniform`: in each block its own share from 0 to 1. Then a share of the blocks is hidden whole: few-step decoding starts there.
    """
    blocks = -(-length // settings.block)
    block = np.arange(length) // settings.block
    if settings.masking == "bernoulli":
        ratio = np.full(blocks, chance.uniform(*SHARES["bernoulli"]))
    elif settings.masking == "hierarchical":
        chosen = chance.permutation(blocks) < np.ceil(blocks * chance.uniform(*SHARES["block"]))
        ratio = np.where(chosen, chance.uniform(*SHARES["inside"], size=blocks), 0.0)
    else:
        ratio = chance.uniform(0, 1, size=blocks)
    ratio = np.where(chance.random(blocks) < settings.whole_blocks, 1.0, ratio)
    found = chance.random(length) < ratio[block]
    if not found.any():
        found[chance.integers(length)] = True
    return found


def anchors(states: Tensor, count: Tensor, columns: Columns, per_block: int, start: int = 0) -> tuple[Tensor, Tensor]:
    """The text states of each block, [B, blocks, Q, H], zero where there is none, and bool [B, blocks, Q] where there is one.

    `states` [B, n, H] are a sample's projected states 0 ... n-1, of which `count` long [B] are real; the first block is `start`.
    """
    places = torch.arange(start * per_block, (start + columns.blocks) * per_block, device=states.device)
    there = places < count[:, None]
    held = torch.nn.functional.pad(states, (0, 0, 0, 1))  # the row of those that are not there
    rows = held[:, places.clamp(max=states.shape[1])] * there[..., None]
    return rows.unflatten(1, (columns.blocks, per_block)), there.unflatten(1, (columns.blocks, per_block))
