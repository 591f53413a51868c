"""Results on disk, a line each question, so that a stopped run can go on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TextIO

from vocalnet_cli.core.data.record import write_text_atomically
from vocalnet_cli.core.errors import VocalnetError


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
    error: str | None = None


def weights_hash(folder: Path) -> str:
    """SHA-256 over the names and contents of a model folder's weights, settings and tokenizer."""
    total = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")) + sorted(folder.glob("*.json")):
        with path.open("rb") as file:
            total.update(f"{path.name} {path.stat().st_size}\n".encode())
            while block := file.read(1 << 20):
                total.update(block)
    return total.hexdigest()


class ResultsFile:
    """DIR/NAME.jsonl: a line that says what was measured, then a line for each question, on disk as soon as it is answered."""

    def __init__(self, path: Path, header: dict[str, Any], resume: bool) -> None:
        """Start anew, or with `resume` keep the answered questions of a run with the same header.

        Raises VocalnetError if the file on disk was made in another way, or the folder cannot be written.
        """
        self.path = path
        self.rows = _kept(path, header) if resume and path.exists() else {}
        lines = [header, *(asdict(row) for row in self.rows.values())]
        write_text_atomically(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
        self._file: TextIO = path.open("a", encoding="utf-8")

    def add(self, row: Row) -> None:
        """Keep one more result, on disk at once."""
        self.rows[row.id] = row
        self._file.write(json.dumps(asdict(row), ensure_ascii=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> ResultsFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _kept(path: Path, header: dict[str, Any]) -> dict[str, Row]:
    """Rows of an earlier run that can stay: answered ones. A last line cut short by a crash is left out."""
    hint = "Run without --resume to start anew, or name another folder with -o."
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1] if line.strip()]
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise VocalnetError(f"{path}: cannot be resumed ({' '.join(str(error).split())})", hint) from error
    if not lines:
        return {}
    if not all(isinstance(line, dict) for line in lines):
        raise VocalnetError(f"{path}: cannot be resumed, it holds lines that are no results", hint)
    other = [name for name, value in header.items() if lines[0].get(name) != value]
    if other:
        raise VocalnetError(f"{path}: was measured with other {', '.join(other)}", hint)
    names = {field.name for field in fields(Row)}
    rows = [Row(**line) for line in lines[1:] if "id" in line and set(line) <= names]
    return {row.id: row for row in rows if row.error is None}
