"""Kaldi's filter-bank features: what the speaker encoder hears."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vocalnet_cli.core.audio.mel import as_float
from vocalnet_cli.core.units import QUESTION_HZ

FBANK_BINS = 80

_WINDOW = QUESTION_HZ // 40
_HOP = QUESTION_HZ // 100
_FFT = 512
_LOWEST_HZ = 20.0
_EMPHASIS = 0.97
_FLOOR = torch.finfo(torch.float32).eps


@lru_cache(maxsize=4)
def _filters(device: torch.device) -> Tensor:
    """Triangles [80, 257] between 20 Hz and 8 kHz, straight lines on the HTK mel scale (not in Hz, as Slaney's are)."""

    def mel(hz: np.ndarray | float) -> np.ndarray:
        return 1127.0 * np.log1p(np.asarray(hz) / 700.0)

    edges = np.linspace(mel(_LOWEST_HZ), mel(QUESTION_HZ / 2), FBANK_BINS + 2)[:, None]
    lines = mel(np.arange(_FFT // 2 + 1) * (QUESTION_HZ / _FFT))
    rising = (lines - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - lines) / (edges[2:] - edges[1:-1])
    return torch.from_numpy(np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32)).to(device)


@lru_cache(maxsize=4)
def _povey(device: torch.device) -> Tensor:
    return torch.hann_window(_WINDOW, periodic=False, device=device).pow(0.85)


def kaldi_fbank(samples: np.ndarray | Tensor) -> Tensor:
    """Log filter-bank energies of 16 kHz sound [samples] in [-1, 1]: float32 [frames, 80], 100 frames a second.

    Frames are 25 ms and lie whole inside the sound: 1 + (samples - 400) // 160 of them, none for less than 400 samples. Each has its
    mean taken off, is pre-emphasised (0.97) and Povey-windowed; power spectrum of 512 points, natural log, no dither.
    Source: `compute-fbank-feats` of Kaldi with 80 bins and no dither, as 3D-Speaker calls it; subtract the mean over time for CAM++.
    """
    x = as_float(samples)
    if len(x) < _WINDOW:
        return x.new_zeros(0, FBANK_BINS)
    frames = x.unfold(0, _WINDOW, _HOP)
    frames = frames - frames.mean(dim=1, keepdim=True)
    before = F.pad(frames[:, None], (1, 0), mode="replicate")[:, 0, :-1]
    spectrum = torch.fft.rfft((frames - _EMPHASIS * before) * _povey(x.device), n=_FFT)
    return (spectrum.abs().square() @ _filters(x.device).T).clamp_min(_FLOOR).log()
