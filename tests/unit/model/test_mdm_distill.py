"""Self-distillation: the teacher reveals as decoding does, and the student learns what several passes find."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from tests.unit.model.test_mdm import LAYOUTS, WIDTH, lengths, make, speech, states
from vocalnet_cli.core.model.talker import mdm_distill
from vocalnet_cli.core.model.talker.mdm import IGNORE


@pytest.mark.parametrize("changes", [*LAYOUTS, {"layout": "single"}])
def test_the_clean_half_need_not_be_computed_again(changes):
    talker = make(**changes)
    hidden, text = states(9, 2, changes.get("text_hidden", WIDTH)), torch.tensor([9, 5])
    masked = talker.hide(speech(40, 2), lengths([9, 5], [40, 23], torch.tensor([1, 2])))
    with torch.no_grad():
        scores = talker.refiner(hidden, masked, text)
        for shown in (masked.shown, masked.tokens, masked.shown):
            wanted = talker.scores(hidden, replace(masked, shown=shown), text)
            torch.testing.assert_close(scores(shown), wanted, atol=1e-5, rtol=0)


def test_each_token_has_the_scores_of_the_pass_that_revealed_it():
    talker = make()
    hidden, text = states(9), torch.tensor([9])
    masked = talker.hide(speech(47), lengths([9], [47], torch.tensor([3])))
    hidden_tokens = masked.targets != IGNORE
    first = talker.scores(hidden, masked, text)[hidden_tokens]
    once = mdm_distill.reveal(talker, hidden, masked, text, 1)
    torch.testing.assert_close(once, first, atol=1e-5, rtol=0)
    four = mdm_distill.reveal(talker, hidden, masked, text, 4)
    same = ((four - first).abs().amax(-1) < 1e-5).float()
    open_ = hidden_tokens.unflatten(1, (-1, 16)).sum(-1)[0]
    assert int(same.sum()) == int((-(-open_ // 4)).sum())  # a quarter of each block is revealed in the first pass, rounded up
    # The most certain ones of each block, and those are what later passes see.
    certain = first.log_softmax(-1).amax(-1)
    places = hidden_tokens.nonzero()[:, 1] // 16
    for block in range(3):
        here = places == block
        assert certain[here & same.bool()].min() >= certain[here & ~same.bool()].max()


def test_teacher_and_student_are_two_and_only_one_learns():
    student = make().train()
    teacher = copy.deepcopy(student).eval().requires_grad_(False)
    assert not {p.data_ptr() for p in student.parameters()} & {p.data_ptr() for p in teacher.parameters()}
    arguments = (states(9, 2), speech(40, 2), lengths([9, 5], [40, 23], torch.tensor([1, 2])))
    options = {"passes": 4, "temperature": 2.0, "alpha": 1.0}
    loss = mdm_distill.distillation_loss(student, teacher, *arguments, **options)
    loss.backward()
    assert loss > 0 and all(p.grad.abs().sum() > 0 for p in student.parameters()) and all(p.grad is None for p in teacher.parameters())
    optimiser = torch.optim.Adam(student.parameters(), 1e-2)
    for _ in range(30):
        optimiser.zero_grad()
        mdm_distill.distillation_loss(student, teacher, *arguments, **options).backward()
        optimiser.step()
    assert mdm_distill.distillation_loss(student, teacher, *arguments, **options) < 0.5 * loss


def test_reverse_kl():
    student, teacher = torch.randn(5, 7), torch.randn(5, 7)
    wanted = torch.distributions.kl_divergence(*(torch.distributions.Categorical(logits=x / 3) for x in (student, teacher))).mean() * 9
    torch.testing.assert_close(mdm_distill.reverse_kl(student, teacher, 3.0), wanted)
    assert mdm_distill.reverse_kl(student, student, 2.0).abs() < 1e-6


@pytest.mark.parametrize(("codes", "error"), [(1, 0.9), (8, 0.4), (24, 0.1), (40, 1e-3)])
def test_kept_targets_give_the_loss_as_far_as_they_go(codes, error):
    """40 codes are all there are here. The codes not kept count as one, which takes from the divergence and never adds to it; the
    share it takes is about the probability they have together. A student is near its teacher, as it starts from it."""
    torch.manual_seed(0)
    teacher = 3 * torch.randn(200, 40)
    student = (teacher + torch.randn(200, 40)).requires_grad_()
    kept = mdm_distill.keep(teacher, 2.0, codes)
    assert kept.dtype == torch.int16 and kept.shape == (200, 2 * codes + 1)
    whole, part = mdm_distill.reverse_kl(student, teacher, 2.0), mdm_distill.reverse_kl_to_kept(student, kept, 2.0)
    assert (1 - error) * whole <= part <= 1.005 * whole
    part.backward()
    assert bool(student.grad.isfinite().all()) and student.grad.abs().sum() > 0


def test_kept_targets_stand_for_the_teacher():
    student = make().train()
    teacher = copy.deepcopy(student).eval().requires_grad_(False)
    torch.nn.init.normal_(student.head.weight, std=0.3)
    hidden, spoken, many = states(9, 2), speech(40, 2), lengths([9, 5], [40, 23], torch.tensor([1, 2]))
    options = {"passes": 4, "temperature": 2.0, "alpha": 0.7}
    found = mdm_distill.reveal(teacher, hidden, teacher.hide(spoken, many), many.text, 4)
    kept = mdm_distill.keep(found, 2.0, found.shape[1])
    losses = [mdm_distill.distillation_loss(student.eval(), teacher, hidden, spoken, many, kept=one, **options) for one in (None, kept)]
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-3, atol=1e-4)
