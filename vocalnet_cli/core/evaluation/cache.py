"""Answers on disk, found again by what they depend on, so that no question is asked twice in the same way."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TextIO, TypeVar

from pydantic import TypeAdapter, ValidationError

from vocalnet_cli.core.data.record import write_text_atomically
from vocalnet_cli.core.errors import VocalnetError


@dataclass(frozen=True)
class Row:
    """What became of one question: facts only, heard and judged later. With `error` the rest is empty."""

    id: str
    text: str = ""
    """What the model wrote."""
    audio: str | None = None
    """File of its voice, in the folder of the answers; None if nothing was said."""
    audio_sha256: str | None = None
    audio_s: float = 0.0
    spoken: bool = True
    """False where the answer was given as text only: then there is nothing to hear."""
    truncated: bool = False
    lookup: str | None = None
    """The answer of the most similar training question, if the model has a bank of them."""
    bank: str | None = None
    """SHA-256 of the bank `lookup` comes from."""
    error: str | None = None


@dataclass(frozen=True)
class Heard:
    """What the recogniser hears in one answer."""

    id: str
    audio_sha256: str | None
    """Of the sound that was heard."""
    heard: str | None
    """None where there is no sound to hear."""
    recorded: str | None = None
    """What it hears in the recorded answer, if there is one."""


class _HasId(Protocol):
    @property
    def id(self) -> str: ...


R = TypeVar("R", bound=_HasId)

_EXTRA = "told"


class RowsFile(Generic[R]):
    """FILE.jsonl: a line that says what the rows depend on, then a row a line, on disk as soon as it is there.

    Of several lines of one id the last counts; damaged lines are left out, and with another or a damaged first line the file starts
    anew. `extra` is what else the first line tells (plain JSON), None until `begin` in a file that is new.
    """

    def __init__(self, path: Path, identity: dict[str, Any], kind: type[R]) -> None:
        self.path = path
        self.extra: dict[str, Any] | None = None
        self.rows: dict[str, R] = {}
        self._identity = identity
        self._kind: TypeAdapter[R] = TypeAdapter(kind)
        self._tidy = self._read()
        self._file: TextIO | None = None

    def begin(self, extra: dict[str, Any]) -> None:
        """Open the file for more rows. Raises VocalnetError if it cannot be written."""
        if self._file is not None:
            return
        self.extra = extra
        try:
            if not self._tidy:
                lines = [{**self._identity, _EXTRA: extra}, *(self._kind.dump_python(row) for row in self.rows.values())]
                write_text_atomically(self.path, "".join(_line(line) for line in lines))
            self._file = self.path.open("a", encoding="utf-8")
        except (VocalnetError, OSError) as error:
            reason = error.problem if isinstance(error, VocalnetError) else f"cannot write {self.path}: {error.strerror}"
            raise VocalnetError(reason, "Answers are kept: set VOCALNET_CACHE to a folder with space that can be written.") from error

    def add(self, row: R) -> None:
        """Keep a row, on disk at once."""
        assert self._file is not None, "begin comes first"
        self.rows[row.id] = row
        self._file.write(_line(self._kind.dump_python(row)))
        self._file.flush()

    def __enter__(self) -> RowsFile[R]:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def _read(self) -> bool:
        """Take over what is on disk; whether all of it could be used, so that more can be written behind it."""
        try:
            *lines, rest = self.path.read_bytes().split(b"\n")
            header = json.loads(lines[0])
            extra = header.pop(_EXTRA)
        except (OSError, ValueError, IndexError, KeyError, AttributeError, TypeError, RecursionError):
            return False
        if header != self._identity or not isinstance(extra, dict):
            return False
        self.extra = extra
        for line in lines[1:]:
            try:
                row = self._kind.validate_json(line, strict=True)
            except ValidationError:
                continue
            self.rows[row.id] = row
        return not rest and len(self.rows) == len(lines) - 1


class AnswerCache:
    """FOLDER/HASH/: the answers of one model to one benchmark in answers*.jsonl, and their sound in audio/.

    The hash is that of `identity` (plain JSON values), all the answers depend on: another model or setting is another folder. Each part
    of a run that is shared out (`part`) writes a file of its own and reads them all.
    """

    def __init__(self, folder: Path, identity: dict[str, Any], part: tuple[int, int] = (1, 1)) -> None:
        self.folder = folder / hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:24]
        own = "answers.jsonl" if part == (1, 1) else f"answers.{part[0]}-of-{part[1]}.jsonl"
        self.file = RowsFile(self.folder / own, identity, Row)
        self.rows: dict[str, Row] = {}
        for path in sorted(self.folder.glob("answers*.jsonl")):
            if path.name != own:
                self.rows |= RowsFile(path, identity, Row).rows
        self.rows |= self.file.rows

    def add(self, row: Row) -> None:
        """Keep an answer. A failed question is not kept, so that it is asked again next time."""
        self.file.begin({})
        if row.error is None:
            self.rows[row.id] = row
            self.file.add(row)

    def heard(self, recogniser: dict[str, Any]) -> RowsFile[Heard]:
        """What a recogniser of this identity heard in these answers."""
        name = hashlib.sha256(json.dumps(recogniser, sort_keys=True).encode()).hexdigest()[:16]
        return RowsFile(self.folder / f"heard.{name}.jsonl", recogniser, Heard)

    def __enter__(self) -> AnswerCache:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.__exit__()


def _line(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"
