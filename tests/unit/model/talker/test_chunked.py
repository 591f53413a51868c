"""The loss of every talker, whose heads are scored chunk by chunk, against all of their logits at once: same loss, same gradients."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.parity.test_talker import SIZES, TALKER, TEXT, random_talker, text
from vocalnet_cli.core.model.talker import chunked
from vocalnet_cli.core.model.talker.contract import Lengths

COUNTS = [20, 1, 13]


class Largest(TorchDispatchMode):
    """The most elements of a floating-point tensor that is made."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor) and leaf.is_floating_point()]
        self.elements = max([self.elements, *sizes])
        return out


def batch():
    speech = torch.randint(0, SIZES["codes"], (3, 20), generator=torch.Generator().manual_seed(2))
    return speech, Lengths(torch.tensor([TEXT, 4, 7]), torch.tensor(COUNTS), torch.tensor([True, False, True]))


def plain_loss(talker, hidden, speech, lengths):
    """From the logits of all heads, as equation 4 of arXiv 2504.04060 reads."""
    targets = talker.targets(speech, lengths)
    scores = torch.stack(talker.scores(hidden, speech, lengths), dim=-2)
    each = cross_entropy(scores.flatten(0, 2), targets.flatten(), ignore_index=talker.pad, reduction="none").view_as(targets)
    counts = (targets != talker.pad).sum((0, 1))
    if talker.group > 1:
        return each.sum() / counts.sum()
    return (each.sum((0, 1)) / counts * talker.loss_decay ** torch.arange(len(counts))).sum()


@pytest.mark.parametrize("name", TALKER)
def test_chunks_give_the_loss_and_gradients_of_all_logits(name, monkeypatch):
    monkeypatch.setattr(chunked, "SCORES_AT_ONCE", 10 * talker_width(name))
    ours = random_talker(name).train()
    theirs = copy.deepcopy(ours)
    hidden = text(batch=3).requires_grad_()
    other = hidden.detach().clone().requires_grad_()
    speech, lengths = batch()
    loss = ours.loss(hidden, speech, lengths).total
    (2 * loss).backward()
    expected = plain_loss(theirs, other, speech, lengths)
    (2 * expected).backward()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(hidden.grad, other.grad, rtol=1e-4, atol=1e-6)
    for (parameter, one), two in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert one.grad is not None, parameter
        torch.testing.assert_close(one.grad, two.grad, rtol=1e-4, atol=1e-5, msg=lambda told, at=parameter: f"{at}: {told}")


def talker_width(name: str) -> int:
    """Scores of one row after one stack."""
    settings = TALKER[name]
    return (SIZES["codes"] + 4) * settings.step_sizes[-1]


def test_no_tensor_is_as_large_as_the_logits(monkeypatch):
    talker = random_talker("mtp-parallel-linear").train()
    speech, lengths = batch()
    logits = talker.targets(speech, lengths).numel() * (SIZES["codes"] + 4)
    monkeypatch.setattr(chunked, "SCORES_AT_ONCE", 4 * talker_width("mtp-parallel-linear"))
    with Largest() as seen:
        talker.loss(text(batch=3), speech, lengths).total.backward()
    assert seen.elements < logits / 1.5


@pytest.mark.parametrize("name", TALKER)
def test_the_means_of_parts_add_up_to_that_of_the_whole(name):
    talker, hidden = random_talker(name), text(batch=3)
    speech, lengths = batch()
    whole = talker.loss(hidden, speech, lengths).total
    parts = [slice(0, 1), slice(1, 3)]
    cut = [Lengths(lengths.text[part], lengths.speech[part], lengths.streaming[part]) for part in parts]
    targets = sum(talker.counts(speech[part], of) for part, of in zip(parts, cut, strict=True))
    for of in cut:
        of.targets = targets
    summed = sum(talker.loss(hidden[part], speech[part], of).total for part, of in zip(parts, cut, strict=True))
    torch.testing.assert_close(summed, whole, rtol=1e-5, atol=1e-6)
