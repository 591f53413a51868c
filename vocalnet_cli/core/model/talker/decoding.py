"""Cached decoding of the next-token and chained multi-token talkers, in the masks and positions they were trained with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vocalnet_cli.core.errors import VocalnetError
from vocalnet_cli.core.model.cache import GrowingCache
from vocalnet_cli.core.model.talker import masks
from vocalnet_cli.core.model.talker.contract import SpeechSampling, TalkerState
from vocalnet_cli.core.model.talker.sampling import draw

if TYPE_CHECKING:
    from vocalnet_cli.core.model.talker.ntp import NtpTalker


def begin(talker: NtpTalker, batch: int, streaming: bool, tokens_per_step: int, sampling: SpeechSampling) -> TalkerState:
    """State of a new answer."""
    most = len(talker.extra) + 1
    if not 1 <= tokens_per_step <= most:
        raise VocalnetError(
            f"tokens_per_step is {tokens_per_step}: this talker has {len(talker.extra)} modules, so 1 to {most} fit.",
            "Set generation.tokens_per_step within that range.",
        )
    if talker.compat != "paper":
        raise VocalnetError(
            f"compat is {talker.compat!r}: only talkers trained under 'paper' can speak.", "Train a talker with model.compat: paper."
        )
    if batch != 1:
        raise ValueError(f"one state speaks one answer, not {batch}: begin one state an answer")
    device = talker.embedding.weight.device
    return TalkerState(
        streaming=streaming,
        tokens_per_step=tokens_per_step,
        sampling=sampling,
        projector=GrowingCache(),
        stacks=[GrowingCache() for _ in range(tokens_per_step)],
        rows=torch.empty(0, dtype=torch.long, device=device),
        pending=torch.full((batch, 1), talker.sos, device=device),
        recent=torch.empty((batch, 0), dtype=torch.long, device=device),
    )


def step(talker: NtpTalker, state: TalkerState, hidden: Tensor | None, last: bool, limit: int | None) -> Tensor:
    """Reads text, then speaks while the text rows that the pending speech rows may see are all there."""
    if not state.done:
        _read_text(talker, state, hidden, last)
    spoken: list[int] = []
    while not state.done and _may_speak(talker, state) and (limit is None or len(spoken) < limit):
        spoken += _speak(talker, state)
    return torch.tensor(spoken, dtype=torch.long)


def _may_speak(talker: NtpTalker, state: TalkerState) -> bool:
    if state.text_complete:
        return True
    last_row = state.speech + state.pending.shape[1] - 1
    return state.streaming and masks.text_view(last_row, *talker.chunks) <= state.text


def _read_text(talker: NtpTalker, state: TalkerState, hidden: Tensor | None, last: bool) -> None:
    """Projects new text; the decoder reads it at once, or, when not streaming, all together once it is complete."""
    if hidden is not None and hidden.shape[1]:
        if state.text_complete:
            raise ValueError("text came after the last text")
        state.waiting.append(talker.project(hidden.to(state.rows.device), state.projector))
    complete = last and not state.text_complete
    state.text_complete = state.text_complete or last
    if state.text == 0:
        ready = (bool(state.waiting) and state.streaming) or complete
        if ready:
            state.waiting.insert(0, talker.embedding(torch.full_like(state.pending, talker.bos)))
    else:
        ready = bool(state.waiting)
    if not ready:
        return
    text = torch.cat(state.waiting, dim=1)
    state.waiting = []
    start, state.text = state.text, state.text + text.shape[1]
    _forward(talker, state, text, torch.arange(start, state.text, device=text.device))


def _forward(talker: NtpTalker, state: TalkerState, states: Tensor, rows: Tensor) -> list[Tensor]:
    """New rows [B, n, H] with numbers [n] through decoder and modules; the un-normed states after each."""
    state.rows = torch.cat([state.rows, rows])
    streaming = torch.tensor([state.streaming], device=rows.device)
    seen = masks.attends(rows, state.rows, masks.text_limits(rows, streaming, *talker.chunks, talker.compat))[:, None]
    rotary = talker.rotary(masks.positions(rows, 0, talker.compat))
    stacks = [talker.decoder, *(module.stack for module in talker.extra)]
    chain = []
    for stack, cache in zip(stacks, state.stacks, strict=False):
        states = stack(states, rotary, seen, cache)
        chain.append(states)
    return chain


def _speak(talker: NtpTalker, state: TalkerState) -> list[int]:
    """One step: reads the pending rows and draws `tokens_per_step` tokens from the last of them."""
    count = state.pending.shape[1]
    rows = -1 - torch.arange(state.speech, state.speech + count, device=state.rows.device)
    chain = _forward(talker, state, talker.embedding(state.pending), rows)
    state.speech += count
    heads = [(talker.norm, talker.head), *((module.norm, module.head) for module in talker.extra)]
    never = torch.tensor([talker.bos, talker.sos, talker.pad], device=rows.device)
    drawn = []
    for states, (norm, head) in zip(chain, heads, strict=False):
        scores = head(norm(states[:, -1])).index_fill(1, never, -torch.inf)
        token = draw(scores, state.sampling, state.recent)
        drawn.append(token)
        if state.sampling.repetition_window:
            state.recent = torch.cat([state.recent, token[:, None]], dim=1)[:, -state.sampling.repetition_window :]
    state.pending = torch.stack(drawn, dim=1)
    return _hand_out(talker, state, state.pending[0].tolist())


def _hand_out(talker: NtpTalker, state: TalkerState, tokens: list[int]) -> list[int]:
    """The tokens before EOS and within the limit; notes when the answer has ended."""
    if talker.eos in tokens:
        tokens = tokens[: tokens.index(talker.eos)]
        state.done = True
    tokens = tokens[: state.sampling.max_speech_tokens - state.tokens]
    state.tokens += len(tokens)
    state.done = state.done or state.tokens >= state.sampling.max_speech_tokens
    return tokens
