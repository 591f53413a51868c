"""Decoding exactly as the released code does, defects included (`compat: official`): what the parity tests compare with.

The defects are F1 to F3 of vocalnet.md, section 6.7: special ids leave the talker; EOS in a chunk that is not the last ends only that
chunk; a chunk that ends inside a step leaves the caches of the later heads behind and reads tokens twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vocalnet_cli.core.model.cache import GrowingCache
from vocalnet_cli.core.model.talker.contract import SpeechSampling
from vocalnet_cli.core.model.talker.decoding import check_tokens_per_step
from vocalnet_cli.core.model.talker.sampling import divided, draw

if TYPE_CHECKING:
    from vocalnet_cli.core.model.talker.autoregressive import AutoregressiveTalker


@dataclass
class OfficialState:
    """Everything one answer being spoken needs."""

    streaming: bool
    tokens_per_step: int
    sampling: SpeechSampling
    projector: GrowingCache
    stacks: list[tuple[GrowingCache, list[bool]]]
    """For the decoder and each module in use: its cache, and which of the cached rows are text."""
    tokens: list[int]
    """SOS and all tokens drawn."""
    text: int = 0
    """Text rows read, BOS included."""
    done: bool = False
    """The last text was spoken."""


def begin(talker: AutoregressiveTalker, batch: int, streaming: bool, tokens_per_step: int, sampling: SpeechSampling) -> OfficialState:
    """State of a new answer."""
    check_tokens_per_step(talker, tokens_per_step)
    if batch != 1:
        raise ValueError(f"the released code speaks one answer at a time, not {batch}")
    stacks: list[tuple[GrowingCache, list[bool]]] = [(GrowingCache(), []) for _ in range(tokens_per_step)]
    return OfficialState(streaming, tokens_per_step, sampling, GrowingCache(), stacks, [talker.sos])


def step(talker: AutoregressiveTalker, state: OfficialState, hidden: Tensor | None, last: bool) -> Tensor:
    """One call of the released code: reads text, then speaks a chunk, or to the end after the last text. All ids drawn are returned.

    When not streaming, one call holds the whole text. `max_speech_tokens` counts SOS and is tested once a step.
    """
    if hidden is not None:
        _read_text(talker, state, hidden)
    most, per_step, chunk = state.sampling.max_speech_tokens, state.tokens_per_step, talker.chunks[1]
    first = len(state.tokens)
    steps = -(-(most - first) // per_step) if last or not state.streaming else -(-chunk // per_step)
    # The released code tells the last chunk by its number of steps, so near the limit it can mistake one for a usual chunk.
    stop_at = chunk if state.streaming and steps == -(-chunk // per_step) else None
    pending = state.tokens[-per_step:] if state.streaming else state.tokens[:]
    width = per_step if first == 1 else len(pending)
    for _ in range(steps):
        if _speak(talker, state, pending, first, stop_at):
            break
        pending = state.tokens[-width:]
    state.done = last
    return torch.tensor(state.tokens[first:], dtype=torch.long)


def _read_text(talker: AutoregressiveTalker, state: OfficialState, hidden: Tensor) -> None:
    text = talker.project(hidden, state.projector)
    if state.text == 0:
        text = torch.cat([talker.embedding(torch.tensor([[talker.bos]], device=text.device)), text], dim=1)
    positions = torch.arange(state.text, state.text + text.shape[1], device=text.device)
    state.text += text.shape[1]
    decoded = _run(talker, state, 0, text, positions, is_text=True)
    for depth in range(1, state.tokens_per_step):
        _run(talker, state, depth, decoded, positions, is_text=True)


def _run(talker: AutoregressiveTalker, state: OfficialState, depth: int, states: Tensor, positions: Tensor, is_text: bool) -> Tensor:
    """New rows [1, n, H] through one stack: text rows see text, speech rows everything that came before."""
    cache, text_rows = state.stacks[depth]
    start, count = len(text_rows), states.shape[1]
    text_rows += [is_text] * count
    device = states.device
    seen = torch.arange(start + count, device=device) <= torch.arange(start, start + count, device=device)[:, None]
    if is_text:
        seen = seen & torch.tensor(text_rows, device=device)
    return talker.stack(depth)(states, talker.rotary(positions), seen[None, None], cache)


def _speak(talker: AutoregressiveTalker, state: OfficialState, pending: list[int], first: int, stop_at: int | None) -> bool:
    """One step over the pending tokens; whether speaking stops, at EOS or once `stop_at` tokens came since token number `first`."""
    device = talker.embedding.weight.device
    states = talker.embedding(torch.tensor([pending], device=device))
    for depth in range(state.tokens_per_step):
        start = len(state.stacks[depth][1])  # its own: after a step that was cut short, later heads count fewer rows
        positions = torch.arange(start, start + len(pending), device=device)
        states = _run(talker, state, depth, states, positions, is_text=False)
        scores = talker.predict(depth, states[:, -1], 1)[:, 0]
        recent = state.tokens[first:] if state.streaming else state.tokens
        recent = recent[-state.sampling.repetition_window :] if state.sampling.repetition_window else []
        if recent and (state.streaming or depth == 0):
            past = torch.tensor([recent], device=device)
            scores = divided(scores, past, torch.ones_like(past), state.sampling.repetition_penalty)
        token = int(draw(scores, state.sampling))
        state.tokens.append(token)
        if token == talker.eos or (stop_at is not None and len(state.tokens) - first >= stop_at):
            return True
    return False
