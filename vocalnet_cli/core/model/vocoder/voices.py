"""Voices a model knows by name, kept in a file beside its vocoder and read when they are asked for."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open

from vocalnet_cli.core.errors import UsageError, VocalnetError
from vocalnet_cli.core.model.folder import VOICES_FILE
from vocalnet_cli.core.model.tensor_file import write_tensors
from vocalnet_cli.core.model.vocoder.contract import Voice

_FORMAT = "vocalnet-voices-1"
_PARTS = ("tokens", "mel", "speaker")
_NOT_IN_NAMES = re.compile(r"[\s/\\.]+")


class VoiceTable:
    """Voices by name, at least one. The first speaks where none is asked for."""

    def __init__(self, voices: Mapping[str, Voice] | None = None) -> None:
        self._voices = dict(voices or {})
        self._path: Path | None = None
        self.names: tuple[str, ...] = tuple(self._voices)
        assert all(name == voice_name(name) for name in self.names)

    @classmethod
    def of(cls, folder: Path) -> VoiceTable | None:
        """The table of a folder; only its names are read now. None if there is none. Raises VocalnetError for a damaged file."""
        path = folder / VOICES_FILE
        if not path.is_file():
            return None
        table = cls()
        try:
            with safe_open(path, "pt") as file:
                told = file.metadata() or {}
            if told.get("format") != _FORMAT:
                raise ValueError(f"format is not {_FORMAT}")
            table.names = tuple(str(name) for name in json.loads(told["names"]))
            if not table.names:
                raise ValueError("it names none")
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            raise _damaged(path, error) from error
        table._path = path
        return table

    def __getitem__(self, name: str) -> Voice:
        """A voice of `names`, on the CPU. Raises UsageError for another name, VocalnetError for a damaged file."""
        if name not in self.names:
            raise _unknown(name, self.names)
        if name not in self._voices:
            assert self._path is not None
            try:
                with safe_open(self._path, "pt") as file:
                    self._voices[name] = Voice(*(file.get_tensor(f"{name}.{part}") for part in _PARTS))
            except (SafetensorError, OSError, ValueError) as error:
                raise _damaged(self._path, error) from error
        return self._voices[name]

    def save(self, folder: Path) -> None:
        """Write the table beside a vocoder, whole or not at all."""
        voices = {name: self[name] for name in self.names}
        tensors = {
            f"{name}.{part}": getattr(voice, part).detach().cpu().contiguous().clone() for name, voice in voices.items() for part in _PARTS
        }
        write_tensors(folder / VOICES_FILE, tensors, {"format": _FORMAT, "names": json.dumps(self.names)})


def voice_name(text: str) -> str:
    """A name no one takes for a file: what stands for spaces, dots and slashes is a hyphen."""
    return _NOT_IN_NAMES.sub("-", text).strip("-") or "voice"


def _unknown(name: str, names: tuple[str, ...]) -> UsageError:
    close = difflib.get_close_matches(name, names, n=1)
    nearest = f" Nearest: {close[0]}." if close else ""
    return UsageError(f"--voice {name}: the model knows no voice of that name.{nearest}", f"It knows: {', '.join(names)}.")


def _damaged(path: Path, error: Exception) -> VocalnetError:
    return VocalnetError(f"{path}: no table of voices ({error})", "The file is damaged: copy or train the model again.")
