"""How far a sound is from another, by their spectra."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vocalnet_cli.core.audio.mel import hann, vocoder_mel
from vocalnet_cli.core.units import ANSWER_HZ

_QUIET = 1e-7


def mel_distance(found: Tensor, wanted: Tensor) -> Tensor:
    """Mean absolute difference of the log-mels over the whole band of sounds [B, samples] (arXiv 2010.05646, equation 3)."""
    return (vocoder_mel(found, ANSWER_HZ / 2) - vocoder_mel(wanted, ANSWER_HZ / 2)).abs().mean()


def spectral_distance(found: Tensor, wanted: Tensor, windows: Sequence[int]) -> Tensor:
    """Spectral convergence and log-magnitude difference of sounds [B, samples], mean over windows (arXiv 1910.11480, equations 4 to 6)."""
    total = found.new_zeros(())
    for window in windows:
        ours, theirs = magnitudes(found, window), magnitudes(wanted, window)
        total = total + (theirs - ours).norm() / theirs.norm().clamp_min(_QUIET) + (theirs.log() - ours.log()).abs().mean()
    return total / len(windows)


def magnitudes(sound: Tensor, window: int) -> Tensor:
    """STFT magnitudes [B, window / 2 + 1, frames] of [B, samples], a quarter of the window apart; never quite 0."""
    spectrum = torch.stft(sound, window, window // 4, window=hann(window, sound.device), return_complex=True)
    return torch.view_as_real(spectrum).square().sum(-1).clamp_min(_QUIET).sqrt()
