"""A recording made ready to be the voice of the vocoder: silence cut off, level limited, a pause behind it.

We resample with soxr, the released code with torchaudio's default filter. That one is short: it falls off from 6 kHz on and leaves an
image above 8 kHz when it goes up to 24 kHz. Below, the two agree to 0.5 % (log-mel within 0.03); the mel's ten bins from 5.6 to
8 kHz come out up to 1.5 (natural log) apart, soxr's being the ones that have the recording's full band.
"""

from __future__ import annotations

import numpy as np

from vocalnet_cli.core.units import ANSWER_HZ

PEAK = 0.8
"""Louder recordings are scaled down to this peak."""

PAUSE = ANSWER_HZ // 5
"""Zeros behind the recording. VocalNet counts 0.2 s at 24 kHz but appends them at 16 kHz, where they last 0.3 s: kept."""

_FRAME, _HOP = 440, 220
_SILENT_DB = -60.0
_QUIETEST = 1e-5


def speech_span(samples: np.ndarray) -> tuple[int, int]:
    """First sample and end of what is not silence in [samples]: frames of 440 whose level is within 60 dB of the loudest frame's.

    Frames are centred on multiples of 220 samples with zeros beyond the ends, as librosa's `effects.trim` has them.
    """
    padded = np.pad(samples.astype(np.float32), _FRAME // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, _FRAME)[::_HOP]
    level = np.maximum(np.sqrt(np.mean(np.square(frames), axis=1)), _QUIETEST)
    loud = np.flatnonzero(20 * np.log10(level / level.max()) > _SILENT_DB)
    return int(loud[0]) * _HOP, min(len(samples), (int(loud[-1]) + 1) * _HOP)


def prepare_prompt(samples_16k: np.ndarray) -> np.ndarray:
    """A voice recording [samples] at 16 kHz as the released VocalNet prepares it: float32 [speech + 4800] at 16 kHz.

    Silence at both ends is cut off, a peak above 0.8 is scaled to 0.8, and a pause is appended. Everything a voice is made of (speech
    tokens, mel, speaker embedding) is computed from this one sound.
    """
    start, end = speech_span(samples_16k)
    speech = samples_16k[start:end].astype(np.float32)
    peak = np.abs(speech).max()
    if peak > PEAK:
        speech = speech / peak * np.float32(PEAK)
    return np.concatenate([speech, np.zeros(PAUSE, np.float32)])
