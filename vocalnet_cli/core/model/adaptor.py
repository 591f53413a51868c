"""Downsampling adaptor between encoder and thinker (arXiv 2504.04060, section 3.1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vocalnet_cli.core.config.schema import AdaptorSettings


class Adaptor(nn.Module):
    """Joins `stack` neighbouring encoder frames and maps them to the thinker's width by two linear layers."""

    def __init__(self, settings: AdaptorSettings, encoder_hidden: int, thinker_hidden: int) -> None:
        super().__init__()
        self.stack = settings.stack
        self.linear1 = nn.Linear(settings.stack * encoder_hidden, settings.hidden)
        self.linear2 = nn.Linear(settings.hidden, thinker_hidden)

    def forward(self, frames: Tensor) -> Tensor:
        """Encoder states [B, T, hidden] to audio embeddings [B, T // stack, H]; up to stack - 1 last frames are dropped."""
        batch, length, width = frames.shape
        groups = length // self.stack
        joined = frames[:, : groups * self.stack].reshape(batch, groups, self.stack * width)
        return self.linear2(torch.relu(self.linear1(joined)))
