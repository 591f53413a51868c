"""Stage `speech-tokenizer`: nano's codebook of mel pairs, from the recorded answers (k-means by gradient)."""

from __future__ import annotations

import torch
from torch import Tensor

from vocalnet_cli.core.audio.wav import read_audio
from vocalnet_cli.core.errors import RecipeError
from vocalnet_cli.core.model.speech_tokenizer import mel_pairs
from vocalnet_cli.core.training.stages.stage import Stage, lengths_of, pad
from vocalnet_cli.core.units import ANSWER_HZ


class SpeechTokenizerStage(Stage):
    """Every distinct answer recording is an example; the loss is the squared error of its frames, coded and decoded."""

    def load_examples(self) -> None:
        if self.model.vocoder is None:
            raise RecipeError("model.vocoder is not set: nothing to train", "Set model.vocoder.kind and model.vocoder.codes in the recipe.")
        self.book = self.model.vocoder.tokenizer
        train, dev = self.rows()
        spoken = {record.answer.audio for record in train if record.answer.audio}
        self.examples = [self._pairs(name) for name in sorted(spoken)]
        self.dev_examples = [self._pairs(name) for name in sorted({r.answer.audio for r in dev if r.answer.audio})]
        generator = torch.Generator().manual_seed(self.recipe.train.seed)
        self.book.seed_from(torch.cat(list(self.examples)), generator)

    def _pairs(self, name: str) -> Tensor:
        return mel_pairs(read_audio(self.manifest.parent / name, ANSWER_HZ))

    def trained(self) -> tuple[str, ...]:
        return ("vocoder",)

    def length(self, example: Tensor) -> int:
        return len(example)

    def collate(self, draws: list[tuple[Tensor, int]]) -> dict[str, Tensor]:
        pairs = [example for example, _ in draws]
        return {"pairs": pad(pairs), "lengths": lengths_of(pairs)}

    def forward(self, pairs: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        return {"loss": self.book.loss(pairs, lengths), "tokens": lengths.sum()}
