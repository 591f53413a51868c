"""The flow in training sees what it sees when it speaks: padded batches under masks against chunks with caches."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from tests.cosyvoice2 import tensors, tiny_flow
from vocalnet_cli.core.model.vocoder.cosyvoice2.attention import Blocks
from vocalnet_cli.core.model.vocoder.cosyvoice2.flow_training import FlowBatch, FlowMasks, condition, flow_losses, velocity
from vocalnet_cli.core.model.vocoder.cosyvoice2.vocoder import Schedule

SAME = 2e-5
LENGTHS = (31, 12, 20)
AHEAD = 3


def said() -> list[torch.Tensor]:
    return [tensors("streaming")["token"][0].repeat(5)[start : start + count] for start, count in zip((0, 7, 11), LENGTHS, strict=True)]


def padded(rows: list[torch.Tensor], value: float = 0.0) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=value)


def noise() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(80, 2 * count, generator=generator) for count in LENGTHS]


def images(rows: list[torch.Tensor]) -> torch.Tensor:
    """Frames [80, F_i] as a batch."""
    return padded([row.T for row in rows]).transpose(1, 2)


def speaker() -> torch.Tensor:
    return tensors("streaming")["embedding"][0]


@torch.no_grad()
def spoken(tokens: torch.Tensor, start: torch.Tensor, sizes: list[int], window: int | None, guidance: float = 0.0) -> torch.Tensor:
    """One Euler step from `start` over the whole time, chunk by chunk with caches, as an answer is spoken: [80, F]."""
    flow = tiny_flow()
    state = flow.begin(speaker(), 1, guidance).fork(window, max(sizes))
    parts, at = [], 0
    for size in sizes:
        piece = tokens[None, at : at + size + AHEAD]
        parts.append(flow.extend([state], piece, [size], noise=start[None, :, 2 * at : 2 * (at + size)])[0])
        at += size
    return torch.cat(parts, dim=1)


@torch.no_grad()
def learned(blocks: list[Blocks], blind: bool = False) -> list[torch.Tensor]:
    """The same step by the training's pass over a padded batch."""
    flow, masks, lengths = tiny_flow(), FlowMasks.of(blocks), torch.tensor(LENGTHS)
    x = images(noise())
    mu = condition(flow, padded(said()).long(), lengths, masks)
    who = flow.speaker(speaker()[None]).expand(len(LENGTHS), -1)
    seen = 0.0 if blind else 1.0
    moved = x + velocity(flow, x, seen * mu, seen * who, torch.zeros_like(x), torch.zeros(len(LENGTHS)), lengths, masks)
    return [row[:, : 2 * count] for row, count in zip(moved, LENGTHS, strict=True)]


@pytest.mark.parametrize("schedule", [Schedule(1, 1), Schedule(5, 5), Schedule(2, 8), Schedule(100, 100)])
@pytest.mark.parametrize("window", [None, 6])
def test_the_training_mask_is_the_mask_of_speaking(schedule, window):
    found = learned([Blocks(tuple(schedule.sizes(count)), window=window) for count in LENGTHS])
    for tokens, start, row in zip(said(), noise(), found, strict=True):
        torch.testing.assert_close(row, spoken(tokens, start, schedule.sizes(len(tokens)), window), atol=SAME, rtol=0)


def test_the_masks_differ():
    whole, chunks = (learned([Blocks(tuple(Schedule(size, size).sizes(count))) for count in LENGTHS])[0] for size in (100, 3))
    assert (whole - chunks).abs().max() > 1e-2


def test_a_hidden_condition_is_the_row_that_guides():
    """Guided: 1.7 times the step with the condition less 0.7 times the one without."""
    blocks = [Blocks(tuple(Schedule(5, 5).sizes(count))) for count in LENGTHS]
    for i, (told, hidden) in enumerate(zip(learned(blocks), learned(blocks, blind=True), strict=True)):
        start = noise()[i]
        wanted = start + 1.7 * (told - start) - 0.7 * (hidden - start)
        torch.testing.assert_close(wanted, spoken(said()[i], start, list(blocks[i].sizes), None, guidance=0.7), atol=SAME, rtol=0)


def batch(fill: int = 0, blind: bool = False, known: int = 0, lent: Sequence[int] = ()) -> FlowBatch:
    """Three examples; `fill` is what stands past their ends, `lent` those whose tokens are another voice's."""
    blocks = [Blocks(tuple(Schedule(4, 8).sizes(count))) for count in LENGTHS]
    frames = images([row + 1 for row in noise()])
    beyond = torch.arange(frames.shape[-1]) >= 2 * torch.tensor(LENGTHS)[:, None]
    return FlowBatch(
        tokens=padded(said(), fill).long(),
        lengths=torch.tensor(LENGTHS),
        mel=frames.masked_fill(beyond[:, None], float(fill)),
        noise=images(noise()),
        times=torch.tensor([0.1, 0.5, 0.9]),
        speakers=speaker()[None].expand(len(LENGTHS), -1),
        known=torch.tensor([known] * len(LENGTHS)),
        blind=torch.tensor([blind] * len(LENGTHS)),
        lent=torch.tensor([i in lent for i in range(len(LENGTHS))]),
        masks=FlowMasks.of(blocks),
    )


@torch.no_grad()
def test_the_encoder_is_not_asked_for_a_voice_it_does_not_know():
    """Of an example with another voice's tokens the ODE learns, and the encoder's frames have no say: one example fewer."""
    alone, mixed = batch(), batch(lent=(1,))
    mixed.mel[1] += 3.0
    matching, prior = flow_losses(tiny_flow(), mixed)
    kept = [0, 2]
    frames = 2 * torch.tensor(LENGTHS)[kept]
    wanted = sum(count * single(alone, i)[1] for i, count in zip(kept, frames, strict=True)) / frames.sum()
    torch.testing.assert_close(prior, wanted, atol=1e-5, rtol=1e-5)
    assert matching > flow_losses(tiny_flow(), alone)[0]
    assert flow_losses(tiny_flow(), batch(lent=(0, 1, 2)))[1] == 0


def single(whole: FlowBatch, i: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses of one of the examples, in a batch of its own."""
    rows = {name: getattr(whole, name)[i : i + 1] for name in ("lengths", "times", "speakers", "known", "blind", "lent")}
    count = LENGTHS[i]
    masks = FlowMasks.of([Blocks(tuple(Schedule(4, 8).sizes(count)))])
    mels = {name: getattr(whole, name)[i : i + 1, :, : 2 * count] for name in ("mel", "noise")}
    return flow_losses(tiny_flow(), FlowBatch(tokens=whole.tokens[i : i + 1, :count], masks=masks, **rows, **mels))


@torch.no_grad()
def test_what_is_past_the_end_teaches_nothing():
    losses = [flow_losses(tiny_flow(), batch(fill)) for fill in (0, 17)]
    torch.testing.assert_close(losses[0], losses[1], atol=1e-6, rtol=1e-6)


@torch.no_grad()
def test_each_part_of_the_condition_counts():
    flow = tiny_flow()
    usual, other = batch(), batch()
    other.speakers = -other.speakers
    losses = [flow_losses(flow, one)[0] for one in (usual, batch(blind=True), batch(known=9), other)]
    assert len({round(float(loss), 7) for loss in losses}) == 4
    hidden = batch(blind=True, known=9)
    hidden.speakers = -hidden.speakers
    torch.testing.assert_close(flow_losses(flow, hidden)[0], losses[1], atol=0, rtol=0)


@torch.no_grad()
def test_the_wanted_velocity_is_mel_less_noise():
    """Whatever the time: a flow that answered it would have no loss."""
    flow, one = tiny_flow(), batch()
    target = one.mel - one.noise
    zero = flow.estimator.final_proj.weight.clone(), flow.estimator.final_proj.bias.clone()
    try:
        flow.estimator.final_proj.weight.zero_()
        flow.estimator.final_proj.bias.zero_()
        valid = torch.arange(target.shape[-1]) < 2 * one.lengths[:, None]
        wanted = (target * valid[:, None]).square().sum() / (80 * valid.sum())
        torch.testing.assert_close(flow_losses(flow, one)[0], wanted)
    finally:
        flow.estimator.final_proj.weight.copy_(zero[0])
        flow.estimator.final_proj.bias.copy_(zero[1])
