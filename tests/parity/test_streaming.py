"""The streaming engine: what it says while it is still writing equals what the parts say by themselves."""

from __future__ import annotations

from itertools import zip_longest

import numpy as np
import pytest
import torch

from tests.tiny import tiny_model, tone
from vocalnet_cli.core.config.schema import GenerationSettings
from vocalnet_cli.core.generation.events import AudioChunk, SpeechTokens, TextDelta, TurnDone
from vocalnet_cli.core.generation.streaming import answer
from vocalnet_cli.core.generation.text import TextStream, decode, draw_token
from vocalnet_cli.core.generation.together import answer_together
from vocalnet_cli.core.model.folder import PARTS
from vocalnet_cli.core.model.weights import load_model, save_model

SETTINGS = GenerationSettings(max_text_tokens=23, max_speech_tokens=120, tokens_per_step=2)
TALKERS = [
    ({"kind": "ntp"}, 1),
    ({"kind": "group-linear", "group": 5}, 5),
    ({"kind": "group-trans", "group": 4}, 4),
    ({"kind": "mtp-parallel-linear", "modules": 3}, 3),
    ({"kind": "mtp-deepseek", "modules": 3}, 4),
    ({"kind": "mtp-vocalnet", "modules": 3}, 2),
]
"""Every kind, and tokens a step."""


@pytest.fixture(scope="module")
def model():
    return tiny_model()


def collect(events):
    """(text, speech tokens, samples, last event) of a finished answer."""
    events = list(events)
    text = "".join(e.text for e in events if isinstance(e, TextDelta))
    tokens = [t for e in events if isinstance(e, SpeechTokens) for t in e.tokens]
    samples = [e.samples for e in events if isinstance(e, AudioChunk)]
    return text, tokens, np.concatenate(samples) if samples else np.zeros(0, np.float32), events[-1]


def test_sound_leaves_before_the_text_is_complete(model):
    events = list(answer(model, tone(), SETTINGS))
    kinds = [type(e) for e in events]
    last_text = max(i for i, kind in enumerate(kinds) if kind is TextDelta)
    assert kinds.index(SpeechTokens) < kinds.index(AudioChunk) < last_text
    assert kinds.count(TurnDone) == 1 and kinds[-1] is TurnDone
    timings = events[-1].timings_ms
    assert 0 < timings["first_audio"] < timings["total"]
    assert sum(timings[stage] for stage in ("encoder", "thinker", "talker", "vocoder")) <= timings["total"]


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize(("talker", "tokens_per_step"), TALKERS, ids=[talker["kind"] for talker, _ in TALKERS])
def test_every_talker_says_the_same_from_its_file_alone_and_with_others(talker, tokens_per_step, streaming, tmp_path):
    settings = SETTINGS.model_copy(update={"tokens_per_step": tokens_per_step, "streaming": streaming})
    questions = [tone(), tone(0.9, 500)]
    model = tiny_model(talker=talker)
    for name, layer in model.talker.named_modules():
        if name.endswith("head"):
            layer.bias.view(-1, model.talker.vocab)[:, model.talker.eos] = -100.0  # speak to the limit
    alone = [collect(answer(model, question, settings)) for question in questions]
    save_model(model, tmp_path / "model", set(PARTS))
    loaded = load_model(tmp_path / "model")
    for (text, tokens, _, done), (done_together, tokens_together, _) in zip(
        alone, answer_together(loaded, questions, settings), strict=True
    ):
        assert (done_together.text, tokens_together) == (text, tokens) and len(tokens) == SETTINGS.max_speech_tokens
        assert done.tokens["text"] == SETTINGS.max_text_tokens
    kinds = [type(e) for e in answer(model, tone(), settings)]
    last_text = max(i for i, kind in enumerate(kinds) if kind is TextDelta)
    assert (kinds.index(AudioChunk) < last_text) == streaming


def test_whole_text_first_when_not_streaming(model):
    kinds = [type(e) for e in answer(model, tone(), SETTINGS.model_copy(update={"streaming": False}))]
    assert kinds.index(SpeechTokens) > max(i for i, kind in enumerate(kinds) if kind is TextDelta)


@pytest.mark.parametrize("streaming", [True, False])
def test_sound_is_the_tokens_vocoded_at_once(model, streaming):
    _, tokens, samples, done = collect(answer(model, tone(), SETTINGS.model_copy(update={"streaming": streaming})))
    assert tokens and done.tokens["speech"] == len(tokens)
    whole = model.vocoder.push(model.vocoder.begin(), torch.tensor(tokens), True)
    np.testing.assert_allclose(samples, whole, atol=1e-5)


def test_text_is_what_the_thinker_writes_alone(model):
    text, _, _, done = collect(answer(model, tone(), SETTINGS))
    with torch.no_grad():
        embeds = model.prompt(model.hear([tone()])[0])
        ids = []
        for _ in range(SETTINGS.max_text_tokens):
            logits, _ = model.read(torch.cat([embeds, model.embed(ids)], dim=1) if ids else embeds, model.new_cache())
            ids.append(int(logits.argmax()))
    assert done.text == text == decode(model.tokenizer, ids)
    assert done.tokens["text"] == len(ids) == SETTINGS.max_text_tokens
    assert done.truncated


def test_talker_hears_every_read_state_and_then_the_end(model, monkeypatch):
    fed: list[torch.Tensor] = []
    lasts: list[bool] = []
    real = model.talker.step

    def step(state, hidden, last, limit=None):
        if hidden is not None:
            fed.append(hidden)
            lasts.append(last)
        return real(state, hidden, last, limit)

    monkeypatch.setattr(model.talker, "step", step)
    list(answer(model, tone(), SETTINGS.model_copy(update={"max_text_tokens": 12, "max_speech_tokens": 2000})))
    states = torch.cat(fed, dim=1)
    assert states.shape[1] == 12 + 1, "12 text tokens and the end vector, no state of the prompt"
    torch.testing.assert_close(states[:, -1:], model.end_vector())
    assert lasts == [False, False, True]
    assert [h.shape[1] for h in fed] == [5, 5, 3]


def test_two_conversations_at_once_are_the_two_alone(model):
    hot = SETTINGS.model_copy(update={"temperature": 1.0, "top_p": 0.9, "speech_temperature": 1.0})

    def start(seed):
        return answer(model, tone(hz=200.0 + 100 * seed), hot, torch.Generator().manual_seed(seed))

    alone = [collect(start(seed)) for seed in (1, 2)]
    both = [[], []]
    for pair in zip_longest(start(1), start(2)):
        for events, event in zip(both, pair, strict=True):
            if event is not None:
                events.append(event)
    assert alone[0][0] != alone[1][0]
    for (text, tokens, samples, _), events in zip(alone, both, strict=True):
        mixed = collect(events)
        assert mixed[0] == text and mixed[1] == tokens
        np.testing.assert_array_equal(mixed[2], samples)


def test_abandoned_answer_leaves_nothing_behind(model):
    before = collect(answer(model, tone(), SETTINGS))
    events = answer(model, tone(), SETTINGS)
    next(events)
    assert not torch.is_inference_mode_enabled(), "the caller's own torch mode is untouched between events"
    events.close()
    after = collect(answer(model, tone(), SETTINGS))
    assert after[:2] == before[:2]


def ended_after(count: int):
    """A tiny model whose thinker draws the end token after `count` tokens."""
    model = tiny_model()
    real, calls = model.read, []

    def read(embeds, cache):
        logits, hidden = real(embeds, cache)
        calls.append(1)
        if len(calls) > count:
            logits = logits.clone()
            logits[0, min(model.end_ids)] = logits.max() + 1
        return logits, hidden

    model.read = read
    return model


@pytest.mark.parametrize("count", [1, 4, 5, 6])
def test_short_answers_are_spoken(count):
    settings = SETTINGS.model_copy(update={"max_speech_tokens": 500})
    _, tokens, samples, done = collect(answer(ended_after(count), tone(), settings))
    assert done.tokens == {"text": count, "speech": len(tokens)}
    assert tokens and len(samples)
    assert done.truncated == (len(tokens) >= 500)


def test_empty_answer_is_silent():
    text, tokens, samples, done = collect(answer(ended_after(0), tone(), SETTINGS))
    assert (text, tokens, len(samples)) == ("", [], 0)
    assert done.tokens == {"text": 0, "speech": 0} and "first_audio" not in done.timings_ms and not done.truncated


@pytest.mark.parametrize("text", ["plain words", "the café is open – 你好 🎉👩‍👩‍👧 done", " leading and  double  spaces ", "a�b"])
def test_deltas_hold_whole_characters_only(model, text):
    ids = model.tokenizer(text, add_special_tokens=False)["input_ids"]
    stream = TextStream(model.tokenizer)
    pieces = [stream.push(i) for i in ids]
    if "�" not in text:
        assert "�" not in "".join(pieces)
    assert "".join(pieces) + stream.finish() == text == stream.text


def test_text_cut_inside_a_character_is_still_all_there(model):
    ids = model.tokenizer("ok 🎉", add_special_tokens=False)["input_ids"][:-1]
    stream = TextStream(model.tokenizer)
    joined = "".join(stream.push(i) for i in ids)
    assert joined == "ok "
    assert joined + stream.finish() == decode(model.tokenizer, ids)


def test_nucleus_keeps_the_likeliest_and_drops_the_tail():
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]]))
    generator = torch.Generator().manual_seed(0)
    drawn = {draw_token(logits, 1.0, 0.7, generator) for _ in range(200)}
    assert drawn == {0, 1}
    assert {draw_token(logits, 1.0, 0.01, generator) for _ in range(20)} == {0}
    assert draw_token(logits, 0.0, 1.0, None) == 0
