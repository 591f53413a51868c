"""Stage `speech-tokenizer`: nano's speech tokens and their way back to mel frames, from the recorded answers.

A head that is thrown away afterwards reads the letters of the answer off the tokens by CTC, so that a token says which sound it
is before it says how it sounded (supervised tokens, as CosyVoice's: arXiv 2407.05407, section 2.1).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from vocalnet_cli.core.audio.wav import read_audio
from vocalnet_cli.core.data.record import Record
from vocalnet_cli.core.errors import RecipeError
from vocalnet_cli.core.model.speech_tokenizer import mel_pairs
from vocalnet_cli.core.model.vocoder import GriffinLimVocoder
from vocalnet_cli.core.training.stages.ctc import LETTERS, ctc, letter_targets
from vocalnet_cli.core.training.stages.stage import Stage, lengths_of, pad, share
from vocalnet_cli.core.units import ANSWER_HZ, SAMPLES_PER_TOKEN

Example = tuple[Tensor, Tensor]
"""Mel pairs [T, 160] in half precision, letter targets."""

_READING = 0.3
"""Weight of the letters beside the frames."""


class SpeechTokenizerStage(Stage):
    """Every distinct answer recording is an example; the loss is that of its frames, coded and decoded, and of its letters."""

    def load_examples(self) -> None:
        if not isinstance(self.model.vocoder, GriffinLimVocoder):
            raise RecipeError(
                "model.vocoder.kind is not griffin-lim: a speech tokenizer is learned together with its way back to frames",
                "Set model.vocoder.kind to griffin-lim; stage flow then takes the tokenizer alone (init.speech-tokenizer).",
            )
        self.book = self.model.vocoder.tokenizer
        width, hidden = self.book.codebook.shape[1], self.book.embedding.embedding_dim
        self.reader = nn.Sequential(nn.Linear(width + hidden, hidden), nn.GELU(), nn.Linear(hidden, len(LETTERS) + 1))
        train, dev = self.rows()
        self.ids = sorted({record.answer.audio for record in train if record.answer.audio})
        self.examples, self.dev_examples = self._examples(train, shifted=True), self._examples(dev)
        generator = torch.Generator().manual_seed(self.recipe.train.seed)
        self.book.seed_from(torch.cat([pairs for pairs, _ in self.examples]), generator)

    def _examples(self, records: list[Record], shifted: bool = False) -> list[Example]:
        """Each distinct recording once; of those `shifted`, half begin up to a token late, since what is said keeps to no token."""
        said = {record.answer.audio: record.answer.text for record in records if record.answer.audio}
        chance = np.random.default_rng(self.recipe.train.seed)
        examples = []
        for number, (name, text) in enumerate(sorted(said.items())):
            late = int(chance.integers(SAMPLES_PER_TOKEN)) if shifted and number % 2 else 0
            examples.append((self._pairs(name, late), letter_targets(text)))
        return examples

    def _pairs(self, name: str, late: int) -> Tensor:
        return mel_pairs(np.pad(read_audio(self.root / name, ANSWER_HZ), (late, 0))).half()

    def length(self, example: Example) -> int:
        return len(example[0])

    def collate(self, draws: list[tuple[Example, int]]) -> dict[str, Tensor]:
        pairs, letters = [example[0].float() for example, _ in draws], [example[1] for example, _ in draws]
        return {"pairs": pad(pairs), "lengths": lengths_of(pairs), "letters": torch.cat(letters), "letters_lengths": lengths_of(letters)}

    def forward(
        self, pairs: Tensor, lengths: Tensor, letters: Tensor, letters_lengths: Tensor, targets: Tensor | None = None
    ) -> dict[str, Tensor]:
        loss, said = self.book.loss(pairs, lengths)
        loss = loss + _READING * ctc(self.reader(said), lengths, letters, letters_lengths)
        return {"loss": loss * share(len(pairs), targets), "tokens": lengths.sum()}
