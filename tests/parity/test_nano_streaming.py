"""The embedded model on its own questions: what it says while it is still writing is what it says when everything is computed at once.

`pytest -m slow tests/parity/test_nano_streaming.py` asks 50 of them.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vocalnet_cli.core.audio.wav import read_audio
from vocalnet_cli.core.config.places import nano_folder
from vocalnet_cli.core.data.manifest import read_manifest
from vocalnet_cli.core.generation.events import AudioChunk, SpeechTokens, TurnDone
from vocalnet_cli.core.generation.load import generation_settings, load_speaker
from vocalnet_cli.core.generation.streaming import answer
from vocalnet_cli.core.generation.together import answer_together

BENCHMARK = nano_folder() / "eval" / "nano-combination"
AT_ONCE = 5


@pytest.mark.parametrize("count", [5, pytest.param(50, marks=pytest.mark.slow)])
def test_streamed_sound_is_the_offline_sound(count):
    model, settings = load_speaker(nano_folder(), torch.device("cpu"), torch.float32), generation_settings(nano_folder())
    records = read_manifest(BENCHMARK / "manifest.jsonl")[:count]
    questions = [read_audio(BENCHMARK / str(record.question.audio)) for record in records]
    assert len(questions) == count and settings.streaming
    for at in range(0, count, AT_ONCE):
        group = questions[at : at + AT_ONCE]
        for question, (whole, tokens, _) in zip(group, answer_together(model, group, settings), strict=True):
            events = list(answer(model, question, settings))
            done = events[-1]
            assert isinstance(done, TurnDone) and done.text == whole.text and not done.cut
            assert [token for event in events if isinstance(event, SpeechTokens) for token in event.tokens] == tokens
            streamed = np.concatenate([event.samples for event in events if isinstance(event, AudioChunk)])
            sound = model.vocoder.push(model.vocoder.begin(), torch.tensor(tokens), True)
            np.testing.assert_allclose(streamed, sound, atol=1e-4)
