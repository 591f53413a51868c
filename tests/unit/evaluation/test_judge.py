"""The rule judge: what counts as right, and what only looks like it."""

from __future__ import annotations

import pytest

from vocalnet_cli.core.data.record import Record, Utterance
from vocalnet_cli.core.data.synth.questions import listed_items, repeat
from vocalnet_cli.core.evaluation.judge import is_right


def record(kind: str, expected: str, *aliases: str) -> Record:
    asked = Utterance(text="asked")
    return Record(
        id="1", source="s", split="test", question=asked, answer=Utterance(text=expected), meta={"kind": kind, "aliases": list(aliases)}
    )


CASES = [
    ("plus", "Three plus four is seven.", "seven", "Seven.", True),
    ("plus", "Three plus four is seven.", "seven", "It is seven", True),
    ("plus", "Three plus four is seven.", "seven", "three plus four is eight", False),
    ("plus", "Three plus four is seven.", "seven", "Three plus four is twenty seven.", False),
    ("plus", "Zero plus seven is seven.", "seven", "Zero plus seven is five.", False),
    ("plus", "Zero plus seven is seven.", "seven", "Zero plus seven is", False),
    ("minus", "Twelve minus one is eleven.", "eleven", "", False),
    ("plus", "Twelve plus ten is twenty two.", "twenty two", "twenty two", True),
    ("plus", "Twelve plus ten is twenty two.", "twenty two", "twenty", False),
    ("plus", "Twelve plus ten is twenty two.", "twenty two", "12 plus 10 is 22.", True),
    ("plus", "Twelve plus ten is twenty two.", "twenty two", "It is 2.", False),
    ("capital", "The capital of France is Paris.", "paris", "Paris is the capital of France.", True),
    ("capital", "The capital of France is Paris.", "paris", "The capital of Paris is France.", False),
    ("opposite", "The opposite of hot is cold.", "cold", "The opposite of cold is hot.", False),
    ("after", "Saturday comes after Friday.", "saturday", "Saturday comes after Thursday.", True),
    ("after", "Saturday comes after Friday.", "saturday", "Sunday comes after Saturday.", False),
    ("digit", "You said six.", "six", "six", True),
    ("digit", "You said six.", "six", "You said six seven.", False),
    ("digit", "You said six.", "six", "you sad six", True),
    ("digit", "You said six.", "six", "You said.", False),
    ("spelling", "Cat is spelled C, A, T.", "c a t", "c a t", True),
    ("spelling", "Cat is spelled C, A, T.", "c a t", "Cat is spelled C, A, T, S.", False),
    ("repeat", "Big red house.", "big red house", "BIG red house!", True),
    ("repeat", "Big red house.", "big red house", "big house", False),
    ("repeat", "Big red house.", "big red house", "very big red house", False),
    ("", "It opened in 1889.", "eighteen eighty nine", "That was in eighteen eighty nine, I think", True),
]


@pytest.mark.parametrize(("kind", "expected", "alias", "said", "right"), CASES)
def test_right_and_wrong(kind, expected, alias, said, right):
    assert is_right(said, record(kind, expected, alias)) is right


def test_every_question_of_the_domain_accepts_its_own_answers_and_no_neighbours():
    items = [*listed_items(), repeat(("two", "cats"), 0)]
    for item, other in zip(items, items[1:], strict=False):
        mine = record(item.kind, item.answer, *item.aliases)
        assert is_right(item.answer, mine) and all(is_right(alias, mine) for alias in item.aliases), item
        if other.kind == item.kind and not {*item.aliases} & {*other.aliases}:
            assert not is_right(other.answer, mine), (item, other)


def test_words_that_sound_alike_are_one():
    mine = record("after", "U comes after T.", "u")
    assert not is_right("you comes after t", mine)
    assert is_right("you comes after t", mine, {"you": "u"})


def test_without_aliases_only_the_sentence_is_right():
    mine = record("plus", "Three plus four is seven.")
    assert is_right("three plus four is SEVEN", mine) and not is_right("seven", mine)
