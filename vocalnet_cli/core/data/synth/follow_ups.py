"""Questions that only make sense after another one was answered: `that` is its answer. Text only, and no chance but what is passed in."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TypeVar

from vocalnet_cli.core.data.synth import domain
from vocalnet_cli.core.data.synth.questions import Item, arithmetic, listed_items, named, neighbour, neighbours, spelling

AGAIN, AFTER, BEFORE, OPPOSITE, SPELL = (
    "say that again",
    "what comes after that",
    "what comes before that",
    "what is the opposite of that",
    "spell that",
)
PLUS = "what is that plus {0}"
ADDED = range(1, 10)
"""Numbers that are added to the one before."""
LONGEST_SPELLED = 8
_NUMBERS = {domain.number_words(number): number for number in range(domain.MAX_NUMBER + 1)}
_VALUED = ("plus", "minus", "times", "after", "before", "capital", "opposite", "digit")
"""Kinds whose answer is one thing, which `that` may stand for."""

Said = TypeVar("Said")


def follow_ups(before: Item) -> list[Item]:
    """The questions that can follow an answered one, with their answers; `that` is what it was answered with."""
    found = [Item("again", (before.answer,), 0, AGAIN, before.answer, before.aliases)]
    return found + (_about(before.aliases[0]) if before.kind in _VALUED else [])


@lru_cache(maxsize=1)
def listed_follow_ups() -> dict[tuple[str, str], Item]:
    """By question and answer, all but `AGAIN`: there are as many of that as answers."""
    values = dict.fromkeys(item.aliases[0] for item in listed_items() if item.kind in _VALUED)
    return {(item.question, item.answer): item for value in values for item in _about(value)}


@lru_cache(maxsize=4096)
def _about(value: str) -> list[Item]:
    """All that can be asked about one thing, called `that`."""
    found = [
        _asked(neighbour(kind, category, one, other, 0), f"{kind}-that", AFTER if kind == "after" else BEFORE)
        for category, first, second in neighbours()
        for kind, one, other in (("after", first, second), ("before", second, first))
        if one == value
    ]
    number = _NUMBERS.get(value)
    if number is not None:
        sums = [m for m in ADDED if number + m <= domain.MAX_NUMBER]
        found += [_asked(arithmetic("plus", number, m, 0), "plus-that", PLUS.format(domain.number_words(m))) for m in sums]
    if value in domain.OPPOSITES:
        found.append(_asked(named("opposite", value, domain.OPPOSITES[value], 0), "opposite-that", OPPOSITE))
    if value.isalpha() and 1 < len(value) <= LONGEST_SPELLED:
        found.append(_asked(spelling(value, 0), "spell-that", SPELL))
    return found


def _asked(item: Item, kind: str, question: str) -> Item:
    return replace(item, kind=kind, wording=0, question=question)


def balanced(choices: Sequence[tuple[Said, Item]], count: int, chance: random.Random) -> list[tuple[Said, Item]]:
    """`count` of (turn before, follow-up), every kind of follow-up equally often and every follow-up of a kind too."""
    kinds: dict[str, dict[Item, list[Said]]] = {}
    for before, item in choices:
        kinds.setdefault(item.kind, {}).setdefault(item, []).append(before)
    drawn = []
    for _, items in sorted(kinds.items()):
        share = -(-count // len(kinds))
        picked = [item for _ in range(-(-share // len(items))) for item in chance.sample(list(items), len(items))][:share]
        drawn += [(chance.choice(items[item]), item) for item in picked]
    return chance.sample(drawn, min(count, len(drawn)))
