"""The masked-diffusion talker: what is decoded is what was trained, in as many passes as asked for, and no token sees the future."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vocalnet_cli.core.config.talker_schema import MdmSettings
from vocalnet_cli.core.model.talker import build_talker, mdm_decoding, mdm_masks
from vocalnet_cli.core.model.talker.contract import Lengths, SpeechSampling
from vocalnet_cli.core.model.talker.mdm import Masked

CODES, WIDTH = 40, 32


def make(**changes):
    torch.manual_seed(0)
    sizes = {"hidden": WIDTH, "ffn": 48, "heads": 4, "decoder_layers": 3, "codes": CODES, "dropout": 0.0}
    talker = build_talker(MdmSettings(**{**sizes, **changes})).eval()
    for parameter in talker.parameters():  # larger than at the start of training, so that attention matters
        torch.nn.init.normal_(parameter, std=0.25)
    return talker


def lengths(text, speech, draw=None):
    return Lengths(torch.tensor(text), torch.tensor(speech), torch.zeros(len(text), dtype=torch.bool), draw)


def states(count, batch=1, width=WIDTH):
    return torch.randn(batch, count, width, generator=torch.Generator().manual_seed(7))


def speech(count, batch=1):
    return torch.randint(CODES, (batch, count), generator=torch.Generator().manual_seed(3))


def ending(talker, scores, score):
    """The scores of a talker that always, or never, wants to end."""
    scores[..., talker.eos] = score
    return scores


LAYOUTS = [{}, {"anchors": "slot"}, {"projector_layers": 2}, {"text_hidden": 24}, {"speech_chunk": 8, "text_chunk": 3}]


def test_the_mask_is_the_drawn_one():
    drawn = """
        x x . .  . . . .
        x x . .  . . . .
        . . x x  x x . .
        . . x x  x x . .
        . . . .  x x . .
        . . . .  x x . .
        . . . .  x x x x
        . . . .  x x x x"""
    wanted = torch.tensor([[sign == "x" for sign in line.split()] for line in drawn.strip().splitlines()])
    assert torch.equal(mdm_masks.doubled(torch.tensor([0, 0, 1, 1])), wanted)


@pytest.mark.parametrize("size", [1, 3, 16])
@pytest.mark.parametrize("slots", [0, 2])
def test_the_rule_of_flex_attention_is_the_mask(size, slots):
    columns = mdm_masks.Columns(4, size, slots)
    block = columns.block()
    there = torch.rand(2, len(block), generator=torch.Generator().manual_seed(1)) < 0.8
    rule = mdm_masks.doubled_rule(block, there)
    numbers = torch.arange(2 * len(block))
    found = rule(torch.arange(2)[:, None, None], torch.zeros(1, dtype=torch.long), numbers[:, None], numbers)
    dense = mdm_masks.doubled(block).roll((len(block), len(block)), (0, 1))
    assert torch.equal(found, dense & there.repeat(1, 2)[:, None])


@pytest.mark.parametrize("changes", [{}, {"anchors": "slot"}])
def test_flex_attention_computes_the_same(changes):
    talker = make(**changes)
    hidden, text = states(9, 2), torch.tensor([9, 3])
    masked = talker.hide(speech(70, 2), lengths([9, 3], [70, 23], torch.tensor([1, 2])))
    found = {}
    for talker.attention in ("sdpa", "flex"):
        with torch.no_grad():
            found[talker.attention] = talker.scores(hidden, masked, text)
    there = masked.tokens != talker.mask  # padding of another answer's length may see nothing at all
    torch.testing.assert_close(found["flex"][there], found["sdpa"][there], atol=1e-4, rtol=0)


@pytest.mark.parametrize("changes", LAYOUTS)
@pytest.mark.parametrize("extra", [-1, 0, 1])  # answers that end just before, at and after a block's end, EOS included
@pytest.mark.parametrize("text", [2, 9])  # anchors run out before the speech does, or do not
def test_a_cached_block_is_the_training_forward(changes, extra, text):
    talker = make(**changes)
    size = talker.settings.block
    spoken, hidden = speech(2 * size + extra), states(text, width=changes.get("text_hidden", WIDTH))
    whole = talker.hide(spoken, lengths([text], [spoken.shape[1]]))
    shown = torch.where(torch.rand(whole.tokens.shape, generator=torch.Generator().manual_seed(5)) < 0.6, talker.mask, whole.tokens)
    with torch.no_grad():
        trained = talker.scores(hidden, Masked(whole.tokens, shown, whole.tokens, whole.targets), torch.tensor([text]))
        state = mdm_decoding.begin(talker, 1, SpeechSampling())
        state.text, state.total = talker.project(hidden), torch.tensor([text])
        for block in range(whole.tokens.shape[1] // size):
            place = slice(block * size, (block + 1) * size)
            scores = mdm_decoding._scores(talker, state, shown[:, place])
            torch.testing.assert_close(scores, trained[:, place], atol=1e-5, rtol=0)
            again = mdm_decoding._scores(talker, state, shown[:, place])  # now the block before is cached
            torch.testing.assert_close(again, trained[:, place], atol=1e-5, rtol=0)
            state.unread, state.block = whole.tokens[:, place], block + 1
            if block:
                state.text = state.text[:, talker.settings.text_chunk :]


@pytest.mark.parametrize("changes", [*LAYOUTS, {"layout": "single"}])
def test_no_position_sees_the_future(changes):
    talker = make(**changes)
    size, chunk = talker.settings.block, talker.settings.text_chunk
    hidden = states(5 * chunk, width=changes.get("text_hidden", WIDTH)).requires_grad_()
    masked = talker.hide(speech(4 * size), lengths([5 * chunk], [4 * size], torch.tensor([1])))
    embedded = []
    talker.embedding.register_forward_hook(lambda _m, _i, out: embedded.append(out) or out.retain_grad())
    scores = talker.scores(hidden, masked, torch.tensor([5 * chunk]))
    scores[:, size : 2 * size].square().sum().backward()  # block 1
    text = hidden.grad.abs().sum(-1)[0]
    assert (text[: 2 * chunk] > 0).all() and (text[2 * chunk :] == 0).all()
    for part, known in zip(embedded, (1, 0), strict=False):  # noisy, then clean
        seen = part.grad.abs().sum(-1)[0]
        start = 0 if known and changes.get("layout") == "single" else size * known
        assert (seen[start : size * (1 + known)] > 0).all()
        assert (seen[size * (1 + known) :] == 0).all() and (seen[:start] == 0).all()


@pytest.mark.parametrize("changes", LAYOUTS)
@pytest.mark.parametrize("steps", [1, 3, 16, None])
def test_however_the_text_comes_the_answer_is_the_same(changes, steps):
    talker = make(**{"longest_token_s": 0.6, **changes})
    steps = steps and min(steps, talker.settings.block)
    sampling = SpeechSampling(steps=steps, threshold=0.2)
    hidden = states(11, batch=3, width=changes.get("text_hidden", WIDTH))
    counts = [11, 5, 1]
    together = talker.speak(hidden, torch.tensor(counts), True, 1, sampling)
    assert len({len(row) for row in together}) > 1
    for row, count in enumerate(counts):
        for pieces, limit in ((1, None), (4, 5), (count, None)):
            state, said = talker.begin(1, sampling=sampling), []
            for at in range(0, count, pieces):
                said += talker.step(state, hidden[row : row + 1, at : min(at + pieces, count)], at + pieces >= count, limit).tolist()
            while not state.done:
                said += talker.step(state, None, True, limit).tolist()
            assert said == together[row]


@pytest.mark.parametrize("steps", [1, 2, 4, 8, 16])
def test_a_block_costs_its_steps(steps):
    talker = make(longest_token_s=20.0)
    talker.head.register_forward_hook(lambda _m, _i, out: ending(talker, out, -50.0))
    state = talker.begin(1, sampling=SpeechSampling(steps=steps, max_speech_tokens=64))
    shapes = []
    last = talker.stack.layers[-1]
    last.query.register_forward_hook(lambda _m, args, _out: shapes.append(args[0].shape[1]))
    said = talker.step(state, states(6), True)
    assert len(said) == 64 and state.passes == 4 * steps
    assert set(shapes) == {16}  # the last layer answers for no clean column
    assert state.cache.get_seq_length() == 48  # the last block is nobody's past


def test_the_answer_ends_only_when_all_text_is_read():
    talker = make()
    talker.head.register_forward_hook(lambda _m, _i, out: ending(talker, out, 50.0))
    for text, blocks in ((1, 1), (4, 1), (5, 2), (9, 3)):
        said = talker.speak(states(text), torch.tensor([text]), True, 1, SpeechSampling(steps=4))[0]
        assert len(said) == 16 * (blocks - 1)


@pytest.mark.parametrize("masking", ["bernoulli", "hierarchical", "block-uniform"])
def test_masking_ratios(masking):
    settings = MdmSettings(codes=CODES, masking=masking, whole_blocks=0.0)
    chance = np.random.default_rng(0)
    found = np.array([mdm_masks.hidden_tokens(160, settings, chance) for _ in range(3000)])
    wanted = {"bernoulli": 0.55, "hierarchical": 0.8 * 0.65, "block-uniform": 0.5}[masking]
    assert abs(found.mean() - wanted) < 0.02
    by_block = found.reshape(3000, 10, 16).mean(2)
    apart = by_block.std(1).mean()
    assert (apart < 0.13) == (masking == "bernoulli")
    whole = np.array([mdm_masks.hidden_tokens(160, settings.model_copy(update={"whole_blocks": 0.25}), chance) for _ in range(1000)])
    shares = whole.reshape(1000, 10, 16).all(2).mean() - found.reshape(3000, 10, 16).all(2).mean()
    assert 0.17 < shares < 0.28


def test_what_is_hidden_follows_from_the_draw():
    talker = make(corrupt=0.1)
    spoken = speech(40, batch=2)
    first = talker.hide(spoken, lengths([5, 5], [40, 33], torch.tensor([4, 9])))
    again = talker.hide(spoken.flip(0), lengths([5, 5], [33, 40], torch.tensor([9, 4])))
    other = talker.hide(spoken, lengths([5, 5], [40, 33], torch.tensor([5, 9])))
    assert torch.equal(first.shown[0], again.shown[1]) or not torch.equal(spoken[0], spoken.flip(0)[1])
    assert not torch.equal(first.shown[0], other.shown[0]) and torch.equal(first.shown[1], other.shown[1])
    assert (first.targets[1, 34:] == -100).all() and (first.tokens[1, 33] == talker.eos) and first.tokens.shape[1] == 48
    wrong = (first.clean != first.tokens).float().mean()
    assert 0.02 < wrong < 0.2 and (first.clean[:, 33:][first.tokens[:, 33:] >= CODES] >= CODES).all()


@pytest.mark.parametrize("changes", [*LAYOUTS, {"layout": "single"}, {"masking": "hierarchical"}])
def test_every_weight_learns(changes):
    talker = make(**changes).train()
    masked = lengths([5, 9], [40, 21], torch.tensor([1, 2]))
    talker.loss(states(9, 2, changes.get("text_hidden", WIDTH)), speech(40, 2), masked).total.backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in talker.parameters())


def test_calibrated_confidence_and_noise_change_the_order_alone():
    talker = make()
    plain, *others = (
        talker.speak(states(8), torch.tensor([8]), True, 1, SpeechSampling(steps=8, **options))[0]
        for options in ({}, {"confidence": "calibrated"}, {"gumbel": 3.0, "generator": torch.Generator().manual_seed(1)})
    )
    assert all(other != plain for other in others)
    first = [
        talker.speak(states(8), torch.tensor([8]), True, 1, SpeechSampling(steps=1, **o))[0] for o in ({}, {"confidence": "calibrated"})
    ]
    assert first[0] == first[1]  # in one step all is revealed, in whatever order
