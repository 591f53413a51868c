"""Answers on disk, found again by what they depend on, so that no question is asked twice in the same way."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from pydantic import TypeAdapter, ValidationError

from vocalnet_cli.core.data.record import write_text_atomically
from vocalnet_cli.core.errors import VocalnetError
from vocalnet_cli.core.evaluation.wer import Hearing


@dataclass(frozen=True)
class Row:
    """What became of one question: facts only, judged later. With `error` the rest is empty."""

    id: str
    text: str = ""
    """What the model wrote."""
    heard: str = ""
    """What the recogniser heard in its voice."""
    recorded: str | None = None
    """What the recogniser hears in the recorded answer, if there is one."""
    audio_s: float = 0.0
    truncated: bool = False
    lookup: str | None = None
    """The answer of the most similar training question, if the model has a bank of them."""
    bank: str | None = None
    """SHA-256 of the bank `lookup` comes from."""
    error: str | None = None


_ROW = TypeAdapter(Row)
_HEARING = TypeAdapter(Hearing)
_HEARD_BY = "heard_by"


class AnswerCache:
    """FOLDER/HASH.jsonl: a line that says what was measured and who listened, then a line for each answered question.

    The hash is that of `identity` (plain JSON values), all the answers depend on: another model or setting is another file. A line is
    on disk as soon as its question is answered. Of several lines of one question the last counts; damaged lines are left out, and
    with a damaged first line the file starts anew.
    """

    def __init__(self, folder: Path, identity: dict[str, Any]) -> None:
        self.path = folder / f"{hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:24]}.jsonl"
        self.hearing: Hearing | None = None
        """Who listened; None until `begin` in a file that is new."""
        self.rows: dict[str, Row] = {}
        self._identity = identity
        self._tidy = self._read()
        self._file: TextIO | None = None

    def begin(self, hearing: Hearing) -> None:
        """Open the file for more rows. Raises VocalnetError if it cannot be written."""
        if self._file is not None:
            return
        self.hearing = hearing
        try:
            if not self._tidy:
                lines = [{**self._identity, _HEARD_BY: asdict(hearing)}, *(asdict(row) for row in self.rows.values())]
                write_text_atomically(self.path, "".join(_line(line) for line in lines))
            self._file = self.path.open("a", encoding="utf-8")
        except (VocalnetError, OSError) as error:
            reason = error.problem if isinstance(error, VocalnetError) else f"cannot write {self.path}: {error.strerror}"
            raise VocalnetError(reason, "Answers are kept: set VOCALNET_CACHE to a folder with space that can be written.") from error

    def add(self, row: Row) -> None:
        """Keep an answer, on disk at once. A failed question is not kept, so that it is asked again next time."""
        assert self._file is not None, "begin comes first"
        if row.error is None:
            self.rows[row.id] = row
            self._file.write(_line(asdict(row)))
            self._file.flush()

    def __enter__(self) -> AnswerCache:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def _read(self) -> bool:
        """Take over what is on disk; whether all of it could be used, so that more can be written behind it."""
        try:
            *lines, rest = self.path.read_bytes().split(b"\n")
            header = json.loads(lines[0])
            hearing = _HEARING.validate_python(header.pop(_HEARD_BY))
        except (OSError, ValueError, IndexError, KeyError, AttributeError, TypeError, RecursionError):
            return False  # a ValidationError is a ValueError
        if header != self._identity:
            return False
        self.hearing = hearing
        for line in lines[1:]:
            try:
                row = _ROW.validate_json(line, strict=True)
            except ValidationError:
                continue
            self.rows[row.id] = row
        return not rest and len(self.rows) == len(lines) - 1


def _line(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"
