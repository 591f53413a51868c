"""The talker's masks as drawn in the docstring of `masks`, and what decoding relies on."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vocalnet_cli.core.model.talker import masks

DRAWN = """
x....|.......
xx...|.......
xxx..|.......
xxxx.|.......
xxxxx|.......
xxx..|x......
xxx..|xx.....
xxx..|xxx....
xxx..|xxxx...
xxxxx|xxxxx..
xxxxx|xxxxxx.
xxxxx|xxxxxxx
"""


GROUPED = """
x....|....
xx...|....
xxx..|....
xxxx.|....
xxxxx|....
xxx..|x...
xxx..|xx..
xxxxx|xxx.
xxxxx|xxxx
"""
"""The same text, and rows of SOS and 2, 4, 6 tokens: the second group ends in the second chunk of 3."""


def drawing(mask: torch.Tensor, text: int) -> list[str]:
    lines = ["".join("x" if seen else "." for seen in row) for row in mask.tolist()]
    return [f"{line[:text]}|{line[text:]}" for line in lines]


def mask(text, speech, streaming, columns, compat="paper", depth=0, chunks=(2, 3), group=1):
    lengths = (torch.tensor([text]), torch.tensor([speech]), torch.tensor([streaming]))
    return masks.training_mask(*lengths, columns, chunks, compat, depth, group)[0]


def test_streaming_mask_as_drawn():
    assert drawing(mask(5, 7, True, (5, 7)), 5) == DRAWN.split()


def test_rows_of_groups_see_the_text_of_their_last_token():
    assert drawing(mask(5, 4, True, (5, 4), group=2), 5) == GROUPED.split()
    single, grouped = mask(21, 61, True, (21, 61), chunks=(2, 15)), mask(21, 13, True, (21, 13), chunks=(2, 15), group=5)
    assert torch.equal(grouped[21:, :21], single[21::5, :21])


def test_padding_is_neither_seen_nor_seeing():
    padded = mask(5, 7, True, (8, 9))
    keep = [*range(5), *range(8, 15)]
    assert drawing(padded[keep][:, keep], 5) == DRAWN.split()
    assert int(padded.sum()) == int(padded[keep][:, keep].sum())


def test_whole_text_is_seen_when_not_streaming():
    got = mask(3, 4, False, (3, 4))
    assert bool(got[:3, :3].all()) and not bool(got[:3, 3:].any()) and bool(got[3:, :3].all())
    assert torch.equal(got[3:, 3:], torch.ones(4, 4, dtype=torch.bool).tril())


def test_released_code_counts_bos_and_shifts_modules():
    main, module = (mask(9, 7, True, (9, 7), compat="official", depth=depth) for depth in (0, 1))
    assert main[9:, :9].sum(1).tolist() == [2, 2, 2, 2, 4, 4, 4]
    assert module[9:, :9].sum(1).tolist() == [2, 2, 2, 4, 4, 4, 0]


@pytest.mark.parametrize("compat, expected", [("paper", [0, 1, 2, 0, 1]), ("official", [0, 1, 2, 3, 4])])
def test_positions(compat, expected):
    assert masks.positions(masks.row_numbers(3, 2), 3, compat).tolist() == expected
    assert masks.positions(masks.row_numbers(3, 2, group=5), 3, compat, group=5).tolist() == expected


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 20), st.integers(1, 40), st.booleans(), st.integers(1, 5), st.integers(1, 6), st.integers(1, 4), st.randoms())
def test_order_of_arrival_does_not_matter(text, speech, streaming, text_chunk, speech_chunk, group, random):
    """Rows in any order see the same rows as in the training layout, and `text_view` says what decoding must wait for."""
    rows = masks.row_numbers(text, speech, group=group).tolist()
    expected = mask(text, speech, streaming, (text, speech), chunks=(text_chunk, speech_chunk), group=group)
    order = list(range(len(rows)))
    random.shuffle(order)
    arrived = torch.tensor([rows[i] for i in order])
    limits = masks.text_limits(arrived, torch.tensor([streaming]), text_chunk, speech_chunk, "paper")
    assert torch.equal(masks.attends(arrived, arrived, limits)[0], expected[order][:, order])
    if streaming:
        views = [min(text, masks.text_view(row * group, text_chunk, speech_chunk)) for row in range(speech)]
        assert expected[text:, :text].sum(1).tolist() == views
