"""What the stages that listen to questions share: the frozen encoder's states, and speech spliced into the prompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vocalnet_cli.core.audio.wav import audio_seconds, read_audio
from vocalnet_cli.core.data.augment import augment
from vocalnet_cli.core.data.feature_cache import CachedRows, Kept, cached_rows, fingerprint
from vocalnet_cli.core.data.record import HistoryTurn, Record, earlier_turns
from vocalnet_cli.core.errors import VocalnetError
from vocalnet_cli.core.model.encoder import encoder_frames
from vocalnet_cli.core.model.prompt import END_OF_TURN, SPEECH, render_conversation, special_id, words_only
from vocalnet_cli.core.model.thinker import add_lora, merge_lora
from vocalnet_cli.core.training.stages.stage import DEV_DRAW, IGNORE, Stage, batches, lengths_of, pad

HEAR_AT_ONCE = 16
HEARD = -1
"""Place of a sound among the ids of a prompt."""


class Sound(NamedTuple):
    """A recording kept as its log-mel [F, bins], because what is made of that changes from draw to draw."""

    mel: Kept


Recording = Kept | Sound | Path
"""A recording as the frozen encoder's states [T, hidden] or its log-mel (cached), or the file it is read from when drawn."""


class Source(NamedTuple):
    """What the thinker is given of a row before it answers."""

    ids: Tensor
    """Prompt [n]: token ids, and HEARD where a sound goes."""
    sounds: tuple[Recording, ...]
    """These sounds: of earlier questions, then of the question; none where questions are written."""
    length: int
    """Its size, for batches of similar length."""


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
        kept = [r for r in spoken if all(audio_seconds(self.root / name) <= limit for name in self.heard_files(r))]
        self.left_out += len(records) - len(kept)
        if records and not kept:
            raise VocalnetError(
                f"{self.manifest}: no question has a recording of at most {limit:g} s", "Check data.max_question_s and the manifest."
            )
        return kept

    def turns(self, record: Record) -> list[tuple[HistoryTurn, str]]:
        """The earlier turns that stand before a row's question."""
        return earlier_turns(record, self.recipe.data.history)

    def prompt(self, record: Record) -> Tensor:
        """A row's prompt as `Source.ids`, rendered as a conversation is when it is answered."""
        turns = [(None if asked.audio and not self.written else asked.text, answer) for asked, answer in self.turns(record)]
        question = words_only(self.question(record)) if self.written else self.asks
        thinker = self.recipe.model.thinker
        pieces = render_conversation(self.model.tokenizer, thinker.family, thinker.system_prompt, turns, question, self.recipe.model.compat)
        return torch.tensor([i for piece in pieces for i in (*piece, HEARD)][:-1])

    def heard_files(self, record: Record) -> list[str]:
        """The recordings a row's prompt holds, in order."""
        earlier = [asked.audio for asked, _ in self.turns(record) if asked.audio]
        return [] if self.written else [*earlier, str(record.question.audio)]

    def sources(self, records: list[Record]) -> list[Source]:
        """What each row is heard from: its prompt, and cached encoder states, cached log-mels or the recordings themselves."""
        files = [self.heard_files(record) for record in records]
        sounds = self._recordings(list(dict.fromkeys(name for names in files for name in names)))
        single = None if self.written else self.prompt(records[0].model_copy(update={"history": []})) if records else None
        sources = []
        for record, names in zip(records, files, strict=True):
            ids = self.prompt(record) if single is None or self.turns(record) else single
            heard = tuple(sounds[name] for name in names)
            sources.append(Source(ids, heard, self._length(record, ids, heard)))
        return sources

    def _length(self, record: Record, ids: Tensor, heard: tuple[Recording, ...]) -> int:
        if self.written:
            return len(ids)
        known = [(sound.mel if isinstance(sound, Sound) else sound).length for sound in heard if not isinstance(sound, Path)]
        return sum(known) if known else len(self.answer(record))

    def _recordings(self, names: list[str]) -> dict[str, Recording]:
        """Each file as what is kept of it."""
        rows: Sequence[Recording]
        if not names or not self.recipe.data.cache:
            rows = [self.root / name for name in names]
        elif not self.keeps_states:
            rows = [Sound(mel) for mel in self.mels(names).kept()]
        else:
            key = "heard-" + fingerprint(self.model.encoder, self.recipe.model.encoder.model_dump(), self._stamps(names))
            rows = cached_rows(self.cache, key, len(names), lambda start: self._encode(names[start:])).kept()
        return dict(zip(names, rows, strict=True))

    def mels(self, names: list[str]) -> CachedRows:
        """Unchanged log-mel [F, bins] of each recording, computed once."""
        key = "mel-" + fingerprint(self.recipe.model.encoder.mel_bins, self.model.shortest_samples, self._stamps(names))
        wavs = [self.root / name for name in names]
        return cached_rows(self.cache, key, len(names), lambda start: map(self._log_mel, wavs[start:]))

    def _stamps(self, names: list[str]) -> list[tuple[str, int]]:
        return [(name, (self.root / name).stat().st_size) for name in names]

    @torch.no_grad()
    def _encode(self, names: list[str]) -> Iterator[Tensor]:
        self.model.encoder.eval()
        for group in batches(names, HEAR_AT_ONCE):
            states, lengths = self.model.encode([read_audio(self.root / name) for name in group])
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

    def collate_heard(self, sources: Sequence[Source], draws: Sequence[int]) -> dict[str, Tensor]:
        """`prompts` [B, n] (padded with IGNORE); of all N sounds in them, in order, `heard` [N, T, hidden] encoder states or log-mels
        [N, F, bins] (no states cached) and `heard_lengths` [N]; without sounds the prompts alone."""
        prompts = pad([source.ids for source in sources], IGNORE)
        rows = [
            sound.read() if isinstance(sound, Kept) else self._mel(sound, draw, before)
            for source, draw in zip(sources, draws, strict=True)
            for before, sound in zip(reversed(range(len(source.sounds))), source.sounds, strict=True)
        ]
        return {"prompts": prompts, "heard": pad(rows), "heard_lengths": lengths_of(rows)} if rows else {"prompts": prompts}

    def _mel(self, source: Sound | Path, draw: int, before: int) -> Tensor:
        """Log-mel [F, bins] of a recording, changed as `data.augment` says unless it is a dev row."""
        mel = source.mel.read() if isinstance(source, Sound) else self._log_mel(source)
        return self.changed(mel.T.float(), draw, before).T

    def _log_mel(self, path: Path) -> Tensor:
        """Log-mel [F, bins] of a recording."""
        wave = read_audio(path)
        wave = np.pad(wave, (0, max(0, self.model.shortest_samples - len(wave))))
        return self.model.encoder.features(torch.from_numpy(wave)).T

    def changed(self, mel: Tensor, draw: int, before: int = 0) -> Tensor:
        """A log-mel [bins, F] as this draw hears it, `before` turns before its question; the same draw always hears the same."""
        if draw != DEV_DRAW:
            seed = (self.recipe.train.seed, draw, before) if before else (self.recipe.train.seed, draw)
            mel = augment(mel, self.recipe.data.augment, np.random.default_rng(seed))
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

    def splice(self, prompts: Tensor, answers: Tensor, heard: Tensor | None = None, heard_lengths: Tensor | None = None) -> Spliced:
        """Prompts, the sounds in them, and answer ids [B, n] (padded with IGNORE) as one right-padded batch of embeddings."""
        embed = self.model.thinker.get_input_embeddings()
        rows, labels, starts = [], [], []
        sounds = self._sounds(heard, heard_lengths)
        for ids, answer, n_answer in zip(prompts, answers, (answers != IGNORE).sum(1).tolist(), strict=True):
            said = answer[:n_answer]
            rows.append(torch.cat([*self._spelled(ids[ids != IGNORE], sounds), embed(said)]))
            starts.append(len(rows[-1]) - n_answer)
            labels.append(torch.cat([answers.new_full((starts[-1],), IGNORE), said]))
        lengths = lengths_of(rows).to(answers.device)
        batch = pad(rows)
        mask = torch.arange(batch.shape[1], device=answers.device) < lengths[:, None]
        return Spliced(batch, mask, pad(labels, IGNORE), starts)

    def _sounds(self, heard: Tensor | None, heard_lengths: Tensor | None) -> Iterator[Tensor]:
        """Audio embeddings [A, H] of each sound of a batch."""
        if heard is None or heard_lengths is None:
            return iter(())
        audio, lengths = self.audio(heard, heard_lengths)
        return (row[:n] for row, n in zip(audio, lengths, strict=True))

    def _spelled(self, ids: Tensor, sounds: Iterator[Tensor]) -> Iterator[Tensor]:
        """The embeddings [n, H] of a prompt piece by piece, taking its sounds from `sounds`."""
        start = 0
        for place in (ids == HEARD).nonzero()[:, 0].tolist():
            before = self.model.embed(ids[start:place])[0]
            yield before
            yield next(sounds).to(before.dtype)
            start = place + 1
        yield self.model.embed(ids[start:])[0]
