"""Synthetic voices: flite, espeak-ng, festival and RHVoice as subprocesses, Pico by its package."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import soundfile
import soxr

from vocalnet_cli.core.data.synth.split import TEST_VOICE
from vocalnet_cli.core.errors import VocalnetError

ANSWER_VOICE = "flite:slt"
"""Says every answer; a model's speech tokens are its."""
OTHER_ANSWER_VOICES = ("flite:rms", "flite:awb")
"""Say some of the answers again."""
PROGRAMS = {"flite": "flite", "espeak": "espeak-ng", "festival": "text2wave", "rhvoice": "RHVoice-test"}
"""Engine to the program that must be on the PATH."""
PACKAGES = {"pico": "py_nanotts"}
"""Engine to the Python package that must be installed."""

TRAIN_VOICES: dict[str, float] = {
    "flite:slt": 3,
    "flite:rms": 3,
    "flite:awb": 3,
    "festival:ked_diphone": 2.5,
    "festival:cmu_us_slt_arctic_hts": 0.5,
    "espeak:en-us": 0.7,
    "espeak:en-us+f2": 0.7,
    "espeak:en-us+m3": 0.7,
    "espeak:en-us+f4": 0.5,
    "espeak:en-us+m5": 0.5,
    "espeak:en-us+m7": 0.5,
    "espeak:en-gb": 0.5,
    "espeak:en-gb+f3": 0.5,
    "espeak:en-gb-x-rp+m1": 0.5,
    "espeak:en-gb-scotland": 0.5,
    "espeak:en-gb-scotland+f1": 0.5,
    "espeak:en-029+m4": 0.4,
    "rhvoice:bdl": 2.5,
    "rhvoice:clb": 2,
    "rhvoice:alan": 2,
    "pico:en-US": 1.5,
    "pico:en-GB": 1.5,
}
"""Voices of training questions and how often each is drawn. The speaker of `kal`, `kal16` and `kal_diphone` is not among them."""

_BASE_PITCH_HZ = {"slt": 170, "awb": 130, "kal16": 100}
"""Mean pitch of the flite voices that follow `int_f0_target_mean` (`rms` does not)."""

_VOICE_FOLDERS = {
    "festival": ("/usr/share/festival/voices/*", "/usr/local/share/festival/voices/*"),
    "rhvoice": ("/usr/share/RHVoice/voices", "/usr/local/share/RHVoice/voices"),
}
"""Where the engines that come without voices look for them."""
_TIMEOUT_S = 60
_PICO_HZ = 16_000
LIMITS = {"pico": {"pitch": (0.5, 2.0)}, "rhvoice": {"pitch": (0.5, 2.0), "rate": (0.5, 2.0)}}
"""Factors on the mean pitch and the duration that an engine can do; beyond them it refuses, or does the nearest that it can."""
_SILENT = 0.01
"""Peak of a sound without speech: of a text they cannot read, engines make faint noise (0.003)."""


class VoiceFailed(Exception):
    """One text could not be spoken; the message says why."""


@dataclass(frozen=True)
class Manner:
    """How a text is said. 1.0 is each voice's own manner."""

    voice: str
    """`ENGINE:NAME`."""
    rate: float = 1.0
    """Duration factor: 1.2 is slower."""
    pitch: float = 1.0
    """Factor on the mean pitch, by the engine."""
    warp: float = 1.0
    """Factor on pitch and formants together, by resampling: a smaller or larger speaker."""


def usable_voices() -> tuple[dict[str, float], list[str]]:
    """The training voices this machine has, with their weights, and a notice for each engine that is missing.

    flite is required: it says the answers.
    """
    if shutil.which(PROGRAMS["flite"]) is None:
        raise VocalnetError("the program `flite` is not installed; it says the answers", "on Debian or Ubuntu: sudo apt install flite")
    notices = []
    missing = {engine: what for engine in (*PROGRAMS, *PACKAGES) if (what := missing_engine(engine))}
    for engine in sorted(missing):
        notices.append(f"{missing[engine]} is not installed: the corpus is made without its voices")
    voices = {}
    for voice, weight in TRAIN_VOICES.items():
        if voice.split(":")[0] in missing:
            continue
        if not has_voice(voice):
            notices.append(f"the voice `{voice}` is not installed: the corpus is made without it")
            continue
        voices[voice] = weight
    return voices, notices


def has_voice(voice: str) -> bool:
    """Whether a voice `ENGINE:NAME` is where its engine looks for it; of engines that carry their own, always."""
    engine, _, name = voice.partition(":")
    if engine not in _VOICE_FOLDERS:
        return True
    return any(found.name == name and found.is_dir() for pattern in _VOICE_FOLDERS[engine] for found in Path("/").glob(f"{pattern[1:]}/*"))


def missing_engine(engine: str) -> str | None:
    """What of an engine is not on this machine: `the program NAME` or `the package NAME`; none if it can speak."""
    if engine in PACKAGES:
        return None if find_spec(PACKAGES[engine]) else f"the package `{PACKAGES[engine]}`"
    return None if shutil.which(PROGRAMS[engine]) else f"the program `{PROGRAMS[engine]}`"


def how_to_install(engine: str) -> str:
    """The advice beside it."""
    return "pip install 'vocalnet-cli[voices]', or use another --voice." if engine in PACKAGES else "Install it, or use another --voice."


def _spoken(text: str, engine: str) -> str:
    """The text as the engine should get it: the letter A is never the article, and Z is `zee` everywhere."""
    letter_a = "A" if engine in ("espeak", "pico", "rhvoice") else "ay"
    return re.sub(r"\b[zZ]\b", "zee", re.sub(r"\b[aA]\b", letter_a, text))


def _command(manner: Manner, text: str, wav: Path, text_file: Path) -> list[str]:
    engine, name = manner.voice.split(":")
    stretch = manner.rate * manner.warp  # warping shortens by the same factor
    if engine == "flite":
        options = ["--setf", f"duration_stretch={stretch:.3f}"]
        if name in _BASE_PITCH_HZ and manner.pitch != 1:
            options += ["--setf", f"int_f0_target_mean={_BASE_PITCH_HZ[name] * manner.pitch:.1f}"]
        return [PROGRAMS[engine], "-voice", name, *options, "-f", str(text_file), "-o", str(wav)]
    if engine == "espeak":
        pitch = max(0, min(99, round(50 + 100 * (manner.pitch - 1))))
        return [PROGRAMS[engine], "-v", name, "-s", str(round(165 / stretch)), "-p", str(pitch), "-w", str(wav), "-f", str(text_file)]
    if engine == "rhvoice":
        if not has_voice(manner.voice):  # it would speak in another
            raise VoiceFailed(f"the voice {name!r} is not installed")
        how = ["-p", name, "-r", str(round(100 / stretch)), "-t", str(round(100 * manner.pitch))]
        return [PROGRAMS[engine], *how, "-i", str(text_file), "-o", str(wav)]
    return [PROGRAMS[engine], "-eval", _scheme(manner), str(text_file), "-o", str(wav)]


def _scheme(manner: Manner) -> str:
    """What makes festival speak in a manner."""
    return f"(begin (voice_{manner.voice.split(':')[1]}) (Parameter.set 'Duration_Stretch {manner.rate * manner.warp:.3f}))"


def speak(text: str, manner: Manner, rate: int, letters: bool = True) -> np.ndarray:
    """Say a text: mono float32 at `rate`, edges of silence not yet trimmed. Raises VoiceFailed.

    With `letters`, a lone A or Z is the letter, as in the nano corpus; otherwise the text is the engine's to read.
    """
    engine = manner.voice.split(":")[0]
    if engine == "pico":
        return _speak_by_pico(_spoken(text, engine) if letters else text, manner, rate)
    with tempfile.TemporaryDirectory(prefix="vocalnet-voice-") as folder:
        wav, text_file = Path(folder) / "said.wav", Path(folder) / "text.txt"
        text_file.write_text((_spoken(text, engine) if letters else text) + "\n", encoding="utf-8")
        _run(_command(manner, text, wav, text_file), engine, _TIMEOUT_S)
        return _sound(wav, manner, rate)


def speak_by_festival(said: Sequence[tuple[str, Manner]], rate: int) -> list[np.ndarray | VoiceFailed]:
    """`speak` of several texts (plain words) by voices of festival, to the same samples, or why one failed.

    One process says them all: festival takes forty times longer to start than to say a question.
    """
    with tempfile.TemporaryDirectory(prefix="vocalnet-voice-") as folder:
        wavs = [Path(folder) / f"{number}.wav" for number in range(len(said))]
        script = Path(folder) / "said.scm"
        lines = [
            f'{_scheme(manner)} (utt.save.wave (utt.synth (Utterance Text "{_quoted(text)}")) "{wav}" \'riff)'
            for (text, manner), wav in zip(said, wavs, strict=True)
        ]
        script.write_text("\n".join(lines) + "\n", encoding="utf-8")
        sounds: list[np.ndarray | VoiceFailed] = []
        failed: VoiceFailed | None = None
        try:
            _run(["festival", "-b", str(script)], "festival", _TIMEOUT_S + len(said))
        except VoiceFailed as error:
            failed = error
        for (_, manner), wav in zip(said, wavs, strict=True):
            try:
                sounds.append(_sound(wav, manner, rate))
            except VoiceFailed as error:
                sounds.append(failed or error)
        return sounds


def _speak_by_pico(text: str, manner: Manner, rate: int) -> np.ndarray:
    name, speed = manner.voice.partition(":")[2], 1 / (manner.rate * manner.warp)
    try:
        from py_nanotts import NanoTTS

        pcm = NanoTTS().speak(text, voice=name, speed=speed, pitch=manner.pitch)
    except (ImportError, ValueError, RuntimeError, OSError) as error:
        raise VoiceFailed(f"{PACKAGES['pico']} did not speak: {error}") from error
    return soxr.resample(np.frombuffer(pcm, "<i2").astype(np.float32) / 32768, _PICO_HZ * manner.warp, rate).astype(np.float32)


def _quoted(text: str) -> str:
    return _spoken(text, "festival").replace("\\", " ").replace('"', " ")


def _run(command: list[str], engine: str, timeout_s: float) -> None:
    try:
        done = subprocess.run(command, capture_output=True, timeout=timeout_s, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise VoiceFailed(f"{PROGRAMS[engine]} did not run: {type(error).__name__}") from error
    if done.returncode != 0:
        raise VoiceFailed(f"{PROGRAMS[engine]} ended with code {done.returncode}")


def _sound(wav: Path, manner: Manner, rate: int) -> np.ndarray:
    """What a program wrote, as mono float32 at `rate`, larger or smaller as `manner` wants."""
    try:
        samples, source_rate = soundfile.read(wav, dtype="float32")
    except (OSError, soundfile.SoundFileError) as error:
        raise VoiceFailed(f"{PROGRAMS[manner.voice.split(':')[0]]} wrote no sound") from error
    if samples.ndim > 1:
        samples = samples.mean(axis=1)
    return soxr.resample(samples, source_rate * manner.warp, rate).astype(np.float32)


def trim(samples: np.ndarray, rate: int, edge_s: float) -> np.ndarray:
    """Cut silence (below 1 % of the peak) at both ends down to `edge_s` seconds. Raises VoiceFailed if there is only silence."""
    peak = float(np.abs(samples).max(initial=0.0))
    if peak < _SILENT:
        raise VoiceFailed("the sound is silent")
    loud = np.flatnonzero(np.abs(samples) > 0.01 * peak)
    edge = round(edge_s * rate)
    return samples[max(loud[0] - edge, 0) : loud[-1] + edge + 1]


assert TEST_VOICE not in TRAIN_VOICES
