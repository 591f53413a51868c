"""Stages `speak` (stage 2 of the paper), in which the talker learns from the frozen thinker's states, and `joint`, in which all learn.

Where the adaptor or LoRA learn too, the written answer is a target beside the spoken one: without it the thinker would be free to
forget how to write.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from vocalnet_cli.core.audio.wav import read_audio
from vocalnet_cli.core.data.feature_cache import Kept, cached_rows, fingerprint
from vocalnet_cli.core.data.manifest import check_one_tokenizer, tokens_of, told
from vocalnet_cli.core.data.prep.corpora import BadRow
from vocalnet_cli.core.data.record import Record
from vocalnet_cli.core.errors import VocalnetError
from vocalnet_cli.core.model.talker.contract import Lengths
from vocalnet_cli.core.model.talker.mdm import MdmTalker
from vocalnet_cli.core.model.thinker import last_hidden, text_logits
from vocalnet_cli.core.training.stages.heard import HEAR_AT_ONCE, HeardStage, Source, Spliced
from vocalnet_cli.core.training.stages.stage import DEV_DRAW, IGNORE, batches, kinds_of, pad, text_loss
from vocalnet_cli.core.units import ANSWER_HZ, SPEECH_TOKEN_HZ

Example = tuple[Source | Kept, Tensor, Tensor]
"""Cached thinker states [n + 1, H] (or what they are computed from), answer ids [n + 1], speech tokens [S]."""


class SpeakStage(HeardStage):
    """Multi-token prediction of the answer's speech tokens (arXiv 2504.04060, sections 3.2 and 3.4: stage 2, or all at once as table 4)."""

    @property
    def reading_learns(self) -> bool:
        """Whether what the talker reads changes while it learns."""
        return set(self.parts) != {"talker"}

    @property
    def states_cached(self) -> bool:
        return self.keeps_states and not self.reading_learns

    def rows(self) -> tuple[list[Record], list[Record]]:
        train, dev = super().rows()
        return [r for r in train if self._has_speech(r)], [r for r in dev if self._has_speech(r)]

    def _has_speech(self, record: Record) -> bool:
        return record.speech_tokens is not None or record.answer.audio is not None

    def load_examples(self) -> None:
        if isinstance(self.model.talker, MdmTalker) and self.device.startswith("cuda"):
            self.model.talker.attention = self.recipe.train.attention
        train, dev = self.rows()
        spoken = self._short_answers(train)
        if not spoken:
            raise VocalnetError(
                f"{self.manifest}: no row has a spoken answer of at most {self.recipe.data.max_answer_s:g} s",
                "Add answer.audio or speech_tokens to the manifest, or raise data.max_answer_s.",
            )
        self.ids = [record.id for record, _ in spoken]
        self.examples = self._examples(spoken)
        self.dev_examples = self._examples(self._short_answers(dev))
        self.kinds = kinds_of([record for record, _ in spoken], self.recipe.data.balance)

    def _short_answers(self, records: list[Record]) -> list[tuple[Record, Tensor]]:
        """Rows with their speech tokens, but those longer than the recipe allows: an answer that is cut never learns to end."""
        limit = self.recipe.data.max_answer_s * SPEECH_TOKEN_HZ
        kept = [(record, tokens) for record, tokens in zip(records, self._speech(records), strict=True) if len(tokens) <= limit]
        self.left_out += len(records) - len(kept)
        return kept

    def _examples(self, spoken: list[tuple[Record, Tensor]]) -> list[Example]:
        records, tokens = [record for record, _ in spoken], [tokens for _, tokens in spoken]
        ids, heard = self.answer_ids(records), self.sources(records)
        if not self.states_cached:
            return list(zip(heard, ids, tokens, strict=True))
        parts = [self.model.thinker] if self.written else [self.model.encoder, self.model.adaptor, self.model.thinker]
        before: list[object] = [self.recipe.data.history] if any(map(self.turns, records)) else []
        before += ["with tokens"] if self.recipe.model.talker.reads_tokens else []
        key = "read-" + fingerprint(*parts, [r.id for r in records], self.manifest, *before)
        states = cached_rows(self.cache, key, len(records), lambda start: self._read(heard, ids, start))
        return list(zip(states.kept(), ids, tokens, strict=True))

    def _read(self, heard: Sequence[Source], ids: list[Tensor], start: int) -> Iterator[Tensor]:
        for rows in batches(range(start, len(ids)), HEAR_AT_ONCE):
            group = [(heard[row], ids[row]) for row in rows]
            heard_now = self.collate_heard([source for source, _ in group], [DEV_DRAW] * len(group))
            batch = {**heard_now, "answers": pad([answer for _, answer in group], IGNORE)}
            states = self._talker_rows(*self._read_answers(**batch))
            for row, (_, answer) in zip(states, group, strict=True):
                yield row[: len(answer)].cpu()

    def _read_answers(
        self, prompts: Tensor, answers: Tensor, heard: Tensor | None = None, heard_lengths: Tensor | None = None
    ) -> tuple[Spliced, Tensor]:
        """Prompts with their answers, and the thinker's states of them [B, L, H]."""
        if not self.lora:
            self.model.thinker.eval()
        with torch.set_grad_enabled(self.reading_learns and self.training):
            batch = self.splice(prompts, answers, heard, heard_lengths)
            return batch, last_hidden(self.model.thinker, batch.embeds, batch.mask)

    def _talker_rows(self, batch: Spliced, hidden: Tensor) -> Tensor:
        """h(t1) ... h(tn), E [B, n + 1, H]: the states that have read each answer token (`SpeechLLM.talker_rows`), then the end vector."""
        counts = (batch.labels != IGNORE).sum(1).tolist()
        end = self.model.end_vector()[0]
        rows = []
        for b, (at, n) in enumerate(zip(batch.answer_at, counts, strict=True)):
            said = slice(at, at + n - 1)
            rows.append(torch.cat([self.model.talker_rows(hidden[b, said], batch.labels[b, said]), end.to(hidden.dtype)]))
        return pad(rows)

    def _speech(self, records: list[Record]) -> list[Tensor]:
        """Speech tokens of each row: given in the manifest, or made from the answer's recording (each file once)."""
        check_one_tokenizer(self.manifest, records)
        names = list(dict.fromkeys(str(r.answer.audio) for r in records if r.speech_tokens is None))
        made = dict(zip(names, self._tokenized(names), strict=True))
        return [self._speech_of(record, made) for record in records]

    def _tokenized(self, names: list[str]) -> Sequence[Tensor]:
        """Speech tokens of recordings; kept on disk where the recipe keeps what does not change."""
        if not names:
            return []
        if self.model.vocoder is None:
            raise VocalnetError(
                f"{self.manifest}: rows have no speech_tokens and the recipe has no speech tokenizer",
                "Make the tokens first: `vocalnet prep tokens`, or name a vocoder in `model` and `init`.",
            )
        tokenizer = self.model.vocoder.tokenizer

        def tokens(start: int) -> Iterator[Tensor]:
            return (tokenizer.encode(read_audio(self.root / name, ANSWER_HZ)).cpu() for name in names[start:])

        if not self.recipe.data.cache:
            return list(tokens(0))
        return cached_rows(self.cache, "tokens-" + fingerprint(tokenizer, self._stamps(names)), len(names), tokens)

    def _speech_of(self, record: Record, made: dict[str, Tensor]) -> Tensor:
        if record.speech_tokens is not None:
            tokens = self._given(record)
        else:
            tokens = made[str(record.answer.audio)]
        codes = self.recipe.model.talker.codes
        if len(tokens) and not 0 <= int(tokens.min()) <= int(tokens.max()) < codes:
            raise VocalnetError(
                f"{self.manifest}: row {record.id} has a speech token outside 0..{codes - 1}",
                "Use the speech tokenizer the recipe names (talker.codes).",
            )
        return tokens

    def _given(self, record: Record) -> Tensor:
        try:
            return torch.tensor(tokens_of(record, self.root))
        except BadRow as bad:
            hint = f"`vocalnet prep validate {self.manifest}` lists every bad row"
            raise VocalnetError(f"{self.manifest}: row {record.id}: {told(bad)}", hint) from bad

    def length(self, example: Example) -> int:
        return len(example[2])

    def collate(self, draws: list[tuple[Example, int]]) -> dict[str, Tensor]:
        speech = [example[2] for example, _ in draws]
        # The coin of each example depends on its draw number alone, so a resumed run tosses the same ones.
        coins = [np.random.default_rng((self.recipe.train.seed, draw + 1)).random() for _, draw in draws]
        batch = {
            "speech": pad(speech, IGNORE),
            "streaming": torch.tensor(coins) < self.recipe.train.streaming_share,
            "answers": pad([example[1] for example, _ in draws], IGNORE),
            "draws": torch.tensor([draw + 1 for _, draw in draws]) + (self.recipe.train.seed << 32),
        }
        kept = [example[0] for example, _ in draws if isinstance(example[0], Kept)]
        if kept:
            return {**batch, "states": pad([row.read().float() for row in kept])}
        sources = [example[0] for example, _ in draws if isinstance(example[0], Source)]
        return {**batch, **self.collate_heard(sources, [draw for _, draw in draws])}

    def _lengths(self, speech: Tensor, streaming: Tensor, answers: Tensor, draws: Tensor) -> Lengths:
        return Lengths((answers != IGNORE).sum(1), (speech != IGNORE).sum(1), streaming, draws)

    def counts(self, **batch: Tensor) -> Tensor:
        """Those of the talker's heads, then that of the written answers if they are learned too."""
        speech, streaming, answers, draws = (batch[name] for name in ("speech", "streaming", "answers", "draws"))
        of_heads = self.model.talker.counts(speech, self._lengths(speech, streaming, answers, draws))
        return torch.cat([of_heads, (answers != IGNORE).sum()[None]]) if self.reading_learns else of_heads

    def forward(
        self,
        speech: Tensor,
        streaming: Tensor,
        answers: Tensor,
        draws: Tensor,
        states: Tensor | None = None,
        prompts: Tensor | None = None,
        heard: Tensor | None = None,
        heard_lengths: Tensor | None = None,
        targets: Tensor | None = None,
    ) -> dict[str, Tensor]:
        written: Tensor | None = None
        if states is None:
            assert prompts is not None
            batch, hidden = self._read_answers(prompts, answers, heard, heard_lengths)
            states = self._talker_rows(batch, hidden)
            if self.reading_learns:
                written = text_loss(text_logits(self.model.thinker, hidden), batch.labels, None if targets is None else targets[-1])["loss"]
        lengths = self._lengths(speech, streaming, answers, draws)
        lengths.targets = targets[:-1] if targets is not None and self.reading_learns else targets
        loss = self.loss(states, speech, lengths)
        if written is not None:
            loss = loss + self.recipe.train.text_weight * written
        return {"loss": loss, "tokens": lengths.speech.sum()}

    def loss(self, states: Tensor, speech: Tensor, lengths: Lengths) -> Tensor:
        """What is minimised, of thinker states [B, n + 1, H] and speech tokens [B, S]."""
        return self.model.talker.loss(states, speech, lengths).total
