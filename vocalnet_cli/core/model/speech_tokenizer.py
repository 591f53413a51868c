"""Nano's own speech tokenizer: 25 tokens a second that together give the mel frames back (VQ-VAE, arXiv 1711.00937)."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vocalnet_cli.core.audio.mel import vocoder_mel
from vocalnet_cli.core.units import FRAMES_PER_TOKEN, SAMPLES_PER_TOKEN, VOCODER_MEL_BINS

PAIR = FRAMES_PER_TOKEN * VOCODER_MEL_BINS
"""Width of what one token stands for: two log-mel frames, one after the other."""

REACH = 3
"""Tokens on either side that a token's frames depend on: one a block of the decoder. The encoder may look further."""

_CHUNK = 8192
"""Points compared with the codebook at once; bounds the distance matrix."""

_COMMITMENT = 0.25
_SQUARES = 0.5
"""Weights of the commitment term (arXiv 1711.00937, equation 3) and of the squared beside the absolute error of the frames."""

_SEEDING_ROUNDS = 8


def mel_pairs(samples_24k: np.ndarray | Tensor) -> Tensor:
    """Sound at 24 kHz [samples] as log-mel pairs [T, 160], T = ceil(samples / 960); the last pair is filled up with silence."""
    x = torch.as_tensor(samples_24k)
    mel_MF = vocoder_mel(F.pad(x, (0, -len(x) % SAMPLES_PER_TOKEN)))
    return mel_MF.T.reshape(-1, PAIR)


class ConvBlock(nn.Module):
    """What the neighbours say (a convolution over three tokens), then a small MLP, added to the input."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(hidden, hidden, 3, padding=1)
        self.norm = nn.LayerNorm(hidden)
        self.up = nn.Linear(hidden, 2 * hidden)
        self.down = nn.Linear(2 * hidden, hidden)

    def forward(self, x_BTH: Tensor) -> Tensor:
        near = self.conv(x_BTH.transpose(1, 2)).transpose(1, 2)
        return x_BTH + self.down(F.gelu(self.up(self.norm(near))))


class SpeechTokenizer(nn.Module):
    """Pairs of log-mel frames to one of `codes` tokens and back. A token sees one pair to either side a block of the encoder.

    A token is the nearest entry of a codebook [codes, latent] in a learned space, so that what one token cannot tell its
    neighbours may. The decoder starts as the inverse of the encoder's linear part and learns the rest. Without a `decoder` there is
    only the way to tokens: a flow then goes the way back.
    """

    mean: Tensor

    def __init__(self, codes: int, latent: int, hidden: int, blocks: int = 3, decoder: bool = True) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(PAIR))
        self.project = nn.Linear(PAIR, latent, bias=False)
        self.encoder_input = nn.Linear(PAIR, hidden)
        self.encoder = nn.ModuleList([ConvBlock(hidden) for _ in range(blocks)])
        self.encoder_output = nn.Linear(hidden, latent)
        self.codebook = nn.Parameter(torch.zeros(codes, latent))
        blank = [self.encoder_output]  # untrained, a token is the nearest of some linear features
        if decoder:
            self.unproject = nn.Linear(latent, PAIR)
            self.decoder_input = nn.Linear(latent, hidden)
            self.embedding = nn.Embedding(codes, hidden)
            self.decoder = nn.ModuleList([ConvBlock(hidden) for _ in range(REACH)])
            self.decoder_output = nn.Linear(hidden, PAIR)
            nn.init.normal_(self.embedding.weight, std=0.02)
            blank.append(self.decoder_output)
        for layer in blank:
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def latents(self, pairs_BTP: Tensor, valid_BT: Tensor) -> Tensor:
        """Points [B, T, latent] of pairs [B, T, 160]; what is not valid counts as nothing for its neighbours."""
        mask = valid_BT[..., None]
        centred = (pairs_BTP - self.mean) * mask
        hidden = self.encoder_input(centred) * mask
        for block in self.encoder:
            hidden = block(hidden) * mask
        return self.project(centred) + self.encoder_output(hidden)

    def frames(self, points_BTL: Tensor, tokens_BT: Tensor, valid_BT: Tensor) -> Tensor:
        """Pairs [B, T, 160] of codebook points [B, T, latent] and their tokens [B, T]."""
        mask = valid_BT[..., None]
        hidden = (self.decoder_input(points_BTL) + self.embedding(tokens_BT)) * mask
        for block in self.decoder:
            hidden = block(hidden) * mask
        return self.decoder_output(hidden) + self.unproject(points_BTL) + self.mean

    def nearest(self, points_NL: Tensor) -> Tensor:
        """Index of the nearest entry (Euclidean) of each point [N, latent]: int64 [N]."""
        with torch.no_grad():
            book = self.codebook.float()
            found = [torch.cdist(part.float(), book).argmin(1) for part in points_NL.split(_CHUNK)]
        return torch.cat(found)

    @torch.no_grad()
    def encode(self, samples_24k: np.ndarray | Tensor) -> Tensor:
        """Sound at 24 kHz [samples] to speech tokens int64 [ceil(samples / 960)], 25 a second."""
        pairs = mel_pairs(samples_24k).to(self.codebook.device)[None]
        if pairs.shape[1] == 0:
            return torch.zeros(0, dtype=torch.long, device=pairs.device)
        return self.nearest(self.latents(pairs, torch.ones_like(pairs[..., 0]))[0])

    def decode(self, tokens_T: Tensor) -> Tensor:
        """Speech tokens [T] to log-mel float32 [80, 2 T]. Frames of a token depend on the REACH tokens before and after it."""
        if len(tokens_T) == 0:
            return self.codebook.new_zeros(VOCODER_MEL_BINS, 0).float()
        tokens = tokens_T[None]
        pairs = self.frames(self.codebook[tokens], tokens, torch.ones_like(tokens, dtype=self.codebook.dtype))[0]
        return pairs.float().reshape(-1, VOCODER_MEL_BINS).T

    def loss(self, pairs_BTP: Tensor, lengths_B: Tensor) -> tuple[Tensor, Tensor]:
        """Loss of utterances [B, T, 160] of `lengths_B` pairs, and what their tokens say [B, T, latent + hidden].

        The loss is the error of the decoded frames, codebook and commitment terms; the second is for a head that reads the tokens.

        The frames' gradient passes the codebook as if it were not there (straight through); the codebook follows the points, a
        mini-batch k-means step, and the points are held near it (arXiv 1711.00937, equation 3).
        """
        valid = torch.arange(pairs_BTP.shape[1], device=pairs_BTP.device) < lengths_B[:, None]
        points = self.latents(pairs_BTP, valid).float()
        tokens = self.nearest(points.flatten(0, 1)).view(valid.shape)
        entries = self.codebook[tokens].float()
        through = points + (entries - points).detach()
        decoded = self.frames(through, tokens, valid).float()
        wrong = (decoded - pairs_BTP)[valid]
        book = F.mse_loss(entries[valid], points.detach()[valid]) + _COMMITMENT * F.mse_loss(points[valid], entries.detach()[valid])
        return wrong.abs().mean() + _SQUARES * wrong.square().mean() + book, torch.cat([through, self.embedding(tokens)], dim=-1)

    @torch.no_grad()
    def seed_from(self, pairs_NP: Tensor, generator: torch.Generator) -> None:
        """Start as k-means over the main directions of pairs [N, 160] (at most 32 an entry, drawn at random).

        `generator` lives on the CPU and alone decides the draw.
        """
        codes, latent = self.codebook.shape
        drawn = torch.randperm(len(pairs_NP), generator=generator)[: 32 * codes].to(pairs_NP.device)
        self.mean.copy_(pairs_NP.float().mean(0))
        points = pairs_NP[drawn].float() - self.mean
        directions = torch.linalg.eigh(points.T @ points).eigenvectors.flip(1)[:, :latent]
        self.project.weight.copy_(directions.T)
        self.unproject.weight.copy_(directions)
        self.unproject.bias.zero_()
        self.codebook.copy_(_k_means(points @ directions, codes, generator))


def _k_means(points_NL: Tensor, codes: int, generator: torch.Generator) -> Tensor:
    """Centres [codes, latent] after a few rounds; a centre that nothing is near moves to a point drawn at random."""
    first = torch.arange(codes) % len(points_NL)  # fewer points than entries: some start alike
    centres = points_NL[first.to(points_NL.device)].clone()
    for _ in range(_SEEDING_ROUNDS):
        owner = torch.cat([torch.cdist(part, centres).argmin(1) for part in points_NL.split(_CHUNK)])
        count = torch.bincount(owner, minlength=codes)
        total = torch.zeros_like(centres).index_add_(0, owner, points_NL)
        spare = points_NL[torch.randint(len(points_NL), (codes,), generator=generator).to(points_NL.device)]
        centres = torch.where(count[:, None] > 0, total / count[:, None].clamp_min(1), spare)
    return centres
