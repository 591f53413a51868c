"""Self-distillation of the masked-diffusion talker: one pass learns what several passes of a frozen copy find (arXiv 2602.08607)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from vocalnet_cli.core.model.talker.contract import Lengths
from vocalnet_cli.core.model.talker.mdm import IGNORE, Masked, MdmTalker

_FINEST = 1000
"""Steps a nat in which log-probabilities are kept."""
_LEAST = 1e-7
"""What the probability of the codes not kept is at least: single precision tells no less from none."""


@torch.no_grad()
def reveal(teacher: MdmTalker, hidden: Tensor, masked: Masked, text: Tensor, passes: int) -> Tensor:
    """The teacher's logits [N, codes + 1] of the N hidden tokens, each as it stood in the pass that revealed it.

    Pass j (from 1) reveals, in every block by itself, ceil(R_j / (passes - j + 1)) of the R_j tokens still hidden: those whose
    likeliest code is the likeliest. All blocks at once, beside clean earlier blocks.
    """
    wanted = masked.targets != IGNORE
    shown, open_ = masked.shown, wanted.clone()
    scores = teacher.refiner(hidden, masked, text)
    found: Tensor | None = None
    for left in range(passes, 0, -1):
        logits = scores(shown)
        found = torch.zeros_like(logits) if found is None else found
        certain, drawn = logits.log_softmax(-1).max(-1)
        certain = certain.masked_fill(~open_, -torch.inf).unflatten(1, (-1, teacher.settings.block))
        count = -(-open_.unflatten(1, (-1, teacher.settings.block)).sum(-1) // left)
        place = certain.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
        now = (place < count[..., None]).flatten(1) & open_
        found[now] = logits[now]
        shown, open_ = torch.where(now, drawn, shown), open_ & ~now
    assert found is not None and not bool(open_.any())
    return found[wanted]


def reverse_kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL(student || teacher) of logits [N, V] at `temperature`, the mean over N, times temperature squared.

    The square keeps the gradient's size whatever the temperature (arXiv 1503.02531, section 2); the paper does not say.
    """
    own, other = (student.float() / temperature).log_softmax(-1), (teacher.float() / temperature).log_softmax(-1)
    return (own.exp() * (own - other)).sum(-1).mean() * temperature**2


def keep(logits: Tensor, temperature: float, codes: int) -> Tensor:
    """Of targets [N, V] at `temperature` the likeliest codes, and what is left: int16 [N, 2 k + 1], k = min(codes, V).

    k codes, their log-probabilities and that of all others together, in thousandths of a nat.
    """
    found = (logits.float() / temperature).log_softmax(-1)
    top, which = found.topk(min(codes, found.shape[1]), dim=-1)
    rest = (1 - top.exp().sum(-1, keepdim=True)).clamp(min=_LEAST).log()
    kept = (torch.cat([top, rest], dim=-1) * _FINEST).round().clamp(min=torch.iinfo(torch.int16).min)
    return torch.cat([which, kept], dim=-1).to(torch.int16)


def reverse_kl_to_kept(student: Tensor, kept: Tensor, temperature: float) -> Tensor:
    """`reverse_kl` of logits [N, V] to targets that `keep` has made [N, 2 k + 1].

    The codes not kept count as one, so that this is never more than the whole divergence, and equal where all are kept.
    """
    codes = kept[:, : kept.shape[1] // 2].long()
    target = kept[:, codes.shape[1] :].float() / _FINEST
    own = (student.float() / temperature).log_softmax(-1).gather(1, codes)
    rest = (1 - own.exp().sum(-1, keepdim=True)).clamp(min=_LEAST).log()
    own = torch.cat([own, rest], dim=-1)
    return (own.exp() * (own - target)).sum(-1).mean() * temperature**2


def distillation_loss(
    student: MdmTalker,
    teacher: MdmTalker,
    hidden: Tensor,
    speech: Tensor,
    lengths: Lengths,
    *,
    passes: int,
    temperature: float,
    alpha: float,
    kept: Tensor | None = None,
) -> Tensor:
    """alpha * reverse KL to the teacher + (1 - alpha) * cross-entropy of the hidden tokens, which the student sees once.

    `kept` [N, 2 k + 1]: what `keep` made of the teacher's targets for just these hidden tokens, which are then not computed again.
    """
    masked = student.hide(speech, lengths)
    hidden_tokens = masked.targets != IGNORE
    scores = student.scores(hidden, masked, lengths.text)[hidden_tokens]
    if kept is None:
        apart = reverse_kl(scores, reveal(teacher, hidden, masked, lengths.text, passes), temperature)
    else:
        apart = reverse_kl_to_kept(scores, kept, temperature)
    right = cross_entropy(scores.float(), masked.targets[hidden_tokens])
    return (alpha * apart + (1 - alpha) * right) * masked.share(lengths)
