"""Changes made to a log-mel while an encoder learns: tempo, formants, silence before, masks, noise (SpecAugment, arXiv 1904.08779)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vocalnet_cli.core.config.schema import AugmentSettings


def augment(mel: Tensor, settings: AugmentSettings, chance: np.random.Generator) -> Tensor:
    """A changed copy of a log-mel [bins, F]; `chance` alone decides how."""
    if settings.warp:
        mel = _warp(mel, 1 + settings.warp * chance.uniform(-1, 1), 1 + settings.warp * chance.uniform(-1, 1))
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
