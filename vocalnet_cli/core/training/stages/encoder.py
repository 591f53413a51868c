"""Stage `encoder`: a Whisper-class encoder from nothing, taught by what was said.

Two CTC losses (Graves et al. 2006): letters on the middle layer, whole words on the last, so that the states the adaptor
stacks already stand for words. The two heads are thrown away when the stage ends.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from vocalnet_cli.core.audio.wav import read_audio
from vocalnet_cli.core.data.feature_cache import cached_rows, fingerprint
from vocalnet_cli.core.data.record import Record
from vocalnet_cli.core.errors import RecipeError
from vocalnet_cli.core.model.encoder import encoder_frames
from vocalnet_cli.core.training.stages.heard import HeardStage
from vocalnet_cli.core.training.stages.stage import kinds_of, lengths_of, pad

LETTERS = " 'abcdefghijklmnopqrstuvwxyz"
BLANK = 0
Example = tuple[Tensor, Tensor, Tensor]
"""Log-mel [F, bins], letter targets, word targets."""


class EncoderStage(HeardStage):
    """Letters and words by CTC."""

    def load_examples(self) -> None:
        settings = self.recipe.model.encoder
        if settings.padding != "fit":
            raise RecipeError(
                f"model.encoder.padding is {settings.padding!r}: stage encoder trains on the speech alone", "Set it to fit in the recipe."
            )
        train, dev = self.rows()
        self.words = {word: i + 1 for i, word in enumerate(sorted({w for r in train for w in r.question.text.lower().split()}))}
        self.letter_head = nn.Linear(settings.hidden, len(LETTERS) + 1)
        self.word_head = nn.Linear(settings.hidden, len(self.words) + 1)
        self.examples = self._examples(train)
        self.dev_examples = self._examples(dev)
        self.kinds = kinds_of(train) if self.recipe.data.balance else None

    def _examples(self, records: list[Record]) -> list[Example]:
        stamps = [(r.question.audio, self.wav(r).stat().st_size) for r in records]
        key = "mel-" + fingerprint(self.recipe.model.encoder.mel_bins, stamps)
        mels = cached_rows(self.cache, key, len(records), lambda: self._mels(records))
        return [(mel, *self._targets(record.question.text.lower())) for mel, record in zip(mels, records, strict=True)]

    def _mels(self, records: list[Record]) -> Iterator[Tensor]:
        for record in records:
            yield self.model.encoder.features(torch.from_numpy(read_audio(self.wav(record)))).T

    def _targets(self, text: str) -> tuple[Tensor, Tensor]:
        letters = torch.tensor([LETTERS.index(c) + 1 for c in text if c in LETTERS], dtype=torch.long)
        words = torch.tensor([self.words[w] for w in text.split() if w in self.words], dtype=torch.long)
        return letters, words

    def trained(self) -> tuple[str, ...]:
        return ("encoder",)

    def freeze_except(self, parts: tuple[str, ...]) -> None:
        super().freeze_except(parts)
        self.model.encoder.embed_positions.requires_grad_(False)

    def length(self, example: Example) -> int:
        return len(example[0])

    def collate(self, draws: list[tuple[Example, int]]) -> dict[str, Tensor]:
        mels = [self.changed(mel.T.float(), draw).T for (mel, _, _), draw in draws]
        letters, words = [e[1] for e, _ in draws], [e[2] for e, _ in draws]
        return {
            "mels": pad(mels).transpose(1, 2),
            "mel_lengths": lengths_of(mels),
            "letters": torch.cat(letters),
            "letter_lengths": lengths_of(letters),
            "words": torch.cat(words),
            "word_lengths": lengths_of(words),
        }

    def forward(
        self, mels: Tensor, mel_lengths: Tensor, letters: Tensor, letter_lengths: Tensor, words: Tensor, word_lengths: Tensor
    ) -> dict[str, Tensor]:
        encoder = self.model.encoder
        states = encoder.layer_states(mels, mel_lengths)
        frames = encoder_frames(mel_lengths)
        by_letter = _ctc(self.letter_head(states[len(states) // 2]), frames, letters, letter_lengths)
        by_word = _ctc(self.word_head(encoder.layer_norm(states[-1])), frames, words, word_lengths)
        return {"loss": by_letter + by_word, "tokens": word_lengths.sum()}


def _ctc(logits: Tensor, frames: Tensor, targets: Tensor, lengths: Tensor) -> Tensor:
    """CTC loss a target, mean over the batch; a question too short for its text counts as zero."""
    scores = logits.float().log_softmax(-1).transpose(0, 1)
    return nn.functional.ctc_loss(scores, targets, frames, lengths, blank=BLANK, zero_infinity=True)
