"""A voice: what the vocoder must know of a speaker, made once from a short recording."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from vocalnet_cli.core.audio.fbank import kaldi_fbank
from vocalnet_cli.core.audio.mel import encoder_mel, vocoder_mel
from vocalnet_cli.core.audio.prompt import PAUSE, prepare_prompt
from vocalnet_cli.core.audio.wav import read_question, resample
from vocalnet_cli.core.errors import AudioError, VocalnetError
from vocalnet_cli.core.model.voice.load import S3_TOKENIZER, SPEAKER_ENCODER, load_s3_tokenizer, load_speaker_encoder, model_file
from vocalnet_cli.core.model.voice.s3_tokenizer import speech_tokens
from vocalnet_cli.core.units import ANSWER_HZ, FRAMES_PER_TOKEN, QUESTION_HZ, VOCODER_MEL_BINS

SHORTEST_S = 0.5
"""Less speech than this, silence cut off, says too little about a voice."""

LONGEST_S = 30.0
"""The speech tokenizer hears 30 s at once, and the vocoder pays for every second of the voice; 3 to 10 s are usual."""

_MEL_BINS = 128
_FORMAT = "vocalnet-voice-1"
"""Changes whenever the same recording would give another voice."""


@dataclass(frozen=True)
class Voice:
    """What the flow takes from the recording: it continues the tokens, and the mel that belongs to them, in this voice."""

    tokens: Tensor
    """Speech tokens int64 [P], 25 a second."""
    mel: Tensor
    """Log-mel float32 [2 P, 80], as `vocoder_mel` transposed; two frames a token."""
    speaker: Tensor
    """Speaker vector of CAM++ float32 [192], not normalised."""

    def __post_init__(self) -> None:
        if self.tokens.ndim != 1 or self.speaker.ndim != 1 or self.mel.shape != (FRAMES_PER_TOKEN * len(self.tokens), VOCODER_MEL_BINS):
            raise ValueError(f"{len(self.tokens)} tokens do not go with a mel {list(self.mel.shape)}")

    def to(self, device: torch.device | str) -> Voice:
        """The same voice on `device`."""
        return Voice(self.tokens.to(device), self.mel.to(device), self.speaker.to(device))


def make_voice(path: str | os.PathLike[str], folder: Path, device: torch.device | str = "cpu") -> Voice:
    """The voice, on the CPU, of a recording (wav, flac, mp3, ogg; 0.5 to 30 s of speech), by the models in `folder` run on `device`.

    `folder` is CosyVoice2-0.5B as released (`speech_tokenizer_v2.onnx`, `campplus.onnx`). The voice is kept under the cache folder
    (VOCALNET_CACHE, by default ./cache) in voices/ by a hash of the sound and the two files, and read from there the next time.
    Raises AudioError for a recording that cannot be used, MissingWeights if a file is missing.
    """
    samples = read_voice(path)
    tokenizer_file, speaker_file = model_file(folder, S3_TOKENIZER), model_file(folder, SPEAKER_ENCODER)
    kept = Path(os.environ.get("VOCALNET_CACHE", "cache")) / "voices" / f"{_key(samples, [tokenizer_file, speaker_file])}.safetensors"
    voice = load_voice(kept) if kept.is_file() else None
    if voice is None:
        voice = _computed(samples, tokenizer_file, speaker_file, device)
        save_voice(voice, kept)
    return voice


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
    (tokens,) = speech_tokens(tokenizer, [encoder_mel(samples_16k, _MEL_BINS)], tokenizer.device)
    del tokenizer  # half a gigabyte
    encoder = load_speaker_encoder(speaker_file, device)
    features = kaldi_fbank(samples_16k)
    speaker = encoder((features - features.mean(0))[None].to(encoder.device))[0].cpu()
    mel = vocoder_mel(resample(samples_16k, QUESTION_HZ, ANSWER_HZ)).T
    count = min(len(tokens), len(mel) // FRAMES_PER_TOKEN)
    return Voice(tokens[:count].contiguous(), mel[: FRAMES_PER_TOKEN * count].contiguous(), speaker)


def _key(samples: np.ndarray, files: list[Path]) -> str:
    digest = hashlib.sha256(_FORMAT.encode() + samples.tobytes())
    for file in files:
        with file.open("rb") as data:
            while block := data.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:24]


def save_voice(voice: Voice, path: Path) -> None:
    """Write a voice as one safetensors file, whole or not at all. Raises VocalnetError if the disk refuses."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"tokens": voice.tokens, "mel": voice.mel, "speaker": voice.speaker}, temporary, metadata={"format": _FORMAT})
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise VocalnetError(f"{path}: cannot be written ({error})", "Check the folder, its permissions and the free space.") from error


def load_voice(path: Path) -> Voice | None:
    """The voice in a file of `save_voice`; None if the file is damaged (it is only made again)."""
    try:
        return Voice(**load_file(path))
    except (SafetensorError, OSError, TypeError, ValueError):
        return None
