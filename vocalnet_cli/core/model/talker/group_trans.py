"""Group-Trans: a small transformer turns the decoder's state into the tokens of a group, all at once (arXiv 2504.04060, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vocalnet_cli.core.config.talker_schema import GroupTransSettings
from vocalnet_cli.core.model.talker.backbone import LayerStack, init_weights
from vocalnet_cli.core.model.talker.groups import GroupTalker


class GroupTransTalker(GroupTalker):
    """A learned query for each place follows the state, and all of them see one another (the GroupModel of arXiv 2410.08035, section 3).

    The state is a row of that transformer, un-normed like the rows that other prediction modules read; the norm and the output layer
    come after it and are the same for every place, since the queries tell the places apart.
    """

    def __init__(self, settings: GroupTransSettings, compat: str = "paper") -> None:
        super().__init__(settings, compat)
        self.queries = nn.Embedding(settings.group, settings.hidden)
        self.speaker = LayerStack(settings, settings.group_layers)
        for part in (self.queries, self.speaker):
            part.apply(init_weights)

    def scorers(self, depth: int) -> list[nn.Module]:
        return [*super().scorers(depth), self.queries, self.speaker]

    def predict(self, depth: int, states: Tensor, count: int) -> Tensor:
        rows = states.reshape(-1, 1, states.shape[-1])
        queries = self.queries.weight.to(rows.dtype).expand(len(rows), -1, -1)
        rows = torch.cat([rows, queries], dim=1)
        places = torch.arange(rows.shape[1], device=rows.device)
        seen = torch.ones(1, 1, len(places), len(places), dtype=torch.bool, device=rows.device)
        spoken = self.speaker(rows, self.rotary(places), seen)[:, 1:]
        return self.head(self.norm(spoken)).unflatten(0, states.shape[:-1])
