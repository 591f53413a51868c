"""The nano corpus's conversations: rows with others before them, and questions about the answer before."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache

import pytest

from vocalnet_cli.core.data.record import Record
from vocalnet_cli.core.data.synth import plan, talks
from vocalnet_cli.core.data.synth.follow_ups import follow_ups, listed_follow_ups
from vocalnet_cli.core.data.synth.questions import listed_by_question, repeat
from vocalnet_cli.core.data.synth.split import FOLLOW_UPS_TEST, HeldOut, check_split, draw_held_out, spoken_pair
from vocalnet_cli.core.data.synth.voices import TRAIN_VOICES
from vocalnet_cli.core.errors import VocalnetError

SETTINGS = plan.SynthSettings(phrases=200, more_phrases=50, word_rows=0, answer_rows=0, text_phrases=300, text_follow_ups=900)


@lru_cache(maxsize=1)
def held_out() -> HeldOut:
    return draw_held_out(SETTINGS.seed)


@lru_cache(maxsize=1)
def rows() -> tuple[list[Record], list[Record]]:
    """The manifest's rows without history, and with."""
    jobs = plan.plan_questions(SETTINGS, held_out(), TRAIN_VOICES)
    jobs += talks.plan_follow_ups(SETTINGS, held_out(), TRAIN_VOICES, jobs)
    plain = [job.record() for job in jobs]
    return plain, talks.with_history(SETTINGS, plain)


@lru_cache(maxsize=1)
def text() -> list[Record]:
    return talks.text_follow_ups(SETTINGS, held_out(), plan.text_records(SETTINGS, held_out()))


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (
            "what is three plus four",
            {"say that again": "Three plus four is seven.", "what is that plus two": "Seven plus two is nine."},
        ),
        ("what is three plus four", {"what comes after that": "Eight comes after seven.", "spell that": "Seven is spelled S, E, V, E, N."}),
        ("what comes after monday", {"what comes after that": "Wednesday comes after Tuesday."}),
        ("what comes after a", {"what comes before that": "A comes before B."}),
        ("what is the opposite of hot", {"what is the opposite of that": "The opposite of cold is hot."}),
        ("what is the capital of france", {"spell that": "Paris is spelled P, A, R, I, S."}),
    ],
)
def test_that_is_the_answer_before(asked: str, told: dict[str, str]) -> None:
    found = {item.question: item.answer for item in follow_ups(listed_by_question()[asked])}
    assert told.items() <= found.items()


def test_a_phrase_can_only_be_said_again() -> None:
    assert [(item.question, item.answer) for item in follow_ups(repeat(("red", "house"), 0))] == [("say that again", "Red house.")]


def test_three_in_ten_training_rows_come_after_others() -> None:
    plain, full = rows()
    assert [row.model_copy(update={"history": [], "round": 1}) for row in full if row.split == "train"] == [
        row for row in plain if row.split == "train"
    ]
    train = [row for row in full if row.split == "train"]
    turns = Counter(len(row.history) // 2 for row in train)
    assert set(turns) == {0, 1, 2, 3} and 0.27 < 1 - turns[0] / len(train) < 0.33
    known = {(row.question.text, row.question.audio, row.answer.text) for row in train}
    for row in train:
        assert all((q.text, q.audio, a.text) in known for q, a in zip(row.history[::2], row.history[1::2], strict=True))
    assert not any(row.history for row in full if row.split == "test-combination")
    assert talks.with_history(SETTINGS, plain) == full


@pytest.mark.parametrize("made", [lambda: rows()[1], text], ids=["spoken", "written"])
def test_follow_ups_are_about_the_answer_before_and_some_are_never_trained(made) -> None:
    trained = [row for row in made() if row.split == talks.FOLLOW_UPS_SPLIT]
    tested = [row for row in made() if row.split == FOLLOW_UPS_TEST]
    kinds = Counter(row.meta["kind"] for row in trained)
    assert len(kinds) == 6 and max(kinds.values()) - min(kinds.values()) <= 2 and len(trained) in (SETTINGS.follow_up_rows, 900)
    assert len(tested) == SETTINGS.follow_up_tests and len({row.meta["kind"] for row in tested}) == 6
    pairs = [{spoken_pair(row.question.text, row.answer.text) for row in some} for some in (trained, tested)]
    assert not pairs[0] & pairs[1]
    for row in (*trained, *tested):
        last = row.history[-1].text
        assert 1 <= len(row.history) // 2 <= talks.MOST_TURNS and row.round == len(row.history) // 2 + 1
        said = f" {' '.join(spoken_pair('', last)[1].split())} "
        assert row.answer.text == last or any(f" {value} " in said for value in row.meta["values"])


def test_what_is_held_out_stays_out_of_every_turn() -> None:
    trained = [row for row in (*rows()[1], *text()) if row.split in ("train", "dev", talks.FOLLOW_UPS_SPLIT)]
    check_split(trained, held_out())
    unseen = next(row for row in rows()[1] if row.split == "test-combination")
    with pytest.raises(VocalnetError, match="held-out"):
        check_split([trained[0].model_copy(update={"history": plan.turns_of(unseen)})], held_out())
    held = next(item for pair, item in listed_follow_ups().items() if spoken_pair(*pair) in held_out().follow_ups)
    broken = trained[0].model_copy(update={"question": plan.Utterance(text=held.question), "answer": plan.Utterance(text=held.answer)})
    with pytest.raises(VocalnetError, match="held-out"):
        check_split([broken], held_out())
