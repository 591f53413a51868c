"""Sound that comes with a corpus, taken into the output folder after it was looked at."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from vocalnet_cli.core.audio.wav import audio_seconds
from vocalnet_cli.core.data.prep.corpora import BadRow, inside
from vocalnet_cli.core.data.prep.step import adopt, write_bytes
from vocalnet_cli.core.data.record import HistoryTurn, Record
from vocalnet_cli.core.errors import AudioError

LONGEST_S = 600.0
"""No question or answer is longer; a file that claims to be is refused before it is decoded."""

_MAGIC = ((b"RIFF", ".wav"), (b"fLaC", ".flac"), (b"OggS", ".ogg"), (b"ID3", ".mp3"), (b"\xff", ".mp3"))
_FOLDERS = 256


def file_name(own: str) -> str:
    """A row's id as the name of its files: as it is where that is safe, else with a hash in place of the rest."""
    if re.fullmatch(r"[A-Za-z0-9][\w-]{0,63}", own, re.ASCII):
        return own
    return f"{re.sub(r'[^A-Za-z0-9-]', '_', own)[:40]}_{hashlib.sha256(own.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"


def placed(own: str, kind: str, suffix: str, sound: bytes | Path) -> str:
    """Where the sound of row `own` lies in the output: 256 folders, so that none holds a million files.

    A few digits tell sounds apart that come under one id, of which only the first becomes a row.
    """
    told = sound if isinstance(sound, bytes) else f"{sound.name} {sound.stat().st_size}".encode()
    name = f"{file_name(own)}.{hashlib.sha256(told).hexdigest()[:6]}"
    return f"audio/{kind}/{int(hashlib.sha256(name.encode()).hexdigest(), 16) % _FOLDERS:02x}/{name}{suffix}"


def suffix_of(sound: bytes) -> str:
    """What a sound file is called that holds these bytes."""
    return next((suffix for magic, suffix in _MAGIC if sound.startswith(magic)), ".wav")


def take_sound(sound: bytes | Path, own: str, kind: str, output: Path, field: str) -> tuple[str, float]:
    """Put a recording, unchanged, below `output`: its path there and its seconds. Raises BadRow for one that cannot be used."""
    if isinstance(sound, Path):
        seconds = check_sound(sound, field)
        name = placed(own, kind, sound.suffix.lower(), sound)
        adopt(output / name, sound, output)
        return name, seconds
    name = placed(own, kind, suffix_of(sound), sound)
    write_bytes(output / name, sound, output)
    try:
        return name, check_sound(output / name, field)
    except BadRow:
        (output / name).unlink()
        raise


def take_history(record: Record, folder: Path, output: Path) -> list[HistoryTurn]:
    """A row's earlier turns, their recordings below `folder` taken below `output`. Raises BadRow."""
    turns = []
    for number, turn in enumerate(record.history):
        if turn.audio is not None:
            field = f"history.{number}.audio"
            name, _ = take_sound(inside(folder, turn.audio, field), record.id, "questions", output, field)
            turn = turn.model_copy(update={"audio": name})
        turns.append(turn)
    return turns


def check_sound(path: Path, field: str) -> float:
    """Seconds of a sound file by its header. Raises BadRow if it is none or absurdly long."""
    try:
        seconds = audio_seconds(path)
    except AudioError as error:
        raise BadRow("sound cannot be read", field, error.problem.replace(str(path), path.name)) from error
    if seconds > LONGEST_S:
        raise BadRow("sound too long", field, f"{seconds:.0f} s, at most {LONGEST_S:g} s")
    return seconds
