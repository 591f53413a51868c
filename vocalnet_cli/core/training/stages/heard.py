"""What the stages that listen to questions share: the frozen encoder's states, and speech spliced into the prompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vocalnet_cli.core.audio.wav import audio_seconds, read_audio
from vocalnet_cli.core.data.augment import augment
from vocalnet_cli.core.data.feature_cache import cached_rows, fingerprint
from vocalnet_cli.core.data.record import Record
from vocalnet_cli.core.errors import VocalnetError
from vocalnet_cli.core.model.encoder import encoder_frames
from vocalnet_cli.core.model.prompt import END_OF_TURN, SPEECH, render_prompt, special_id
from vocalnet_cli.core.model.thinker import add_lora, merge_lora
from vocalnet_cli.core.training.stages.stage import DEV_DRAW, IGNORE, Stage, batches, lengths_of, pad

HEAR_AT_ONCE = 16


class Sound(NamedTuple):
    """A question's log-mel [F, bins], kept because what is made of it changes from draw to draw."""

    mel: Tensor


Source = Tensor | Sound | Record
"""A question as prompt ids [n] (written), as the frozen encoder's states [T, hidden] or its log-mel (cached), or as the row it is read
from when drawn."""


@dataclass
class Spliced:
    """A batch of prompts with speech and answer: embeddings [B, L, H], mask and labels [B, L], first answer position [B]."""

    embeds: Tensor
    mask: Tensor
    labels: Tensor
    answer_at: list[int]


class HeardStage(Stage):
    """A stage whose input is questions, spoken or written, and which may adapt the thinker."""

    asks = SPEECH
    """The user's turn, with the place of the speech in it."""

    def freeze_except(self, parts: tuple[str, ...]) -> None:
        self.lora = "lora" in parts
        self.encoder_learns = "encoder" in parts
        if self.lora:
            self.model.thinker = add_lora(self.model.thinker, self.recipe.model.thinker.lora)
        super().freeze_except(tuple(part for part in parts if part != "lora"))

    def finish(self) -> None:
        if self.lora:
            self.model.thinker = merge_lora(self.model.thinker)

    @property
    def keeps_states(self) -> bool:
        """Whether what frozen parts make of a question is computed once: nothing about it changes from draw to draw."""
        data = self.recipe.data
        changed = data.augment != type(data)().augment and not self.written
        return data.cache and not changed and not self.encoder_learns

    def rows(self) -> tuple[list[Record], list[Record]]:
        train, dev = super().rows()
        return (train, dev) if self.written else (self._short_enough(train), self._short_enough(dev))

    @property
    def written(self) -> bool:
        """Whether the thinker reads the questions instead of hearing them."""
        return self.recipe.data.questions == "written"

    def _short_enough(self, records: list[Record]) -> list[Record]:
        """Rows with a recording no longer than the recipe allows; the encoder hears one window in training."""
        limit = min(self.recipe.data.max_question_s, self.recipe.model.encoder.window_s)
        spoken = [record for record in records if record.question.audio]
        kept = [record for record in spoken if audio_seconds(self.wav(record)) <= limit]
        self.left_out += len(records) - len(kept)
        if records and not kept:
            raise VocalnetError(
                f"{self.manifest}: no question has a recording of at most {limit:g} s", "Check data.max_question_s and the manifest."
            )
        return kept

    def wav(self, record: Record) -> Any:
        return self.manifest.parent / str(record.question.audio)

    def sources(self, records: list[Record]) -> Sequence[Source]:
        """What each question is heard from: its written prompt, cached encoder states or log-mel, or the recording itself."""
        if self.written:
            thinker = self.recipe.model.thinker
            prompts = [render_prompt(self.model.tokenizer, thinker.family, thinker.system_prompt, self.question(r)) for r in records]
            return [torch.tensor(prompt.before) for prompt in prompts]
        if not self.recipe.data.cache:
            return records
        if not self.keeps_states:
            return [Sound(mel) for mel in self.mels(records)]
        stamps = self._stamps(records)
        key = "heard-" + fingerprint(self.model.encoder, self.recipe.model.encoder.model_dump(), stamps)
        return cached_rows(self.cache, key, len(records), lambda: self._encode(records))

    def mels(self, records: list[Record]) -> Sequence[Tensor]:
        """Unchanged log-mel [F, bins] of each question, computed once."""
        key = "mel-" + fingerprint(self.recipe.model.encoder.mel_bins, self.model.shortest_samples, self._stamps(records))
        return cached_rows(self.cache, key, len(records), lambda: (self._log_mel(record) for record in records))

    def _stamps(self, records: list[Record]) -> list[tuple[str | None, int]]:
        return [(r.question.audio, self.wav(r).stat().st_size) for r in records]

    @torch.no_grad()
    def _encode(self, records: list[Record]) -> Iterator[Tensor]:
        self.model.encoder.eval()
        for group in batches(records, HEAR_AT_ONCE):
            states, lengths = self.model.encode([read_audio(self.wav(record)) for record in group])
            for row, length in zip(states, lengths, strict=True):
                yield row[:length].cpu()

    def question(self, record: Record) -> str:
        """What the user writes, where the question is written."""
        return record.question.text

    def answer(self, record: Record) -> str:
        """What the thinker is to write."""
        return record.answer.text

    def answer_ids(self, records: list[Record]) -> list[Tensor]:
        """Token ids of each answer, the end of turn included."""
        tokenizer = self.model.tokenizer
        end = special_id(tokenizer, END_OF_TURN[self.recipe.model.thinker.family])
        return [torch.tensor(tokenizer(self.answer(r), add_special_tokens=False)["input_ids"] + [end]) for r in records]

    def source_length(self, source: Source) -> int:
        return len(self.answer(source)) if isinstance(source, Record) else len(source.mel) if isinstance(source, Sound) else len(source)

    def collate_heard(self, sources: Sequence[Source], draws: Sequence[int]) -> dict[str, Tensor]:
        """`heard` [B, T, hidden] encoder states, log-mels [B, F, bins] (nothing cached), or prompt ids [B, n]; `heard_lengths` [B]."""
        rows = [s if isinstance(s, Tensor) else self._mel(s, draw) for s, draw in zip(sources, draws, strict=True)]
        return {"heard": pad(rows), "heard_lengths": lengths_of(rows)}

    def _mel(self, source: Sound | Record, draw: int) -> Tensor:
        """Log-mel [F, bins] of a recording, changed as `data.augment` says unless it is a dev row."""
        mel = source.mel if isinstance(source, Sound) else self._log_mel(source)
        return self.changed(mel.T.float(), draw).T

    def _log_mel(self, record: Record) -> Tensor:
        """Log-mel [F, bins] of a recording."""
        wave = read_audio(self.wav(record))
        wave = np.pad(wave, (0, max(0, self.model.shortest_samples - len(wave))))
        return self.model.encoder.features(torch.from_numpy(wave)).T

    def changed(self, mel: Tensor, draw: int) -> Tensor:
        """A log-mel [bins, F] as this draw hears it; the same draw always hears the same."""
        if draw != DEV_DRAW:
            mel = augment(mel, self.recipe.data.augment, np.random.default_rng((self.recipe.train.seed, draw)))
        window = self.model.encoder.window_frames
        if self.recipe.model.encoder.padding == "window":
            mel = torch.nn.functional.pad(mel, (0, max(0, window - mel.shape[1])), value=float(mel.min()))
        return mel[:, :window]

    def audio(self, heard: Tensor, heard_lengths: Tensor) -> tuple[Tensor, list[int]]:
        """Audio embeddings [B, A, H] and how many of each row are real."""
        if not self.keeps_states:
            if not self.encoder_learns:
                self.model.encoder.eval()
            with torch.set_grad_enabled(self.encoder_learns and self.training):
                heard = self.model.encoder.encode(heard.transpose(1, 2).to(self.model.dtype), heard_lengths)
                heard_lengths = encoder_frames(heard_lengths)
        return self.model.adaptor(heard.to(self.model.dtype)), (heard_lengths // self.model.adaptor.stack).tolist()

    def splice(self, heard: Tensor, heard_lengths: Tensor, answers: Tensor) -> Spliced:
        """Prompt, speech and answer ids [B, n] (padded with IGNORE) as one right-padded batch of embeddings."""
        embed = self.model.thinker.get_input_embeddings()
        rows, labels, starts = [], [], []
        prompts = self._prompts(heard, heard_lengths)
        for prompt, answer, n_answer in zip(prompts, answers, (answers != IGNORE).sum(1).tolist(), strict=True):
            said = answer[:n_answer]
            rows.append(torch.cat([prompt, embed(said)]))
            starts.append(len(rows[-1]) - n_answer)
            labels.append(torch.cat([answers.new_full((starts[-1],), IGNORE), said]))
        lengths = lengths_of(rows).to(answers.device)
        batch = pad(rows)
        mask = torch.arange(batch.shape[1], device=answers.device) < lengths[:, None]
        return Spliced(batch, mask, pad(labels, IGNORE), starts)

    def _prompts(self, heard: Tensor, heard_lengths: Tensor) -> list[Tensor]:
        """Embeddings [n, H] of each prompt, the question in it."""
        model = self.model
        if self.written:
            return [model.embed(row[:n])[0] for row, n in zip(heard, heard_lengths.tolist(), strict=True)]
        audio, lengths = self.audio(heard, heard_lengths)
        ids = model.prompt_ids(self.asks)
        before, after = model.embed(ids.before)[0], model.embed(ids.after)[0]
        return [torch.cat([before, row[:n].to(before.dtype), after]) for row, n in zip(audio, lengths, strict=True)]
