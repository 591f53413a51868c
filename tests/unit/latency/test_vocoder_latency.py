"""The vocoder benchmark: the keys `vocalnet latency vocoder --json` promises, and a baseline that does recompute."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.cosyvoice2 import tiny_settings
from vocalnet_cli.core.config.schema import LatencySettings
from vocalnet_cli.core.latency.vocoder import log_spectral_difference, vocoder_latency
from vocalnet_cli.core.model.vocoder.cosyvoice2 import estimator


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
        assert part["streaming_s"] == pytest.approx(sum(part["chunk_ms"]) / 1000)
    assert told["ratio"]["streaming"] == pytest.approx(told["baseline"]["streaming_s"] / told["streaming_s"])
    assert told["growth"] == pytest.approx(1, abs=1e-3)  # of four chunks the third is the last before the end
    assert 0 < told["flow_s"] < told["streaming_s"]
    # Two voices, offline, streamed in two types and in the window; then the baseline: 10 prompt tokens each time, in all of what was
    # spoken so far.
    ours, theirs = 2 * (2 * 10 + 60 + 2 * 60 + 75), 2 * (70 + 25 + 40 + 55 + 70)
    assert sum(frames) == ours + theirs
    assert torch.is_grad_enabled()
    precision, window = told["precision"], told["window"]
    assert precision["fp32"]["flow_s"] == told["flow_s"] and precision["bf16"]["flow_s"] > 0
    assert 0 < precision["log_spectral_db"] < 6 and window["log_spectral_db"] >= 0
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
