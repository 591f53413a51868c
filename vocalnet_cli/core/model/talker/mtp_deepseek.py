"""MTP-DeepSeek: chained modules that also read the tokens in between (arXiv 2504.04060, section 3.2; arXiv 2412.19437, section 2.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vocalnet_cli.core.config.talker_schema import MtpDeepseekSettings
from vocalnet_cli.core.model.talker.autoregressive import AutoregressiveTalker
from vocalnet_cli.core.model.talker.backbone import LayerStack, norm


class DeepseekModule(nn.Module):
    """One more next-token prediction: state and token, each normed, joined by a linear; a layer; a norm (and a head, if it has its own)."""

    def __init__(self, settings: MtpDeepseekSettings) -> None:
        super().__init__()
        self.state_norm = norm(settings)
        self.token_norm = norm(settings)
        self.merge = nn.Linear(2 * settings.hidden, settings.hidden, bias=False)
        self.stack = LayerStack(settings, 1)
        self.norm = norm(settings)
        self.head = None if settings.shared_head else nn.Linear(settings.hidden, settings.codes + 4)


class MtpDeepseekTalker(AutoregressiveTalker):
    """Module k in row r reads the state of module k - 1 there and token r + k - 1, the true one in training, and predicts token r + k.

    In decoding that token is the one just drawn by the head before it, and it is spoken: the rows a later step sees are those of
    training on what was said. The paper leaves open, and we chose: the embedding is the talker's own and the output layer the main
    one, as in DeepSeek-V3 (`shared_head: false` for one each); a text row has no speech token, so its place is filled with zeros, and
    the modules see the text as the decoder does; the losses decay as MTP-VocalNet's do, so that the two differ in nothing but the
    modules.
    """

    settings: MtpDeepseekSettings

    def __init__(self, settings: MtpDeepseekSettings, compat: str = "paper") -> None:
        super().__init__(settings, compat)
        self.loss_decay = settings.loss_decay

    def new_modules(self) -> nn.ModuleList:
        return nn.ModuleList(DeepseekModule(self.settings) for _ in range(self.settings.modules))

    def join(self, depth: int, states: Tensor, tokens: Tensor) -> Tensor:
        module = self.extra[depth - 1]
        # The padding row of the embedding is zero and stays so.
        return module.merge(torch.cat([module.state_norm(states), module.token_norm(self.embedding(tokens))], dim=-1))

    def scorers(self, depth: int) -> list[nn.Module]:
        last = self.extra[depth - 1] if depth else self
        return [last.norm, self.head if last.head is None else last.head]

    def predict(self, depth: int, states: Tensor, count: int) -> Tensor:
        last = self.extra[depth - 1] if depth else self
        head = self.head if last.head is None else last.head
        return head(last.norm(states))[..., None, :]
