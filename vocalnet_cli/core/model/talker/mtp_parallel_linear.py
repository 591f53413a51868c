"""MTP-Parallel-Linear: linear heads side by side on the decoder's state (arXiv 2504.04060, section 3.2; after arXiv 2404.19737)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import linear

from vocalnet_cli.core.config.talker_schema import MtpParallelLinearSettings
from vocalnet_cli.core.model.talker.autoregressive import AutoregressiveTalker


class MtpParallelLinearTalker(AutoregressiveTalker):
    """Head k in row r predicts token r + k; no head knows what another says. The heads lie in one matrix, the main one first.

    The paper leaves open, and we chose: all heads read the state after the one final norm, because the heads are linear alone; the
    losses decay as MTP-VocalNet's do, so that the two differ in nothing but the modules (`loss_decay: 1` weighs all alike).
    """

    settings: MtpParallelLinearSettings

    def __init__(self, settings: MtpParallelLinearSettings, compat: str = "paper") -> None:
        super().__init__(settings, compat)
        self.loss_decay = settings.loss_decay

    def new_head(self) -> nn.Linear:
        return nn.Linear(self.settings.hidden, (1 + self.settings.modules) * self.vocab)

    def predict(self, depth: int, states: Tensor, count: int) -> Tensor:
        wanted = count * self.vocab
        return linear(self.norm(states), self.head.weight[:wanted], self.head.bias[:wanted]).unflatten(-1, (count, self.vocab))
