"""What a step of data preparation is, and how one shard is worked on: its rows and rejects become one file that ends in a done mark."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from vocalnet_cli.core.config.places import link_or_copy
from vocalnet_cli.core.data.prep.shards import Raw, Shard, read_shard
from vocalnet_cli.core.data.record import Record

STATE = ".shards"
"""Folder, inside the output, of finished shards and of files being written."""

FILE_REASONS = ("file missing", "sound cannot be read")
"""Reasons that lie in a file beside the input, which is not part of a shard's hash."""

FORMAT = 1
"""Raise it when the same input and settings would give other bytes."""


@dataclass(frozen=True)
class Row:
    """A record that came out of a step."""

    raw: Raw
    record: Record
    same: str = ""
    """Rows with the same text here are one row twice; empty for rows that may repeat."""
    audio_s: float = 0.0
    """Sound this row brings along, in seconds."""
    files: tuple[Path, ...] = ()
    """Files it is made of: where one of them changes, the shard is worked on again."""


@dataclass(frozen=True)
class Reject:
    """A row that did not come out, and why."""

    raw: Raw
    reason: str
    """A few words, the same for all rows with this fault."""
    id: str = ""
    field: str = ""
    detail: str = ""
    files: tuple[Path, ...] = ()
    """As a row's."""

    def as_json(self) -> dict[str, Any]:
        """The row of rejects.jsonl."""
        told = {"id": self.id, "file": self.raw.file.name, "line": self.raw.line, "field": self.field, "reason": self.reason}
        return {name: value for name, value in {**told, "detail": self.detail}.items() if value != ""}


class Step(Protocol):
    """One command of `vocalnet prep`. It travels to worker processes, so its fields are plain values."""

    @property
    def name(self) -> str:
        """The command."""

    def settings(self) -> dict[str, Any]:
        """Everything but the input that decides what comes out."""

    def begin(self) -> None:
        """Load what the work needs; once in each worker."""

    def work(self, raws: Iterable[Raw], output: Path) -> Iterator[Row | Reject]:
        """Rows and rejects of one shard, in order. May write sound below `output`, with `write_bytes` or `adopt`."""


@dataclass
class Done:
    """What a finished shard holds."""

    key: str
    rows: int = 0
    audio_s: float = 0.0
    rejected: Counter[str] = field(default_factory=Counter)
    worker: str = ""


def shard_key(step: Step, shard: Shard) -> str:
    """Hash of everything a shard's outcome depends on."""
    told = [
        FORMAT,
        step.name,
        step.settings(),
        Path(shard.file).name,
        shard.kind,
        shard.first,
        shard.rows,
        shard.start,
        shard.stop,
        shard.sha256,
    ]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32]


def shard_file(output: Path, shard: Shard) -> Path:
    """Where a shard's outcome is kept."""
    return output / STATE / f"{shard.number:06}.tsv"


def read_done(path: Path) -> Done | None:
    """The done mark at the end of a shard's file; None if there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 65_536))
            last = file.read().splitlines()[-1].decode()
        kind, key, told = last.split("\t")
        return Done(key, **json.loads(told)) if kind == "D" else None
    except (OSError, IndexError, ValueError, TypeError):
        return None


def has_changed(shard: Shard, output: Path) -> bool:
    """Whether a file that a finished shard's rows are made of is another one now, by its size and time."""
    folder = Path(shard.file).parent
    with shard_file(output, shard).open("rb") as file:
        stamps = (json.loads(line[2:]) for line in file if line.startswith(b"F\t"))
        return any(_stamp(folder / name) != stamp for one in stamps for name, stamp in one.items())


def _stamp(path: Path) -> list[int] | None:
    try:
        found = path.stat()
        return [found.st_size, found.st_mtime_ns]
    except (OSError, ValueError):
        return None


def may_improve(done: Done) -> bool:
    """Whether rows were rejected for a file that was not there or not whole: another run may find it."""
    return any(reason in done.rejected for reason in FILE_REASONS)


def is_done(step: Step, shard: Shard, output: Path) -> Done | None:
    """The done mark of a shard that needs no more work."""
    done = read_done(shard_file(output, shard))
    return done if done and done.key == shard_key(step, shard) else None


TOGETHER = -1
"""The line that is marked while all rows of a shard are worked on after each was by itself."""


@dataclass(frozen=True)
class Care:
    """How a shard is worked on that has ended workers: each row by itself first, which tells the one that does it."""

    poison: frozenset[int] = frozenset()
    """Lines of rows that are rejected for having ended workers."""
    apart: bool = False
    """Keep what the rows gave by themselves, since all together they end workers too."""


def work_shard(step: Step, shard: Shard, output: Path, mark: Callable[[int], None] = lambda line: None, care: Care | None = None) -> Done:
    """Work on a shard and write its file. `mark` hears the line before it is worked on.

    With care, too, what comes out is computed of all rows together, so that a batch holds what it would have held.
    """
    done = Done(shard_key(step, shard))
    outcomes = step.work(_rows(shard, mark), output) if care is None else _carefully(step, shard, output, mark, care)
    folder = Path(shard.file).parent
    lines = [_files_line(outcome, folder) + _line(outcome, done) for outcome in outcomes]
    told = {"rows": done.rows, "audio_s": round(done.audio_s, 3), "rejected": dict(sorted(done.rejected.items()))}
    lines.append(f"D\t{done.key}\t{json.dumps(told)}\n")
    write_bytes(shard_file(output, shard), "".join(lines).encode(), output, sync=True)
    return done


def _rows(shard: Shard, mark: Callable[[int], None]) -> Iterator[Raw]:
    for raw in islice(read_shard(shard), shard.rows):
        mark(raw.line)
        yield raw


def _carefully(step: Step, shard: Shard, output: Path, mark: Callable[[int], None], care: Care) -> list[Row | Reject]:
    made: list[Row | Reject] = []
    dead: list[Row | Reject] = []
    for raw in _rows(shard, lambda line: None):
        if raw.line in care.poison:
            dead.append(Reject(raw, "the program died on it"))
            continue
        mark(raw.line)
        found = list(step.work([raw], output))
        made += found if care.apart else []
    if not care.apart:
        mark(TOGETHER)
        made += step.work((raw for raw in _rows(shard, lambda line: None) if raw.line not in care.poison), output)
    return sorted([*made, *dead], key=lambda outcome: outcome.raw.line)


def _files_line(outcome: Row | Reject, folder: Path) -> str:
    if not outcome.files:
        return ""
    return f"F\t{json.dumps({os.path.relpath(path, folder): _stamp(path) for path in outcome.files})}\n"


def _line(outcome: Row | Reject, done: Done) -> str:
    if isinstance(outcome, Reject):
        return _reject_line(outcome, done)
    done.rows += 1
    done.audio_s += outcome.audio_s
    record, raw = outcome.record, outcome.raw
    same = _short(outcome.same) if outcome.same else "-"
    text = record.model_dump_json(exclude_defaults=True)
    return f"R\t{_short(record.id)}\t{same}\t{json.dumps([raw.file.name, raw.line, record.id])}\t{text}\n"


def _reject_line(reject: Reject, done: Done) -> str:
    done.rejected[reject.reason] += 1
    return f"X\t{reject.reason}\t{json.dumps(reject.as_json())}\n"


def _short(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def write_bytes(path: Path, data: bytes, output: Path, sync: bool = False) -> None:
    """Write a file below `output` so that it is there whole or not at all; what a killed run leaves lies in the state folder."""
    temporary = _temporary(path, output)
    with temporary.open("wb") as file:
        file.write(data)
        if sync:
            file.flush()
            os.fsync(file.fileno())
    os.replace(temporary, path)


def adopt(path: Path, source: Path, output: Path) -> None:
    """Give `output` a file that lies elsewhere: a hard link where that can be had, else a copy."""
    take_in(path, source, _temporary(path, output))


def take_in(path: Path, source: Path, temporary: Path) -> None:
    """`source` as `path`, linked or copied, there whole or not at all; `temporary` is a name on the same disk."""
    temporary.unlink(missing_ok=True)
    link_or_copy(source, temporary)
    os.replace(temporary, path)
    temporary.unlink(missing_ok=True)  # renaming a link onto another of the same file leaves both


def _temporary(path: Path, output: Path) -> Path:
    folder = output / STATE / "tmp"
    for needed in (path.parent, folder):
        if not needed.is_dir():
            needed.mkdir(parents=True, exist_ok=True)
    return folder / f"{platform.node()}.{os.getpid()}.{path.name}"
