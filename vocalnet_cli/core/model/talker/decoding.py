"""Cached decoding of the talkers that speak from left to right, by the rules of `compat` `paper` and `released`.

Under `paper` every row has the mask and position it was trained with; `released` decodes as the released code does, without its
defects. Both are functions of lengths alone, so an answer is the same streamed, whole, alone or in a batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vocalnet_cli.core.errors import VocalnetError
from vocalnet_cli.core.model.cache import GrowingCache
from vocalnet_cli.core.model.compat import RULES, Rules
from vocalnet_cli.core.model.talker import masks
from vocalnet_cli.core.model.talker.contract import SpeechSampling, TalkerState
from vocalnet_cli.core.model.talker.sampling import divided, draw, draw_in_turn, remembered

if TYPE_CHECKING:
    from vocalnet_cli.core.model.talker.autoregressive import AutoregressiveTalker


def check_tokens_per_step(talker: AutoregressiveTalker, tokens_per_step: int) -> None:
    """Raises VocalnetError when the talker cannot draw so many tokens at once."""
    refused = talker.settings.refused_step(tokens_per_step)
    if refused is not None:
        raise VocalnetError(f"tokens_per_step is {tokens_per_step}: {refused}", "Set generation.tokens_per_step to what this talker draws.")


def begin(talker: AutoregressiveTalker, batch: int, streaming: bool, tokens_per_step: int, sampling: SpeechSampling) -> TalkerState:
    """State of `batch` new answers that advance together."""
    check_tokens_per_step(talker, tokens_per_step)
    start = torch.full((batch, talker.group), talker.sos, device=talker.embedding.weight.device)
    counts_start = _rules(talker).penalty_divides_scores and not streaming
    return TalkerState(
        streaming=streaming,
        tokens_per_step=tokens_per_step,
        sampling=sampling,
        projector=GrowingCache(),
        stacks=[GrowingCache() for _ in range(min(tokens_per_step, 1 + len(talker.extra)))],
        rows=start[:, :0],
        pending=start,
        recent=start[:, : 1 if counts_start and sampling.repetition_window else 0],
        total=torch.zeros_like(start[:, 0]),
    )


def step(talker: AutoregressiveTalker, state: TalkerState, hidden: Tensor | None, last: bool, limit: int | None) -> Tensor:
    """Reads text, then speaks while the text rows that the pending speech rows may see are all there."""
    if len(state.pending) != 1:
        raise ValueError(f"one state speaks one answer here, not {len(state.pending)}: `speak` takes several")
    if not state.done:
        _read_text(talker, state, hidden, last)
    spoken: list[int] = []
    while not state.done and _may_speak(talker, state) and (limit is None or len(spoken) < limit):
        tokens, state.done = _hand_out(talker, state, _draw_step(talker, state)[0].tolist())
        spoken += tokens
    return torch.tensor(spoken, dtype=torch.long)


def speak(
    talker: AutoregressiveTalker, hidden: Tensor, lengths: Tensor, streaming: bool, tokens_per_step: int, sampling: SpeechSampling
) -> list[list[int]]:
    """The tokens of several answers at once; those that ended wait for the others."""
    state = begin(talker, len(hidden), streaming, tokens_per_step, sampling)
    state.waiting.append(talker.project(hidden.to(state.rows.device), state.projector))
    state.text_complete = True
    _read_waiting(talker, state, lengths.to(state.rows.device) + 1)
    spoken: list[list[int]] = [[] for _ in hidden]
    done = [False] * len(hidden)
    while not all(done):
        for row, tokens in enumerate(_draw_step(talker, state).tolist()):
            if not done[row]:
                new, done[row] = _hand_out(talker, state, tokens)
                spoken[row] += new
    return spoken


def _rules(talker: AutoregressiveTalker) -> Rules:
    return RULES[talker.compat]


# --- text ----------------------------------------------------------------------------------------------------------


def _read_text(talker: AutoregressiveTalker, state: TalkerState, hidden: Tensor | None, last: bool) -> None:
    """Projects new text; the decoder reads it at once, or, when not streaming, all together once it is complete."""
    if hidden is not None and hidden.shape[1]:
        if state.text_complete:
            raise ValueError("text came after the last text")
        state.waiting.append(talker.project(hidden.to(state.rows.device), state.projector))
    complete = last and not state.text_complete
    state.text_complete = state.text_complete or last
    ready = complete or (state.waiting and state.streaming)
    if ready and (state.waiting or state.text == 0):
        fresh = sum(part.shape[1] for part in state.waiting) + (state.text == 0)
        _read_waiting(talker, state, state.total + fresh)


def _read_waiting(talker: AutoregressiveTalker, state: TalkerState, total: Tensor) -> None:
    """The decoder reads what waits; of each answer's text rows, `total` [B] with BOS are real by now."""
    if state.text == 0:
        state.waiting.insert(0, talker.embedding(torch.full_like(state.pending[:, :1], talker.bos)))
    text = torch.cat(state.waiting, dim=1)
    state.waiting = []
    start, state.text = state.text, state.text + text.shape[1]
    state.total = total
    rows = torch.arange(start, state.text, device=text.device).expand(len(text), -1)
    rows = torch.where(rows < total[:, None], rows, masks.EVERYTHING)
    rules = _rules(talker)
    causal = torch.full_like(total, state.streaming or rules.causal_text, dtype=torch.bool)
    view = _view(talker, state, rows, talker.positions(rows), masks.text_limits(rows, causal, *talker.chunks, talker.compat))
    states = decoded = talker.decoder(text, *view, state.stacks[0])
    no_tokens = torch.full_like(rows, talker.pad)
    for depth, cache in enumerate(state.stacks[1:], 1):
        previous = decoded if rules.modules_read_decoder else states
        states = talker.stack(depth)(talker.join(depth, previous, no_tokens), *view, cache)


def _view(
    talker: AutoregressiveTalker, state: TalkerState, rows: Tensor, positions: Tensor, limits: Tensor
) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Rotary table and mask with which every stack reads new rows, given their numbers, positions and text limits [B, n]."""
    state.rows = torch.cat([state.rows, rows], dim=1)
    return talker.rotary(positions), masks.attends(rows, state.rows, limits)[:, None]


# --- speech --------------------------------------------------------------------------------------------------------


def _may_speak(talker: AutoregressiveTalker, state: TalkerState) -> bool:
    if state.text_complete:
        return True
    if not state.streaming:
        return False
    text_chunk, speech_chunk = talker.chunks
    if _rules(talker).views_by_chunk:
        return 1 + text_chunk * (state.drawn // speech_chunk + 1) <= state.text
    last = state.speech * talker.group + state.pending.shape[1] - talker.group  # token the last row ends with
    return masks.text_view(last, text_chunk, speech_chunk) <= state.text


def _draw_step(talker: AutoregressiveTalker, state: TalkerState) -> Tensor:
    """One step: reads the pending rows and draws `tokens_per_step` tokens [B, n] that follow from the last of them."""
    count = state.pending.shape[1] // talker.group
    rows = -1 - talker.group * torch.arange(state.speech, state.speech + count, device=state.rows.device)
    rows = rows.expand(len(state.pending), -1)
    view = _view(talker, state, rows, *_speech_view(talker, state, rows))
    state.speech += count
    states, known, start = talker.embed(state.pending), state.pending, state.pending.shape[1]
    for depth, cache in enumerate(state.stacks):
        if depth:  # each row with the token that was predicted there last; in the last row that was a moment ago
            states = talker.join(depth, states, known[:, depth:])
        states = talker.stack(depth)(states, *view, cache)
        tokens = _draw(talker, state, talker.predict(depth, states[:, -1], state.tokens_per_step), depth)
        known = torch.cat([known, tokens], dim=1)
        state.drawn += tokens.shape[1]
        state.recent = remembered(state.recent, tokens, state.sampling)
    state.pending = known[:, start:]
    return state.pending


def _speech_view(talker: AutoregressiveTalker, state: TalkerState, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Positions and text limits [B, n] of the speech rows that are read now."""
    streaming = torch.full_like(state.total, state.streaming, dtype=torch.bool)
    if not _rules(talker).views_by_chunk:
        return talker.positions(rows), masks.text_limits(rows, streaming, *talker.chunks, talker.compat)
    view = state.total
    if state.streaming:
        known = view if state.text_complete else torch.full_like(view, masks.EVERYTHING)
        view = masks.chunk_view(state.drawn, known, *talker.chunks)
    return view[:, None] - 1 - rows, view[:, None].expand_as(rows)


def _draw(talker: AutoregressiveTalker, state: TalkerState, scores: Tensor, depth: int) -> Tensor:
    """Tokens [B, m] from the scores [B, m, V] that follow from one stack, the repetition penalty applied."""
    sampling = state.sampling
    if sampling.watch is not None:
        sampling.watch(depth, scores)
    if not _rules(talker).penalty_divides_scores:
        never = torch.tensor([talker.bos, talker.sos, talker.pad], device=scores.device)
        return draw_in_turn(scores.index_fill(-1, never, -torch.inf), sampling, state.recent)
    scores = scores[:, 0]
    if state.recent.shape[1] and (state.streaming or depth == 0):
        scores = divided(scores, state.recent, _counted(talker, state), sampling.repetition_penalty)
    return draw(scores, sampling)[:, None]


def _counted(talker: AutoregressiveTalker, state: TalkerState) -> Tensor:
    """Bool [B, n]: which recent tokens the released penalty covers; while streaming, only those of the chunk being spoken."""
    index = torch.arange(state.drawn - state.recent.shape[1], state.drawn, device=state.recent.device)
    if not state.streaming:
        return torch.ones_like(state.recent, dtype=torch.bool)
    text_chunk, speech_chunk = talker.chunks
    chunk = state.drawn // state.tokens_per_step * state.tokens_per_step // speech_chunk  # of the step that is being drawn
    if state.text_complete:
        chunks = torch.clamp((state.total - 2) // text_chunk, min=0, max=chunk)
    else:
        chunks = torch.full_like(state.total, chunk)
    steps = -(-chunks * speech_chunk // state.tokens_per_step)
    return index >= (steps * state.tokens_per_step)[:, None]


def _hand_out(talker: AutoregressiveTalker, state: TalkerState, tokens: list[int]) -> tuple[list[int], bool]:
    """Of the tokens of one step, the codes before EOS and within the limit; and whether the answer ended with them."""
    room = state.sampling.max_speech_tokens - (state.drawn - len(tokens))
    ended = talker.eos in tokens
    tokens = (tokens[: tokens.index(talker.eos)] if ended else tokens)[: max(room, 0)]
    return [token for token in tokens if token < talker.bos], ended or state.drawn >= state.sampling.max_speech_tokens
