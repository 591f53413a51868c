"""Targets and loss of talkers that predict several tokens from each row."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, pad

from vocalnet_cli.core.model.talker.contract import TalkerLoss


def shifted_targets(targets: Tensor, depth: int, padding: int) -> Tensor:
    """Targets [B, S] of head `depth`: row r is scored against the token `depth` steps later, `padding` past the end."""
    return pad(targets[:, depth:], (0, min(depth, targets.shape[1])), value=padding)


def decayed_loss(logits: list[Tensor], targets: Tensor, decay: float, padding: int) -> TalkerLoss:
    """Sum over heads k of decay**k times cross-entropy, arXiv 2504.04060, equation 4.

    `logits` [B, S, V] a head, main head first; `targets` long [B, S] of the main head. Each head's cross-entropy is in single
    precision, a mean over the batch's targets that are not `padding`; a head without any target counts 0.
    """
    heads = []
    for depth, scores in enumerate(logits):
        target = shifted_targets(targets, depth, padding)
        total = cross_entropy(scores.float().flatten(0, 1), target.flatten(), ignore_index=padding, reduction="sum")
        heads.append(total / (target != padding).sum().clamp(min=1))
    weights = [decay**depth for depth in range(len(heads))]
    return TalkerLoss(torch.stack([weight * head for weight, head in zip(weights, heads, strict=True)]).sum(), heads)
