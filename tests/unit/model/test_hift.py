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
    """Its pitch goes up and down around 250 Hz, where the highest sines come and go."""
    torch.manual_seed(0)
    hift = Hift(FILTER).eval()
    torch.nn.init.constant_(hift.f0_predictor.classifier.bias, 250.0)
    hift.f0_predictor.classifier.weight.data.mul_(400.0)
    hift.conv_post.weight.data.mul_(0.1)
    torch.nn.init.constant_(hift.conv_post.bias, -3.0)
    return hift


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
    assert whole.shape == (1, 45 * 480) and 0.1 < whole.abs().max() < 0.99
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, atol=1e-4, rtol=0)


@torch.no_grad()
def test_the_filters_pitch_crosses_what_the_highest_sines_can_say():
    mel = torch.randn(1, 80, 45, generator=torch.Generator().manual_seed(0))
    hz = filtering().f0_predictor(mel, Memory())
    assert hz.min() < 12_000 / 48 < hz.max()


def between_sines(f0: torch.Tensor, weight: float) -> float:
    """How loud the source is between its sines at the pitch in its middle, over the loudest of them."""
    hift = filtering()
    torch.nn.init.constant_(hift.m_source.l_linear.weight, weight)
    source = hift.m_source(f0, torch.zeros(1, f0.shape[1] * 480, 1), Memory())[0, 0]
    loud = torch.fft.rfft(source[4000:13600] * torch.hann_window(9600)).abs()
    places = torch.arange(len(loud)) * 2.5
    nearest = (places - f0[0, 15] * (places / f0[0, 15]).round()).abs()
    return float(loud[nearest > 20].max() / loud.max())


@torch.no_grad()
@pytest.mark.parametrize("weight", [0.05, 0.4])
def test_no_sine_folds_over_however_loud_the_source(weight):
    """Of 48 sines at multiples of 290 Hz those above 12 kHz are left out: nothing sounds between the others."""
    assert between_sines(torch.full((1, 30), 290.0), weight) < 1e-3


@torch.no_grad()
@pytest.mark.parametrize("steps", [(240.0, 280.0), (280.0, 240.0)], ids=["rising", "falling"])
def test_sines_stop_with_their_own_pitch(steps):
    """Where the pitch steps, each sample's sines are those its own pitch allows: the sum of all of them in closed form."""
    hift = filtering()
    torch.nn.init.constant_(hift.m_source.l_linear.weight, 1.0)
    torch.nn.init.zeros_(hift.m_source.l_linear.bias)
    f0 = torch.tensor([[steps[0]] * 5 + [steps[1]] * 5])
    source = hift.m_source(f0, torch.zeros(1, 4800, 1), Memory())[0, 0]
    hz = torch.cat([f0[0, :1].expand(240), f0[0, 1:].repeat_interleave(480), f0[0, -1:].expand(240)])
    count = torch.arange(1, 49)
    moves = torch.cat([torch.zeros(240), hz[240:-240], torch.zeros(240)]).double() / 24_000
    phase = moves.cumsum(0) - moves / 2 + 240 * 2 * steps[0] / 24_000
    wanted = (0.1 * torch.sin(2 * torch.pi * phase[:, None] * count) * (hz[:, None] * count < 12_000)).sum(1)
    torch.testing.assert_close(source[:-240].double(), wanted[:-240], atol=1e-3, rtol=0)


@torch.no_grad()
def test_a_filter_of_one_gives_the_source_back():
    hift = filtering()
    source = hift.m_source(torch.full((1, 30), 200.0), torch.randn(1, 30 * 480, 1), Memory())
    lines = hift.spectrum(source, Memory())
    silent = torch.zeros(1, 3 * (FILTER.istft_fft // 2 + 1), lines.shape[-1])
    silent[:, 2 * (FILTER.istft_fft // 2 + 1) :] = -60.0  # no noise
    given = hift.synthesis(filtered(lines, silent), Memory())
    torch.testing.assert_close(given[0], source[0, 0], atol=1e-5, rtol=0)


@torch.no_grad()
def test_without_a_pitch_only_the_noise_is_heard():
    hift = filtering()
    source = hift.m_source(torch.zeros(1, 20), torch.randn(1, 20 * 480, 1), Memory())
    assert source.shape == (1, 2, 20 * 480)
    assert (source[:, 0] - hift.m_source.l_linear.bias).abs().max() < 1e-6 and source[:, 1].std() > 0.9


@torch.no_grad()
def test_one_frame_is_spoken():
    assert filtering()(torch.randn(1, 80, 1), torch.randn(1, 480, 1)).shape == (1, 480)
    with pytest.raises(ValueError, match="istft_fft is 960"):
        HiftSettings(**{**FILTER.model_dump(), "istft_fft": 960})
