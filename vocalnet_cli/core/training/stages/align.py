"""Stage `align` (stage 1 of the paper): speech to text. Adaptor and LoRA learn; the encoder is frozen unless `train.parts` names it."""

from __future__ import annotations

from torch import Tensor

from vocalnet_cli.core.model.thinker import last_hidden, text_logits
from vocalnet_cli.core.training.stages.heard import HeardStage, Source
from vocalnet_cli.core.training.stages.stage import IGNORE, kinds_of, pad, text_loss

Example = tuple[Source, Tensor]


class AlignStage(HeardStage):
    """Next-token prediction of the answer after the spliced speech (arXiv 2504.04060, section 3.4, stage 1)."""

    def load_examples(self) -> None:
        train, dev = self.rows()
        self.ids = [r.id for r in train]
        self.examples = list(zip(self.sources(train), self.answer_ids(train), strict=True))
        self.dev_examples = list(zip(self.sources(dev), self.answer_ids(dev), strict=True))
        self.kinds = kinds_of(train, self.recipe.data.balance)

    def length(self, example: Example) -> int:
        return example[0].length

    def collate(self, draws: list[tuple[Example, int]]) -> dict[str, Tensor]:
        answers = pad([answer for (_, answer), _ in draws], IGNORE)
        return {**self.collate_heard([source for (source, _), _ in draws], [draw for _, draw in draws]), "answers": answers}

    def counts(self, **batch: Tensor) -> Tensor:
        return (batch["answers"] != IGNORE).sum()[None]

    def forward(
        self,
        prompts: Tensor,
        answers: Tensor,
        heard: Tensor | None = None,
        heard_lengths: Tensor | None = None,
        targets: Tensor | None = None,
    ) -> dict[str, Tensor]:
        batch = self.splice(prompts, answers, heard, heard_lengths)
        hidden = last_hidden(self.model.thinker, batch.embeds, batch.mask)
        return text_loss(text_logits(self.model.thinker, hidden), batch.labels, None if targets is None else targets[0])
