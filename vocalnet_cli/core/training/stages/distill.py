"""Stage `distill`: a masked-diffusion talker learns from several passes of a frozen copy of itself (arXiv 2602.08607)."""

from __future__ import annotations

import copy

from torch import Tensor

from vocalnet_cli.core.errors import RecipeError
from vocalnet_cli.core.model.talker.contract import Lengths
from vocalnet_cli.core.model.talker.mdm import MdmTalker
from vocalnet_cli.core.model.talker.mdm_distill import distillation_loss
from vocalnet_cli.core.training.stages.speak import SpeakStage


class DistillStage(SpeakStage):
    """Reverse KL to the teacher's logits at reveal time, and cross-entropy; the dev loss is the same sum."""

    def load_examples(self) -> None:
        talker = self.model.talker
        if not isinstance(talker, MdmTalker):
            raise RecipeError(
                f"model.talker.kind is {self.recipe.model.talker.kind}: stage distill trains masked-diffusion talkers", "Set it to mdm."
            )
        self.teacher = copy.deepcopy(talker).eval().requires_grad_(False)  # the weights it starts from, also when it is resumed
        super().load_examples()

    def loss(self, states: Tensor, speech: Tensor, lengths: Lengths) -> Tensor:
        s, student = self.recipe.distill, self.model.talker
        assert isinstance(student, MdmTalker)
        self.teacher.eval()
        return distillation_loss(student, self.teacher, states, speech, lengths, passes=s.passes, temperature=s.temperature, alpha=s.alpha)
