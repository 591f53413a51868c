"""A Llama layer's training step on a CPU, both ways written out: the numbers of transformers' layer in fewer passes over memory.

In bfloat16 the matrix products are so fast here that everything else counts: torch's fused attention has no dropout on a CPU and is
slower than three products for the lengths a talker has, and every cast and every norm reads all rows again. So query, key and value are
one product, as are the two ways into the MLP; a norm's weight is multiplied into the matrix behind it, with attention's scale; and kept
for the backward pass are the input, the queries, keys and values, what attention and the two ways in gave, and the rows between the
halves: norms, scores and the product inside the MLP are made again.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from vocalnet_cli.core.model.talker.side_by_side import Group, SideBySide

_COIN = 2**15
"""Dropout draws 15 random bits an element."""
_INTEGERS = {2: torch.int16, 4: torch.int32}
"""Those of as many bytes as a number has."""


class Sizes(NamedTuple):
    """What a layer's step needs beside weights."""

    heads: int
    eps: float
    dropout: float
    dtype: torch.dtype
    """Of the products."""


def layer_step(layer: LlamaDecoderLayer, rows: Tensor, side: SideBySide) -> Tensor:
    """`layer` over rows [T, H] of `side`, differentiable once."""
    attention, mlp = layer.self_attn, layer.mlp
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else rows.dtype
    dropout = float(attention.attention_dropout or 0) if layer.training else 0.0
    sizes = Sizes(attention.config.num_attention_heads, layer.input_layernorm.variance_epsilon, dropout, dtype)
    weights = (
        layer.input_layernorm.weight,
        *(linear.weight for linear in (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj)),
        layer.post_attention_layernorm.weight,
        *(linear.weight for linear in (mlp.gate_proj, mlp.up_proj, mlp.down_proj)),
    )
    result: Tensor = _Layer.apply(rows, side, sizes, *weights)
    return result


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, side: SideBySide, sizes: Sizes, *weights: Tensor) -> Tensor:
        norm, q, k, v, o, norm_2, gate, up, down = weights
        normed, scale = _normed(x, sizes)
        parts = _placed(normed @ _joined((q, k, v), norm, sizes, True).t(), side, sizes)
        heard, coins = _attention(parts, side, sizes)
        middle = x + heard @ _outward(o, sizes).t()
        normed, scale_2 = _normed(middle, sizes)
        inner = normed @ _joined((gate, up), norm_2, sizes).t()
        ctx.save_for_backward(x, parts, heard, middle, inner, scale, scale_2, *weights, *coins)
        ctx.side, ctx.sizes = side, sizes
        opened, into = inner.chunk(2, dim=1)
        return middle + (nn.functional.silu(opened).mul_(into)) @ down.to(sizes.dtype).t()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
        x, parts, heard, middle, inner, scale, scale_2, norm, q, k, v, o, norm_2, gate, up, down, *coins = ctx.saved_tensors
        side, sizes = ctx.side, ctx.sizes
        cast = above.to(sizes.dtype)
        product, of_inner = _gated(inner, cast @ down.to(sizes.dtype))
        of_down = _like(cast.t() @ product, down)
        del product
        between, of_norm_2, (of_gate, of_up) = _through(above, of_inner, middle, scale_2, (gate, up), norm_2, sizes)
        del of_inner
        cast = between.to(sizes.dtype)
        of_o = _like(cast.t() @ heard, o).mul_(_lifted(sizes))
        of_parts = _attention_backward(parts, cast @ _outward(o, sizes), coins, side, sizes)
        below, of_norm, (of_q, of_k, of_v) = _through(between, of_parts, x, scale, (q, k, v), norm, sizes, True)
        return below, None, None, of_norm, of_q, of_k, of_v, of_o, of_norm_2, of_gate, of_up, of_down


# --- norms and the products behind them ------------------------------------------------------------------------------------


def _normed(rows: Tensor, sizes: Sizes) -> tuple[Tensor, Tensor]:
    """Rows [T, H] at length one an element, in the products' type, and what they were multiplied with [T, 1]."""
    rows = rows.float()
    scale = torch.linalg.vector_norm(rows, dim=1, keepdim=True).square_().div_(rows.shape[1]).add_(sizes.eps).rsqrt_()
    return (rows * scale).to(sizes.dtype), scale


def _joined(matrices: tuple[Tensor, ...], norm: Tensor, sizes: Sizes, attends: bool = False) -> Tensor:
    """Matrices [n, H] as one, with the norm's weight [H] in them and, if the first makes queries, attention's scale."""
    whole = matrices[0].new_empty(sum(map(len, matrices)), norm.shape[0], dtype=sizes.dtype)
    start = 0
    for number, matrix in enumerate(matrices):
        torch.mul(matrix, norm * _scale(matrix, sizes) if attends and not number else norm, out=whole[start : start + len(matrix)])
        start += len(matrix)
    return whole


def _scale(queries: Tensor, sizes: Sizes) -> float:
    return float((len(queries) / sizes.heads) ** -0.5)


def _outward(o: Tensor, sizes: Sizes) -> Tensor:
    """The matrix behind attention, with what dropout wants the rest to be multiplied with."""
    return (o * _lifted(sizes)).to(sizes.dtype) if sizes.dropout else o.to(sizes.dtype)


def _lifted(sizes: Sizes) -> float:
    return 1 / (1 - sizes.dropout)


def _through(
    above: Tensor,
    found: Tensor,
    rows: Tensor,
    scale: Tensor,
    matrices: tuple[Tensor, ...],
    norm: Tensor,
    sizes: Sizes,
    attends: bool = False,
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """The gradient of `rows`, given that of what is added to them (`above`) and of the products behind their norm (`found`); the norm's
    and the matrices'."""
    normed = (rows.float() * scale).to(sizes.dtype)
    of_normed = found @ _joined(matrices, norm, sizes, attends)
    of_whole = (found.t() @ normed).float()
    of_norm, of_matrices, start = torch.zeros_like(norm, dtype=torch.float32), [], 0
    for number, matrix in enumerate(matrices):
        part = of_whole[start : start + len(matrix)]
        start += len(matrix)
        if attends and not number:
            part *= _scale(matrix, sizes)
        of_norm += torch.linalg.vecdot(part, matrix.float(), dim=0)
        of_matrices.append(_like(part.mul_(norm), matrix))
    of_normed, normed = of_normed.float(), normed.float()
    along = torch.linalg.vecdot(of_normed, normed).div_(-rows.shape[1])
    below = of_normed.addcmul_(normed, along[:, None]).mul_(scale).add_(above)
    return below.to(rows.dtype), _like(of_norm, norm), of_matrices


def _like(gradient: Tensor, weight: Tensor) -> Tensor:
    return gradient.to(weight.dtype)


# --- the MLP ---------------------------------------------------------------------------------------------------------------


def _gated(inner: Tensor, above: Tensor) -> tuple[Tensor, Tensor]:
    """silu(gate) * up of `inner` [T, 2 F] = gate, up; and the gradient of `inner` given that of the product, [T, F]."""
    opened, into = inner.chunk(2, dim=1)
    silu = nn.functional.silu(opened)
    found = torch.empty_like(inner)
    of_opened, of_into = found.chunk(2, dim=1)
    torch.mul(above, silu, out=of_into)
    torch.ops.aten.silu_backward.grad_input(above * into, opened, grad_input=of_opened)
    return silu.mul_(into), found


# --- attention -------------------------------------------------------------------------------------------------------------


def _placed(parts: Tensor, side: SideBySide, sizes: Sizes) -> Tensor:
    """Products [T, 3 H], overwritten, as queries, keys (turned by positions) and values in attention's places [places, 3 heads, d]."""
    rows = parts.view(len(parts), 3 * sizes.heads, -1)
    _turn(rows, side.cos, side.sin, sizes)
    return side.to_places(rows)


def _turn(rows: Tensor, cos: Tensor, sin: Tensor, sizes: Sizes) -> None:
    """Turn the queries and keys of [T, 3 heads, d] in single precision, in place."""
    halves = rows[:, : 2 * sizes.heads].chunk(2, dim=-1)
    first, second = (half.float() for half in halves)  # in single precision no copies: both are read before either is written
    turned = (first * cos).addcmul_(second, sin, value=-1), (second * cos).addcmul_(first, sin)
    for half, found in zip(halves, turned, strict=True):
        half.copy_(found)


def _heads(places: Tensor, group: Group) -> Tensor:
    """[samples * rows, heads, d] as [samples * heads, rows, d], side by side in memory."""
    return places.view(group.samples, group.rows, *places.shape[1:]).transpose(1, 2).flatten(0, 1)


def _put(places: Tensor, heads: Tensor, group: Group) -> None:
    """The reverse of `_heads`, into `places`."""
    places.view(group.samples, group.rows, *places.shape[1:]).copy_(heads.view(group.samples, -1, *heads.shape[1:]).transpose(1, 2))


def _seen(q: Tensor, k: Tensor, group: Group) -> Tensor:
    """Attention's probabilities [samples * heads, rows, rows], single precision."""
    scores = torch.bmm(q, k.transpose(1, 2)).float()
    scores.view(group.samples, -1, group.rows, group.rows).add_(group.seen)
    return torch._softmax(scores, -1, False)


def _coins(seen: Tensor, sizes: Sizes) -> Tensor:
    """All bits of an int16 where dropout leaves a probability, none where it does not. (Choosing by bool takes three times as long.)"""
    coins = torch.empty(-(-seen.numel() // 4), dtype=torch.long).random_().view(torch.int16)[: seen.numel()].view(seen.shape)
    return coins.bitwise_and_(_COIN - 1).neg_().add_(round(sizes.dropout * _COIN) - 1).bitwise_right_shift_(15)


def _left(numbers: Tensor, coins: Tensor) -> Tensor:
    """`numbers` where the coins say so, else zero; in place."""
    whole = _INTEGERS[numbers.element_size()]
    numbers.view(whole).bitwise_and_(coins.to(whole))
    return numbers


def _attention(parts: Tensor, side: SideBySide, sizes: Sizes) -> tuple[Tensor, list[Tensor]]:
    """What each row hears [T, H], not yet lifted by dropout, whose coins are those of each group."""
    out = parts.new_empty(len(parts), sizes.heads, parts.shape[-1])
    coins = []
    for group in side.groups:
        q, k, v = (_heads(part, group) for part in parts[group.places].chunk(3, dim=1))
        seen = _seen(q, k, group).to(sizes.dtype)
        if sizes.dropout:
            coins.append(_coins(seen, sizes))
            _left(seen, coins[-1])
        _put(out[group.places], torch.bmm(seen, v), group)
    return side.to_rows(out).flatten(1), coins


def _attention_backward(parts: Tensor, above: Tensor, coins: list[Tensor], side: SideBySide, sizes: Sizes) -> Tensor:
    """The gradient of the products [T, 3 H] that `_placed` took, given that of what each row heard [T, H]."""
    found = torch.empty_like(parts)
    above = side.to_places(above, blank=True).unflatten(1, (sizes.heads, -1))
    for number, group in enumerate(side.groups):
        q, k, v = (_heads(part, group) for part in parts[group.places].chunk(3, dim=1))
        heard = _heads(above[group.places], group)
        seen = _seen(q, k, group)
        of_seen, used = torch.bmm(heard, v.transpose(1, 2)), seen.to(sizes.dtype)
        if coins:
            of_seen, used = _left(of_seen, coins[number]), _left(used.clone() if used is seen else used, coins[number])
        of_v = torch.bmm(used.transpose(1, 2), heard)
        of_scores = torch._softmax_backward_data(of_seen.float(), seen, -1, torch.float32).to(sizes.dtype)
        of_q, of_k = torch.bmm(of_scores, k), torch.bmm(of_scores.transpose(1, 2), q)
        for place, part in zip(found[group.places].chunk(3, dim=1), (of_q, of_k, of_v), strict=True):
            _put(place, part, group)
    rows = side.to_rows(found)
    _turn(rows, side.cos, -side.sin, sizes)
    return rows.flatten(1)
