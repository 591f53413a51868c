"""Stage `encoder`: a Whisper-class encoder and a first adaptor from nothing, taught by what was said.

Three CTC losses (Graves et al. 2006): letters on the middle layer, whole words on the last, and the thinker's own text tokens
on the adaptor's embeddings, each scored by its distance to the thinker's embedding of that token. So stage 1 starts from speech
that already lies where the thinker keeps its words, instead of finding that place through the answers alone. Letter and word heads
are thrown away when the stage ends.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vocalnet_cli.core.data.record import Record
from vocalnet_cli.core.errors import RecipeError
from vocalnet_cli.core.model.encoder import encoder_frames
from vocalnet_cli.core.training.stages.ctc import LETTERS, ctc, letter_targets
from vocalnet_cli.core.training.stages.heard import HeardStage
from vocalnet_cli.core.training.stages.stage import kinds_of, lengths_of, pad, share

Example = tuple[Tensor, Tensor, Tensor, Tensor]
"""Log-mel [F, bins], letter targets, word targets, text token targets."""


class TokenScores(nn.Module):
    """Log-odds of a thinker's text tokens, and of the blank, from distances in its embedding space.

    The blank has a place of its own there, which learns, as does the sharpness; the tokens' places are the thinker's and stay.
    """

    places: Tensor

    def __init__(self, embedding_VH: Tensor) -> None:
        super().__init__()
        self.register_buffer("places", embedding_VH.detach().float().clone())
        spread = self.places.var(0).sum()  # mean squared distance from the middle; twice that between two tokens
        self.blank = nn.Parameter(self.places.mean(0))
        self.sharpness = nn.Parameter((4 / spread).log())

    def forward(self, audio_BAH: Tensor) -> Tensor:
        """Audio embeddings to scores [B, A, 1 + V]; the blank is 0, token v is v + 1."""
        places = torch.cat([self.blank[None], self.places])
        return self.sharpness.exp() * (2 * audio_BAH.float() @ places.T - places.square().sum(1))


class EncoderStage(HeardStage):
    """Letters, words and the thinker's text tokens by CTC."""

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
        self.token_scores = TokenScores(self.model.thinker.get_input_embeddings().weight)
        self.ids = [r.id for r in train]
        self.examples = self._examples(train)
        self.dev_examples = self._examples(dev)
        self.kinds = kinds_of(train, self.recipe.data.balance)

    def _examples(self, records: list[Record]) -> list[Example]:
        mels = self.mels([str(record.question.audio) for record in records])
        return [(mel, *self._targets(record.question.text.lower())) for mel, record in zip(mels, records, strict=True)]

    def _targets(self, text: str) -> tuple[Tensor, Tensor, Tensor]:
        words = torch.tensor([self.words[w] for w in text.split() if w in self.words], dtype=torch.long)
        tokens = torch.tensor(self.model.tokenizer(text, add_special_tokens=False)["input_ids"], dtype=torch.long) + 1
        return letter_targets(text), words, tokens

    def length(self, example: Example) -> int:
        return len(example[0])

    def collate(self, draws: list[tuple[Example, int]]) -> dict[str, Tensor]:
        mels = [self.changed(mel.T.float(), draw).T for (mel, *_), draw in draws]
        batch = {"mels": pad(mels).transpose(1, 2), "mel_lengths": lengths_of(mels)}
        for place, name in enumerate(("letters", "words", "tokens"), 1):
            targets = [example[place] for example, _ in draws]
            batch |= {name: torch.cat(targets), f"{name}_lengths": lengths_of(targets)}
        return batch

    def forward(
        self,
        mels: Tensor,
        mel_lengths: Tensor,
        letters: Tensor,
        letters_lengths: Tensor,
        words: Tensor,
        words_lengths: Tensor,
        tokens: Tensor,
        tokens_lengths: Tensor,
        targets: Tensor | None = None,
    ) -> dict[str, Tensor]:
        encoder, adaptor = self.model.encoder, self.model.adaptor
        states = encoder.layer_states(mels, mel_lengths)
        frames = encoder_frames(mel_lengths)
        last = encoder.layer_norm(states[-1])
        by_letter = ctc(self.letter_head(states[len(states) // 2]), frames, letters, letters_lengths)
        by_word = ctc(self.word_head(last), frames, words, words_lengths)
        by_token = ctc(self.token_scores(adaptor(last)), frames // adaptor.stack, tokens, tokens_lengths)
        return {"loss": (by_letter + by_word + by_token) * share(len(mels), targets), "tokens": tokens_lengths.sum()}
