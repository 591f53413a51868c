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
_SOUND_S = 0.15
"""Length of the shortest part of speech whose own tempo is bent, a syllable's or so."""


def augment(mel: Tensor, settings: AugmentSettings, chance: np.random.Generator) -> Tensor:
    """A changed copy of a log-mel [bins, F]; `chance` alone decides how."""
    if settings.warp or settings.bend:
        mel = _warp(mel, settings.warp, settings.bend, chance)
    if settings.reverb_s:
        mel = _reverberate(mel, settings.reverb_s * float(chance.uniform()), 0.5 * float(chance.uniform()))
    if settings.equalise_db:
        mel = mel + _UNITS_A_DB * torch.from_numpy(_curve(mel.shape[0], settings.equalise_db, _CURVES, chance))[:, None]
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


def _warp(mel: Tensor, warp: float, bend: float, chance: np.random.Generator) -> Tensor:
    """Time and frequency axis stretched: as a whole by up to `warp`, and `bend` unevenly (what is past the edge repeats it)."""
    bins, frames = mel.shape
    tempo, formants = 1 + warp * chance.uniform(-1, 1), 1 + warp * chance.uniform(-1, 1)
    across, along = np.full(bins, 1 / formants), np.full(max(2, round(frames * tempo)), 1 / tempo)
    if bend:
        across *= np.exp(_curve(bins, bend, _CURVES, chance))
        along *= np.exp(_curve(len(along), bend, max(1, round(frames * _FRAME_S / _SOUND_S)), chance))
    return _read_off(_read_off(mel, across).T, along).T


def _read_off(rows: Tensor, steps: np.ndarray) -> Tensor:
    """Rows between those of `rows` [N, M], each `steps` [K] further than the one before: [K, M]."""
    places = torch.from_numpy(steps.cumsum() - steps / 2 - 0.5).clamp(0, len(rows) - 1).to(rows.dtype)
    low = places.floor().long()
    return torch.lerp(rows[low], rows[(low + 1).clamp(max=len(rows) - 1)], (places - low)[:, None])


def _curve(rows: int, size: float, waves: int, chance: np.random.Generator) -> np.ndarray:
    """A smooth curve [rows] of root mean square `size`: `waves` cosines whose weights fall with their number, more tilt than bumps."""
    number = np.arange(1, waves + 1)
    weights = chance.standard_normal(waves) * size * np.sqrt(2 / number / (1 / number).sum())
    places = (np.arange(rows) + 0.5) / rows
    return (weights[:, None] * np.cos(np.pi * number[:, None] * places)).sum(0).astype(np.float32)


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
