"""Key/value cache that grows in place: preallocated, doubled when full, never copied for a single step."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin

FIRST_ROWS = 64
"""Rows allocated at first."""


class GrowingLayer(CacheLayerMixin):
    """Keys and values [B, heads, rows, head_dim] of one layer. `update` returns views of the rows in use."""

    is_sliding = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._rows = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Empty buffers of the type, device and sizes of the first rows."""
        self._key_buffer = _widened(key_states, None, FIRST_ROWS)
        self._value_buffer = _widened(value_states, None, FIRST_ROWS)
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Appends rows; returns all keys and all values so far, as views."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start, end = self._rows, self._rows + key_states.shape[-2]
        capacity = self._key_buffer.shape[-2]
        if end > capacity:
            capacity = max(2 * capacity, end)
            self._key_buffer = _widened(self._key_buffer, start, capacity)
            self._value_buffer = _widened(self._value_buffer, start, capacity)
        self._key_buffer[..., start:end, :] = key_states
        self._value_buffer[..., start:end, :] = value_states
        self._rows = end
        self.keys, self.values = self._key_buffer[..., :end, :], self._value_buffer[..., :end, :]
        return self.keys, self.values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Key rows after `query_length` more, and the index of the first (always 0)."""
        return self._rows + query_length, 0

    def get_seq_length(self) -> int:
        """Rows in use."""
        return self._rows

    def get_max_length(self) -> int:
        """-1: no limit."""
        return -1

    get_max_cache_shape = get_max_length  # the name earlier releases of transformers 5 ask for

    def truncate(self, rows: int) -> None:
        """Forgets all but the first `rows` rows; what comes next is written over them."""
        self._rows = min(rows, self._rows)

    def reset(self) -> None:
        """Forgets all rows; the buffers stay."""
        self._rows = 0

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        """Picks batch rows, for beam search."""
        if self.is_initialized:
            self._key_buffer = self._key_buffer.index_select(0, beam_idx.to(self._key_buffer.device))
            self._value_buffer = self._value_buffer.index_select(0, beam_idx.to(self._value_buffer.device))


def _widened(old: Tensor, rows: int | None, capacity: int) -> Tensor:
    """A buffer like `old` with room for `capacity` rows that starts with its first `rows`."""
    new = old.new_empty((*old.shape[:-2], capacity, old.shape[-1]))
    if rows:
        new[..., :rows, :] = old[..., :rows, :]
    return new


class GrowingCache(Cache):
    """A cache for transformers' decoder models and layers; layers appear as they are first used."""

    def __init__(self) -> None:
        super().__init__(layer_class_to_replicate=GrowingLayer)

    def truncate(self, rows: int) -> None:
        """Forgets all but the first `rows` rows of every layer."""
        for layer in self.layers:
            assert isinstance(layer, GrowingLayer)
            layer.truncate(rows)


_NAMES: dict[type, str] = {}


def cache_argument(module: nn.Module, cache: Cache | None) -> dict[str, Any]:
    """The keyword argument under which a decoder model or layer of transformers takes `cache`: `past_key_values` before 5.24."""
    kind = type(module)
    if kind not in _NAMES:  # looked up once: reading a signature takes longer than some layers
        _NAMES[kind] = "cache" if "cache" in inspect.signature(kind.forward).parameters else "past_key_values"
    return {_NAMES[kind]: cache}
