"""The vocoder benchmark: the keys `vocalnet latency vocoder --json` promises, and a baseline that does recompute."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.cosyvoice2 import tiny_settings
from vocalnet_cli.core.config.schema import LatencySettings
from vocalnet_cli.core.latency.random_parts import speak_loudly
from vocalnet_cli.core.latency.vocoder import log_spectral_difference, vocoder_latency
from vocalnet_cli.core.model.vocoder.cosyvoice2 import estimator
from vocalnet_cli.core.model.vocoder.cosyvoice2.vocoder import CosyVoice2Vocoder


def test_the_benchmark_measures_both_ways(monkeypatch):
    frames = []
    forward = estimator.Estimator.forward

    def counted(self, x, *args):
        frames.append(x.shape[-1])
        return forward(self, x, *args)

    monkeypatch.setattr(estimator.Estimator, "forward", counted)
    settings = tiny_settings().model_copy(update={"steps": 1, "context": "full"})
    asked = LatencySettings(answer_s=2.4, chunk_tokens=15, prompt_s=0.4, long_s=3.0, window_tokens=15)
    told = vocoder_latency(asked, settings)
    assert told.keys() >= {"offline_s", "streaming_s", "chunk_ms", "baseline", "ratio"}
    for part in (told, told["baseline"]):
        assert len(part["chunk_ms"]) == 4 and part["offline_s"] > 0  # 60 tokens
        assert 0 < part["first_chunk_s"] < part["streaming_s"]
        assert part["streaming_s"] == pytest.approx(sum(part["chunk_ms"]) / 1000)
    assert told["ratio"]["streaming"] == pytest.approx(told["baseline"]["streaming_s"] / told["streaming_s"])
    assert told["ratio"]["first_chunk"] == pytest.approx(told["baseline"]["first_chunk_s"] / told["first_chunk_s"])
    assert "growth" not in told  # of four chunks none comes between the third and the last
    assert 0 < told["flow_s"] < told["streaming_s"]
    # Two voices, three times offline, five first chunks, streamed in two types, undisturbed and in the window; then the baseline: 10
    # prompt tokens each time, in all of what was spoken so far, but for the second chunk.
    ours, theirs = 2 * (2 * 10 + 3 * 60 + 5 * 15 + 3 * 60 + 75), 2 * (3 * 70 + 5 * 25 + 25 + 55 + 70)
    first, second, third, _ = told["baseline"]["chunk_ms"]
    assert second == pytest.approx((first + third) / 2)
    assert sum(frames) == ours + theirs
    assert torch.is_grad_enabled()
    precision, window = told["precision"], told["window"]
    assert precision["fp32"]["flow_s"] == told["flow_s"] and precision["bf16"]["flow_s"] > 0
    assert 0 < precision["log_spectral_db"] < 6 and 0 < precision["mel_error"] < 0.1
    assert window["dtype"] in ("fp32", "bf16") and window["log_spectral_db"] >= 0 and window["mel_error"] > 0
    times = window["chunk_ms"]
    assert window["growth"] == pytest.approx(times[3] / np.median(times[1:4]), abs=1e-3)
    assert len(window["chunk_ms"]) == 5 and window["cache_mb"] < told["cache_mb"]
    waits = told["lookahead"]
    assert [one["frames"] for one in waits] == [0, 5, 13, None]
    assert [one["first_sound_s"] for one in waits[:3]] == pytest.approx([0.6, 0.5, 0.34]) and waits[3]["first_sound_s"] < 0.25
    assert waits[0]["log_spectral_db"] > waits[2]["log_spectral_db"]


def test_the_difference_of_sounds_is_in_decibels():
    generator = np.random.default_rng(0)
    sound = generator.normal(size=24000) * 0.2
    assert log_spectral_difference(sound, sound) == 0
    assert log_spectral_difference(sound, sound * 2) == pytest.approx(20 * np.log10(2), abs=0.1)
    assert log_spectral_difference(sound * 1e-6, sound * 1e-7) == 0  # nothing to hear in either


def test_random_weights_are_heard():
    torch.manual_seed(0)
    hift = CosyVoice2Vocoder(tiny_settings()).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    mel, other = torch.randn(2, 1, 80, 40, generator=generator)
    noise = torch.randn(1, 480 * 40, 9, generator=generator)

    def apart():
        one, two = (hift.hift(frames, noise)[0] for frames in (mel, other))
        return log_spectral_difference(one.numpy(), two.numpy()), float(one.square().mean().sqrt())

    before, _ = apart()
    speak_loudly(hift)
    difference, loudness = apart()
    assert difference > max(2.0, 2 * before) and 0.01 < loudness < 0.5
