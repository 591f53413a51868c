"""Numbers of a turn from known events, and of many turns from known numbers."""

from __future__ import annotations

import pytest
import torch

from tests.tiny import tiny_model, tone
from vocalnet_cli.core.config.schema import GenerationSettings
from vocalnet_cli.core.generation.events import AudioChunk, Mark, SpeechTokens, TurnDone
from vocalnet_cli.core.generation.streaming import answer
from vocalnet_cli.core.latency.timers import percentiles, ratio_spread
from vocalnet_cli.core.latency.turns import read_turn
from vocalnet_cli.core.units import ANSWER_HZ

STAGES = {"encoder": 10.0, "thinker": 20.0, "talker": 30.0, "vocoder": 35.0}


def done(marks: list[Mark]) -> TurnDone:
    began = {"encoder": 0.1, "thinker": 10.2, "talker": 31.0, "vocoder": 60.0}
    return TurnDone("text", {**STAGES, "total": 900.0}, {"text": 5, "speech": 40}, False, began, marks)


def test_the_first_sound_and_its_stages():
    marks = [Mark(100.0, STAGES, 0.4), Mark(450.0, STAGES, 0.6), Mark(800.0, STAGES, 1.6)]
    turn = read_turn("q", done(marks))
    assert (turn.first_ms, turn.first_text_ms, turn.first_chunk_ms, turn.first_audio_s, turn.audio_s) == (100.0, 31.0, 450.0, 0.4, 1.6)
    assert turn.stages_ms == {**STAGES, "other": 5.0}
    assert turn.stall_ms == pytest.approx(100.0)  # played from 100 ms: 0.6 s last until 700 ms, what follows comes at 800 ms


def test_short_and_silent_answers():
    short = read_turn("q", done([Mark(100.0, STAGES, 0.4)]))
    assert short.first_chunk_ms is None and short.stall_ms == 0.0
    silent = read_turn("q", done([]))
    assert silent.first_ms is None and silent.stages_ms == {} and silent.audio_s == 0.0


def test_every_piece_of_sound_has_its_mark():
    model = tiny_model(2)
    settings = GenerationSettings(max_text_tokens=20, max_speech_tokens=40, tokens_per_step=2)
    events = list(answer(model, tone(), settings))
    sounds, last = [event for event in events if isinstance(event, AudioChunk)], events[-1]
    assert len(last.marks) == len(sounds) > 1
    assert last.marks[-1].audio_s == pytest.approx(sum(len(event.samples) for event in sounds) / ANSWER_HZ)
    times = [mark.at_ms for mark in last.marks]
    assert times == sorted(times) and times[0] == last.timings_ms["first_audio"] and times[-1] <= last.timings_ms["total"]
    assert all(sum(mark.stages_ms.values()) <= mark.at_ms + 0.01 for mark in last.marks)
    began = [last.began_ms[name] for name in ("encoder", "thinker", "talker", "vocoder")]
    assert began == sorted(began) and began[2] < times[0]


def test_without_a_vocoder_speech_tokens_are_marked():
    model = tiny_model()
    model.vocoder, model.settings = None, model.settings.model_copy(update={"vocoder": None})
    events = list(answer(model, tone(), GenerationSettings(max_text_tokens=9, max_speech_tokens=30, tokens_per_step=2)))
    assert len(events[-1].marks) == sum(isinstance(event, SpeechTokens) for event in events) > 0
    assert "first_audio" not in events[-1].timings_ms and events[-1].marks[-1].audio_s == 0.0


def test_percentiles_and_ratios():
    assert percentiles([4.0, 1.0, 2.0, 3.0, 5.0]) == {"p50": 3.0, "p90": 4.6, "p95": 4.8, "max": 5.0}
    # Everything slows down fourfold half way: pairs do not care.
    assert ratio_spread([1.0, 2.0, 4.0], [2.0, 4.0, 8.0]) == {"p50": 0.5, "p10": 0.5, "p90": 0.5}
    assert torch.is_grad_enabled()
