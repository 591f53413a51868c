"""Inputs cut into shards: ranges of lines, of elements of a JSON array, or of parquet rows. Nothing is held in memory whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from vocalnet_cli.core.errors import UsageError, VocalnetError

LONGEST_ROW = 16 << 20
"""Bytes of one row of JSON; a longer one is refused, not parsed."""

LARGEST_GROUP = 4 << 30
"""Bytes a parquet row group may unpack to."""

SWELLS = (64 << 20, 200)
"""Bytes from which on a parquet column must not unpack to more than so many times its size in the file: no speech or text does."""

_BLOCK = 1 << 20
_PARQUET_BATCH = 8
"""Rows unpacked at once: a value that all of them share costs little in the file and its size times this here."""
_PATTERNS = ("*.parquet", "*.jsonl", "*.json", "*.csv")


@dataclass(frozen=True)
class Shard:
    """A part of one input file that is worked on, and finished, as one."""

    number: int
    file: str
    kind: Literal["lines", "array", "parquet", "csv"]
    start: int
    stop: int
    """Bytes of the file; of parquet and csv, rows from 0."""
    first: int
    """Number of its first line, element or row, from 1."""
    rows: int
    sha256: str
    """Of its bytes; of parquet, of the file's footer."""


@dataclass(frozen=True)
class Raw:
    """One row as it stands in the input."""

    file: Path
    line: int
    row: dict[str, Any] | None
    mistake: str = ""
    """Why there is no row."""


def find_inputs(inputs: Sequence[str]) -> list[Path]:
    """The files that inputs name: files, folders of parquet, JSONL, JSON or CSV (in order of name), or a data set of the hub."""
    files: list[Path] = []
    for given in inputs:
        path = Path(given).expanduser()
        if path.is_file():
            files.append(path)
        elif (path / "manifest.jsonl").is_file():
            files.append(path / "manifest.jsonl")
        elif path.is_dir():
            found = next((some for pattern in _PATTERNS if (some := sorted(path.rglob(pattern)))), [])
            if not found:
                raise UsageError(f"{path}: holds no .parquet, .jsonl or .json file", "Name the file, or the folder that holds it.")
            files += found
        else:
            files += _from_hub(given)
    return files


def _from_hub(name: str) -> list[Path]:
    from vocalnet_cli.core.model import hub

    if not hub.is_hub_id(name):
        raise UsageError(f"{name}: no such file or folder", "Name a file, a folder, or a data set of the hub as OWNER/NAME.")
    folder = hub.pull_data(name, ["*.parquet", "*.jsonl", "*.json", "*.csv"])
    found = sorted(folder.rglob("*.parquet")) or sorted(folder.rglob("*.jsonl"))
    if not found:
        raise VocalnetError(f"{name}: holds no .parquet or .jsonl file", "Download it yourself and name the files.")
    return found


def cut(files: Iterable[Path], rows: int) -> list[Shard]:
    """Shards of about `rows` rows, in order. Raises VocalnetError for a file that cannot be cut."""
    shards: list[Shard] = []
    for path in files:
        for kind, start, stop, first, count, digest in _ranges(path, rows):
            shards.append(Shard(len(shards), str(path.resolve()), kind, start, stop, first, count, digest))
    return shards


def _ranges(path: Path, rows: int) -> Iterator[tuple[Any, int, int, int, int, str]]:
    try:
        with path.open("rb") as file:
            head = file.read(64)
            file.seek(0)
            if head[:4] == b"PAR1":
                yield from _parquet_ranges(path, rows)
            elif path.suffix == ".csv":
                yield from _csv_ranges(path, rows)
            elif head.lstrip()[:1] == b"[":
                yield from _grouped("array", file, _elements(path, file), rows)
            else:
                yield from _grouped("lines", file, _lines(file, path.stat().st_size), rows)
    except OSError as error:
        raise VocalnetError(f"{path}: cannot be read ({error.strerror})", "Check the path and its permissions.") from error


def _grouped(kind: str, file: IO[bytes], spans: Iterator[tuple[int, int]], rows: int) -> Iterator[tuple[Any, int, int, int, int, str]]:
    """(kind, start, stop, first, rows, sha256) of each `rows` spans of bytes."""
    group: list[tuple[int, int]] = []
    number = 0

    def finished() -> tuple[Any, int, int, int, int, str]:
        start, stop = group[0][0], group[-1][1]
        back = file.tell()
        file.seek(start)
        digest = hashlib.sha256()
        for at in range(start, stop, _BLOCK):
            digest.update(file.read(min(_BLOCK, stop - at)))
        file.seek(back)
        return kind, start, stop, number - len(group) + 1, len(group), digest.hexdigest()

    for span in spans:
        group.append(span)
        number += 1
        if len(group) == rows:
            yield finished()
            group = []
    if group:
        yield finished()


def _lines(file: IO[bytes], stop: int) -> Iterator[tuple[int, int]]:
    """Bytes of each line from where the file stands, its end included. Of a line of any length no more than a block is held."""
    start = at = file.tell()
    while at < stop:
        part = file.readline(_BLOCK)
        if not part:
            break
        at += len(part)
        if part.endswith(b"\n") or at >= stop:
            yield start, at
            start = at


def _elements(path: Path, file: IO[bytes], start: int = 0, stop: int | None = None) -> Iterator[tuple[int, int]]:
    """Bytes of each element of a JSON array, or of a part of it that begins with an element.

    Latin-1 keeps bytes and characters one to one; what JSON is made of is ASCII.
    """
    decoder = json.JSONDecoder()
    left = (stop or path.stat().st_size) - start
    file.seek(start)

    def more() -> str:
        nonlocal left
        part = file.read(min(_BLOCK, left))
        left -= len(part)
        return part.decode("latin-1")

    text, base, at = more(), start, 0
    if stop is None:
        at = text.index("[") + 1
    while True:
        while at < len(text) and text[at] in " \t\r\n,":
            at += 1
        if (at < len(text) and text[at] == "]") or (at == len(text) and stop is not None and not left):
            return
        try:
            _, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            block = more()
            if not block or len(text) - at > LONGEST_ROW:
                reason = "ends in the middle" if not block else f"a row of more than {LONGEST_ROW >> 20} MB"
                raise VocalnetError(
                    f"{path}: not a whole JSON array: {reason}, from byte {base + at}", "Copy or download the file again."
                ) from error
            text, base, at = text[at:] + block, base + at, 0
            continue
        yield base + at, base + end
        at = end


def _parquet_ranges(path: Path, rows: int) -> Iterator[tuple[Any, int, int, int, int, str]]:
    meta = _parquet(path).metadata
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - meta.serialized_size - 8))
        digest = hashlib.sha256(file.read() + str(size).encode()).hexdigest()
    start = stop = 0
    for number in range(meta.num_row_groups):
        group = meta.row_group(number)
        if group.total_byte_size > LARGEST_GROUP:
            raise VocalnetError(
                f"{path}: row group {number} unpacks to {group.total_byte_size / 1e9:.1f} GB", "Write it again in smaller row groups."
            )
        for column in (group.column(place) for place in range(group.num_columns)):
            if column.total_uncompressed_size > max(SWELLS[0], SWELLS[1] * column.total_compressed_size):
                size_mb, packed_mb = column.total_uncompressed_size / 1e6, column.total_compressed_size / 1e6
                what = f"`{column.path_in_schema}` of row group {number} unpacks from {packed_mb:.1f} MB to {size_mb:.0f} MB"
                raise VocalnetError(f"{path}: {what}: no corpus does", "Do not use this file, or write it again uncompressed.")
        stop += group.num_rows
        if stop - start >= rows or number == meta.num_row_groups - 1:
            for at in range(start, stop, rows):
                end = min(stop, at + rows)
                yield "parquet", at, end, at + 1, end - at, digest
            start = stop


def _parquet(path: Path) -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise VocalnetError(f"{path}: reading parquet needs pyarrow", "Install it: pip install 'vocalnet-cli[data]'") from error
    try:
        return pyarrow.parquet.ParquetFile(path, buffer_size=_BLOCK)
    except (pyarrow.ArrowException, OSError) as error:
        raise VocalnetError(f"{path}: not a whole parquet file ({str(error).splitlines()[0]})", "Download it again.") from error


def _csv_ranges(path: Path, rows: int) -> Iterator[tuple[Any, int, int, int, int, str]]:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    count = sum(1 for _ in _csv_rows(path))
    for at in range(0, count, rows):
        end = min(count, at + rows)
        yield "csv", at, end, at + 1, end - at, digest


def _csv_rows(path: Path) -> Iterator[dict[str, Any]]:
    import csv

    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            head = file.readline()
            file.seek(0)
            mark = max("\t;,", key=head.count)
            for row in csv.DictReader(file, delimiter=mark, skipinitialspace=True):
                yield {str(name).strip(): value for name, value in row.items() if name is not None}
    except (csv.Error, UnicodeDecodeError) as error:
        raise VocalnetError(f"{path}: not a CSV file ({error})", "Save it as UTF-8 CSV with a line of column names.") from error


def read_shard(shard: Shard) -> Iterator[Raw]:
    """The rows of a shard in order; a row that cannot be read comes with its mistake."""
    path = Path(shard.file)
    if shard.kind == "csv":
        for number, row in enumerate(_csv_rows(path)):
            if shard.start <= number < shard.stop:
                yield Raw(path, number + 1, row)
        return
    if shard.kind == "parquet":
        yield from _parquet_rows(path, shard)
        return
    with path.open("rb") as file:
        file.seek(shard.start)
        spans = _lines(file, shard.stop) if shard.kind == "lines" else _elements(path, file, shard.start, shard.stop)
        for number, (start, stop) in enumerate(list(spans), shard.first):
            if stop - start > LONGEST_ROW:
                yield Raw(path, number, None, f"a row of {(stop - start) >> 20} MB, at most {LONGEST_ROW >> 20} are read")
                continue
            file.seek(start)
            data = file.read(stop - start)
            if data.strip():
                yield _parsed(path, number, data)


def _parsed(path: Path, number: int, data: bytes) -> Raw:
    try:
        row = json.loads(data.decode("utf-8"))
    except UnicodeDecodeError:
        return Raw(path, number, None, "not UTF-8 text")
    except json.JSONDecodeError as error:
        return Raw(path, number, None, f"not JSON: {error.msg} at column {error.colno}")
    except (ValueError, RecursionError) as error:
        return Raw(path, number, None, f"not JSON we read: {str(error).splitlines()[0]}")
    if not isinstance(row, dict):
        return Raw(path, number, None, "not a JSON object")
    return Raw(path, number, row)


def _parquet_rows(path: Path, shard: Shard) -> Iterator[Raw]:
    file = _parquet(path)
    at, groups = 0, []
    for number in range(file.metadata.num_row_groups):
        count = file.metadata.row_group(number).num_rows
        if at < shard.stop and at + count > shard.start:
            groups.append((number, at))
        at += count
    if not groups:
        return
    number = groups[0][1]
    for batch in file.iter_batches(_PARQUET_BATCH, row_groups=[group for group, _ in groups]):
        for place in range(len(batch)):
            if shard.start <= number < shard.stop:
                (row,) = batch.slice(place, 1).to_pylist()
                longest = max((len(value) for value in row.values() if isinstance(value, str)), default=0)
                mistake = f"a text of {longest >> 20} MB, at most {LONGEST_ROW >> 20} are read" if longest > LONGEST_ROW else ""
                yield Raw(path, number + 1, None if mistake else row, mistake)
            number += 1
