"""How published corpora write a turn, each layout recognised by its fields, and read as one `Turn`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vocalnet_cli.core.data.prep.shards import Raw


class BadRow(Exception):
    """A row that is no turn: `reason` in a few words, the field, and the detail."""

    def __init__(self, reason: str, field: str = "", detail: str = "") -> None:
        super().__init__(reason)
        self.reason, self.field, self.detail = reason, field, detail


@dataclass
class Turn:
    """A question and its answer as a corpus gives them."""

    index: str
    question: str
    answer: str
    round: int = 1
    history: list[tuple[str, str]] = field(default_factory=list)
    """(role, text) of earlier turns."""
    sound: bytes | Path | None = None
    """The spoken question: the file's bytes, or where it lies."""
    tokens: list[int] | Path | None = None
    """CosyVoice 2 tokens of the answer, or the .npy that holds them."""
    note: dict[str, Any] = field(default_factory=dict)
    keeps_id: bool = False
    """Whether `index` is an id that people gave, to be kept as it is."""


def text_of(row: dict[str, Any], name: str) -> str:
    """A text field. Raises BadRow if it is missing or no text."""
    value = row.get(name)
    if not isinstance(value, str):
        raise BadRow("field missing" if value is None else "field of the wrong kind", name)
    return value


def _number(row: dict[str, Any], name: str, default: int) -> int:
    value = row.get(name, default)
    if isinstance(value, str) and value.strip().isdigit():
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise BadRow("field of the wrong kind", name)
    return value


_LAST = "<USER>:"
_SPEAKER = re.compile(r"(?:^|(?<=\s))(USER|ASSISTANT): ")


def split_history(text: str) -> tuple[list[tuple[str, str]], str]:
    """SLAM-Omni's question field: the history before the last `<USER>:`, and the last question."""
    before, mark, last = text.rpartition(_LAST)
    if not mark:
        return [], text.strip()
    parts = _SPEAKER.split(before)
    if parts[0].strip():
        raise BadRow("history does not begin with a speaker", "question", parts[0].strip()[:80])
    turns = [(role.lower(), said.strip()) for role, said in zip(parts[1::2], parts[2::2], strict=True)]
    return turns, last.strip()


def sound_of(value: Any, root: Path) -> bytes | Path | None:
    """A hub audio cell ({bytes, path}), bytes, or a path relative to the input."""
    if isinstance(value, dict):
        inner = value.get("bytes")
        value = inner if inner else value.get("path")
    if isinstance(value, bytes):
        return value
    return inside(root, value) if isinstance(value, str) and value else None


def inside(root: Path, name: str, field: str = "audio") -> Path:
    """`name` below `root`. Raises BadRow for a path that leaves it."""
    try:
        path = (root / name).resolve()
        if path.is_relative_to(root.resolve()):
            return path
    except (OSError, ValueError):
        pass
    raise BadRow("path outside the data root", field, name[:200])


def _slam(row: dict[str, Any], root: Path, question: str, answer: str, sound: str) -> Turn:
    """gpt-omni/VoiceAssistant-400K and SLAM-Omni's sets. Their CosyVoice 1 tokens (50 a second, 4096 codes) are of no use here."""
    history, asked = split_history(text_of(row, question))
    index = row.get("index", row.get("key"))
    if index is None:
        raise BadRow("field missing", "index")
    note = {"split_name": str(row["split_name"])} if row.get("split_name") else {}
    return Turn(
        str(index), asked, text_of(row, answer).strip(), _number(row, "round", 1), history, sound_of(row.get(sound), root), note=note
    )


def _vocalnet(row: dict[str, Any], root: Path) -> Turn:
    """VocalNet's JSON: the question is heard only, the answer's tokens are in `units`."""
    told = row["conversations"]
    if not isinstance(told, list) or len(told) != 2 or not all(isinstance(one, dict) for one in told):
        raise BadRow("not one question and one answer", "conversations")
    if (told[0].get("from"), told[1].get("from")) != ("human", "gpt"):
        raise BadRow("roles do not alternate", "conversations")
    asked = text_of(told[0], "value").replace("<speech>", "").strip()
    units = row.get("units")
    tokens = units if isinstance(units, list) else inside(root, units, "units") if isinstance(units, str) else None
    sound = sound_of(row.get("speech"), root)
    return Turn(str(row.get("id", "")), asked, text_of(told[1], "value").strip(), sound=sound, tokens=tokens)


_LAYOUTS: tuple[tuple[tuple[str, ...], Callable[[dict[str, Any], Path], Turn]], ...] = (
    (("conversations",), _vocalnet),
    (("source_text", "target_text"), lambda row, root: _slam(row, root, "source_text", "target_text", "source_wav")),
    (("question", "answer"), lambda row, root: _slam(row, root, "question", "answer", "question_audio")),
)
"""The fields a layout is known by, and how it is read."""


def is_published(row: dict[str, Any]) -> bool:
    """Whether a row is of such a layout, and no record of ours, whose question and answer are objects."""
    return not isinstance(row.get("question"), dict) and any(all(name in row for name in names) for names, _ in _LAYOUTS)


def read_turn(raw: Raw, root: Path) -> Turn:
    """A row of any known single-turn layout; sound and tokens lie below `root`. Raises BadRow."""
    row = good_row(raw)
    for names, reader in _LAYOUTS:
        if all(name in row for name in names):
            return reader(row, root)
    raise BadRow("no known layout", detail=", ".join(sorted(map(str, row))[:8]))


def good_row(raw: Raw) -> dict[str, Any]:
    """The row itself. Raises BadRow if it could not be read."""
    if raw.row is None:
        raise BadRow("not a JSON row", detail=raw.mistake)
    return raw.row
