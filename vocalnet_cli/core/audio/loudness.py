"""Loudness of speech in LUFS (ITU-R BS.1770-4, annex 1), and its level."""

from __future__ import annotations

import numpy as np

from vocalnet_cli.core.audio.wav import resample

_RATE = 48_000
"""The recommendation gives its filters for this rate."""
_SHELF = (1.53512485958697, -2.69169618940638, 1.19839281085285), (1.0, -1.69065929318241, 0.73248077421585)
_HIGH_PASS = (1.0, -2.0, 1.0), (1.0, -1.99004745483398, 0.99007225036621)
"""Numerator and denominator of the two filters in turn (tables 1 and 2)."""
_OFFSET = -0.691
_BLOCK, _STEP = int(0.4 * _RATE), int(0.1 * _RATE)
_ABSOLUTE, _RELATIVE = -70.0, -10.0
"""Gates: blocks below -70 LUFS, then those 10 LU below the rest's mean, do not count."""


def loudness(samples: np.ndarray, rate: int) -> float | None:
    """Gated loudness in LUFS of mono sound [n] at `rate`; None if none of it passes the gate at -70 LUFS.

    Sound shorter than a block of 0.4 s is one block.
    """
    sound = resample(samples, rate, _RATE).astype(np.float64)
    if len(sound) == 0:
        return None
    power = _weighted(sound) ** 2
    sums = np.concatenate([[0.0], np.cumsum(power)])
    block = min(_BLOCK, len(power))
    starts = np.arange(0, len(power) - block + 1, _STEP)
    means = np.maximum((sums[starts + block] - sums[starts]) / block, 1e-20)
    loud = means[_lufs(means) > _ABSOLUTE]
    if len(loud) == 0:
        return None
    loud = loud[_lufs(loud) > _lufs(loud.mean()) + _RELATIVE]
    return float(_lufs(loud.mean()))


def _lufs(power: np.ndarray | float) -> np.ndarray:
    return _OFFSET + 10 * np.log10(power)


def _weighted(sound: np.ndarray) -> np.ndarray:
    """K-weighted sound. In the frequency domain, with a second of silence behind: the filters have died away by then."""
    size = len(sound) + _RATE
    z = np.exp(-2j * np.pi * np.fft.rfftfreq(size))
    spectrum = np.fft.rfft(sound, size)
    for above, below in (_SHELF, _HIGH_PASS):
        spectrum *= np.polyval(above[::-1], z) / np.polyval(below[::-1], z)
    return np.fft.irfft(spectrum, size)[: len(sound)]
