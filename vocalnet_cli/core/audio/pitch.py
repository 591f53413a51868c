"""Pitch of a recording, frame by frame as the vocoder's mel: YIN (de Cheveigne and Kawahara 2002)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vocalnet_cli.core.audio.mel import as_float
from vocalnet_cli.core.units import ANSWER_HZ, VOCODER_HOP

LOWEST_HZ, HIGHEST_HZ = 60.0, 500.0
"""Pitches of voices that are looked for."""

_WINDOW = 1024
"""Samples compared with themselves a period later."""
_DIP = 0.2
"""Difference (0: a perfect period, 1: none) below which a frame has a pitch; the first such dip is it."""
_QUIET = 1e-3
"""Root mean square below which nobody speaks (full scale is 1)."""
_ISOLATED = 3
"""Frames over which the median is taken: a single frame an octave off is a mistake."""


def pitch(samples_24k: np.ndarray | Tensor) -> Tensor:
    """Pitch in Hz of 24 kHz sound [samples]: float32 [samples // 480], 0 where there is none; frame j is centred on sample 480 j + 240."""
    x = as_float(samples_24k).cpu()
    frames = len(x) // VOCODER_HOP
    if frames == 0:
        return torch.zeros(0)
    longest, shortest = int(ANSWER_HZ / LOWEST_HZ), int(ANSWER_HZ / HIGHEST_HZ)
    span = _WINDOW + longest
    lead = (span - VOCODER_HOP) // 2
    x = torch.nn.functional.pad(x, (lead, span))
    pieces = x.unfold(0, span, VOCODER_HOP)[:frames]
    curve = _differences(pieces, longest + 1)
    lag, depth = _first_dip(curve, shortest)
    found = ANSWER_HZ / lag
    loud = pieces.square().mean(1).sqrt() > _QUIET
    hz = torch.where((depth < _DIP) & loud & (found >= LOWEST_HZ) & (found <= HIGHEST_HZ), found, torch.zeros_like(found))
    return _median(hz)


def _differences(pieces: Tensor, lags: int) -> Tensor:
    """YIN's cumulative mean normalised difference [F, lags] of pieces [F, window + longest lag] (its equations 1, 6 and 8)."""
    size = 1 << (pieces.shape[1] + _WINDOW - 1).bit_length()
    head = torch.fft.rfft(pieces[:, :_WINDOW], size)
    product = torch.fft.irfft(head.conj() * torch.fft.rfft(pieces, size), size)[:, :lags]
    energy = torch.nn.functional.pad(pieces.double().square().cumsum(1), (1, 0))
    power = (energy[:, _WINDOW : _WINDOW + lags] - energy[:, :lags]).float()
    difference = (power[:, :1] + power - 2 * product).clamp_min(0)
    mean = difference[:, 1:].cumsum(1) / torch.arange(1, lags)
    return torch.cat([torch.ones(len(pieces), 1), difference[:, 1:] / mean.clamp_min(1e-9)], dim=1)


def _first_dip(curve: Tensor, shortest: int) -> tuple[Tensor, Tensor]:
    """Lag [F] in samples, between them by a parabola, and depth [F] of the first local minimum below _DIP, else of the deepest one."""
    inner = curve[:, shortest:-1]
    bottom = (inner <= curve[:, shortest - 1 : -2]) & (inner < curve[:, shortest + 1 :])
    dips = torch.where(bottom, inner, torch.full_like(inner, 2.0))
    deep = dips < _DIP
    index = torch.where(deep.any(1), deep.float().argmax(1), dips.argmin(1)) + shortest
    before, here, after = (curve.gather(1, (index + step)[:, None])[:, 0] for step in (-1, 0, 1))
    bend = before - 2 * here + after
    shift = torch.where(bend > 1e-9, 0.5 * (before - after) / bend.clamp_min(1e-9), torch.zeros_like(bend)).clamp(-1, 1)
    return index + shift, here


def _median(hz: Tensor) -> Tensor:
    edge = _ISOLATED // 2
    padded = torch.nn.functional.pad(hz[None, None], (edge, edge), mode="replicate")[0, 0]
    return padded.unfold(0, _ISOLATED, 1).median(1).values
