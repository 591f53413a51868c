"""Targets and loss of talkers that predict several tokens from each row."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, pad

from vocalnet_cli.core.model.talker.contract import TalkerLoss


def head_targets(tokens: Tensor, head: int, group: int, padding: int) -> Tensor:
    """Targets [B, R] of one head, R = ceil(T / group): row r is scored against token `group` * r + `head` of `tokens` [B, T].

    `padding` past the end. Heads of multi-token prediction look ever further ahead (group 1); those of a group share its tokens.
    """
    rows = -(-tokens.shape[1] // group)
    return pad(tokens, (0, rows * group + head - tokens.shape[1]), value=padding)[:, head::group]


def decayed_loss(logits: list[Tensor], targets: list[Tensor], decay: float, padding: int) -> TalkerLoss:
    """Sum over heads k of decay**k times cross-entropy, arXiv 2504.04060, equation 4.

    `logits` [B, R, V] and `targets` long [B, R] a head, main head first. Each head's cross-entropy is in single precision, a mean over
    the batch's targets that are not `padding`; a head without any target counts 0.
    """
    sums, counts = _cross_entropy(logits, targets, padding)
    heads = [total / count.clamp(min=1) for total, count in zip(sums, counts, strict=True)]
    weights = [decay**depth for depth in range(len(heads))]
    return TalkerLoss(torch.stack([weight * head for weight, head in zip(weights, heads, strict=True)]).sum(), heads)


def mean_loss(logits: list[Tensor], targets: list[Tensor], padding: int) -> TalkerLoss:
    """Cross-entropy a token, every token alike whichever head it fell to; arguments as for `decayed_loss`."""
    sums, counts = _cross_entropy(logits, targets, padding)
    heads = [total / count.clamp(min=1) for total, count in zip(sums, counts, strict=True)]
    return TalkerLoss(torch.stack(sums).sum() / torch.stack(counts).sum().clamp(min=1), heads)


def _cross_entropy(logits: list[Tensor], targets: list[Tensor], padding: int) -> tuple[list[Tensor], list[Tensor]]:
    """Summed cross-entropy of each head, and the number of its targets."""
    sums, counts = [], []
    for scores, target in zip(logits, targets, strict=True):
        flat = target.flatten()
        sums.append(cross_entropy(scores.float().flatten(0, 1), flat, ignore_index=padding, reduction="sum"))
        counts.append((flat != padding).sum())
    return sums, counts
