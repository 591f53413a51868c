"""Read and write sound files. A file that is not whole, usable sound raises AudioError; nothing is guessed."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from vocalnet_cli.core.audio.cut_off import mp3_missing, ogg_missing
from vocalnet_cli.core.errors import AudioError
from vocalnet_cli.core.units import ANSWER_HZ, QUESTION_HZ

SOUND_SUFFIXES = {".wav", ".flac", ".mp3", ".ogg", ".opus"}
"""Files of a folder that are taken for sound."""

SILENCE_PEAK = 1e-4
"""A question whose largest sample is below this (-80 dBFS) has nothing to hear."""

LONGEST_S = 4 * 3600.0
"""No file longer than this is decoded."""

_RATES_HZ = (1_000, 768_000)
_DENSEST_HZ = 192_000
"""Samples a second up to which the longest sound allowed is decoded; of a file at a higher rate, less."""
_MOST_CHANNELS = 64
_LOUDEST = 8.0
"""Float files may pass full scale a little; beyond this the samples are on another scale (16-bit integers as floats)."""
_BLOCK = 65_536
_OPEN_ENDED = 0x7FFFF000
"""WAV data sizes from here on are written by programs that pipe and do not know the length (sox, ffmpeg)."""
_UNKNOWN_LENGTH = 1 << 62
_MP3_SLACK = 2_304
"""MP3 lengths in headers may be off by the encoder's delay: two frames."""

_MP3_ESTIMATE = 4_608
"""Samples, beside 2 %, by which a right length may differ from what the frames hold: the frame of the header, the encoder's padding."""

_HINT_DECODE = "Check that it plays elsewhere; convert it with: ffmpeg -i FILE -ac 1 -ar 16000 new.wav"
_HINT_COPY = "Copy or record the file again: it was cut off on the way."


def resample(x: np.ndarray, from_hz: int, to_hz: int) -> np.ndarray:
    """Mono sound [samples] at `from_hz` to float32 at `to_hz` (soxr, high quality)."""
    x = np.ascontiguousarray(x, dtype=np.float32)
    if from_hz == to_hz or len(x) == 0:
        return x
    return soxr.resample(x, from_hz, to_hz, quality="HQ").astype(np.float32, copy=False)


def audio_seconds(path: str | os.PathLike[str]) -> float:
    """Length of a sound file in seconds, from its header. Raises AudioError as `read_audio` does, short of decoding."""
    with _opened(path) as sound:
        if sound.frames >= _UNKNOWN_LENGTH:
            raise AudioError(f"{path}: its header does not tell its length", _HINT_DECODE)
        return sound.frames / sound.samplerate


def read_audio(path: str | os.PathLike[str], rate: int = QUESTION_HZ, max_s: float = LONGEST_S) -> np.ndarray:
    """A sound file (wav, flac, mp3, ogg; any rate) as mono float32 [samples] in [-1, 1] at `rate`; channels are averaged.

    Raises AudioError if the file is missing, empty, not sound, cut off, longer than `max_s` seconds (whatever its header says), has no
    samples, or holds values that are no numbers.
    """
    return _read(path, rate, max_s)


def read_question(path: str | os.PathLike[str], max_s: float, lowest_hz: int = 0) -> np.ndarray:
    """A spoken question as `read_audio` at 16 kHz. Also refuses silence, and more than `max_s` seconds (before decoding).

    A file recorded at less than `lowest_hz` is refused too: resampling brings back no sound that was not recorded.
    """
    return read_spoken(path, QUESTION_HZ, max_s, lowest_hz)


def read_spoken(path: str | os.PathLike[str], rate: int, max_s: float, lowest_hz: int = 0) -> np.ndarray:
    """As `read_question`, at another rate."""
    samples = _read(path, rate, max_s, lowest_hz)
    peak = float(np.abs(samples).max())
    if peak < SILENCE_PEAK:
        level = f"its peak is {20 * np.log10(peak):.0f} dBFS" if peak > 0 else "every sample is zero"
        raise AudioError(f"{path}: silence ({level})", "Check the microphone, and that the right file was given.")
    return samples


def write_wav(path: str | os.PathLike[str], samples: np.ndarray, rate: int = ANSWER_HZ) -> None:
    """Write mono samples [n] as 16-bit PCM, cut to [-1, 1]; the file appears whole or not at all. AudioError if the disk refuses."""
    samples = np.asarray(samples, dtype=np.float32)
    assert samples.ndim == 1 and np.isfinite(samples).all(), "only finite mono sound is written"
    whole = io.BytesIO()
    soundfile.write(whole, np.round(np.clip(samples, -1, 1) * 32767).astype(np.int16), rate, format="WAV", subtype="PCM_16")
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(whole.getvalue())
        os.replace(temporary, target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise AudioError(
            f"{path}: cannot be written ({error.strerror})", "Check the folder, its permissions and the free space."
        ) from error


def _read(path: str | os.PathLike[str], rate: int, max_s: float, lowest_hz: int = 0) -> np.ndarray:
    with _opened(path) as sound:
        from_hz = sound.samplerate
        if from_hz < lowest_hz:
            raise AudioError(f"{path}: recorded at {from_hz} Hz, at least {lowest_hz} Hz are needed", "Record it again at a higher rate.")
        if sound.frames < _UNKNOWN_LENGTH:
            _check_length(path, sound.frames / from_hz, max_s)
        mono = _decode(path, sound, max_s)
    if not np.isfinite(mono).all():
        raise AudioError(f"{path}: holds samples that are not numbers (NaN or infinite)", _HINT_DECODE)
    peak = float(np.abs(mono).max())
    if peak > _LOUDEST:
        raise AudioError(f"{path}: samples reach {peak:.4g}, full scale is 1", "Divide float samples by full scale (32768 for 16 bits).")
    mono = np.clip(resample(mono, from_hz, rate), -1.0, 1.0)
    if len(mono) == 0:
        raise AudioError(f"{path}: too short, less than one sample at {rate} Hz", "Give a file that holds sound.")
    return mono


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[soundfile.SoundFile]:
    """Open a sound file after all the checks that need no decoding."""
    file = Path(path)
    try:
        if not file.exists():
            raise AudioError(f"{path}: no such file", "Check the path; relative paths start at the working directory.")
        if not file.is_file():
            raise AudioError(f"{path}: not a file", "Give the sound file itself.")
        if file.stat().st_size == 0:
            raise AudioError(f"{path}: the file is empty (0 bytes)", "Record or copy it again.")
        data = _wav_data(file)
        sound = soundfile.SoundFile(_completed(file, data) if data and data.unfinished else os.fspath(file))
    except OSError as error:
        raise AudioError(f"{path}: cannot be read ({error.strerror})", "Check the permissions of the file.") from error
    except (soundfile.SoundFileError, RuntimeError, TypeError, ValueError) as error:
        raise AudioError(f"{path}: not a sound file that can be decoded", f"Give wav, flac, ogg or mp3. {_HINT_DECODE}") from error
    with sound:
        _check_header(path, sound, data)
        yield sound


def _check_header(path: str | os.PathLike[str], sound: soundfile.SoundFile, data: _WavData | None) -> None:
    if not _RATES_HZ[0] <= sound.samplerate <= _RATES_HZ[1]:
        raise AudioError(f"{path}: sample rate {sound.samplerate} Hz is outside {_RATES_HZ[0]}-{_RATES_HZ[1]} Hz", _HINT_DECODE)
    if not 1 <= sound.channels <= _MOST_CHANNELS:
        raise AudioError(f"{path}: {sound.channels} channels, at most {_MOST_CHANNELS} are read", _HINT_DECODE)
    if data is not None and data.cut_off:
        raise AudioError(f"{path}: cut off: its header promises {data.promised} bytes of sound, {data.present} are there", _HINT_COPY)
    missing = ""
    if sound.format == "OGG":
        missing = ogg_missing(Path(path))
    elif sound.format == "MP3":
        missing, held = mp3_missing(Path(path))
        if not missing and held and abs(held - sound.frames) > _MP3_ESTIMATE + held // 50:
            there, read = held / sound.samplerate, sound.frames / sound.samplerate
            if read > there:
                missing = f"its header promises {read:.2f} s of sound, {there:.2f} s are there"
            else:  # libsndfile guesses the length from the first frame, and reads no further
                problem = f"{path}: no header tells its length: {there:.2f} s are there, {read:.2f} s would be read"
                raise AudioError(problem, _HINT_DECODE)
    if missing:
        raise AudioError(f"{path}: cut off: {missing}", _HINT_COPY)
    if sound.frames <= 0:
        raise AudioError(f"{path}: holds no samples", "Record or copy it again.")


@dataclass(frozen=True)
class _WavData:
    """Where a WAV's sound lies, and what its header says about it; libsndfile corrects wrong lengths without a word."""

    at: int
    """Byte of the data chunk's length field."""
    promised: int
    present: int
    """Bytes of sound by the header, and in the file."""
    unfinished: bool
    """The lengths were never filled in (a recorder that was stopped, or a pipe): all that follows is sound."""

    @property
    def cut_off(self) -> bool:
        return self.present < self.promised < _OPEN_ENDED


def _wav_data(file: Path) -> _WavData | None:
    """The data chunk of a RIFF WAVE file; None for files of another kind, which are left to libsndfile."""
    size = file.stat().st_size
    with file.open("rb") as raw:
        head = raw.read(12)
        if len(head) < 12 or head[:4] != b"RIFF" or head[8:] != b"WAVE":
            return None
        (riff,) = struct.unpack("<I", head[4:8])
        at = 12
        while at + 8 <= size:
            raw.seek(at)
            name, length = struct.unpack("<4sI", raw.read(8))
            if name == b"data":
                present = size - at - 8
                return _WavData(at + 4, length, present, unfinished=length == 0 < present and riff <= at)
            at += 8 + length + length % 2
    return None


def _completed(file: Path, data: _WavData) -> io.BytesIO:
    """An unfinished WAV in memory with its lengths filled in."""
    whole = bytearray(file.read_bytes())
    whole[4:8] = struct.pack("<I", min(len(whole) - 8, _OPEN_ENDED))
    whole[data.at : data.at + 4] = struct.pack("<I", min(data.present, _OPEN_ENDED))
    return io.BytesIO(whole)


def _check_length(path: str | os.PathLike[str], seconds: float, max_s: float) -> None:
    if seconds > max_s:
        hint = f"Cut it first, for example: ffmpeg -i FILE -t {max_s:g} short.wav"
        raise AudioError(f"{path}: {seconds:.1f} s long, the limit is {max_s:g} s", hint)


def _decode(path: str | os.PathLike[str], sound: soundfile.SoundFile, max_s: float) -> np.ndarray:
    """All samples, channels averaged: float32 [frames]. Grows with what is decoded, never with what the header says."""
    parts: list[np.ndarray] = []
    got = 0
    try:
        while True:
            block = sound.read(_BLOCK, dtype="float32", always_2d=True)
            if len(block) == 0:
                break
            with np.errstate(over="ignore", invalid="ignore"):
                parts.append(block.mean(axis=1))
            got += len(block)
            _check_length(path, got / sound.samplerate, max_s)
            if got > max_s * _DENSEST_HZ:
                raise AudioError(f"{path}: more than {got} samples, which no recording of {max_s:g} s needs", _HINT_DECODE)
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise AudioError(f"{path}: damaged or cut off after {got / sound.samplerate:.2f} s", _HINT_COPY) from error
    if got == 0:
        raise AudioError(f"{path}: holds no samples", "Record or copy it again.")
    slack = _MP3_SLACK if sound.format == "MP3" else 0
    if sound.frames < _UNKNOWN_LENGTH and got < sound.frames - slack:
        promised, there = sound.frames / sound.samplerate, got / sound.samplerate
        raise AudioError(f"{path}: cut off: its header promises {promised:.2f} s of sound, {there:.2f} s are there", _HINT_COPY)
    return np.concatenate(parts)
