"""Sound held to a mel: it is left alone where it has that mel, comes nearer where it has not, and may come in any pieces."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.unit.model.test_vocoder import voice
from vocalnet_cli.core.audio.mel import vocoder_mel
from vocalnet_cli.core.model.vocoder.held_mel import SHARED, HoldState, hold_mel
from vocalnet_cli.core.units import VOCODER_HOP


def whole(sound: Tensor, mel: Tensor) -> Tensor:
    return hold_mel(HoldState(), sound, mel, True)


def said(frames: int) -> Tensor:
    return voice(2.0)[: frames * VOCODER_HOP]


@pytest.mark.parametrize("frames", [1, 2, 3, 5, 60])
def test_a_sound_that_has_the_mel_stays_as_it_is(frames: int) -> None:
    sound = said(frames)
    held = whole(sound, vocoder_mel(sound))
    assert held.shape == sound.shape
    torch.testing.assert_close(held, sound, atol=2e-3 * float(sound.abs().max()), rtol=0)


def test_a_coloured_sound_gets_its_mel_back() -> None:
    sound = said(80)
    dull = torch.nn.functional.conv1d(sound[None, None], torch.tensor([[[0.1, 0.5, 0.3]]]), padding=1)[0, 0] * 0.6
    mel = vocoder_mel(sound)
    before, after = ((vocoder_mel(one) - mel).abs().mean() for one in (dull, whole(dull, mel)))
    assert after < 0.2 * before


@pytest.mark.parametrize("seed", range(4))
def test_pieces_give_what_the_whole_gives(seed: int) -> None:
    """Frames and samples come cut anywhere, frames never after the samples that wait for them."""
    chance = torch.Generator().manual_seed(seed)
    sound, mel = said(40), vocoder_mel(said(41)[VOCODER_HOP:])
    state, pieces, samples, frames = HoldState(), [], 0, 0
    while samples < len(sound):
        size = int(torch.randint(1, 3000, (), generator=chance))
        more = int(torch.randint(0, 6, (), generator=chance))
        last = samples + size >= len(sound)
        upto = mel.shape[1] if last else min(mel.shape[1], frames + more)
        pieces.append(hold_mel(state, sound[samples : samples + size], mel[:, frames:upto], last))
        samples, frames = samples + size, upto
        given = sum(len(piece) for piece in pieces)
        assert given <= max(0, min(samples, frames * VOCODER_HOP)) or last
        if frames * VOCODER_HOP >= samples:  # nothing waits longer than for the windows it is in
            assert given > samples - SHARED - VOCODER_HOP
    torch.testing.assert_close(torch.cat(pieces), whole(sound, mel), atol=1e-6, rtol=1e-5)


def test_nothing_is_left_behind_for_the_next_utterance() -> None:
    sound = said(10)
    first, second = (whole(sound, vocoder_mel(sound)) for _ in range(2))
    assert torch.equal(first, second)
