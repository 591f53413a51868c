"""Stage `lm`: a small text LLM and its tokenizer, from nothing, on written questions and answers."""

from __future__ import annotations

import torch
from torch import Tensor

from vocalnet_cli.core.data.record import Record, earlier_turns
from vocalnet_cli.core.model.prompt import END_OF_TURN, render_conversation, special_id, words_only
from vocalnet_cli.core.model.thinker import last_hidden, text_logits
from vocalnet_cli.core.model.tokenizer import train_tokenizer
from vocalnet_cli.core.training.stages.stage import IGNORE, Stage, kinds_of, lengths_of, pad, text_loss


class LmStage(Stage):
    """Next-token prediction of the answers; the question is context only, as it will be when it is heard."""

    def load_examples(self) -> None:
        train, dev = self.rows()
        settings = self.recipe.model.thinker
        if "tokenizer" not in self.recipe.init:
            texts = [text for record in train for text in (record.question.text, record.answer.text)]
            self.model.tokenizer = train_tokenizer(texts, settings.vocab, settings.family)
        tokenizer = self.model.tokenizer
        end = special_id(tokenizer, END_OF_TURN[settings.family])

        def example(record: Record) -> tuple[list[int], int]:
            turns = [(asked.text, answer) for asked, answer in earlier_turns(record, self.recipe.data.history)]
            question = words_only(record.question.text)
            (prompt,) = render_conversation(tokenizer, settings.family, settings.system_prompt, turns, question, self.recipe.model.compat)
            return prompt + tokenizer(record.answer.text, add_special_tokens=False)["input_ids"] + [end], len(prompt)

        self.ids = [record.id for record in train]
        self.examples = [example(record) for record in train]
        self.dev_examples = [example(record) for record in dev]
        self.kinds = kinds_of(train, self.recipe.data.balance)

    def trained(self) -> tuple[str, ...]:
        return ("thinker", "tokenizer")

    def length(self, example: tuple[list[int], int]) -> int:
        return len(example[0])

    def collate(self, draws: list[tuple[tuple[list[int], int], int]]) -> dict[str, Tensor]:
        ids = [torch.tensor(tokens) for (tokens, _), _ in draws]
        labels = [row.clone() for row in ids]
        for row, ((_, prompt), _) in zip(labels, draws, strict=True):
            row[:prompt] = IGNORE
        lengths = lengths_of(ids)
        return {"tokens": pad(ids), "labels": pad(labels, IGNORE), "mask": torch.arange(int(lengths.max())) < lengths[:, None]}

    def counts(self, **batch: Tensor) -> Tensor:
        return (batch["labels"][:, 1:] != IGNORE).sum()[None]

    def forward(self, tokens: Tensor, labels: Tensor, mask: Tensor, targets: Tensor | None = None) -> dict[str, Tensor]:
        embeds = self.model.thinker.get_input_embeddings()(tokens)
        hidden = last_hidden(self.model.thinker, embeds, mask)
        return text_loss(text_logits(self.model.thinker, hidden), labels, None if targets is None else targets[0])
