"""Several turns: what is cached changes nothing, what was not heard is not remembered, old turns go as a whole."""

from __future__ import annotations

from itertools import zip_longest

import pytest
import torch

from tests.tiny import tiny_model, tone
from vocalnet_cli.core.config.schema import GenerationSettings
from vocalnet_cli.core.conversation.conversation import Conversation, first_words
from vocalnet_cli.core.generation.events import AudioChunk, SpeechTokens, TextDelta, TurnDone
from vocalnet_cli.core.generation.memory import Memory, Turn
from vocalnet_cli.core.generation.streaming import answer
from vocalnet_cli.core.generation.text import too_short
from vocalnet_cli.core.model.prompt import render_turns

SETTINGS = GenerationSettings(max_text_tokens=12, max_speech_tokens=60, tokens_per_step=2, history=8)
SHORT = SETTINGS.model_copy(update={"max_text_tokens": 6, "max_speech_tokens": 14})
WRITTEN = SETTINGS.model_copy(update={"max_speech_tokens": 1})
QUESTIONS = [tone(0.5, 300.0), tone(0.9, 500.0), tone(0.4, 800.0), tone(0.7, 200.0)]


@pytest.fixture(scope="module")
def model():
    return tiny_model()


def said(events):
    """(text, speech tokens) of an answer."""
    events = list(events)
    return "".join(e.text for e in events if isinstance(e, TextDelta)), [t for e in events if isinstance(e, SpeechTokens) for t in e.tokens]


def uncached(model, conversation) -> Memory:
    """A memory of the same turns that has read nothing yet."""
    fresh = Memory(model, turns=8)
    fresh.turns = [Turn(turn.question, turn.answer, turn.number) for turn in conversation.turns]
    fresh._count = 1000  # numbers of its own
    return fresh


def rows_read(model, monkeypatch) -> list[int]:
    """Filled with the number of rows of every thinker call from now on."""
    rows: list[int] = []
    real = model.read
    monkeypatch.setattr(model, "read", lambda embeds, cache: rows.append(embeds.shape[1]) or real(embeds, cache))
    return rows


@pytest.mark.parametrize("prepare", [False, True])
def test_cached_turns_equal_uncached_ones(model, prepare):
    conversation = Conversation(model, SHORT)
    for question in QUESTIONS:
        alone = uncached(model, conversation)
        expected = said(answer(model, question, SHORT, memory=alone))
        if prepare:
            conversation.prepare()
        assert said(conversation.ask(question)) == expected
        assert alone.reused == 0 and (conversation.memory.reused > 0 or not (prepare or len(conversation.turns) > 1))
    assert len(conversation.turns) == 4


@torch.inference_mode()
def test_cached_logits_equal_those_of_the_whole_prompt_at_once(model):
    memory = Memory(model, turns=8)
    for number, text in enumerate(["three plus five", "is eight", "the café 你好"], 1):
        heard = model.hear([QUESTIONS[number]])[0]
        logits, state = memory.listen(heard, 12)
        messages = [m for t in memory.turns for m in ({"role": "user", "content": "<speech>"}, {"role": "assistant", "content": t.answer})]
        pieces = render_turns(model.tokenizer, "llama", "", [*messages, {"role": "user", "content": "<speech>"}])
        sounds = [*(turn.question for turn in memory.turns), heard]
        parts = [model.embed(pieces[0])[0]]
        for sound, ids in zip(sounds, pieces[1:], strict=True):
            parts += [sound, model.embed(ids)[0]]
        whole_logits, whole_states = model.read(torch.cat(parts)[None], model.new_cache())
        torch.testing.assert_close(logits, whole_logits, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(state, whole_states[:, -1:], atol=1e-5, rtol=1e-4)
        for token_id in model.tokenizer(text, add_special_tokens=False)["input_ids"]:
            memory.read(token_id)
        memory.answered(text)
    assert memory.reused > 0.5 * memory.prompt_rows


def test_only_new_rows_are_read(model, monkeypatch):
    conversation = Conversation(model, SHORT)
    said(conversation.ask(QUESTIONS[0]))
    first = conversation.memory.prompt_rows
    rows = rows_read(model, monkeypatch)
    conversation.prepare()
    said(conversation.ask(QUESTIONS[1]))
    memory = conversation.memory
    assert rows[0] < memory.prompt_rows - first, "reading ahead continues after the first prompt"
    after = len(render_turns(model.tokenizer, "llama", "", [{"role": "user", "content": "<speech>"}])[1])
    assert rows[1] == len(conversation.turns[-1].question) + after, "the question itself and the assistant's header"
    assert rows[2:] == [1] * (len(rows) - 2)


@pytest.mark.parametrize("history", [0, 2])
def test_history_is_at_most_so_many_turns(model, history):
    settings = SHORT.model_copy(update={"history": history})
    conversation = Conversation(model, settings)
    texts = [said(conversation.ask(question)) for question in QUESTIONS]
    assert [turn.answer for turn in conversation.turns] == [text for text, _ in texts[4 - history :]]
    if history == 0:
        assert texts == [said(answer(model, question, settings)) for question in QUESTIONS]


def test_earlier_turns_and_the_system_prompt_are_in_the_prompt(model):
    alone = said(answer(model, QUESTIONS[1], SHORT))[0]
    conversation = Conversation(model, SHORT)
    said(conversation.ask(QUESTIONS[0]))
    assert said(conversation.ask(QUESTIONS[1]))[0] != alone
    told = Conversation(model, SHORT, system_prompt="twenty minus seven")
    assert said(told.ask(QUESTIONS[1]))[0] != alone


def test_old_turns_go_as_a_whole_when_the_positions_run_out():
    model = tiny_model()
    room = 150
    thinker = model.settings.thinker.model_copy(update={"max_positions": room})
    model.settings = model.settings.model_copy(update={"thinker": thinker})
    settings = SHORT.model_copy(update={"history": 100})
    notes: list[str] = []
    conversation = Conversation(model, settings, note=notes.append)
    for number in range(6):
        if number % 2:
            conversation.prepare()
        text = said(conversation.ask(QUESTIONS[number % 4]))
        assert conversation.memory.prompt_rows + settings.max_text_tokens <= room
        last = conversation.turns.pop()
        assert text == said(answer(model, QUESTIONS[number % 4], settings, memory=uncached(model, conversation)))
        conversation.turns.append(last)
    assert conversation.memory.dropped == 6 - len(conversation.turns) > 0 < len(conversation.turns)
    assert notes and all("forgotten" in note and str(room) in note for note in notes)


def test_of_a_cut_answer_the_part_heard_stays(model):
    conversation = Conversation(model, SHORT)
    events = conversation.ask(QUESTIONS[0])
    sound_s, text = 0.0, ""
    for event in events:
        text += event.text if isinstance(event, TextDelta) else ""
        sound_s += len(event.samples) / event.rate if isinstance(event, AudioChunk) else 0.0
        if sound_s > 0.1:
            break
    events.close()
    assert conversation.turns[-1].answer == text, "unless told otherwise, what was written"
    heard = conversation.heard(0.0)
    assert heard == "" == conversation.turns[-1].answer
    expected = said(answer(model, QUESTIONS[1], SHORT, memory=uncached(model, conversation)))
    assert said(conversation.ask(QUESTIONS[1])) == expected


@pytest.mark.parametrize(("share", "heard"), [(0.0, ""), (0.4, "One"), (0.5, "One two,"), (0.99, "One two,"), (1.0, "One two, three. ")])
def test_words_heard(share, heard):
    assert first_words("One two, three. ", share if share != 0.5 else 6 / 11) == heard


def test_cancelled_between_any_two_steps(model):
    """However far an answer got, the conversation goes on as one that never cached anything."""
    steps, ends = 0, set()
    while steps < 100:
        conversation = Conversation(model, SHORT)
        conversation.turns.append(Turn("three plus five", "is eight"))
        asked: list[int] = []
        events = list(conversation.ask(QUESTIONS[1], stop=lambda: asked.append(1) or len(asked) > steps))  # noqa: B023
        if events and isinstance(events[-1], TurnDone):
            break
        ends.add(tuple(type(e).__name__ for e in events[-1:]))
        expected = said(answer(model, QUESTIONS[2], WRITTEN, memory=uncached(model, conversation)))
        conversation.settings = WRITTEN
        assert said(conversation.ask(QUESTIONS[2])) == expected
        steps += 1
    assert steps > 15 and ends == {(), ("TextDelta",), ("SpeechTokens",), ("AudioChunk",)}
    assert len(asked) == steps


def test_an_answer_given_up_before_it_was_heard_does_not_change_the_one_before(model):
    conversation = Conversation(model, SHORT)
    said(conversation.ask(QUESTIONS[0]))
    kept = conversation.turns[-1].answer
    list(conversation.ask(QUESTIONS[1], stop=lambda: True))
    conversation.heard(0.0)
    assert kept and [turn.answer for turn in conversation.turns] == [kept]


def test_two_conversations_with_one_model(model):
    alone = []
    for shift in (0, 1):
        conversation = Conversation(model, SHORT)
        alone.append([said(conversation.ask(question)) for question in QUESTIONS[shift : shift + 3]])
    both = [Conversation(model, SHORT), Conversation(model, SHORT)]
    for turn in range(3):
        events: list[list] = [[], []]
        for pair in zip_longest(*(talk.ask(QUESTIONS[shift + turn]) for shift, talk in enumerate(both))):
            for got, event in zip(events, pair, strict=True):
                got += [event] if event is not None else []
        assert [said(got) for got in events] == [alone[0][turn], alone[1][turn]]


@pytest.mark.parametrize(
    ("text", "tokens", "short"),
    [
        ("Little blue bread.", 19, False),
        ("Little blue bread.", 10, True),
        ("", 0, False),
        ("?!", 0, False),
        ("你好你好", 11, True),
        ("a", 1, False),
    ],
)
def test_too_short_for_its_text(text, tokens, short):
    """The first is the fastest recording of the nano corpus: 0.77 s."""
    assert too_short(text, tokens) == short


@pytest.mark.parametrize(("text_tokens", "cut"), [(1, False), (12, True)])
def test_an_answer_that_is_not_said_to_its_end_is_flagged(model, text_tokens, cut):
    """The tiny model's talker says 4 to 6 tokens of whatever it is given, enough for a letter or two."""
    *_, done = answer(model, QUESTIONS[0], SETTINGS.model_copy(update={"max_text_tokens": text_tokens}))
    assert done.cut == cut and 4 <= done.tokens["speech"] <= 6
