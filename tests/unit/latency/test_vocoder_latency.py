"""The vocoder benchmark: the keys `vocalnet latency vocoder --json` promises, and a baseline that does recompute."""

from __future__ import annotations

import pytest
import torch

from tests.cosyvoice2 import tiny_settings
from vocalnet_cli.core.latency.vocoder import vocoder_latency
from vocalnet_cli.core.model.vocoder.cosyvoice2 import estimator


def test_the_benchmark_measures_both_ways(monkeypatch):
    frames = []
    forward = estimator.Estimator.forward

    def counted(self, x, *args):
        frames.append(x.shape[-1])
        return forward(self, x, *args)

    monkeypatch.setattr(estimator.Estimator, "forward", counted)
    settings = tiny_settings().model_copy(update={"steps": 1})
    told = vocoder_latency(seconds=1.6, chunk_tokens=15, prompt_s=0.4, settings=settings)
    assert told.keys() >= {"offline_s", "streaming_s", "chunk_ms", "baseline", "ratio"}
    for part in (told, told["baseline"]):
        assert len(part["chunk_ms"]) == 3 and part["offline_s"] > 0  # 1.6 s are about three chunks
        assert part["streaming_s"] == pytest.approx(sum(part["chunk_ms"]) / 1000)
    assert told["ratio"]["streaming"] == pytest.approx(told["baseline"]["streaming_s"] / told["streaming_s"])
    # Voice, offline, streamed; then the baseline: 10 prompt tokens each time, in all of what was spoken so far.
    ours, theirs = 2 * (10 + 45 + 45), 2 * (55 + 25 + 40 + 55)
    assert sum(frames) == ours + theirs
    assert torch.is_grad_enabled()
