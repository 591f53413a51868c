"""Cross-entropy of prediction heads without their logits: chunk by chunk, each chunk's gradient taken while its scores are there.

The scores of all heads of a batch (6 heads x 2000 rows x 6565 codes in single precision are 315 MB, and their softmax as much again)
are what fills memory in training; of a chunk they are a few megabytes that stay in the cache. Nothing is computed twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

SCORES_AT_ONCE = 2**22
"""Scores a chunk holds, 16 MB in single precision."""


def chunked_cross_entropy(
    predict: Callable[[Tensor], Tensor], modules: Sequence[nn.Module], states: Tensor, targets: Tensor, scale: Tensor, padding: int
) -> tuple[Tensor, Tensor]:
    """Weighted sum over heads of cross-entropies in nats, and the sums of the heads [m], which carry no gradient.

    `predict` scores states [n, H] as [n, m, V] by the weights of `modules` alone, each row by itself; `targets` long [N, m] of states
    [N, H] are ignored where they are `padding`; `scale` [m] weighs each head's sum.
    """
    # Elsewhere asking which rows have a target would wait for the device.
    rows = (targets != padding).any(1).nonzero()[:, 0] if states.device.type == "cpu" else None
    weights = [parameter for module in modules for parameter in module.parameters() if parameter.requires_grad]
    total, sums = _Chunked.apply(states, targets, rows, scale, predict, padding, *dict.fromkeys(weights))
    return total, sums


class _Chunked(torch.autograd.Function):
    """Forward finds the gradients already; backward only scales them."""

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, targets: Tensor, rows: Tensor | None, scale: Tensor, predict: Any, padding: int, *weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        learns = any(ctx.needs_input_grad)
        sums = torch.zeros_like(scale)
        of_states = torch.zeros_like(states) if learns else None
        of_weights = [torch.zeros_like(weight) for weight in weights] if learns else []
        start, count = 0, len(states) if rows is None else len(rows)
        size = max(1, SCORES_AT_ONCE // (targets.shape[1] * max((len(weight) for weight in weights), default=2**13)))
        while start < count:
            here = slice(start, start + size) if rows is None else rows[start : start + size]
            part = states[here].detach().requires_grad_(learns)
            with torch.set_grad_enabled(learns), _uncached_autocast(states.device.type):
                scores = predict(part)
            sums_here, of_scores = _cross_entropy(scores.detach(), targets[here], scale, padding, learns)
            if of_states is not None:
                found = torch.autograd.grad(scores, [part, *weights], of_scores)
                of_states[here] = found[0]
                for whole, more in zip(of_weights, found[1:], strict=True):
                    whole += more
            sums += sums_here
            start += size
            del scores, of_scores
        if of_states is not None:
            ctx.save_for_backward(of_states, *of_weights)
        ctx.mark_non_differentiable(sums)
        return (sums * scale).sum(), sums

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        of_states, *of_weights = ctx.saved_tensors
        return of_states * outer[0].to(of_states.dtype), None, None, None, None, None, *(one * outer[0].to(one.dtype) for one in of_weights)


def _cross_entropy(scores: Tensor, targets: Tensor, scale: Tensor, padding: int, learns: bool) -> tuple[Tensor, Tensor | None]:
    """Cross-entropies, in single precision, of scores [n, m, V], summed over rows [m]; the gradient of their sum weighed by `scale`."""
    counted = targets != padding
    wanted = targets.where(counted, 0)[..., None]
    exact = scores.float()
    likely = exact.softmax(-1)
    # The logarithm of the sum of exponentials, by way of the likeliest, whose probability is never 0.
    total = exact.amax(-1) - likely.amax(-1).log()
    each = (total - exact.gather(-1, wanted)[..., 0]) * counted
    if not learns:
        return each.sum(0), None
    weights = (scale * counted)[..., None]
    found = likely.mul_(weights).scatter_add_(-1, wanted, -weights)
    return each.sum(0), found.to(scores.dtype)


def _uncached_autocast(device: str) -> Any:
    """The autocast that is on, without its cache of cast weights: those of one chunk belong to a graph that is gone in the next."""
    if not torch.amp.is_autocast_available(device):
        return nullcontext()
    enabled = torch.is_autocast_enabled(device)
    return torch.autocast(device, torch.get_autocast_dtype(device), enabled=enabled, cache_enabled=False)
