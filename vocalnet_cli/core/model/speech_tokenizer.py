"""Nano's own speech tokenizer: k-means over pairs of vocoder mel frames, 25 tokens a second, decoded by looking the pair up."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vocalnet_cli.core.audio.mel import vocoder_mel
from vocalnet_cli.core.units import FRAMES_PER_TOKEN, SAMPLES_PER_TOKEN, VOCODER_MEL_BINS

PAIR = FRAMES_PER_TOKEN * VOCODER_MEL_BINS
"""Width of one codebook entry: two log-mel frames, one after the other."""

_CHUNK = 8192
"""Pairs compared with the codebook at once; bounds the distance matrix."""


def mel_pairs(samples_24k: np.ndarray | Tensor) -> Tensor:
    """Sound at 24 kHz [samples] as log-mel pairs [T, 160], T = ceil(samples / 960); the last pair is filled up with silence."""
    x = torch.as_tensor(samples_24k)
    mel_MF = vocoder_mel(F.pad(x, (0, -len(x) % SAMPLES_PER_TOKEN)))
    return mel_MF.T.reshape(-1, PAIR)


class SpeechTokenizer(nn.Module):
    """A codebook [codes, 160] of log-mel pairs. A token is the index of the nearest entry."""

    def __init__(self, codes: int) -> None:
        super().__init__()
        self.codebook = nn.Parameter(torch.zeros(codes, PAIR))

    def nearest(self, pairs_NP: Tensor) -> Tensor:
        """Index of the nearest entry (Euclidean, in log-mel) of each pair [N, 160]: int64 [N]."""
        with torch.no_grad():
            book = self.codebook.float()
            found = [torch.cdist(part.float(), book).argmin(1) for part in pairs_NP.split(_CHUNK)]
        return torch.cat(found) if found else torch.zeros(0, dtype=torch.long, device=pairs_NP.device)

    def encode(self, samples_24k: np.ndarray | Tensor) -> Tensor:
        """Sound at 24 kHz [samples] to speech tokens int64 [ceil(samples / 960)], 25 a second."""
        return self.nearest(mel_pairs(samples_24k).to(self.codebook.device))

    def decode(self, tokens_T: Tensor) -> Tensor:
        """Speech tokens [T] to log-mel float32 [80, 2 T]."""
        return self.codebook[tokens_T].float().reshape(-1, VOCODER_MEL_BINS).T

    def loss(self, pairs_NP: Tensor) -> Tensor:
        """Mean squared difference between each pair [N, 160] and its nearest entry; its gradient is a mini-batch k-means step."""
        return F.mse_loss(self.codebook[self.nearest(pairs_NP)], pairs_NP)

    @torch.no_grad()
    def seed_from(self, pairs_NP: Tensor, generator: torch.Generator) -> None:
        """Put the entries on data points [N, 160] that lie far apart (k-means++; Arthur and Vassilvitskii 2007).

        `generator` lives on the CPU and alone decides the choice. Works on at most 32 points an entry, drawn at random.
        """
        codes = len(self.codebook)
        drawn = torch.randperm(len(pairs_NP), generator=generator)[: 32 * codes].to(pairs_NP.device)
        points = pairs_NP[drawn].float()
        squares = points.square().sum(1)
        gap = torch.full_like(squares, torch.inf)
        chosen = torch.zeros(codes, dtype=torch.long)
        for k in range(codes):
            # A floor keeps the draw possible when there are fewer different points than entries.
            weight = torch.ones_like(gap) if k == 0 else gap.clamp_min(1e-6)
            chosen[k] = torch.multinomial(weight.cpu(), 1, generator=generator)
            point = points[chosen[k]]
            gap = torch.minimum(gap, squares - 2 * (points @ point) + point.square().sum())
        self.codebook.copy_(points[chosen.to(points.device)])
