"""One spoken turn as a row of JSONL: the format every data step reads and writes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from vocalnet_cli.core.errors import VocalnetError

PARALLEL = "parallel"
"""Note of a row (`meta`) whose answer is another voice's: the recording, relative to the manifest, of the same words by the usual one."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Utterance(_Strict):
    """What is said once: its text, and the recording if there is one."""

    text: str
    """The words; empty only where a recording is all there is."""
    audio: str | None = None
    """Sound file, relative to the folder of the manifest."""
    voice: str | None = None
    """Who speaks: `flite:slt`, `human:george` ..."""

    @model_validator(mode="after")
    def _says_something(self) -> Utterance:
        if not self.text and self.audio is None:
            raise PydanticCustomError("text", "there is neither text nor sound")
        return self


class HistoryTurn(_Strict):
    """What was said earlier in the same conversation, by `user` and `assistant` in turn."""

    role: str
    text: str
    audio: str | None = None
    """The recording of a question, relative to the folder of the manifest: then it is heard, as in a spoken conversation."""


class TokenizerName(_Strict):
    """The speech tokenizer that made `speech_tokens`."""

    name: str
    sha256: str


class Record(_Strict):
    """A question and its answer."""

    id: str = Field(min_length=1)
    source: str
    """The corpus it comes from."""
    split: str
    round: int = Field(default=1, ge=1)
    """Number of this turn in its conversation, from 1."""
    question: Utterance
    history: list[HistoryTurn] = []
    answer: Utterance
    speech_tokens: list[int] | str | None = None
    """The answer as speech tokens, or the path (relative to the manifest) of a plain integer .npy."""
    tokenizer: TokenizerName | None = None
    collapsed: bool = False
    """Whether runs of equal speech tokens were merged."""
    meta: dict[str, Any] = {}


def earlier_turns(record: Record, most: int) -> list[tuple[HistoryTurn, str]]:
    """The last `most` turns of a row's history, oldest first: each question, and the words of its answer."""
    pairs = [
        (one, other.text)
        for one, other in zip(record.history, record.history[1:], strict=False)
        if (one.role, other.role) == ("user", "assistant")
    ]
    return pairs[-most:] if most else []


def _first_mistake(error: ValidationError) -> tuple[str, str]:
    mistake = error.errors()[0]
    place = [*map(str, mistake["loc"]), *(["text"] if mistake["type"] == "text" else [])]
    return ".".join(place), str(mistake["msg"])


def parse_row(line: str) -> Record | tuple[str, str]:
    """One line of a manifest: the record, or (field, reason) of the first mistake in it."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        return "", f"not JSON: {error.msg} at column {error.colno}"
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets nested thousands deep
        return "", f"not JSON we read: {str(error).splitlines()[0]}"
    return parse_record(row)


def parse_record(row: Any) -> Record | tuple[str, str]:
    """A row read from JSON: the record, or (field, reason) of the first mistake in it."""
    if not isinstance(row, dict):
        return "", "not a JSON object"
    try:
        return Record.model_validate(row)
    except ValidationError as error:
        return _first_mistake(error)


def read_lines(path: Path | str) -> list[tuple[int, str]]:
    """The lines of a file that are not blank, with their numbers from 1."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise VocalnetError(f"cannot read the manifest {path}: {reason}", "`vocalnet prep` writes one: DIR/manifest.jsonl") from error
    return [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]


def write_text_atomically(path: Path, text: str) -> None:
    """Write `path` under a temporary name in its folder, then rename: never half a file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise VocalnetError(f"cannot write {path}: {error.strerror}", "choose another folder or free some space") from error


def write_manifest(path: Path | str, records: Iterable[Record]) -> None:
    """Write rows as JSONL (keys that say nothing are left out), atomically."""
    lines = [record.model_dump_json(exclude_defaults=True) for record in records]
    write_text_atomically(Path(path), "".join(line + "\n" for line in lines))
