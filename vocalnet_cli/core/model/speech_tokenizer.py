"""Nano's own speech tokenizer: k-means over pairs of vocoder mel frames, 25 tokens a second, and a small decoder back to frames."""

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


REACH = 3
"""Tokens on either side that a token's frames depend on: one a convolution."""


class MelRefiner(nn.Module):
    """What a token's neighbours say about its frames: three residual convolutions over the tokens, REACH tokens each way.

    A code is the middle of everything it stands for; its neighbours tell where in there the sound was.
    """

    def __init__(self, codes: int, hidden: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(codes, hidden)
        self.layers = nn.ModuleList([nn.Conv1d(hidden, hidden, 3, padding=1) for _ in range(REACH)])
        self.output = nn.Linear(hidden, PAIR)
        nn.init.zeros_(self.output.weight)  # untrained, a token is its codebook entry
        nn.init.zeros_(self.output.bias)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Tokens long [B, T] to corrections [B, T, 160] of the codebook's log-mel pairs."""
        x = self.embedding(tokens_BT).transpose(1, 2)
        for layer in self.layers:
            x = x + F.gelu(layer(x))
        return self.output(x.transpose(1, 2))


class SpeechTokenizer(nn.Module):
    """A codebook [codes, 160] of log-mel pairs. A token is the index of the nearest entry."""

    def __init__(self, codes: int, hidden: int) -> None:
        super().__init__()
        self.codebook = nn.Parameter(torch.zeros(codes, PAIR))
        self.refiner = MelRefiner(codes, hidden)

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
        """Speech tokens [T] to log-mel float32 [80, 2 T]. Frames of a token depend on the REACH tokens before and after it."""
        if len(tokens_T) == 0:
            return self.codebook.new_zeros(VOCODER_MEL_BINS, 0)
        pairs = self.codebook[tokens_T].float() + self.refiner(tokens_T[None])[0].float()
        return pairs.reshape(-1, VOCODER_MEL_BINS).T

    def loss(self, pairs_BTP: Tensor, lengths_B: Tensor) -> Tensor:
        """Mean squared error of utterances [B, T, 160] of `lengths_B` pairs: of the nearest entries, and of the decoded frames.

        The gradient of the first is a mini-batch k-means step; the second teaches the refiner and leaves the codebook alone.
        """
        valid = torch.arange(pairs_BTP.shape[1], device=pairs_BTP.device) < lengths_B[:, None]
        tokens = torch.zeros(valid.shape, dtype=torch.long, device=pairs_BTP.device)
        tokens[valid] = self.nearest(pairs_BTP[valid])
        coarse = self.codebook[tokens]
        decoded = coarse.detach() + self.refiner(tokens)
        return F.mse_loss(coarse[valid], pairs_BTP[valid]) + F.mse_loss(decoded[valid], pairs_BTP[valid])

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
