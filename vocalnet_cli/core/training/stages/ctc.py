"""Connectionist temporal classification (Graves et al. 2006): the loss of stages that are taught what was said, and its letters."""

from __future__ import annotations

import torch
from torch import Tensor, nn

LETTERS = " 'abcdefghijklmnopqrstuvwxyz"
BLANK = 0


def letter_targets(text: str) -> Tensor:
    """The letters of a text as targets int64 [n], 1 to len(LETTERS); other characters are left out."""
    return torch.tensor([LETTERS.index(c) + 1 for c in text.lower() if c in LETTERS], dtype=torch.long)


def ctc(logits: Tensor, frames: Tensor, targets: Tensor, lengths: Tensor) -> Tensor:
    """Mean over the batch of the loss a target of logits [B, T, 1 + classes], of which `frames` [B] are real.

    `targets` holds those of all rows one after the other, `lengths` [B] of each. A row too short for its targets counts as zero.
    """
    scores = logits.float().log_softmax(-1).transpose(0, 1)
    return nn.functional.ctc_loss(scores, targets, frames, lengths, blank=BLANK, zero_infinity=True)
