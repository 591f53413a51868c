"""A voice: what the vocoder must know of a speaker, made once from a short recording."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from vocalnet_cli.core.audio.fbank import kaldi_fbank
from vocalnet_cli.core.audio.mel import encoder_mel, vocoder_mel
from vocalnet_cli.core.audio.prompt import PAUSE, prepare_prompt
from vocalnet_cli.core.audio.wav import read_question, resample
from vocalnet_cli.core.config.places import cache_folder
from vocalnet_cli.core.errors import AudioError, MissingWeights, VocalnetError
from vocalnet_cli.core.model.folder import sha256_of
from vocalnet_cli.core.model.tensor_file import write_tensors
from vocalnet_cli.core.model.vocoder.contract import Voice
from vocalnet_cli.core.model.voice.load import (
    S3_TOKENIZER,
    SPEAKER_ENCODER,
    OnnxSpeakerEncoder,
    OnnxTokenizer,
    load_s3_tokenizer,
    load_speaker_encoder,
    model_file,
)
from vocalnet_cli.core.model.voice.s3_tokenizer import S3Tokenizer, speech_tokens
from vocalnet_cli.core.model.voice.speaker_encoder import SpeakerEncoder
from vocalnet_cli.core.units import ANSWER_HZ, FRAMES_PER_TOKEN, QUESTION_HZ

SHORTEST_S = 0.5
"""Less speech than this, silence cut off, says too little about a voice."""

LONGEST_S = 30.0
"""The speech tokenizer hears 30 s at once, and the vocoder pays for every second of the voice; 3 to 10 s are usual."""

_MEL_BINS = 128
_FORMAT = "vocalnet-voice-1"
"""Changes whenever the same recording would give another voice."""


def make_voice(path: str | os.PathLike[str], folder: Path, device: torch.device | str = "cpu") -> Voice:
    """The voice, on the CPU, of a recording (wav, flac, mp3, ogg; 0.5 to 30 s of speech), by the models in `folder` run on `device`.

    `folder` is CosyVoice2-0.5B as released (`speech_tokenizer_v2.onnx`, `campplus.onnx`). The voice is kept under the cache folder
    (VOCALNET_CACHE, by default ./cache) in voices/ by a hash of the sound and the two files, and read from there the next time.
    Raises AudioError for a recording that cannot be used, MissingWeights if a file is missing.
    """
    samples = read_voice(path)
    tokenizer_file, speaker_file = model_file(folder, S3_TOKENIZER), model_file(folder, SPEAKER_ENCODER)
    kept = cache_folder() / "voices" / f"{_key(samples, [tokenizer_file, speaker_file])}.safetensors"
    voice = load_voice(kept) if kept.is_file() else None
    if voice is None:
        voice = _computed(samples, tokenizer_file, speaker_file, device)
        save_voice(voice, kept)
    return voice


def makes_voices(folder: Path) -> bool:
    """Whether a folder has the models that `make_voice` needs."""
    try:
        return all(model_file(folder, name).is_file() for name in (S3_TOKENIZER, SPEAKER_ENCODER))
    except MissingWeights:
        return False


def read_voice(path: str | os.PathLike[str]) -> np.ndarray:
    """A recording made ready (see `prepare_prompt`): float32 [samples] at 16 kHz. Raises AudioError if it cannot be used.

    Refused are silence, less than 0.5 s of speech, more than 30 s (nothing is cut: which part is the voice is the user's choice),
    and files recorded below 16 kHz, which lack half the band.
    """
    samples = prepare_prompt(read_question(path, LONGEST_S, lowest_hz=QUESTION_HZ))
    speech_s = (len(samples) - PAUSE) / QUESTION_HZ
    if speech_s < SHORTEST_S:
        raise AudioError(f"{path}: {speech_s:.2f} s of speech, a voice needs at least {SHORTEST_S:g} s", "Record 3 to 10 s of one speaker.")
    return samples


def _computed(samples_16k: np.ndarray, tokenizer_file: Path, speaker_file: Path, device: torch.device | str) -> Voice:
    tokenizer = load_s3_tokenizer(tokenizer_file, device)
    (tokens,) = s3_tokens(tokenizer, [samples_16k])
    del tokenizer  # half a gigabyte
    speaker = speaker_vector(load_speaker_encoder(speaker_file, device), samples_16k)
    mel = vocoder_mel(resample(samples_16k, QUESTION_HZ, ANSWER_HZ)).T
    count = min(len(tokens), len(mel) // FRAMES_PER_TOKEN)
    return Voice(tokens[:count].contiguous(), mel[: FRAMES_PER_TOKEN * count].contiguous(), speaker)


def s3_tokens(tokenizer: S3Tokenizer | OnnxTokenizer, recordings: Sequence[np.ndarray]) -> list[Tensor]:
    """16 kHz recordings [samples] of any length to CosyVoice 2's speech tokens int64 [T], 25 a second, on the CPU."""
    return speech_tokens(tokenizer, [encoder_mel(samples, _MEL_BINS) for samples in recordings], tokenizer.device)


def speaker_vector(encoder: SpeakerEncoder | OnnxSpeakerEncoder, samples_16k: np.ndarray) -> Tensor:
    """Whose voice a 16 kHz recording [samples] is: float32 [192] on the CPU."""
    features = kaldi_fbank(samples_16k)
    return encoder((features - features.mean(0))[None].to(encoder.device))[0].cpu()


def _key(samples: np.ndarray, files: list[Path]) -> str:
    return hashlib.sha256(_FORMAT.encode() + samples.tobytes() + _hash_of(files).encode()).hexdigest()[:24]


def _hash_of(files: list[Path]) -> str:
    """`sha256_of` half a gigabyte of files, computed once: kept in the cache folder as long as their sizes and times stay."""
    found = [(path.resolve(), path.stat()) for path in files]
    about = "".join(f"{path} {stat.st_size} {stat.st_mtime_ns}\n" for path, stat in found)
    kept = cache_folder() / "hashes" / hashlib.sha256(about.encode()).hexdigest()[:24]
    if kept.is_file() and len(known := kept.read_text(encoding="ascii", errors="replace")) == hashlib.sha256().digest_size * 2:
        return known
    told = sha256_of(files)
    with contextlib.suppress(OSError):  # the next time then takes as long
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(told, encoding="ascii")
    return told


def save_voice(voice: Voice, path: Path) -> None:
    """Write a voice as one safetensors file, whole or not at all. Raises VocalnetError if the disk refuses."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(path, {"tokens": voice.tokens, "mel": voice.mel, "speaker": voice.speaker}, {"format": _FORMAT})
    except (OSError, SafetensorError) as error:
        raise VocalnetError(f"{path}: cannot be written ({error})", "Check the folder, its permissions and the free space.") from error


def load_voice(path: Path) -> Voice | None:
    """The voice in a file of `save_voice`; None if the file is damaged (it is only made again)."""
    try:
        return Voice(**load_file(path))
    except (SafetensorError, OSError, TypeError, ValueError):
        return None
