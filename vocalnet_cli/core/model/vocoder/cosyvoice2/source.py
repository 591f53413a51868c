"""HiFT's harmonic source: pitch from mel, sines that keep their phase from piece to piece, and their short-time spectrum."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vocalnet_cli.core.audio.mel import hann
from vocalnet_cli.core.config.vocoder_schema import HiftSettings
from vocalnet_cli.core.model.vocoder.cosyvoice2.stream import Remembers, StreamConv1d, delayed
from vocalnet_cli.core.units import ANSWER_HZ, VOCODER_HOP, VOCODER_MEL_BINS


def _exact(x: Tensor) -> Tensor:
    """In float64, but for MPS, which has none."""
    return x if x.device.type == "mps" else x.double()


class PitchPredictor(nn.Module):
    """Log-mel [B, 80, T] to pitch [B, T] in Hz; five convolutions, so a frame waits for five frames after it.

    In float64 where there is one: the phase is a sum over all frames, so rounding that depends on where pieces end would be heard.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(5):
            layers += [StreamConv1d(channels if i else VOCODER_MEL_BINS, channels, 3, left=1, right=1), nn.ELU()]
        self.condnet = nn.ModuleList(layers)
        self.classifier = nn.Linear(channels, 1)

    def forward(self, mel: Tensor, memory: Remembers, last: bool = True) -> Tensor:
        """The next frames to the pitch of as many as have their neighbours."""
        x = _exact(mel)
        for layer in self.condnet:
            x = layer(x, memory, last) if isinstance(layer, StreamConv1d) else layer(x)
        weight, bias = (part.to(x.dtype) for part in (self.classifier.weight, self.classifier.bias))
        return F.linear(x.transpose(1, 2), weight, bias).squeeze(-1).abs()


class HarmonicSource(nn.Module):
    """Sines at multiples of the pitch and noise, mixed to one channel (arXiv 1904.12088, section 2.2), or apart where they are filtered.

    `smooth` (release 2025) moves the phase linearly from the middle of one frame to the middle of the next, so half a frame waits
    for its successor; otherwise (2024) each sample advances by its own frame's pitch. Both keep the phase where the piece before
    left it: upstream starts anew in every call, which is heard at the joints.
    """

    def __init__(self, settings: HiftSettings, smooth: bool) -> None:
        super().__init__()
        self.settings, self.smooth = settings, smooth
        self.l_linear = nn.Linear(settings.harmonics + 1, 1)

    def forward(self, f0: Tensor, noise: Tensor, memory: Remembers, last: bool = True, phase: Tensor | None = None) -> Tensor:
        """Pitch [B, n] in Hz and standard normal noise [B, 480 n, N] of the same frames to samples [B, 1, m].

        `phase` [B, H] in cycles is where the harmonics start (not used by `smooth`, whose first frame sets it). A source that is to
        be filtered has two channels [B, 2, m]: the sum of the sines, none above half the sample rate, and the noise.
        """
        s = self.settings
        cycles = self._smooth(f0, memory, last) if self.smooth else self._stepped(f0, memory, phase)
        noise = delayed((self, "noise"), noise.transpose(1, 2), cycles.shape[1], memory).transpose(1, 2)
        voiced = self._voiced(f0, noise.dtype, memory, last)
        voiced = delayed((self, "voiced"), voiced, cycles.shape[1], memory).transpose(1, 2)
        sines = s.amplitude * torch.sin(2 * torch.pi * cycles).to(noise.dtype)
        if s.output == "filter":  # no tanh: it would make sines that no filter takes away
            return torch.cat([self.l_linear(sines * voiced), noise], dim=-1).transpose(1, 2)
        mixed = sines * voiced + noise * (s.noise * voiced + s.amplitude / 3 * (1 - voiced))
        return torch.tanh(self.l_linear(mixed)).transpose(1, 2)

    def _voiced(self, f0: Tensor, dtype: torch.dtype, memory: Remembers, last: bool) -> Tensor:
        """1 where the voice sounds, else 0: samples [B, 1, m], or where it is filtered of each sine that can be heard [B, H, m]."""
        voiced = f0[:, None] > self.settings.voiced_hz
        if self.settings.output != "filter":
            return voiced.to(dtype).repeat_interleave(VOCODER_HOP, dim=2)
        multiples = torch.arange(1, self.settings.harmonics + 2, device=f0.device)
        voiced = (voiced & (f0[:, None] * multiples[:, None] < ANSWER_HZ / 2)).to(dtype)
        samples = voiced.repeat_interleave(VOCODER_HOP, dim=2)
        if not self.smooth:
            return samples
        # A sine moves at a frame's pitch from the middle of the frame before: so must its mask, or it folds over where the pitch rises.
        before = memory.get((self, "heard"))
        if voiced.shape[2]:
            samples = samples[..., VOCODER_HOP // 2 :] if before is None else samples
            before = voiced[..., -1:]
            memory.put((self, "heard"), before)
        if last and before is not None:
            samples = torch.cat([samples, before.expand(-1, -1, VOCODER_HOP // 2)], dim=-1)
        return samples

    def _advance(self, f0: Tensor) -> Tensor:
        """Cycles a sample of each harmonic, [B, n, H], in the precision phases need."""
        f0 = _exact(f0)
        multiples = torch.arange(1, self.settings.harmonics + 2, device=f0.device, dtype=f0.dtype)
        return (f0[..., None] * multiples / ANSWER_HZ) % 1

    def _smooth(self, f0: Tensor, memory: Remembers, last: bool) -> Tensor:
        """Phases [B, m, H] in cycles: from the middle of the last frame known to the middle of the newest."""
        advance = self._advance(f0)
        batch, frames, harmonics = advance.shape
        middle = memory.get((self, "middle"))
        if middle is None and not frames:
            return advance.reshape(batch, 0, harmonics)
        middles = (VOCODER_HOP * advance % 1).cumsum(1)
        parts = []
        if middle is None:  # nothing before the first frame's middle: flat
            middle = middles[:, 0]
            parts.append(middle[:, None].expand(-1, VOCODER_HOP // 2, -1))
            middles, advance = middles[:, 1:], advance[:, 1:]
        else:
            middles = middles + middle[:, None]
        if middles.shape[1]:
            before = torch.cat([middle[:, None], middles[:, :-1]], dim=1)
            sample = torch.arange(VOCODER_HOP, device=f0.device, dtype=advance.dtype)[:, None] + 0.5
            parts.append((before[:, :, None] + sample * advance[:, :, None]).reshape(batch, -1, harmonics))
            middle = middles[:, -1]
        if last:
            parts.append(middle[:, None].expand(-1, VOCODER_HOP // 2, -1))
        memory.put((self, "middle"), middle % 1)
        return torch.cat(parts, dim=1) if parts else advance.reshape(batch, 0, harmonics)

    def _stepped(self, f0: Tensor, memory: Remembers, phase: Tensor | None) -> Tensor:
        """Phases [B, 480 n, H] in cycles, each sample one step after the sample before."""
        advance = self._advance(f0)
        batch, frames, harmonics = advance.shape
        start = memory.get((self, "phase"))
        if start is None:
            start = advance.new_zeros(batch, harmonics) if phase is None else phase.to(advance.dtype)
        ends = (VOCODER_HOP * advance % 1).cumsum(1) + start[:, None]
        memory.put((self, "phase"), (ends[:, -1] if frames else start) % 1)
        before = torch.cat([start[:, None], ends[:, :-1]], dim=1)[:, :frames]
        sample = torch.arange(1, VOCODER_HOP + 1, device=f0.device, dtype=advance.dtype)[:, None]
        return (before[:, :, None] + sample * advance[:, :, None]).reshape(batch, -1, harmonics)


class Spectrum(nn.Module):
    """Short-time spectra of one or more channels of samples in pieces: centred, mirrored at both ends."""

    def __init__(self, fft: int, hop: int) -> None:
        super().__init__()
        self.fft, self.hop = fft, hop

    def forward(self, samples: Tensor, memory: Remembers, last: bool = True) -> Tensor:
        """The next samples [B, C, n] to frames [B, C (fft + 2), m], of each channel the real parts before the imaginary ones.

        N samples make N / hop + 1 frames in all.
        """
        half, (batch, channels, _) = self.fft // 2, samples.shape
        held = memory.get(self)
        nothing = samples.new_zeros(batch, channels * (self.fft + 2), 0)
        if held is None:
            begun = memory.get((self, "begun"))
            joined = samples if begun is None else torch.cat([begun, samples], dim=-1)
            if joined.shape[-1] <= half:  # too little to mirror
                memory.put((self, "begun"), joined)
                return nothing
            joined = F.pad(joined, (half, 0), mode="reflect")
        else:
            joined = torch.cat([held, samples], dim=-1)
        if last:
            joined = F.pad(joined, (0, half), mode="reflect")
        count = max(0, (joined.shape[-1] - self.fft) // self.hop + 1)
        memory.put(self, joined[..., count * self.hop :].clone())
        if not count:
            return nothing
        lines = torch.fft.rfft(joined.unfold(-1, self.fft, self.hop) * hann(self.fft, samples.device))
        return torch.cat([lines.real, lines.imag], dim=-1).transpose(2, 3).flatten(1, 2)


class Synthesis(nn.Module):
    """The way back: frames of a complex spectrum to samples by overlapped, squared-window normalised addition."""

    def __init__(self, fft: int, hop: int) -> None:
        super().__init__()
        self.fft, self.hop = fft, hop

    def forward(self, lines: Tensor, memory: Remembers, last: bool = True) -> Tensor:
        """The next frames [B, fft / 2 + 1, m] of a complex spectrum to finished samples [B, n]; M frames make hop (M - 1) in all."""
        batch, _, count = lines.shape
        reach, window = self.fft - self.hop, hann(self.fft, lines.device)
        fresh = lines.real.new_zeros(batch, reach)
        sound, weight, drop = memory.get(self) or (fresh, fresh[:1], self.fft // 2)
        if count:
            frames = torch.fft.irfft(lines.transpose(1, 2), n=self.fft)
            sound = _add(frames * window, sound, self.hop)
            weight = _add(window.square().expand(1, count, -1), weight, self.hop)
        end = count * self.hop
        memory.put(self, (sound[:, end:].clone(), weight[:, end:].clone(), max(0, drop - end)))
        stop = end + reach - self.fft // 2 if last else end
        return sound[:, drop:stop] / weight[:, drop:stop]


def _add(frames: Tensor, tail: Tensor, hop: int) -> Tensor:
    """Frames [B, F, fft] added `hop` apart onto the unfinished `tail` [B, fft - hop]: [B, hop F + fft - hop]."""
    batch, count, fft = frames.shape
    total = count * hop + fft - hop
    sound = F.fold(frames.transpose(1, 2), (1, total), (1, fft), stride=(1, hop)).reshape(batch, total)
    return torch.cat([sound[:, : fft - hop] + tail, sound[:, fft - hop :]], dim=1)
