"""Log-mel spectrograms: what the encoder hears (16 kHz) and what the vocoder speaks from (24 kHz)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vocalnet_cli.core.units import ANSWER_HZ, ENCODER_FFT, ENCODER_HOP, QUESTION_HZ, VOCODER_FFT, VOCODER_HOP, VOCODER_MEL_BINS

VOCODER_MEL_FMAX = 8000.0
"""Upper edge of the vocoder's filters, in Hz (CosyVoice 2)."""

_HZ_PER_MEL = 200.0 / 3
_LOG_FROM_HZ = 1000.0
_LOG_FROM_MEL = _LOG_FROM_HZ / _HZ_PER_MEL
_LOG_STEP = np.log(6.4) / 27


def _mel_from_hz(hz: float) -> float:
    return hz / _HZ_PER_MEL if hz < _LOG_FROM_HZ else float(_LOG_FROM_MEL + np.log(hz / _LOG_FROM_HZ) / _LOG_STEP)


def _hz_from_mel(mel: np.ndarray) -> np.ndarray:
    above = _LOG_FROM_HZ * np.exp(_LOG_STEP * np.maximum(mel - _LOG_FROM_MEL, 0.0))
    return np.where(mel < _LOG_FROM_MEL, mel * _HZ_PER_MEL, above)


def mel_filters(rate: int, n_fft: int, bins: int, fmin: float, fmax: float) -> Tensor:
    """Triangular filters [bins, n_fft // 2 + 1] on the Slaney mel scale, each of unit area (librosa's default)."""
    line_hz = np.arange(n_fft // 2 + 1) * (rate / n_fft)
    edge_hz = _hz_from_mel(np.linspace(_mel_from_hz(fmin), _mel_from_hz(fmax), bins + 2))
    width = np.diff(edge_hz)
    rising = (line_hz - edge_hz[:-2, None]) / width[:-1, None]
    falling = (edge_hz[2:, None] - line_hz) / width[1:, None]
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    return torch.from_numpy((triangles * (2.0 / (edge_hz[2:] - edge_hz[:-2]))[:, None]).astype(np.float32))


@lru_cache(maxsize=16)
def filter_bank(device: torch.device, rate: int, n_fft: int, bins: int, fmax: float) -> Tensor:
    """`mel_filters` from 0 to `fmax` Hz on `device`; shared, do not write into it."""
    with torch.inference_mode(False):  # it outlives the call, and training may want gradients through it
        return mel_filters(rate, n_fft, bins, 0.0, fmax).to(device)


def vocoder_filters(device: torch.device, fmax: float = VOCODER_MEL_FMAX) -> Tensor:
    """The vocoder's filter bank [80, 961] up to `fmax` Hz on `device`; shared, do not write into it."""
    return filter_bank(device, ANSWER_HZ, VOCODER_FFT, VOCODER_MEL_BINS, fmax)


@lru_cache(maxsize=16)
def hann(length: int, device: torch.device) -> Tensor:
    """Periodic Hann window [length] on `device`; shared, do not write into it."""
    with torch.inference_mode(False):  # it outlives the call, and training may want gradients through it
        return torch.hann_window(length, device=device)


def as_float(samples: np.ndarray | Tensor) -> Tensor:
    """Samples of either kind as a float32 tensor."""
    x = torch.from_numpy(np.ascontiguousarray(samples)) if isinstance(samples, np.ndarray) else samples
    return x.float()


def encoder_mel(samples: np.ndarray | Tensor, bins: int, pad_to: int | None = None) -> Tensor:
    """Whisper's log-mel of one 16 kHz utterance [samples]: float32 [bins, samples // 160].

    `pad_to` first appends silence up to that many samples (never cuts). Centred STFT of 25 ms, its last frame dropped, power,
    log10 clamped to 8 below the loudest value of the whole (padded) utterance, (x + 4) / 4. Source: arXiv 2212.04356, section 2.2.
    """
    x = as_float(samples)
    frames = max(len(x), pad_to or 0) // ENCODER_HOP
    if frames == 0:
        return x.new_zeros(bins, 0)
    # The centred STFT mirrors half a window: give it at least one whole window to mirror.
    x = F.pad(x, (0, max(0, (pad_to or 0) - len(x), ENCODER_FFT - len(x))))
    spectrum = torch.stft(x, ENCODER_FFT, ENCODER_HOP, window=hann(ENCODER_FFT, x.device), return_complex=True)
    power = spectrum[:, :frames].abs().square()
    mel = filter_bank(x.device, QUESTION_HZ, ENCODER_FFT, bins, QUESTION_HZ / 2) @ power
    log = mel.clamp_min(1e-10).log10()
    return (torch.maximum(log, log.max() - 8.0) + 4.0) / 4.0


def vocoder_mel(samples: np.ndarray | Tensor, fmax: float = VOCODER_MEL_FMAX) -> Tensor:
    """Natural-log mel of 24 kHz sound [samples] or [B, samples]: float32 [80, samples // 480] or [B, 80, ...], 50 frames a second.

    Frame j is centred on sample 480 j + 240: the sound is mirrored by 720 samples at both ends and the STFT not centred.
    Magnitude, 0 to `fmax` Hz, floor 1e-5. Source: CosyVoice 2 (arXiv 2412.10117), the mel of its flow and vocoder; the spectral
    loss that trains its vocoder takes the whole band, `fmax` 12000.
    """
    x = as_float(samples)
    if x.ndim == 1:
        return vocoder_mel(x[None], fmax)[0]
    frames = x.shape[1] // VOCODER_HOP
    if frames == 0:
        return x.new_zeros(len(x), VOCODER_MEL_BINS, 0)
    edge = (VOCODER_FFT - VOCODER_HOP) // 2
    x = F.pad(x, (0, max(0, edge + 1 - x.shape[1])))
    x = F.pad(x, (edge, edge), mode="reflect")
    spectrum = torch.stft(x, VOCODER_FFT, VOCODER_HOP, window=hann(VOCODER_FFT, x.device), center=False, return_complex=True)
    magnitude = (torch.view_as_real(spectrum[..., :frames]).square().sum(-1) + 1e-9).sqrt()
    return (vocoder_filters(x.device, fmax) @ magnitude).clamp_min(1e-5).log()
