"""Every question of the nano domain with its answer: text only, no sound and no chance."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import lru_cache

from vocalnet_cli.core.data.synth import domain

ASK = ("what is", "how much is", "tell me")
NAME = ("what is the {0} of", "tell me the {0} of", "name the {0} of")
SPELL = ("how do you spell", "spell")
REPEAT = ("repeat after me", "say")

RELATION_KINDS = ("after", "before", "capital", "opposite")
"""Kinds that ask one value in several wordings: each value has one wording never heard in training."""


@dataclass(frozen=True)
class Item:
    """A question and its answer as text. Questions are spoken words only; answers are written naturally."""

    kind: str
    values: tuple[str, ...]
    """What is combined: numbers, a country, the words of a phrase."""
    wording: int
    question: str
    answer: str
    aliases: tuple[str, ...]
    """Short answers that are right, as spoken words."""


def _sentence(words: str) -> str:
    """Spoken words as a written sentence: `paris is big` is `Paris is big.`"""
    written = [word.capitalize() if word in domain.PROPER else word for word in words.split()]
    text = " ".join(written)
    return text[0].upper() + text[1:] + "."


def arithmetic(kind: str, first: int, second: int, wording: int) -> Item:
    """`plus`, `minus` or `times` of two numbers."""
    result = {"plus": first + second, "minus": first - second, "times": first * second}[kind]
    left, right, value = (domain.number_words(number) for number in (first, second, result))
    phrase = f"{left} {kind} {right}"
    return Item(kind, (left, right), wording, f"{ASK[wording]} {phrase}", _sentence(f"{phrase} is {value}"), (value,))


def neighbour(kind: str, category: str, value: str, other: str, wording: int) -> Item:
    """What comes `after` or `before` a day, month, number or letter."""
    opening = ("what", f"which {category}", "tell me what")[wording]
    spoken, shown = (value.upper(), other.upper()) if category == "letter" else (value, other)
    answer = _sentence(f"{shown} comes {kind} {spoken}")
    return Item(kind, (value,), wording, f"{opening} comes {kind} {value}", answer, (other,))


def named(kind: str, value: str, result: str, wording: int) -> Item:
    """The `capital` of a country or the `opposite` of a word."""
    question = f"{NAME[wording].format(kind)} {value}"
    return Item(kind, (value,), wording, question, _sentence(f"the {kind} of {value} is {result}"), (result,))


def spelling(word: str, wording: int) -> Item:
    """How a short word is spelled, letter by letter."""
    letters = ", ".join(word.upper())
    return Item("spelling", (word,), wording, f"{SPELL[wording]} {word}", f"{word.capitalize()} is spelled {letters}.", (" ".join(word),))


def repeat(words: tuple[str, ...], wording: int) -> Item:
    """A phrase to say again."""
    phrase = " ".join(words)
    return Item("repeat", words, wording, f"{REPEAT[wording]} {phrase}", _sentence(phrase), (phrase,))


def saying(words: tuple[str, ...], pauses: bool) -> Item:
    """Words in no order to say again; with `pauses` a comma after each."""
    phrase, written = " ".join(words), _sentence(" ".join(words))
    return Item("saying", words, 0, f"{REPEAT[0]} {phrase}", written.replace(" ", ", ") if pauses else written, (phrase,))


def digit(number: int) -> Item:
    """One digit, said alone."""
    word = domain.number_words(number)
    return Item("digit", (word,), 0, word, f"You said {word}.", (word,))


@lru_cache(maxsize=1)
def neighbours() -> list[tuple[str, str, str]]:
    """(category, value, the value after it)."""
    numbers = [domain.number_words(number) for number in range(domain.MAX_NUMBER + 1)]
    pairs = [("day", value, domain.DAYS[(place + 1) % 7]) for place, value in enumerate(domain.DAYS)]
    pairs += [("month", value, domain.MONTHS[(place + 1) % 12]) for place, value in enumerate(domain.MONTHS)]
    pairs += [("number", value, after) for value, after in zip(numbers, numbers[1:], strict=False)]
    pairs += [("letter", value, after) for value, after in zip(domain.LETTERS, domain.LETTERS[1:], strict=False)]
    return pairs


@lru_cache(maxsize=1)
def listed_items() -> tuple[Item, ...]:
    """Every item but the phrases to repeat, of which there are too many to list."""
    wordings = range(len(ASK))
    items = [arithmetic("plus", a, b, w) for a in range(13) for b in range(13) for w in wordings]
    items += [arithmetic("minus", a, b, w) for a in range(21) for b in range(13) if b <= a for w in wordings]
    items += [arithmetic("times", a, b, w) for a in range(6) for b in range(6) for w in wordings]
    for category, value, after in neighbours():
        items += [neighbour("after", category, value, after, w) for w in range(3)]
        items += [neighbour("before", category, after, value, w) for w in range(3)]
    items += [named("capital", country, city, w) for country, city in domain.CAPITALS.items() for w in range(len(NAME))]
    items += [named("opposite", word, other, w) for word, other in domain.OPPOSITES.items() for w in range(len(NAME))]
    items += [spelling(word, w) for word in domain.SPELLED for w in range(len(SPELL))]
    items += [digit(number) for number in range(10)]
    return tuple(items)


@lru_cache(maxsize=1)
def listed_by_question() -> dict[str, Item]:
    """The listed items by their question."""
    return {item.question: item for item in listed_items()}


@lru_cache(maxsize=1)
def phrase_pairs() -> tuple[tuple[str, str], ...]:
    """Every two words that can stand side by side in a phrase to repeat, in a fixed order."""
    pairs: dict[tuple[str, str], None] = {}
    for form in domain.PHRASE_FORMS:
        for lefts, rights in zip(form, form[1:], strict=False):
            pairs.update(((left, right), None) for left in lefts for right in rights)
    return tuple(pairs)


def random_phrase(chance: random.Random) -> tuple[str, ...]:
    """A phrase of two or three words that keeps to the grammar."""
    form = chance.choices(domain.PHRASE_FORMS, weights=(4, 2, 2, 2, 1, 2))[0]
    return tuple(chance.choice(words) for words in form)


def spoken_words(text: str) -> list[str]:
    """A written text as the words one hears: lower case, no punctuation."""
    return "".join(letter if letter.isalnum() else " " for letter in text.lower()).split()


def domain_vocabulary() -> list[str]:
    """Every word of the domain's questions and answers, sorted: the recogniser's word loop."""
    words: set[str] = set()
    for item in listed_items():
        words.update(spoken_words(item.question), spoken_words(item.answer))
    for opening in REPEAT:
        words.update(opening.split())
    for form in domain.PHRASE_FORMS:
        for choices in form:
            words.update(choices)
    return sorted(words)
