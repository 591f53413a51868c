"""Decoding of the masked-diffusion talker: block after block, a few passes each, over keys and values of the clean tokens before.

Finished blocks enter the cache as training saw them, clean; that pass is the first pass of the next block too, so a block of S steps
costs S passes. An answer's tokens depend on its text alone, not on how it arrived or what else is in the batch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vocalnet_cli.core.errors import VocalnetError
from vocalnet_cli.core.model.cache import GrowingCache
from vocalnet_cli.core.model.talker import mdm_masks
from vocalnet_cli.core.model.talker.contract import SpeechSampling
from vocalnet_cli.core.model.talker.sampling import draw
from vocalnet_cli.core.units import SPEECH_TOKEN_HZ

if TYPE_CHECKING:
    from vocalnet_cli.core.model.talker.mdm import MdmTalker


@dataclass
class BlockState:
    """Everything one answer being spoken (or a batch of them, in step) needs."""

    sampling: SpeechSampling
    text: Tensor
    """Projected text states [B, n, H] from the first anchor of block `block` - 1 on."""
    total: Tensor
    """Long [B]: text states of each answer, as far as they are known."""
    seen: Tensor
    """Bool [B, N]: which columns of the cache hold something (slots without text do not)."""
    recent: Tensor
    """Long [B, n]: the newest tokens, as many as the repetition penalty looks back on."""
    prior: Tensor | None
    """Log-probabilities [block, V] of tokens of which nothing is known, where confidence is calibrated."""
    cache: GrowingCache = field(default_factory=GrowingCache)
    projector: GrowingCache = field(default_factory=GrowingCache)
    unread: Tensor | None = None
    """Long [B, block]: the last block's tokens, not in the cache yet."""
    block: int = 0
    """Blocks spoken."""
    drawn: int = 0
    passes: int = 0
    """Forward passes so far, for benchmarks and tests."""
    text_complete: bool = False
    ended: Tensor | None = None
    """Bool [B]: whose EOS was drawn."""
    done: bool = False


def begin(talker: MdmTalker, batch: int, sampling: SpeechSampling) -> BlockState:
    """State of `batch` new answers. Raises VocalnetError if the steps do not fit the block."""
    block = talker.settings.block
    if sampling.steps is not None and not 1 <= sampling.steps <= block:
        raise VocalnetError(
            f"steps is {sampling.steps}: a block has {block} tokens, so 1 to {block} or auto fit.",
            "Set generation.steps within that range.",
        )
    weight = talker.embedding.weight
    nothing = torch.zeros(batch, 0, dtype=torch.long, device=weight.device)
    state = BlockState(
        sampling=sampling,
        text=weight.new_zeros(batch, 0, weight.shape[1]),
        total=nothing.sum(1),
        seen=nothing.bool(),
        recent=nothing,
        prior=None,
        ended=torch.zeros(batch, dtype=torch.bool, device=weight.device),
    )
    if sampling.confidence == "calibrated":
        state.prior = _prior(talker)
    return state


@torch.no_grad()
def _prior(talker: MdmTalker) -> Tensor:
    """Log-probabilities [block, V] of an all-hidden first block without text: what the talker believes before it knows anything."""
    fresh = begin(talker, 1, SpeechSampling())
    tokens = torch.full((1, talker.settings.block), talker.mask, device=fresh.total.device)
    return _scores(talker, fresh, tokens)[0].log_softmax(-1)


def step(talker: MdmTalker, state: BlockState, hidden: Tensor | None, last: bool, limit: int | None) -> Tensor:
    """Reads text, then speaks blocks while the text states they carry are there."""
    if len(state.total) != 1:
        raise ValueError(f"one state speaks one answer here, not {len(state.total)}: `speak` takes several")
    if hidden is not None and hidden.shape[1] and not state.done:
        if state.text_complete:
            raise ValueError("text came after the last text")
        fresh = talker.project(hidden.to(state.text.device), state.projector)
        state.text = torch.cat([state.text, fresh], dim=1)
        state.total = state.total + fresh.shape[1]
    state.text_complete = state.text_complete or last
    spoken: list[int] = []
    while not state.done and _may_speak(talker, state) and (limit is None or len(spoken) < limit):
        spoken += _next_block(talker, state)[0]
    return torch.tensor(spoken, dtype=torch.long)


def speak(talker: MdmTalker, hidden: Tensor, lengths: Tensor, sampling: SpeechSampling) -> list[list[int]]:
    """The tokens of several answers at once; those that ended wait for the others."""
    state = begin(talker, len(hidden), sampling)
    state.text = talker.project(hidden.to(state.text.device), state.projector)
    state.total = lengths.to(state.text.device)
    state.text_complete = True
    spoken: list[list[int]] = [[] for _ in hidden]
    while not state.done:
        for row, tokens in enumerate(_next_block(talker, state)):
            spoken[row] += tokens
    return spoken


def _may_speak(talker: MdmTalker, state: BlockState) -> bool:
    return state.text_complete or int(state.total[0]) >= talker.settings.text_chunk * (state.block + 1)


def _next_block(talker: MdmTalker, state: BlockState) -> list[list[int]]:
    """Speaks one block: the codes of each answer that has not ended."""
    assert state.ended is not None
    s = talker.settings
    before = state.ended.clone()
    tokens = _fill(talker, state)
    state.unread, state.block, state.drawn = tokens, state.block + 1, state.drawn + s.block
    if state.block > 1:
        state.text = state.text[:, s.text_chunk :]
    if state.sampling.repetition_window:
        state.recent = torch.cat([state.recent, tokens], dim=1)[:, -state.sampling.repetition_window :]
    most = torch.full_like(state.total, state.sampling.max_speech_tokens)
    if state.text_complete:
        most = torch.minimum(most, (s.longest_token_s * SPEECH_TOKEN_HZ * state.total).long())
    rooms = (most - (state.drawn - s.block)).clamp(min=0).tolist()
    spoken = []
    for row, over, room in zip(tokens.tolist(), before.tolist(), rooms, strict=True):
        codes = row[: row.index(talker.eos)] if talker.eos in row else row
        spoken.append([] if over else codes[:room])
    state.ended = before | (tokens == talker.eos).any(1) | (state.drawn >= most)
    state.done = bool(state.ended.all())
    return spoken


def _fill(talker: MdmTalker, state: BlockState) -> Tensor:
    """The tokens [B, block] of the next block, revealed the most certain first; MASK after an EOS."""
    s, sampling = talker.settings, state.sampling
    tokens = torch.full((len(state.total), s.block), talker.mask, device=state.text.device)
    # Text that is still to come, or that later blocks carry, will be spoken: the answer cannot end here.
    more = torch.ones_like(state.total, dtype=torch.bool)
    if state.text_complete:
        more = state.total > s.text_chunk * (state.block + 1)
    steps = sampling.steps or s.block
    for left in range(steps, 0, -1):
        open_ = _open(tokens, talker)
        if state.ended is not None:
            open_ = open_ & ~state.ended[:, None]
        if not bool(open_.any()):
            break
        scores = _scores(talker, state, tokens).float()
        scores[..., talker.eos] = scores[..., talker.eos].masked_fill(more[:, None], -torch.inf)
        drawn, certain = _candidates(scores, state)
        count = -(-open_.sum(1) // left)
        if sampling.steps is None:
            count = torch.maximum(count, (open_ & (certain.exp() >= sampling.threshold)).sum(1))
        place = certain.masked_fill(~open_, -torch.inf).argsort(dim=1, descending=True, stable=True).argsort(dim=1)
        revealed = open_ & (place < count[:, None])
        if sampling.watch is not None:
            sampling.watch(steps - left, scores[revealed][:, None])
        tokens = torch.where(revealed, drawn, tokens)
    ends = (tokens == talker.eos).cumsum(1) - (tokens == talker.eos).long() > 0
    return tokens.masked_fill(ends, talker.mask)


def _open(tokens: Tensor, talker: MdmTalker) -> Tensor:
    """Bool [B, block]: hidden tokens with no EOS before them."""
    return (tokens == talker.mask) & ((tokens == talker.eos).cumsum(1) == 0)


def _candidates(scores: Tensor, state: BlockState) -> tuple[Tensor, Tensor]:
    """A token for every place of a block, long [B, block], and how certain each is, as log-probability (less the prior's)."""
    sampling = state.sampling
    size = scores.shape[1]
    recent = state.recent.repeat_interleave(size, dim=0) if sampling.repetition_window else None
    drawn = draw(scores.flatten(0, 1), sampling, recent).unflatten(0, (-1, size))
    certain = scores.log_softmax(-1).gather(2, drawn[..., None])[..., 0]
    if state.prior is not None:
        certain = certain - state.prior.gather(1, drawn.T).T
    if sampling.gumbel:
        noise = torch.rand(certain.shape, generator=sampling.generator).to(certain.device)
        certain = certain - sampling.gumbel * (-noise.clamp(min=1e-20).log()).log()
    return drawn, certain


def _scores(talker: MdmTalker, state: BlockState, tokens: Tensor) -> Tensor:
    """One pass: logits [B, block, codes + 1] of the next block given what of it is revealed; the block before is cached on the way."""
    s = talker.settings
    first = max(state.block - 1, 0)  # the block whose anchors `state.text` starts with
    silent = 0 if state.unread is None else 1
    columns = mdm_masks.Columns(1 + silent, s.block, s.slots)
    start = state.block - silent
    both = tokens if state.unread is None else torch.cat([state.unread, tokens], dim=1)
    count = state.total - first * s.text_chunk
    embedded, there = talker.inputs(both, state.text, count, columns, start - first)
    seen = torch.cat([state.seen, there], dim=1)
    width = silent * columns.width
    mask = seen[:, None, None, :] if s.slots else None  # none: everything there is is seen
    if silent:
        sees = torch.ones(len(there[0]), seen.shape[1], dtype=torch.bool, device=seen.device)
        sees[:width, -columns.width :] = False
        mask = seen[:, None, None, :] & sees
    states = talker.stack(embedded, talker.rotary(columns.position(start, tokens.device)), mask, state.cache, width)
    state.passes += 1
    if silent:
        state.seen, state.unread = seen[:, : seen.shape[1] - columns.width], None
    state.cache.truncate(state.seen.shape[1])
    return talker.head(states[:, s.slots :])
