"""Rows that hold a group of speech tokens: what Group-Linear and Group-Trans share (arXiv 2504.04060, section 3.2).

The paper leaves open, and we chose:

- How tokens become a row: each token's embedding through a linear of its place, summed; that is one linear of the embeddings put end
  to end (SLAM-Omni, arXiv 2412.15649; IntrinsicVoice, arXiv 2410.08035).
- How speech begins: with a row of SOS in every place, so that all rows are made alike.
- The last group: it holds EOS, and nothing after EOS is a target, because decoding reads no further. It is never read itself.
- The view of the text: a row sees what the next-token talker would see from its last token, so a chunk of C_s tokens is C_s / G rows.
- Positions count rows: neighbours stand side by side, whatever the size of the group.
- The loss is a mean over tokens: a group is next-token prediction with fewer steps, so no place of it weighs less.
"""

from __future__ import annotations

from torch import Tensor, nn

from vocalnet_cli.core.config.talker_schema import GroupSettings
from vocalnet_cli.core.model.talker.autoregressive import AutoregressiveTalker
from vocalnet_cli.core.model.talker.backbone import init_weights
from vocalnet_cli.core.model.talker.losses import mean


class GroupTalker(AutoregressiveTalker):
    """Row r holds the tokens of group r, and all of group r + 1 are predicted from it at once."""

    def __init__(self, settings: GroupSettings, compat: str = "paper") -> None:
        self.group = settings.group
        super().__init__(settings, compat)
        self.merge = nn.Linear(settings.group * settings.hidden, settings.hidden)
        self.merge.apply(init_weights)

    def embed(self, tokens: Tensor) -> Tensor:
        return self.merge(self.embedding(tokens).unflatten(1, (-1, self.group)).flatten(2))

    def weigh(self, counts: Tensor) -> Tensor:
        return mean(counts)
