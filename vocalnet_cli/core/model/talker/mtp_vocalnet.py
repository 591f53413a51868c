"""MTP-VocalNet: chained modules predict the next tokens from the previous module's states alone (arXiv 2504.04060, section 3.2)."""

from __future__ import annotations

from torch import Tensor, nn

from vocalnet_cli.core.config.talker_schema import MtpVocalnetSettings, TalkerSettings
from vocalnet_cli.core.model.talker.autoregressive import AutoregressiveTalker
from vocalnet_cli.core.model.talker.backbone import LayerStack, norm


class PredictionModule(nn.Module):
    """One more prediction: a layer over the previous module's states, then a norm and a head of its own."""

    def __init__(self, settings: TalkerSettings) -> None:
        super().__init__()
        self.stack = LayerStack(settings, 1)
        self.norm = norm(settings)
        self.head = nn.Linear(settings.hidden, settings.codes + 4)


class MtpVocalnetTalker(AutoregressiveTalker):
    """The next-token talker plus `settings.modules` prediction modules; module k in row r predicts token r + k."""

    settings: MtpVocalnetSettings

    def __init__(self, settings: MtpVocalnetSettings, compat: str = "paper") -> None:
        super().__init__(settings, compat)
        self.loss_decay = settings.loss_decay

    def new_modules(self) -> nn.ModuleList:
        return nn.ModuleList(PredictionModule(self.settings) for _ in range(self.settings.modules))

    def scorers(self, depth: int) -> list[nn.Module]:
        last = self.extra[depth - 1] if depth else self
        return [last.norm, last.head]

    def predict(self, depth: int, states: Tensor, count: int) -> Tensor:
        last = self.extra[depth - 1] if depth else self
        return last.head(last.norm(states))[..., None, :]
