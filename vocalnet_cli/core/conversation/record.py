"""A conversation on disk: the sound of each turn, and a line about it as soon as it is over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from vocalnet_cli.core.audio.wav import write_wav
from vocalnet_cli.core.errors import VocalnetError
from vocalnet_cli.core.generation.batch import make_folder
from vocalnet_cli.core.units import QUESTION_HZ

LINES = "conversation.jsonl"


class Recorder:
    """Keeps a conversation in a folder of its own: NNN-question.wav, NNN-answer.wav (what was heard) and a line of JSON a turn.

    Every turn is on disk when it is over, so whatever happens later, what was said is kept. Raises VocalnetError if the folder holds a
    conversation already, AudioError if it cannot be made or written.
    """

    def __init__(self, folder: Path) -> None:
        if (folder / LINES).exists():
            raise VocalnetError(f"{folder}: holds a conversation already ({LINES})", "Name another folder with --record.")
        make_folder(folder)
        self._folder = folder

    def question(self, turn: int, samples_16k: np.ndarray) -> Path:
        """Writes what was asked."""
        path = self._folder / f"{turn:03d}-question.wav"
        write_wav(path, samples_16k, QUESTION_HZ)
        return path

    def answer(self, turn: int, samples_24k: np.ndarray) -> Path | None:
        """Writes what was answered; nothing for silence."""
        if not len(samples_24k):
            return None
        path = self._folder / f"{turn:03d}-answer.wav"
        write_wav(path, samples_24k)
        return path

    def line(self, row: dict[str, Any]) -> None:
        """Adds a line."""
        with (self._folder / LINES).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
