"""Recordings of the same words: which moment of one is which of the other (dynamic time warping, Sakoe and Chiba 1978), and one at
the pace of the other."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_COEFFICIENTS = 13
"""Cepstral coefficients compared; the level, which would be the first, is compared on its own."""
_EASE = 5
"""Frames over which a pace is averaged: the cheapest way stands still and jumps."""
_FLOOR = -7.0
"""Natural-log mel below which all is silence."""
_PENALTY = 0.5
"""Cost of staying in one recording while the other goes on, in mean costs of a pair of frames. Without it one frame is stretched over
a dozen: 3.6 frames off on average on 24 sentences of flite's rms and awb against slt, whose synthesizer tells the truth; 1.2 with it."""


def same_moments(mel: Tensor, other: Tensor) -> Tensor:
    """For each frame of a log-mel [M, F] the frame of `other` [M, G] where the same is said: int64 [F], never going back.

    Compared are cepstra, their change and the level, each by its own mean and spread, so that the speaker matters little. A step goes
    on in both, or stays in one.
    """
    cost = torch.cdist(_features(mel), _features(other)).double().numpy()
    cost /= max(float(cost.mean()), 1e-9)
    frames, others = cost.shape
    best = np.full((frames + 1, others + 1), np.inf)
    best[0, 0] = 0.0
    for diagonal in range(2, frames + others + 1):  # all cells of a diagonal at once: each needs only the two before it
        i = np.arange(max(1, diagonal - others), min(frames, diagonal - 1) + 1)
        both, one = _ways(best, cost, i, diagonal - i)
        best[i, diagonal - i] = np.minimum(both, np.minimum(*one))
    return torch.from_numpy(_way_back(best, cost))


def at_pace_of(other: Tensor, mel: Tensor) -> Tensor:
    """A log-mel [M, F] as if it were said at the pace of `other` [M, G], which says the same words: [M, G]."""
    moments = same_moments(other, mel).float()[None, None]
    moments = torch.nn.functional.pad(moments, (_EASE // 2, _EASE // 2), mode="replicate")
    moments = torch.nn.functional.avg_pool1d(moments, _EASE, stride=1)[0, 0]
    before = moments.floor().long()
    return torch.lerp(mel[:, before], mel[:, (before + 1).clamp(max=mel.shape[1] - 1)], (moments - before).to(mel))


def _ways(best: np.ndarray, cost: np.ndarray, i: np.ndarray, j: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Cost of the cheapest way to cells by a step in both (it covers two frames and costs twice), and by one in either alone."""
    here = cost[i - 1, j - 1]
    return best[i - 1, j - 1] + 2 * here, (best[i - 1, j] + here + _PENALTY, best[i, j - 1] + here + _PENALTY)


def _features(mel: Tensor) -> Tensor:
    """Log-mel [M, F] to features [F, 2 coefficients + 1]."""
    mel = mel.float().clamp_min(_FLOOR)
    bins, frames = mel.shape
    order = torch.arange(1, _COEFFICIENTS + 1)[:, None]
    cepstra = torch.cos(torch.pi / bins * order * (torch.arange(bins) + 0.5)) @ mel
    around = torch.arange(frames)
    change = cepstra[:, (around + 2).clamp(max=frames - 1)] - cepstra[:, (around - 2).clamp(min=0)]
    return torch.cat([_normal(cepstra), _normal(change), _normal(mel.mean(0, keepdim=True))]).T.contiguous()


def _normal(rows: Tensor) -> Tensor:
    return (rows - rows.mean(1, keepdim=True)) / rows.std(1, unbiased=False, keepdim=True).clamp_min(1e-5)


def _way_back(best: np.ndarray, cost: np.ndarray) -> np.ndarray:
    """The middle of the frames that the cheapest way pairs with each frame."""
    i, j = cost.shape
    first, last = np.zeros(i, dtype=np.int64), np.zeros(i, dtype=np.int64)
    last[i - 1] = j - 1
    while True:
        first[i - 1] = j - 1
        if i == 1 and j == 1:
            return (first + last) // 2
        both, one = _ways(best, cost, np.array(i), np.array(j))
        way = int(np.argmin([both, *one]))
        i, j = (i - 1, j - 1) if way == 0 else (i - 1, j) if way == 1 else (i, j - 1)
        if way != 2:
            last[i - 1] = j - 1
