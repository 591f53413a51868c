"""What a voice is computed from, against the reference's numbers: filter banks, log-mels, prompt preparation, resampling."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch.testing import assert_close

from vocalnet_cli.core.audio.fbank import kaldi_fbank
from vocalnet_cli.core.audio.mel import encoder_mel, mel_filters, vocoder_mel
from vocalnet_cli.core.audio.prompt import PAUSE, prepare_prompt, speech_span
from vocalnet_cli.core.audio.wav import resample
from vocalnet_cli.core.model.voice.s3_tokenizer import token_count
from vocalnet_cli.core.units import ANSWER_HZ, FRAMES_PER_TOKEN, QUESTION_HZ


@pytest.fixture(scope="module")
def features(fixtures_dir):
    return load_file(fixtures_dir / "cosyvoice2" / "features.safetensors")


@pytest.fixture(scope="module")
def meta(fixtures_dir):
    return json.loads((fixtures_dir / "cosyvoice2" / "features_meta.json").read_text())


def torchaudio_resample(x: torch.Tensor, from_hz: int, to_hz: int) -> torch.Tensor:
    """What the reference calls: torchaudio's Resample with its defaults (sinc, Hann, 6 zero crossings, rolloff 0.99)."""
    step, phases = from_hz // math.gcd(from_hz, to_hz), to_hz // math.gcd(from_hz, to_hz)
    cut = min(step, phases) * 0.99
    width = math.ceil(6 * step / cut)
    time = torch.arange(-width, width + step, dtype=torch.float64) / step - torch.arange(phases, dtype=torch.float64)[:, None] / phases
    time = (time * cut).clamp(-6, 6)
    kernel = torch.sinc(time) * torch.cos(time * math.pi / 12).square() * cut / step
    found = F.conv1d(F.pad(x, (width, width + step))[None, None], kernel[:, None].float(), stride=step)
    return found.transpose(1, 2).flatten()[: math.ceil(phases * len(x) / step)]


def test_filter_banks_are_kaldis(features):
    found, wanted = kaldi_fbank(features["wav16k"]), features["kaldi_fbank80"]
    assert_close(found, wanted, atol=2e-3, rtol=0)
    loud = wanted > wanted.max() - 12
    assert loud.float().mean() > 0.5
    assert_close(found[loud], wanted[loud], atol=1e-4, rtol=0)


def test_filter_banks_without_their_mean(features):
    found = kaldi_fbank(features["wav16k"])
    assert_close(found - found.mean(0), features["kaldi_fbank80.cmn"], atol=2e-3, rtol=0)


@pytest.mark.parametrize("samples", [0, 1, 399, 400, 559, 560, 16000])
def test_filter_bank_frames_lie_whole_inside(samples):
    frames = kaldi_fbank(np.full(samples, 0.1, np.float32))
    assert frames.shape == (max(0, 1 + (samples - 400) // 160), 80)
    assert torch.isfinite(frames).all()


def test_encoder_mel_is_whispers(features):
    assert_close(encoder_mel(features["wav16k"], 128), features["logmel128"], atol=1e-4, rtol=0)


def test_vocoder_mel_is_the_references(features):
    assert_close(vocoder_mel(features["wav24k"]), features["mel24k.fmax8000"][0], atol=1e-4, rtol=0)
    assert torch.equal(vocoder_mel(torch.zeros(4800)), features["silence24k.mel.fmax8000"][0])


def test_vocoder_mel_of_pure_tones(features):
    # Bands without sound hold rounding noise of the transform alone: only there a wider limit.
    mel, wanted = vocoder_mel(features["syn24k"]), features["syn24k.mel.fmax8000"][0]
    heard = wanted > -5
    assert heard.sum() > 100
    assert_close(mel[heard], wanted[heard], atol=1e-4, rtol=0)
    assert_close(mel[~heard], wanted[~heard], atol=2e-2, rtol=0)


def test_filters_are_the_references(features):
    filters = mel_filters(24000, 1920, 80, 0, 8000)
    assert_close(filters, features["mel24k.filterbank_fmax8000"], atol=1e-7, rtol=0)


def test_wide_band_mel(features):
    assert_close(vocoder_mel(features["wav24k"], fmax=12000.0), features["mel24k.fmaxNone"][0], atol=1e-4, rtol=0)


RESAMPLED = {"16k_to_24k": (QUESTION_HZ, ANSWER_HZ), "24k_to_16k": (ANSWER_HZ, QUESTION_HZ)}


@pytest.mark.parametrize("case", RESAMPLED)
def test_the_references_resampling_is_understood(features, case):
    found = torchaudio_resample(features[f"resample.{case}.in"], *RESAMPLED[case])
    assert_close(found, features[f"resample.{case}.out"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("case", RESAMPLED)
def test_our_resampling_differs_at_the_top_of_the_band_only(features, case):
    """torchaudio's short filter falls off from 6 kHz on, and leaves an image above 8 kHz; soxr keeps the band and cuts at its edge."""
    found = resample(features[f"resample.{case}.in"].numpy(), *RESAMPLED[case])
    wanted = features[f"resample.{case}.out"].numpy()
    assert found.shape == wanted.shape
    window = np.hanning(len(wanted))
    error, spectrum = (np.abs(np.fft.rfft(x * window)) for x in (found - wanted, wanted))
    hz = np.fft.rfftfreq(len(wanted), 1 / RESAMPLED[case][1])
    low = hz < 6000
    assert np.linalg.norm(error[low]) < 2e-3 * np.linalg.norm(spectrum[low])
    assert np.linalg.norm(error[~low]) > 3 * np.linalg.norm(error[low])
    assert np.linalg.norm(error) < 0.02 * np.linalg.norm(spectrum)


def test_prompt_preparation(features, meta):
    recorded = torchaudio_resample(features["prompt.wav24k"], ANSWER_HZ, QUESTION_HZ).numpy()
    assert np.abs(recorded).max() == pytest.approx(meta["peak_16k"], abs=1e-5)
    assert list(speech_span(recorded)) == meta["trim_index_16k"]
    prepared = prepare_prompt(recorded)
    assert len(prepared) == meta["wav16k_post_samples"] and not prepared[-PAUSE:].any()
    assert_close(torch.from_numpy(prepared), features["prompt.wav16k_post"], atol=1e-5, rtol=0)


def test_prompt_mel(features, meta):
    sound = torchaudio_resample(features["prompt.wav16k_post"], QUESTION_HZ, ANSWER_HZ)
    mel = vocoder_mel(sound)
    assert mel.shape[1] == meta["mel_frames_24k"]
    assert_close(mel, features["prompt.mel"][0], atol=1e-3, rtol=0)


def test_prompt_from_the_recording_with_our_resampling(features, meta):
    """The whole way as `make_voice` goes it: up to 5.6 kHz (70 bins) the log-mel is the reference's within 0.03, above it up to 1.5 off."""
    prepared = prepare_prompt(resample(features["prompt.wav24k"].numpy(), ANSWER_HZ, QUESTION_HZ))
    assert len(prepared) == meta["wav16k_post_samples"]
    assert encoder_mel(prepared, 128).shape[1] == meta["logmel_frames_16k"]
    mel = vocoder_mel(resample(prepared, QUESTION_HZ, ANSWER_HZ))
    difference = (mel - features["prompt.mel"][0]).abs()
    assert difference[:70].max() < 0.03 and difference[:70].mean() < 0.005
    assert difference.max() < 2 and difference.mean() < 0.05


def test_tokens_and_frames_of_the_prompt(meta):
    assert token_count(meta["logmel_frames_16k"]) == meta["speech_tokens_expected"]
    assert min(meta["speech_tokens_expected"], meta["mel_frames_24k"] // FRAMES_PER_TOKEN) == meta["aligned_tokens"]


def test_speech_span_keeps_what_is_within_60_db():
    x = np.zeros(16000, np.float32)
    x[4000:8000] = 0.5
    x[8000:12000] = 0.5e-3 * 1.1
    assert speech_span(x) == (3960, 11880)
    x[8000:12000] = 0.5e-3 * 0.9
    start, end = speech_span(x)
    assert start == 3960 and 8000 <= end <= 8360


def test_quiet_recordings_are_not_made_louder():
    x = 0.3 * np.sin(np.arange(16000) * 0.3).astype(np.float32)
    assert np.abs(prepare_prompt(x)).max() == np.abs(x).max()
    assert np.abs(prepare_prompt(3 * x)).max() == pytest.approx(0.8, abs=1e-6)
