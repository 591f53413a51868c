"""The log-mels of any length and kind of array; parity with the reference is in tests/parity/test_cosyvoice2_features.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from vocalnet_cli.core.audio import mel
from vocalnet_cli.core.audio.mel import encoder_mel, vocoder_mel


@pytest.fixture(scope="module")
def features(fixtures_dir):
    return load_file(fixtures_dir / "cosyvoice2" / "features.safetensors")


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


def test_answering_first_leaves_nothing_that_training_cannot_use():
    mel.hann.cache_clear()
    mel.filter_bank.cache_clear()
    sound = torch.sin(torch.arange(4800.0) / 20)
    with torch.inference_mode():
        vocoder_mel(sound)
    learnt = sound.requires_grad_()
    vocoder_mel(learnt).sum().backward()
    assert learnt.grad is not None and learnt.grad.abs().sum() > 0
