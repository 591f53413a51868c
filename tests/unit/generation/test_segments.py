"""How long answers are handed to the talker, with and without the released code's defects."""

from __future__ import annotations

import pytest

from vocalnet_cli.core.generation.segments import FILLER, Call, Groups, cut

END, WORD, STOP = 13, 1, 99


def text(count: int, *ends: int) -> list[int]:
    """`count` ids, sentence ends at these places."""
    return [END if place in ends else WORD for place in range(count)]


@pytest.mark.parametrize(
    "ids, fixed, broken",
    [
        ([], [], [(0, 0)]),
        (text(1), [(0, 1)], [(0, 1)]),
        (text(2), [(0, 2)], []),  # a one-word answer and its stop: silent in the released code
        (text(60, 50), [(0, 60)], [(0, 60)]),
        (text(60, 51), [(0, 52), (52, 60)], [(0, 52), (52, 60)]),
        (text(60, 59), [(0, 60)], [(0, 60), (60, 60)]),  # cut off right after punctuation: an empty segment
        (text(60, 58), [(0, 60)], [(0, 60)]),
        (text(200, 60, 90, 111, 112), [(0, 61), (61, 112), (112, 200)], [(0, 61), (61, 112), (112, 200)]),
    ],
)
def test_cuts(ids, fixed, broken):
    assert cut(ids, {END}) == fixed
    assert cut(ids, {END}, broken=True) == broken


def calls_of(ids: list[int], broken: bool, interval: int = 50) -> list[Call]:
    groups = Groups(5, lambda some: "".join("." if i == END else "" if i == STOP else "w" for i in some), interval, broken)
    return [call for token in ids for call in groups.push(token, token == STOP)]


def heard(calls: list[Call]) -> list[tuple[int | None, bool, bool]]:
    return [(call.count, call.end, call.last) for call in calls]


@pytest.mark.parametrize("words", range(1, 12))
def test_the_last_call_always_has_the_end_vector(words):
    calls = calls_of([*text(words), STOP], broken=False)
    assert sum(call.count for call in calls) == words + 1, "the state that predicted the stop is spoken too"
    assert [call.last for call in calls] == [False] * (len(calls) - 1) + [True] and calls[-1].end
    assert all(call.count == 5 for call in calls[:-1])


def test_tails_of_the_released_code():
    assert heard(calls_of([*text(3), STOP], broken=True)) == [(4, True, True)]
    assert heard(calls_of([*text(4), STOP], broken=True)) == [(5, False, False), (None, False, True)]  # never hears the end
    assert heard(calls_of([*text(5), STOP], broken=True)) == [(5, False, False), (None, False, True)]
    assert calls_of([STOP], broken=True) == [Call(None, filler=True)] and len(FILLER) == 2


@pytest.mark.parametrize("broken", [True, False])
def test_a_stream_restarts_at_a_sentence_end(broken):
    calls = calls_of([*text(9, 2, 8), *text(3), STOP], broken, interval=6)
    assert [(call.count, call.restart) for call in calls] == [(5, False), (4, True), (4, False)]
    nothing_after = calls_of([*text(9, 8), STOP], broken, interval=6)
    assert len(nothing_after) == (3 if broken else 2), "only the stop came after the restart: a filler, or nothing"
