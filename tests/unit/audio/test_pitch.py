"""Pitch by YIN on sounds whose pitch is known, and moments of one recording in another."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vocalnet_cli.core.audio.align import at_pace_of, same_moments
from vocalnet_cli.core.audio.mel import vocoder_mel
from vocalnet_cli.core.audio.pitch import pitch

RATE = 24_000


def buzz(hz: torch.Tensor, overtones: int = 12) -> torch.Tensor:
    """A sound of harmonics at the pitch of each sample [n]."""
    phase = 2 * torch.pi * (hz.double() / RATE).cumsum(0)
    return (0.1 * sum(torch.cos(k * phase) / k for k in range(1, overtones))).float()


@pytest.mark.parametrize("hz", [75.0, 110.0, 221.3, 330.0, 450.0])
@pytest.mark.parametrize("missing", [False, True])
def test_a_steady_pitch_is_found(hz, missing):
    steady = torch.full((RATE,), hz)
    sound = buzz(steady) - (0.1 * torch.cos(2 * torch.pi * hz / RATE * torch.arange(1, RATE + 1)) if missing else 0)
    found = pitch(sound)
    assert len(found) == 50 and found[4:-4].numpy() == pytest.approx(hz, rel=0.01)


def test_a_gliding_pitch_is_found_where_it_is():
    glide = torch.linspace(100, 300, 2 * RATE)
    found = pitch(buzz(glide))
    centres = glide[240::480][: len(found)]
    assert (found[5:-5] / centres[5:-5] - 1).abs().max() < 0.03


def test_silence_and_noise_have_none():
    noise = torch.from_numpy(np.random.default_rng(0).normal(scale=0.1, size=RATE).astype(np.float32))
    assert pitch(torch.zeros(RATE)).max() == 0
    assert (pitch(noise) > 0).float().mean() < 0.05
    mixed = torch.cat([buzz(torch.full((RATE // 2,), 150.0)), torch.zeros(RATE // 2)])
    found = pitch(mixed)
    assert (found[3:22] > 0).all() and (found[29:] == 0).all()


@pytest.mark.parametrize("samples", [0, 1, 479, 480, 1000])
def test_short_sounds_have_as_many_frames_as_the_mel(samples):
    assert len(pitch(torch.randn(samples))) == samples // 480


def spoken(seed: int, slow: float) -> torch.Tensor:
    """A made-up sentence of ten sounds, each `slow` times as long."""
    chance = np.random.default_rng(seed)
    parts = []
    for _ in range(10):
        hz, colour = chance.uniform(100, 200), chance.uniform(0.2, 1.0, size=11)
        samples = int(slow * chance.uniform(0.08, 0.16) * RATE)
        phase = 2 * np.pi * hz / RATE * np.arange(samples)
        parts.append(sum(gain * np.cos((k + 1) * phase) for k, gain in enumerate(colour)) * 0.1)
    return torch.from_numpy(np.concatenate(parts).astype(np.float32))


@pytest.mark.parametrize("slow", [0.7, 1.0, 1.5])
def test_the_same_moments_are_found_at_another_tempo(slow):
    own, other = vocoder_mel(spoken(3, slow)), vocoder_mel(spoken(3, 1.0))
    found = same_moments(own, other)
    assert len(found) == own.shape[1] and (found.diff() >= 0).all()
    assert int(found.min()) >= 0 and int(found.max()) < other.shape[1]
    wanted = (torch.arange(len(found)) / slow).clamp(max=other.shape[1] - 1)
    assert (found - wanted).abs().mean() < 1.5


@pytest.mark.parametrize("slow", [0.7, 1.5])
def test_a_recording_takes_the_pace_of_another(slow):
    mel, other = vocoder_mel(spoken(3, slow)), vocoder_mel(spoken(3, 1.0))
    paced = at_pace_of(other, mel)
    assert paced.shape == other.shape
    unpaced = torch.nn.functional.interpolate(mel[None], other.shape[1])[0]  # the same length, evenly
    assert (paced - other).abs().mean() < 0.6 * (at_pace_of(other, vocoder_mel(spoken(4, slow))) - other).abs().mean()
    assert (paced - other).abs().mean() < 1.1 * (unpaced - other).abs().mean()


def test_a_recording_goes_with_itself():
    mel = vocoder_mel(spoken(5, 1.0))
    assert same_moments(mel, mel).equal(torch.arange(mel.shape[1]))
    assert same_moments(mel[:, :1], mel).tolist() and same_moments(mel, mel[:, :1]).equal(torch.zeros(mel.shape[1], dtype=torch.long))
