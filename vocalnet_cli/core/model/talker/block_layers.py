"""Transformer layers whose leading columns may be there for others to see only: the clean tokens of block diffusion.

Pre-norm, rotary positions, gated MLP, as Llama's; own code because queries, keys and the cache cover different columns here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from vocalnet_cli.core.config.talker_schema import MdmSettings
from vocalnet_cli.core.model.cache import GrowingCache
from vocalnet_cli.core.model.talker.backbone import norm


@dataclass(frozen=True)
class FlexMask:
    """A mask by rule, for attention that leaves out what nobody sees: all rows, and those from `silent` on, for the last layer."""

    whole: Any
    """`BlockMask`, as the next."""
    spoken: Any

    @classmethod
    def of(cls, rule: Callable[..., Tensor], batch: int, columns: int, silent: int, device: torch.device) -> FlexMask:
        """`rule` as `mdm_masks.doubled_rule` makes it, over `columns` queries and keys."""

        def later(sample: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return rule(sample, head, query + silent, key)

        from torch.nn.attention.flex_attention import create_block_mask as make  # here: it takes seconds to import

        return cls(
            make(rule, batch, None, columns, columns, device=device), make(later, batch, None, columns - silent, columns, device=device)
        )


@lru_cache
def _compiled() -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=True)


def _flex(query: Tensor, key: Tensor, value: Tensor, mask: Any) -> Tensor:
    """Without compilation, as on a CPU, flex attention computes every pair: right, and slow."""
    from torch.nn.attention.flex_attention import flex_attention

    attend = _compiled() if query.is_cuda else flex_attention
    return attend(query, key, value, block_mask=mask)


def rotate(states: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Heads [B, heads, N, d] turned by the table [B or 1, N, d] of `rotary_table`."""
    first, second = states.chunk(2, dim=-1)
    return states * rotary[0][:, None] + torch.cat([-second, first], dim=-1) * rotary[1][:, None]


class BlockLayer(nn.Module):
    """One layer over [seen only | spoken] columns."""

    def __init__(self, settings: MdmSettings) -> None:
        super().__init__()
        width = settings.hidden
        self.heads, self.dropout = settings.heads, settings.dropout
        self.before_attention, self.before_mlp = norm(settings), norm(settings)
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.gate_up = nn.Linear(width, 2 * settings.ffn, bias=False)
        self.down = nn.Linear(settings.ffn, width, bias=False)

    def forward(
        self,
        states: Tensor,
        rotary: tuple[Tensor, Tensor],
        mask: Tensor | FlexMask | None,
        cache: tuple[GrowingCache, int] | None,
        silent: int,
    ) -> Tensor:
        """[B, N, H] to [B, N - silent, H]: the first `silent` columns give keys and values, and nothing else.

        `mask` bool [B or 1, 1, N - silent, keys], none where everything is seen; `cache` (and which of its layers) holds earlier keys.
        """
        normed = self.before_attention(states)
        key, value = self.key_value(normed).unflatten(-1, (2 * self.heads, -1)).transpose(1, 2).chunk(2, dim=1)
        key = rotate(key, rotary)
        if cache is not None:
            key, value = cache[0].update(key, value, cache[1])
        if silent == states.shape[1]:
            return states[:, silent:]
        cosines, sines = rotary
        query = self.query(normed[:, silent:]).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        query = rotate(query, (cosines[:, silent:], sines[:, silent:]))
        if isinstance(mask, FlexMask):
            seen = _flex(query, key, value, mask.spoken if silent else mask.whole)
        else:
            drop = self.dropout if self.training else 0.0
            seen = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=drop)
        states = states[:, silent:] + self.out(seen.transpose(1, 2).flatten(2))
        gate, up = self.gate_up(self.before_mlp(states)).chunk(2, dim=-1)
        return states + self.down(nn.functional.silu(gate) * up)


class BlockStack(nn.Module):
    """Layers, and the norm before the head."""

    def __init__(self, settings: MdmSettings) -> None:
        super().__init__()
        self.layers = nn.ModuleList(BlockLayer(settings) for _ in range(settings.decoder_layers))
        self.norm = norm(settings)

    def forward(
        self,
        states: Tensor,
        rotary: tuple[Tensor, Tensor],
        mask: Tensor | FlexMask | None,
        cache: GrowingCache | None = None,
        silent: int = 0,
    ) -> Tensor:
        """[seen only | spoken] columns [B, N, H] to the normed states [B, N - silent, H] of the spoken ones.

        `mask` bool [B or 1, 1, N, keys], none where everything is seen. The silent columns pass through all layers but the last, of
        which nobody sees more than their keys and values.
        """
        for index, layer in enumerate(self.layers):
            quiet = silent if index == len(self.layers) - 1 else 0
            seen = mask[..., quiet:, :] if isinstance(mask, Tensor) else mask
            states = layer(states, rotary, seen, None if cache is None else (cache, index), quiet)
        return self.norm(states)
