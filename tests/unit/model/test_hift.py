"""HiFT in pieces, for both kinds of output; and what a filtered source sounds like."""

from __future__ import annotations

import pytest
import torch

from tests.cosyvoice2 import tiny_hift
from vocalnet_cli.core.config.vocoder_schema import HiftSettings
from vocalnet_cli.core.model.vocoder.cosyvoice2.hift import Hift, filtered
from vocalnet_cli.core.model.vocoder.cosyvoice2.stream import Memory

FILTER = HiftSettings(
    output="filter",
    harmonics=47,
    channels=16,
    f0_channels=16,
    upsample_rates=(4,),
    upsample_kernels=(8,),
    kernels=(3, 7),
    dilations=((1, 3), (1, 3)),
    source_kernels=(3,),
    source_dilations=((1,),),
    istft_fft=480,
    istft_hop=120,
)


def filtering() -> Hift:
    torch.manual_seed(0)
    return Hift(FILTER).eval()


@pytest.mark.parametrize("make", [tiny_hift, lambda: tiny_hift(False), filtering], ids=["2025", "2024", "filter"])
@pytest.mark.parametrize("cuts", [[1] * 45, [7, 1, 1, 36], [25, 20], [30, 15, 0], [45, 0]])
@torch.no_grad()
def test_pieces_make_the_whole(cuts, make):
    hift, generator = make(), torch.Generator().manual_seed(0)
    mel, noise = torch.randn(1, 80, 45, generator=generator), torch.randn(1, 45 * 480, hift.settings.noises, generator=generator)
    whole = hift(mel, noise)
    memory, pieces, at = Memory(), [], 0
    for i, count in enumerate(cuts):
        end = at + count
        pieces.append(hift(mel[..., at:end], noise[:, 480 * at : 480 * end], memory, last=i == len(cuts) - 1))
        at = end
    assert whole.shape == (1, 45 * 480) and whole.abs().max() > 0.1
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, atol=1e-4, rtol=0)


def lines_of(sound: torch.Tensor) -> torch.Tensor:
    """Magnitudes [257] of the middle of a sound."""
    return torch.fft.rfft(sound[4000:4960] * torch.hann_window(960)).abs()


@torch.no_grad()
def test_a_filter_of_one_gives_the_source_back_and_no_sine_folds_over():
    """Of 48 sines at multiples of 290 Hz those above 12 kHz are left out: nothing sounds between the others."""
    hift = filtering()
    torch.nn.init.constant_(hift.m_source.l_linear.weight, 0.05)
    torch.nn.init.zeros_(hift.m_source.l_linear.bias)
    f0, noise = torch.full((1, 30), 290.0), torch.randn(1, 30 * 480, 1)
    source = hift.m_source(f0, noise, Memory())
    bins = FILTER.istft_fft // 2 + 1
    lines = hift.spectrum(source, Memory())
    silent = torch.zeros(1, 3 * bins, lines.shape[-1])
    silent[:, 2 * bins :] = -60.0  # no noise
    given = hift.synthesis(filtered(lines, silent), Memory())
    torch.testing.assert_close(given[0], source[0, 0], atol=1e-5, rtol=0)
    loud = lines_of(given[0])
    wanted = torch.zeros(481, dtype=torch.bool)
    for multiple in range(1, 42):
        place = 290 * multiple / 25
        wanted[int(place) - 2 : int(place) + 4] = True
    assert loud[~wanted[: len(loud)]].max() < 0.02 * loud.max()


@torch.no_grad()
def test_without_a_pitch_only_the_noise_is_heard():
    hift = filtering()
    source = hift.m_source(torch.zeros(1, 20), torch.randn(1, 20 * 480, 1), Memory())
    assert source.shape == (1, 2, 20 * 480)
    assert (source[:, 0] - torch.tanh(hift.m_source.l_linear.bias)).abs().max() < 1e-6 and source[:, 1].std() > 0.9
