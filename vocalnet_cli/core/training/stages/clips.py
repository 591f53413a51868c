"""Recordings a vocoder learns from, out of a manifest or a folder, and what both of its stages share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vocalnet_cli.core.audio.mel import vocoder_mel
from vocalnet_cli.core.audio.wav import SOUND_SUFFIXES, audio_seconds, read_audio
from vocalnet_cli.core.data.feature_cache import cached_rows, fingerprint
from vocalnet_cli.core.data.record import PARALLEL, Record
from vocalnet_cli.core.errors import RecipeError, VocalnetError
from vocalnet_cli.core.model.tensor_file import whole_folder
from vocalnet_cli.core.model.vocoder import CosyVoice2Vocoder
from vocalnet_cli.core.model.vocoder.cosyvoice2.checkpoint import save_released_part
from vocalnet_cli.core.model.vocoder.voices import voice_name
from vocalnet_cli.core.training.init import is_ours, locate
from vocalnet_cli.core.training.stages.stage import Stage
from vocalnet_cli.core.units import ANSWER_HZ, SAMPLES_PER_TOKEN

_DEV_SHARE = 20
"""Of a folder, every so manieth recording is kept for the dev loss."""
_SHOWN = 2


@dataclass(frozen=True)
class Clip:
    """One recording."""

    path: Path
    voice: str
    parallel: Path | None = None
    """The same words by the voice whose speech tokens are wanted."""

    @property
    def stamp(self) -> tuple[str, int, str, int]:
        """What a cache knows it by."""
        other = (str(self.parallel), self.parallel.stat().st_size) if self.parallel else ("", 0)
        return str(self.path), self.path.stat().st_size, *other

    @property
    def seconds(self) -> float:
        """Of the longer one, where there is a parallel one."""
        return max(audio_seconds(path) for path in (self.path, self.parallel) if path is not None)


class ClipStage(Stage):
    """A stage that learns from recordings: each distinct one of the answers in the manifest, or the files of `data.recordings`."""

    part: str
    """The vocoder's part that learns."""

    @property
    def mel_kind(self) -> str:
        """What a cache calls the log-mels that recordings stand for."""
        return "sound-mel"

    @property
    def vocoder(self) -> CosyVoice2Vocoder:
        if not isinstance(self.model.vocoder, CosyVoice2Vocoder):
            raise RecipeError(
                "model.vocoder.kind is not cosyvoice2: it has no flow and no HiFT", "Set model.vocoder.kind to cosyvoice2 in the recipe."
            )
        return self.model.vocoder

    # --- recordings ----------------------------------------------------------------------------------------------------

    def clips(self) -> tuple[list[Clip], list[Clip]]:
        """Training and dev recordings no longer than `data.max_answer_s`; the others are counted in `left_out`."""
        train, dev = self._folder() if self.recipe.data.recordings else self._manifest()
        train, dev = self._short_enough(train), self._short_enough(dev)
        if not train:
            raise VocalnetError(
                f"{self.recipe.data.recordings or self.manifest}: no recording of at most {self.recipe.data.max_answer_s:g} s",
                "Check data.recordings or data.manifest, data.train_splits and data.max_answer_s.",
            )
        return train, dev

    def _folder(self) -> tuple[list[Clip], list[Clip]]:
        folder = Path(self.recipe.data.recordings)
        if not folder.is_dir():
            raise VocalnetError(f"data.recordings is {folder}: no such folder", "Give the folder of one speaker's recordings.")
        paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SOUND_SUFFIXES and path.is_file())
        voice = self.recipe.data.voice or voice_name(folder.resolve().name)
        clips = [Clip(path, voice) for path in paths]
        return [clip for i, clip in enumerate(clips) if (i + 1) % _DEV_SHARE], clips[_DEV_SHARE - 1 :: _DEV_SHARE]

    def _manifest(self) -> tuple[list[Clip], list[Clip]]:
        train, dev = self.rows()
        return self._distinct(train), self._distinct(dev)

    def _distinct(self, records: list[Record]) -> list[Clip]:
        """Each recorded answer once, by name."""
        root = self.root
        found: dict[str, Clip] = {}
        for record in records:
            if record.answer.audio:
                parallel = record.meta.get(PARALLEL)
                voice = voice_name((record.answer.voice or "").rpartition(":")[2])
                found[record.answer.audio] = Clip(root / record.answer.audio, voice, root / str(parallel) if parallel else None)
        return [found[name] for name in sorted(found)]

    def _short_enough(self, clips: list[Clip]) -> list[Clip]:
        kept = [clip for clip in clips if clip.seconds <= self.recipe.data.max_answer_s]
        self.left_out += len(clips) - len(kept)
        return kept

    def voices(self, clips: Sequence[Clip]) -> list[str]:
        """Voices of the recordings, the most frequent first."""
        return [name for name, _ in sorted(Counter(clip.voice for clip in clips).items(), key=lambda one: (-one[1], one[0]))]

    def mels(self, clips: Sequence[Clip]) -> Sequence[Tensor]:
        """Log-mels [F, 80] of whole tokens, F even, in half precision; from the cache if they are there."""

        def made(start: int) -> Iterator[Tensor]:
            for clip in clips[start:]:
                yield self.mel(clip).T

        return cached_rows(self.cache, f"{self.mel_kind}-" + fingerprint([clip.stamp for clip in clips]), len(clips), made)

    def mel(self, clip: Clip) -> Tensor:
        """Log-mel [80, F] that a recording stands for."""
        return sound_mel(clip.path)

    # --- the finished model ------------------------------------------------------------------------------------------------

    @property
    def released(self) -> Path | None:
        """The released folder this stage's part started from; none where it is ours or started from nothing."""
        where = self.recipe.init.get(self.part)  # type: ignore[call-overload]
        folder = locate(where) if where is not None else None
        return None if folder is None or is_ours(folder) else folder

    def write(self, folder: Path, recipe_name: str) -> None:
        """A folder of ours; where the part was a released one, a released folder with the new part in its place."""
        source = self.released
        if source is None:
            super().write(folder, recipe_name)
            return
        with whole_folder(folder) as new:
            save_released_part(self.vocoder.get_submodule(self.part), source, self.part, new)
            if self.vocoder.voices is not None:
                self.vocoder.voices.save(new)

    def shown(self) -> Sequence[Any]:
        """The examples samples are made of: the first of the dev recordings, else of the training ones."""
        return list(self.dev_examples or self.examples)[:_SHOWN]


def whole_tokens(path: Path) -> Tensor:
    """A recording [samples] at 24 kHz, filled up with silence to whole tokens."""
    x = torch.from_numpy(read_audio(path, ANSWER_HZ))
    return torch.nn.functional.pad(x, (0, -len(x) % SAMPLES_PER_TOKEN))


def sound_mel(path: Path) -> Tensor:
    """Log-mel [80, F] of a recording, two frames a token."""
    return vocoder_mel(whole_tokens(path))
