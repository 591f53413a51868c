"""Drawing a token from scores: the one place where any talker does it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vocalnet_cli.core.model.talker.contract import SpeechSampling


def draw(scores: Tensor, sampling: SpeechSampling, recent: Tensor | None = None) -> Tensor:
    """One token a row, long [B], from scores [B, V]; tokens scored -inf are never drawn. `recent` long [B, n] is what the penalty covers.

    The penalty subtracts log(penalty) once from each distinct recent token, so it always lowers the probability; the released code's
    rule is `divided`.
    """
    scores = scores.float()
    if recent is not None and recent.shape[1] and sampling.repetition_penalty != 1.0:
        seen = torch.zeros_like(scores, dtype=torch.bool).scatter(1, recent, True)
        scores = torch.where(seen, scores - math.log(sampling.repetition_penalty), scores)
    if sampling.temperature == 0:
        return scores.argmax(-1)
    scores = scores / sampling.temperature
    if 0 < sampling.top_k < scores.shape[1]:
        least = scores.topk(sampling.top_k, dim=-1).values[:, -1:]
        scores = scores.masked_fill(scores < least, -torch.inf)
    if sampling.top_p < 1:
        scores = _nucleus(scores, sampling.top_p)
    chances = scores.softmax(-1)
    generator = sampling.generator
    if generator is not None and generator.device != chances.device:
        chances = chances.to(generator.device)
    return torch.multinomial(chances, 1, generator=generator)[:, 0].to(scores.device)


def draw_in_turn(scores: Tensor, sampling: SpeechSampling, recent: Tensor) -> Tensor:
    """Tokens [B, m] from scores [B, m, V] that do not depend on one another, though the penalty of each counts those before it.

    Without a penalty that is one draw; with one it takes m.
    """
    if not sampling.repetition_window or sampling.repetition_penalty == 1.0:
        return draw(scores.flatten(0, 1), sampling).view(scores.shape[:2])
    tokens: list[Tensor] = []
    for place in scores.unbind(1):
        tokens.append(draw(place, sampling, recent))
        recent = remembered(recent, tokens[-1][:, None], sampling)
    return torch.stack(tokens, dim=1)


def remembered(recent: Tensor, tokens: Tensor, sampling: SpeechSampling) -> Tensor:
    """The newest tokens [B, at most the window] after `tokens` [B, m] were drawn; nothing is kept without a window."""
    window = sampling.repetition_window
    return torch.cat([recent, tokens], dim=1)[:, -window:] if window else recent


def divided(scores: Tensor, recent: Tensor, counts: Tensor, penalty: float) -> Tensor:
    """The released code's repetition penalty: scores [B, V] are divided by `penalty` once an occurrence in `recent` [B, n].

    `counts` bool [B, n] says which of those tokens count. Negative scores rise, as they do in the released code.
    """
    occurrences = torch.zeros_like(scores, dtype=torch.float32).scatter_add(1, recent, counts.float())
    return scores.float() / penalty**occurrences


def _nucleus(scores: Tensor, top_p: float) -> Tensor:
    """Keeps the fewest likeliest tokens whose probabilities sum to `top_p` or more."""
    ordered, order = scores.sort(dim=-1, descending=True)
    chances = ordered.softmax(-1)
    before = chances.cumsum(-1) - chances
    dropped = torch.zeros_like(before, dtype=torch.bool).scatter(1, order, before >= top_p)
    return scores.masked_fill(dropped, -torch.inf)
