"""The log-mels equal the reference's numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from vocalnet_cli.core.audio.mel import encoder_mel, mel_filters, vocoder_mel


@pytest.fixture(scope="module")
def features(fixtures_dir):
    return load_file(fixtures_dir / "cosyvoice2" / "features.safetensors")


def test_encoder_mel_is_whispers(features):
    torch.testing.assert_close(encoder_mel(features["wav16k"], 128), features["logmel128"], atol=1e-4, rtol=0)


def test_vocoder_mel_is_the_references(features):
    torch.testing.assert_close(vocoder_mel(features["wav24k"]), features["mel24k.fmax8000"][0], atol=1e-4, rtol=0)
    assert torch.equal(vocoder_mel(torch.zeros(4800)), features["silence24k.mel.fmax8000"][0])


def test_vocoder_mel_of_pure_tones(features):
    # Bands without sound hold rounding noise of the transform alone: only there a wider limit.
    mel, wanted = vocoder_mel(features["syn24k"]), features["syn24k.mel.fmax8000"][0]
    heard = wanted > -5
    assert heard.sum() > 100
    torch.testing.assert_close(mel[heard], wanted[heard], atol=1e-4, rtol=0)
    torch.testing.assert_close(mel[~heard], wanted[~heard], atol=2e-2, rtol=0)


def test_filters_are_the_references(features):
    filters = mel_filters(24000, 1920, 80, 0, 8000)
    torch.testing.assert_close(filters, features["mel24k.filterbank_fmax8000"], atol=1e-7, rtol=0)


def test_numpy_and_torch_give_the_same(features):
    x = features["wav16k"]
    assert torch.equal(encoder_mel(x.numpy(), 80), encoder_mel(x, 80))
    assert torch.equal(vocoder_mel(x.numpy()), vocoder_mel(x))


def test_padding_reaches_the_window_and_sets_the_floor():
    loud = torch.sin(torch.arange(16000) * 0.3)
    mel = encoder_mel(loud, 80, pad_to=48000)
    assert mel.shape == (80, 300)
    assert mel[:, 150:].max() == mel.min() == pytest.approx(mel.max().item() - 2.0, abs=1e-6)


@pytest.mark.parametrize("samples", [0, 1, 159, 160, 161, 250, 479, 480, 719, 720, 721, 959, 960, 1921])
def test_frame_counts_of_short_sound(samples):
    x = np.full(samples, 0.1, np.float32)
    assert encoder_mel(x, 80).shape == (80, samples // 160)
    assert vocoder_mel(x).shape == (80, samples // 480)
