"""Targets and loss of talkers that predict several tokens from each row."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad


def head_targets(tokens: Tensor, head: int, group: int, padding: int) -> Tensor:
    """Targets [B, R] of one head, R = ceil(T / group): row r is scored against token `group` * r + `head` of `tokens` [B, T].

    `padding` past the end. Heads of multi-token prediction look ever further ahead (group 1); those of a group share its tokens.
    """
    rows = -(-tokens.shape[1] // group)
    return pad(tokens, (0, rows * group + head - tokens.shape[1]), value=padding)[:, head::group]


def decayed(counts: Tensor, decay: float) -> Tensor:
    """Weights of the heads' summed cross-entropies, main head first: decay**k of each head's mean, arXiv 2504.04060, equation 4.

    `counts` [heads] are the targets the sums go over; a head without any counts 0.
    """
    depth = torch.arange(len(counts), device=counts.device)
    return decay**depth / counts.clamp(min=1)


def mean(counts: Tensor) -> Tensor:
    """Weights with which every token counts alike, whichever head it fell to; `counts` as for `decayed`."""
    return (1 / counts.sum().clamp(min=1)).expand(len(counts))
