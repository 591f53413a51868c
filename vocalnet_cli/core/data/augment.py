"""Changes made to a log-mel while an encoder learns: tempo, formants, room, spectrum, silence before, noise, masks (SpecAugment,
arXiv 1904.08779)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vocalnet_cli.core.config.schema import AugmentSettings
from vocalnet_cli.core.units import ENCODER_HOP, QUESTION_HZ

_UNITS_A_DB = 0.1 / 4
"""Whisper's log-mel is (log10 of power + 4) / 4."""
_FRAME_S = ENCODER_HOP / QUESTION_HZ
_CURVES = 5
"""Half waves of the finest change of a spectrum: 80 mel bins by five are about two formants wide."""


def augment(mel: Tensor, settings: AugmentSettings, chance: np.random.Generator) -> Tensor:
    """A changed copy of a log-mel [bins, F]; `chance` alone decides how."""
    if settings.warp:
        mel = _warp(mel, 1 + settings.warp * chance.uniform(-1, 1), 1 + settings.warp * chance.uniform(-1, 1))
    if settings.reverb_s:
        mel = _reverberate(mel, settings.reverb_s * float(chance.uniform()), 0.5 * float(chance.uniform()))
    if settings.equalise_db:
        mel = mel + _UNITS_A_DB * _curve(mel.shape[0], settings.equalise_db, chance)[:, None]
    if settings.shift_frames:
        mel = torch.cat([mel.min().expand(mel.shape[0], int(chance.integers(settings.shift_frames + 1))), mel], dim=1)
    mel = mel.clone()
    if settings.noise:
        level = float(chance.uniform(0, settings.noise))
        mel += level * torch.from_numpy(chance.standard_normal(tuple(mel.shape), dtype=np.float32))
    quiet = float(mel.mean())
    for _ in range(settings.frequency_masks):
        _mask(mel, settings.frequency_mask_bins, quiet, chance)
    for _ in range(settings.time_masks):
        _mask(mel.T, settings.time_mask_frames, quiet, chance)
    return mel


def _mask(rows: Tensor, widest: int, value: float, chance: np.random.Generator) -> None:
    width = min(int(chance.integers(widest + 1)), len(rows) // 2)
    start = int(chance.integers(len(rows) - width + 1))
    rows[start : start + width] = value


def _warp(mel: Tensor, tempo: float, formants: float) -> Tensor:
    """Time stretched by `tempo`, frequency axis by `formants` (bins past the edge repeat the last)."""
    bins, frames = mel.shape
    source = (torch.arange(bins) / formants).clamp(max=bins - 1)
    low = source.floor().long()
    part = (source - low)[:, None]
    mel = mel[low] * (1 - part) + mel[(low + 1).clamp(max=bins - 1)] * part
    return torch.nn.functional.interpolate(mel[None], size=max(2, round(frames * tempo)), mode="linear")[0]


def _curve(bins: int, db: float, chance: np.random.Generator) -> Tensor:
    """A smooth curve [bins] in dB: cosines whose weights fall with their number, so that tilts are larger than bumps."""
    number = np.arange(1, _CURVES + 1)
    weights = chance.standard_normal(_CURVES) * db * np.sqrt(2 / number / (1 / number).sum())
    places = (np.arange(bins) + 0.5) / bins
    return torch.from_numpy((weights[:, None] * np.cos(np.pi * number[:, None] * places)).sum(0).astype(np.float32))


def _reverberate(mel: Tensor, seconds: float, level: float) -> Tensor:
    """The echo of a room that takes `seconds` to fall by 60 dB, `level` times as strong as the sound itself, in every bin alike."""
    tail = round(seconds / _FRAME_S)
    if tail < 2 or not level:
        return mel
    power = 10 ** (4 * (mel - mel.max()))
    fall = 10 ** (-6 * torch.arange(1, tail + 1) / tail)
    echo = torch.nn.functional.conv1d(
        torch.nn.functional.pad(power[:, None], (tail, 0))[..., :-1], (fall / fall.sum()).flip(0)[None, None]
    )[:, 0]
    return mel.max() + (power + level * echo).log10() / 4
