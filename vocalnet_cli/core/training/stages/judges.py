"""Judges of sound, trained against HiFT and thrown away with its stage: by periods (arXiv 2010.05646, section 2.2) and by spectrograms.

A judge gives a score to each place of what it looks at, near 1 for recordings and near 0 for what is made.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from vocalnet_cli.core.config.vocoder_schema import HiftTraining
from vocalnet_cli.core.training.stages.spectral import magnitudes

_SLOPE = 0.1

Opinion = list[Tensor]
"""What each layer of a judge says, the last being its scores."""


class Judge(nn.Module):
    """A stack of convolutions over an image of the sound."""

    def __init__(self, layers: Sequence[nn.Conv2d]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(weight_norm(layer) for layer in layers)

    def look(self, image: Tensor) -> Opinion:
        said = []
        for number, layer in enumerate(self.layers):
            image = layer(image)
            if number + 1 < len(self.layers):
                image = F.leaky_relu(image, _SLOPE)
            said.append(image)
        return said


class PeriodJudge(Judge):
    """Looks at every `period`-th sample side by side."""

    def __init__(self, period: int, channels: int) -> None:
        widths = [1, channels, 4 * channels, 16 * channels, 32 * channels]
        layers = [nn.Conv2d(a, b, (5, 1), (3, 1), (2, 0)) for a, b in zip(widths, widths[1:], strict=False)]
        layers.append(nn.Conv2d(widths[-1], widths[-1], (5, 1), 1, (2, 0)))
        super().__init__([*layers, nn.Conv2d(widths[-1], 1, (3, 1), 1, (1, 0))])
        self.period = period

    def forward(self, sound: Tensor) -> Opinion:
        """[B, samples]."""
        padded = F.pad(sound[:, None], (0, -sound.shape[1] % self.period), mode="reflect")
        return self.look(padded.unflatten(-1, (-1, self.period)))


class SpectrumJudge(Judge):
    """Looks at magnitudes (multi-resolution spectrogram discriminator, arXiv 2106.07889, section 2.2)."""

    def __init__(self, window: int, channels: int) -> None:
        layers = [nn.Conv2d(1, channels, (3, 9), padding=(1, 4))]
        layers += [nn.Conv2d(channels, channels, (3, 9), (1, 2), (1, 4)) for _ in range(3)]
        layers += [nn.Conv2d(channels, channels, (3, 3), padding=1), nn.Conv2d(channels, 1, (3, 3), padding=1)]
        super().__init__(layers)
        self.window = window

    def forward(self, sound: Tensor) -> Opinion:
        """[B, samples]."""
        return self.look(magnitudes(sound, self.window).transpose(1, 2)[:, None])


class Judges(nn.Module):
    """All of them."""

    def __init__(self, settings: HiftTraining) -> None:
        super().__init__()
        periods = [PeriodJudge(period, settings.period_channels) for period in settings.periods]
        spectra = [SpectrumJudge(window, settings.spectrum_channels) for window in settings.resolutions]
        self.judges = nn.ModuleList([*periods, *spectra])

    def forward(self, sound: Tensor) -> list[Opinion]:
        """[B, samples] to each judge's opinion."""
        return [judge(sound) for judge in self.judges]

    @contextmanager
    def fixed(self) -> Iterator[None]:
        """Inside, opinions teach the sound and not the judges."""
        learning = [parameter for parameter in self.parameters() if parameter.requires_grad]
        for parameter in learning:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in learning:
                parameter.requires_grad_(True)


def judging_loss(recorded: Sequence[Opinion], made: Sequence[Opinion]) -> Tensor:
    """What the judges get wrong: squares (arXiv 2010.05646, equation 1), summed over judges."""
    losses = [(1 - real[-1]).square().mean() + fake[-1].square().mean() for real, fake in zip(recorded, made, strict=True)]
    return torch.stack(losses).sum()


def adversarial_loss(made: Sequence[Opinion]) -> Tensor:
    """How little the judges take what is made for recorded (equation 2)."""
    return torch.stack([(1 - fake[-1]).square().mean() for fake in made]).sum()


def feature_distance(recorded: Sequence[Opinion], made: Sequence[Opinion]) -> Tensor:
    """Mean absolute difference of what the layers say, summed over layers and judges (equation 4)."""
    pairs = [pair for real, fake in zip(recorded, made, strict=True) for pair in zip(real[:-1], fake[:-1], strict=True)]
    return torch.stack([(real.detach() - fake).abs().mean() for real, fake in pairs]).sum()
