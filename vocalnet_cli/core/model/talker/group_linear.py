"""Group-Linear: one linear layer turns the decoder's state into the tokens of a group (arXiv 2504.04060, section 3.2)."""

from __future__ import annotations

from torch import Tensor, nn

from vocalnet_cli.core.model.talker.groups import GroupTalker


class GroupLinearTalker(GroupTalker):
    """The output layer scores all places of a group. SLAM-Omni splits one token's scores instead: two linears, so no more than this one."""

    def new_head(self) -> nn.Linear:
        return nn.Linear(self.settings.hidden, self.group * self.vocab)

    def predict(self, depth: int, states: Tensor, count: int) -> Tensor:
        return self.head(self.norm(states)).unflatten(-1, (self.group, self.vocab))
