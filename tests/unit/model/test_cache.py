"""The growing cache holds what transformers' own cache holds, without copying at each step."""

from __future__ import annotations

from itertools import pairwise

import torch
from transformers import DynamicCache, LlamaConfig, LlamaModel

from vocalnet_cli.core.model.cache import FIRST_ROWS, GrowingCache, cache_argument


def rows(count: int) -> torch.Tensor:
    return torch.randn(1, 2, count, 4)


def test_holds_every_row_across_growth():
    cache, plain = GrowingCache(), DynamicCache()
    for count in (1, FIRST_ROWS - 1, 1, 3, 5 * FIRST_ROWS, 1):
        keys, values = rows(count), rows(count)
        for layer in (0, 1):
            got, expected = cache.update(keys, values, layer), plain.update(keys, values, layer)
            assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
    assert cache.get_seq_length() == cache.get_seq_length(1) == plain.get_seq_length()


def test_a_step_copies_nothing_and_growth_is_rare():
    cache = GrowingCache()
    places = [cache.update(rows(1), rows(1), 0)[0].data_ptr() for _ in range(10 * FIRST_ROWS)]
    assert sum(a != b for a, b in pairwise(places)) == 4  # 64, 128, 256, 512, 1024


def test_reset_forgets():
    cache = GrowingCache()
    cache.update(rows(3), rows(3), 0)
    cache.reset()
    new = rows(2)
    assert cache.get_seq_length() == 0 and torch.equal(cache.update(new, new, 0)[0], new)


def test_serves_a_transformers_model():
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, vocab_size=20
    )
    model = LlamaModel(config).eval()
    ids = torch.randint(0, 20, (2, 12))
    cache = GrowingCache()
    with torch.no_grad():
        whole = model(ids).last_hidden_state
        known = cache_argument(model, cache)
        parts = [model(piece, use_cache=True, **known).last_hidden_state for piece in ids.split([5, 1, 1, 5], dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-5, rtol=1e-5)
