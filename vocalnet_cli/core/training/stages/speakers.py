"""Speech tokens and speakers of the recordings a flow learns from: by the vocoder's own tokenizer, or by CosyVoice 2's files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from vocalnet_cli.core.audio.wav import audio_seconds, read_audio
from vocalnet_cli.core.data.feature_cache import cached_rows, fingerprint
from vocalnet_cli.core.model.folder import sha256_of
from vocalnet_cli.core.model.speech_tokenizer import SpeechTokenizer
from vocalnet_cli.core.model.vocoder import Voice
from vocalnet_cli.core.model.vocoder.voices import VoiceTable
from vocalnet_cli.core.model.voice import make_voice
from vocalnet_cli.core.model.voice.load import S3_TOKENIZER, SPEAKER_ENCODER, load_s3_tokenizer, load_speaker_encoder, model_file
from vocalnet_cli.core.model.voice.voice import s3_tokens, speaker_vector
from vocalnet_cli.core.training.stages.clips import Clip
from vocalnet_cli.core.training.stages.stage import batches
from vocalnet_cli.core.units import ANSWER_HZ, QUESTION_HZ, VOCODER_MEL_BINS

_AT_ONCE = 8
_PROMPT_S = (3.0, 10.0)
"""A recording of this length is best as the prompt of a voice (cosyvoice2.md section 4: every second of it costs)."""
_VECTORS = 40
"""Recordings of a speaker whose vectors are averaged."""


class LearnedSpeakers(nn.Module):
    """Tokens by the vocoder's own tokenizer; a vector for each voice is learned with the flow.

    The tokenizer knows one voice: a recording parallel to another lends that one's tokens.
    """

    lend: ClassVar = True

    def __init__(self, names: Sequence[str], width: int, tokenizer: SpeechTokenizer, known: VoiceTable | None) -> None:
        super().__init__()
        self.names = list(names)
        self.vectors = nn.Embedding(len(names), width)
        self._tokenizer = [tokenizer]  # not a module of this one: its weights are the vocoder's
        for row, name in enumerate(names):
            if known is not None and name in known.names:
                self.vectors.weight.data[row] = known[name].speaker

    def tokens(self, clips: Sequence[Clip], cache: Path) -> Sequence[Tensor]:
        """Speech tokens int64 [T] of each recording; of a parallel one those of the voice it follows."""
        tokenizer = self._tokenizer[0]

        def made(start: int) -> Iterator[Tensor]:
            for clip in clips[start:]:
                yield tokenizer.encode(read_audio(clip.parallel or clip.path, ANSWER_HZ))

        return cached_rows(cache, "own-tokens-" + fingerprint(tokenizer, [clip.stamp for clip in clips]), len(clips), made)

    def table(self) -> VoiceTable:
        """The voices by name, as vectors without a prompt."""
        none = torch.zeros(0, dtype=torch.long), torch.zeros(0, VOCODER_MEL_BINS)
        rows = self.vectors.weight.detach().cpu().float()
        return VoiceTable({name: Voice(*none, row.clone()) for name, row in zip(self.names, rows, strict=True)})


class ReleasedSpeakers(nn.Module):
    """Tokens by the S3 tokenizer, which knows all voices, and for each voice the mean of its recordings' CAM++ vectors, which stay as they
    are."""

    lend: ClassVar = False

    def __init__(self, clips: Sequence[Clip], names: Sequence[str], folder: Path, cache: Path, device: str) -> None:
        super().__init__()
        self.names = list(names)
        self._folder, self._device = folder, device
        vectors, prompts = [], []
        for name in names:
            own = [clip for clip in clips if clip.voice == name]
            vectors.append(self._vector(own[:_VECTORS], cache))
            prompts.append(make_voice(_prompt(own), folder, device))  # now: an unfit recording is told before the training
        self.vectors = nn.Embedding.from_pretrained(torch.stack(vectors), freeze=True)
        self._prompts = prompts

    def _vector(self, clips: Sequence[Clip], cache: Path) -> Tensor:
        path = model_file(self._folder, SPEAKER_ENCODER)

        def made(start: int) -> Iterator[Tensor]:
            encoder = load_speaker_encoder(path, self._device)
            for clip in clips[start:]:
                yield speaker_vector(encoder, read_audio(clip.path, QUESTION_HZ))[None]

        key = "speaker-" + fingerprint(sha256_of([path]), [clip.stamp for clip in clips])
        return torch.cat(list(cached_rows(cache, key, len(clips), made))).float().mean(0)

    def tokens(self, clips: Sequence[Clip], cache: Path) -> Sequence[Tensor]:
        """Speech tokens int64 [T] of each recording."""
        path = model_file(self._folder, S3_TOKENIZER)

        def made(start: int) -> Iterator[Tensor]:
            tokenizer = load_s3_tokenizer(path, self._device)
            for some in batches(clips[start:], _AT_ONCE):
                yield from s3_tokens(tokenizer, [read_audio(clip.path, QUESTION_HZ) for clip in some])

        return cached_rows(cache, "s3-" + fingerprint(sha256_of([path]), [clip.stamp for clip in clips]), len(clips), made)

    def table(self) -> VoiceTable:
        """The voices by name: a recording of each as its prompt, its mean vector."""
        rows = zip(self.names, self._prompts, self.vectors.weight.detach().cpu(), strict=True)
        return VoiceTable({name: replace(prompt, speaker=row.clone()) for name, prompt, row in rows})


def _prompt(clips: Sequence[Clip]) -> Path:
    """The first recording of a good length, else the longest."""
    lengths = [audio_seconds(clip.path) for clip in clips]
    good = [clip for clip, length in zip(clips, lengths, strict=True) if _PROMPT_S[0] <= length <= _PROMPT_S[1]]
    return good[0].path if good else clips[lengths.index(max(lengths))].path
