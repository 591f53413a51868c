"""HiFT: log-mel at 50 frames a second to 24 kHz sound, in pieces (arXiv 2309.09493; used by CosyVoice 2, arXiv 2412.10117)."""

from __future__ import annotations

import math
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vocalnet_cli.core.config.vocoder_schema import HiftSettings
from vocalnet_cli.core.model.vocoder.cosyvoice2.products import fits
from vocalnet_cli.core.model.vocoder.cosyvoice2.source import HarmonicSource, PitchPredictor, Spectrum, Synthesis
from vocalnet_cli.core.model.vocoder.cosyvoice2.stream import (
    Memory,
    Remembers,
    StreamConv1d,
    StreamConvTranspose1d,
    delayed,
    joined_up,
    together,
)
from vocalnet_cli.core.units import VOCODER_HOP, VOCODER_MEL_BINS

_SILENT = 1e-6
"""Smallest square of a line's magnitude whose logarithm is taken."""
_LOUDEST = 100.0
"""Largest magnitude of a line of the output's spectrum, or gain of one that is filtered."""


class Snake(nn.Module):
    """x + sin(alpha x)^2 / alpha on [B, C, T], one alpha a channel (arXiv 2006.08195)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        alpha = self.alpha[:, None]
        if fits(x, self.alpha):  # the same in fewer passes over memory
            sine = (x * alpha).sin_()
            return torch.addcmul(x, sine, sine * (1 / (alpha + 1e-9)))
        return x + (x * alpha).sin().square() / (alpha + 1e-9)


class ResBlock(nn.Module):
    """Dilated convolutions in residual pairs; the residual waits for the convolutions' right context."""

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...]) -> None:
        super().__init__()

        def conv(dilation: int) -> StreamConv1d:
            reach = (kernel - 1) * dilation // 2
            return StreamConv1d(channels, channels, kernel, left=reach, right=reach, dilation=dilation)

        self.convs1 = nn.ModuleList(conv(dilation) for dilation in dilations)
        self.convs2 = nn.ModuleList(conv(1) for _ in dilations)
        self.activations1 = nn.ModuleList(Snake(channels) for _ in dilations)
        self.activations2 = nn.ModuleList(Snake(channels) for _ in dilations)

    def forward(self, x: Tensor, memory: Remembers, last: bool = True) -> Tensor:
        """[B, C, n] to [B, C, m]."""
        for i, (first, second) in enumerate(zip(self.convs1, self.convs2, strict=True)):
            y = first(self.activations1[i](x), memory, last)
            y = second(self.activations2[i](y), memory, last)
            x = delayed((self, i), x, y.shape[-1], memory) + y
        return x


class Hift(nn.Module):
    """Mel to sound. In pieces every layer keeps its own tail: no frame is computed twice, and the pieces make the whole exactly."""

    def __init__(self, settings: HiftSettings, smooth: bool = True) -> None:
        super().__init__()
        self.settings = s = settings
        self.f0_predictor = PitchPredictor(s.f0_channels)
        self.m_source = HarmonicSource(s, smooth)
        self.spectrum = Spectrum(s.istft_fft, s.istft_hop)
        self.synthesis = Synthesis(s.istft_fft, s.istft_hop)
        self.conv_pre = StreamConv1d(VOCODER_MEL_BINS, s.channels, 7, left=3, right=3)
        widths = [s.channels // 2**i for i in range(len(s.upsample_rates) + 1)]
        self.ups = nn.ModuleList(
            StreamConvTranspose1d(width, half, kernel, rate)
            for width, half, kernel, rate in zip(widths, widths[1:], s.upsample_kernels, s.upsample_rates, strict=False)
        )
        self.source_downs, self.source_resblocks = nn.ModuleList(), nn.ModuleList()
        bins = s.istft_fft // 2 + 1
        stride, lines = VOCODER_HOP // s.istft_hop, 2 * bins
        for i, rate in enumerate(s.upsample_rates):
            stride //= rate
            kernel, pad = (2 * stride, stride // 2) if stride > 1 else (1, 0)
            self.source_downs.append(StreamConv1d(lines, widths[i + 1], kernel, stride=stride, left=pad, right=pad))
            self.source_resblocks.append(ResBlock(widths[i + 1], s.source_kernels[i], s.source_dilations[i]))
        self.resblocks = nn.ModuleList(
            ResBlock(width, kernel, dilations) for width in widths[1:] for kernel, dilations in zip(s.kernels, s.dilations, strict=True)
        )
        self.conv_post = StreamConv1d(widths[-1], (3 if s.output == "filter" else 2) * bins, 7, left=3, right=3)

    def forward(self, mel: Tensor, noise: Tensor, memory: Remembers | None = None, last: bool = True) -> Tensor:
        """The next frames [B, 80, n] and their standard normal noise [B, 480 n, N] to finished samples [B, m].

        T frames make 480 T samples in all. Without a memory `mel` is the whole utterance.
        """
        memory = Memory() if memory is None else memory
        mel = mel.float()
        f0 = self.f0_predictor(mel, memory, last)
        held = noise.transpose(1, 2)
        noise = delayed((self, "noise"), held, f0.shape[1] * VOCODER_HOP, memory).transpose(1, 2)
        return self.decode(mel, self.m_source(f0, noise, memory, last), memory, last)

    def decode(self, mel: Tensor, source: Tensor, memory: Remembers | None = None, last: bool = True) -> Tensor:
        """The next frames [B, 80, n] and samples of the source, which may lag behind, to finished samples [B, m].

        The source is [B, 1, s]; one that is to be filtered [B, 2, s].
        """
        memory = Memory() if memory is None else memory
        lines = self.spectrum(source, memory, last)
        seen = loudness(lines) if self.settings.output == "filter" else lines
        x = self.conv_pre(mel, memory, last)
        for i, up in enumerate(self.ups):
            x = up(F.leaky_relu(x, self.settings.slope), memory, last)
            if i == len(self.ups) - 1:
                x = self._mirrored(x, memory)
            heard = self.source_resblocks[i](self.source_downs[i](seen, memory, last), memory, last)
            x, heard = together((self, "source", i), [x, heard], memory)
            x = x + heard
            blocks = self.resblocks[i * len(self.settings.kernels) : (i + 1) * len(self.settings.kernels)]
            outs = together((self, "blocks", i), [block(x, memory, last) for block in blocks], memory)
            x = reduce(torch.add, outs) / len(outs)
        y = self.conv_post(F.leaky_relu(x), memory, last)  # the default slope, not the settings' (as released)
        if self.settings.output == "filter":
            y, lines = together((self, "filtered"), [y, lines], memory)
            made = filtered(lines, y)
        else:
            magnitude, phase = y.chunk(2, dim=1)
            made = torch.polar(magnitude.exp().clamp_max(_LOUDEST), phase.sin())
        return self.synthesis(made, memory, last).clamp(-self.settings.limit, self.settings.limit)

    def _mirrored(self, x: Tensor, memory: Remembers) -> Tensor:
        """The second value once more before the first: T rates of samples become T rates + 1 frames of the spectrum."""
        key = (self, "mirror")
        held = memory.get(key)
        if held is True:
            return x
        x = x if held is None else joined_up([held, x])
        started = x.shape[-1] > 1
        memory.put(key, True if started else x)
        return joined_up([x[..., 1:2], x]) if started else x[..., :0]


def loudness(lines: Tensor) -> Tensor:
    """Logarithms [B, 2 bins, T] of the magnitudes of the sines' and the noise's spectra: what a filter has to make up for."""
    channels = lines.unflatten(1, (2, 2, -1))
    return channels.square().sum(2).clamp_min(_SILENT).log().flatten(1, 2) / 2


def filtered(lines: Tensor, gains: Tensor) -> Tensor:
    """Spectra of the sines and of the noise [B, 4 bins, T], real before imaginary, as one complex spectrum [B, bins, T].

    `gains` [B, 3 bins, T] are logarithm and angle of the sines' filter and the logarithm of the noise's. A voice's phases are then its
    source's: what is learned is how loud each line is, which the mel nearly says (harmonics and noise, as in arXiv 1904.12088).
    """
    sines, noise = (torch.complex(*channel.chunk(2, dim=1)) for channel in lines.float().chunk(2, dim=1))
    loud, angle, noisy = gains.float().chunk(3, dim=1)
    limit = math.log(_LOUDEST)
    return sines * torch.polar(loud.clamp_max(limit).exp(), angle) + noise * noisy.clamp_max(limit).exp()
