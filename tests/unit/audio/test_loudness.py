"""Loudness against the levels the recommendations print for known signals."""

from __future__ import annotations

import numpy as np
import pytest

from vocalnet_cli.core.audio.loudness import loudness


def sine(hz: float, level_dbfs: float, seconds: float, rate: int) -> np.ndarray:
    t = np.arange(round(seconds * rate)) / rate
    return (10 ** (level_dbfs / 20) * np.sin(2 * np.pi * hz * t)).astype(np.float32)


@pytest.mark.parametrize("rate", [24_000, 48_000])
@pytest.mark.parametrize("level", [0.0, -23.0])
def test_a_tone_of_997_hz_reads_3_db_below_its_peak(rate, level):
    """BS.1770-4, annex 1: a 0 dBFS sine of 997 Hz in one channel reads -3.01 LKFS."""
    assert loudness(sine(997, level, 3, rate), rate) == pytest.approx(level - 3.01, abs=0.05)


def test_gates_leave_out_what_is_quiet():
    """EBU Tech 3341, case 3, in one channel: -36, -23, -36 dBFS read as the loud part alone."""
    parts = [sine(1000, level, seconds, 48_000) for level, seconds in ((-36, 10), (-23, 60), (-36, 10))]
    assert loudness(np.concatenate(parts), 48_000) == pytest.approx(-26.0, abs=0.1)
    padded = np.concatenate([sine(1000, -23, 3, 48_000), np.zeros(5 * 48_000, np.float32)])
    assert loudness(padded, 48_000) == pytest.approx(-26.0, abs=0.25)


def test_low_tones_count_less_and_high_ones_more():
    low, middle, high = (loudness(sine(hz, -20, 2, 48_000), 48_000) for hz in (40, 997, 8000))
    assert low < middle - 5 and high == pytest.approx(middle + 3.3, abs=0.4)


def test_silence_has_no_loudness_and_short_sound_has():
    assert loudness(np.zeros(24_000, np.float32), 24_000) is None
    assert loudness(np.zeros(0, np.float32), 24_000) is None
    assert loudness(sine(997, -20, 0.2, 24_000), 24_000) == pytest.approx(-23.01, abs=0.3)
