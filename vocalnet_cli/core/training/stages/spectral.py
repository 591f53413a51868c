"""How far a sound is from another, by their spectra."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vocalnet_cli.core.audio.mel import filter_bank, hann, vocoder_mel
from vocalnet_cli.core.units import ANSWER_HZ, VOCODER_MEL_BINS

_QUIET = 1e-7
_FLOOR = 1e-5
"""Smallest mel value whose logarithm is taken, as the vocoder's."""
_FEWEST, _LINES = 16, 16
"""A log-mel of a window has at least so many bins, and one for so many samples, but no more than the vocoder's."""


def mel_distance(found: Tensor, wanted: Tensor, windows: Sequence[int] = ()) -> Tensor:
    """Mean absolute difference of the log-mels over the whole band of sounds [B, samples] (arXiv 2010.05646, equation 3).

    The vocoder's own mel has windows of 80 ms; with `windows` the mean is taken over it and over log-mels of those too, since what is
    said within 80 ms decides whether a consonant is understood (arXiv 2306.06546, section 3.4).
    """
    total = (vocoder_mel(found, ANSWER_HZ / 2) - vocoder_mel(wanted, ANSWER_HZ / 2)).abs().mean()
    for window in windows:
        bank = filter_bank(found.device, ANSWER_HZ, window, max(_FEWEST, min(VOCODER_MEL_BINS, window // _LINES)), ANSWER_HZ / 2)
        ours, theirs = (bank @ magnitudes(sound, window) for sound in (found, wanted))
        total = total + (theirs.clamp_min(_FLOOR).log() - ours.clamp_min(_FLOOR).log()).abs().mean()
    return total / (1 + len(windows))


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
