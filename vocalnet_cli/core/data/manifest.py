"""The one way to read a manifest: rows of our own, and those of VocalNet's JSON and SLAM-Omni's JSONL and parquet as they are published."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePath

from vocalnet_cli.core.config.places import cache_folder
from vocalnet_cli.core.data.prep.corpora import BadRow, good_row, inside, is_published, read_turn
from vocalnet_cli.core.data.prep.npy import read_tokens
from vocalnet_cli.core.data.prep.shards import Raw, Shard, cut, read_shard
from vocalnet_cli.core.data.prep.single import PUBLISHED, turn_id
from vocalnet_cli.core.data.prep.sounds import placed, suffix_of
from vocalnet_cli.core.data.prep.step import write_bytes
from vocalnet_cli.core.data.record import PARALLEL, Record, parse_record
from vocalnet_cli.core.errors import UsageError, VocalnetError

_WRITES_ONE = "`vocalnet prep` writes one: DIR/manifest.jsonl"


def record_of(raw: Raw, root: Path) -> tuple[Record, bytes | None]:
    """A row of a manifest in any layout, and its spoken question where that lies in the row itself (parquet).

    Files it names are not opened; of published rows they must lie below `root`. Raises BadRow.
    """
    row = good_row(raw)
    if is_published(row):
        return _published(raw, root)
    record = parse_record(row)
    if isinstance(record, tuple):
        raise BadRow("not a record", *record)
    return record, None


def _published(raw: Raw, root: Path) -> tuple[Record, bytes | None]:
    """A row of a released training set; its text is kept as it stands. SLAM-Omni's tokens, CosyVoice 1's, are left out."""
    turn = read_turn(raw, root)
    if not turn.answer:
        raise BadRow("empty answer", "answer")
    embedded = turn.sound if isinstance(turn.sound, bytes) else None
    # Where the sound is in the row, its path is told when it is written to a file.
    sound = _relative(turn.sound, root) if isinstance(turn.sound, Path) else "" if embedded else None
    row = {
        "id": turn_id(turn),
        "source": "published",
        "split": "train",
        "round": max(1, turn.round),
        "question": {"text": turn.question, "audio": sound},
        "history": [{"role": role, "text": text} for role, text in turn.history],
        "answer": {"text": turn.answer},
        "speech_tokens": _relative(turn.tokens, root) if isinstance(turn.tokens, Path) else turn.tokens,
        "tokenizer": PUBLISHED.model_dump() if turn.tokens is not None else None,
        "meta": turn.note,
    }
    record = parse_record(row)
    if isinstance(record, tuple):
        raise BadRow("not a record", *record)
    return record, embedded


def _relative(path: Path, root: Path) -> str:
    return os.path.relpath(path, root.resolve())


def manifest_shards(path: Path, rows: int = 1000) -> list[Shard]:
    """A manifest in parts of so many rows, for `read_rows`. Raises VocalnetError if there is nothing to read."""
    if not path.is_file():
        raise VocalnetError(f"cannot read the manifest {path}: No such file or directory", _WRITES_ONE)
    return cut([path], rows)


def read_rows(shards: Iterable[Shard], root: Path) -> Iterator[tuple[Raw, Record | BadRow]]:
    """Every row, or what is wrong with it, one after the other; a sound that lies in the row itself is put into the cache folder."""
    for shard in shards:
        for raw in read_shard(shard):
            try:
                record, sound = record_of(raw, root)
                yield raw, record if sound is None else _unpacked(record, sound)
            except BadRow as bad:
                yield raw, bad


def _unpacked_folder() -> Path:
    return cache_folder() / "unpacked"


def _unpacked(record: Record, sound: bytes) -> Record:
    """The row with its sound in a file of the cache, which is written once."""
    folder = _unpacked_folder()
    path = folder / placed(record.id, "questions", suffix_of(sound), sound)
    if not path.is_file():
        write_bytes(path, sound, folder)
    return record.model_copy(update={"question": record.question.model_copy(update={"audio": str(path.resolve())})})


def read_manifest(path: Path | str, root: Path | None = None) -> list[Record]:
    """All rows of a manifest. A row that is not one, a path that leaves the data root, or an id twice, raises with file and line."""
    records: list[Record] = []
    seen: dict[str, int] = {}
    path = Path(path)
    for raw, record in read_rows(manifest_shards(path), root or path.parent):
        if isinstance(record, BadRow):
            raise _bad(path, raw, record)
        if record.id in seen:
            reason = f"id `{record.id}` is already on line {seen[record.id]}"
            raise VocalnetError(f"{path}:{raw.line}: {reason}", "give every row an id of its own")
        if leaves := [name for name in _files(record) if _leaves(name)]:
            raise VocalnetError(
                f"{path}:{raw.line}: {leaves[0]} is outside the manifest's folder",
                "Move the manifest above its files, or name their folder: --set data.root=DIR (paths are then relative to it).",
            )
        seen[record.id] = raw.line
        records.append(record)
    return records


def find_rows(path: Path, root: Path, ids: Sequence[str] | None, limit: int) -> list[Record]:
    """The rows of these ids, in their order, or the first `limit`; the manifest is read no further than that takes.

    Raises UsageError for an id that no row has, VocalnetError for a bad row on the way.
    """
    found: dict[str, Record] = {}
    first: list[str] = []
    for raw, record in read_rows(manifest_shards(path), root):
        if isinstance(record, BadRow):
            raise _bad(path, raw, record)
        first += [record.id] if len(first) < 5 else []
        if ids is None or record.id in ids:
            found.setdefault(record.id, record)
        if len(found) == (limit if ids is None else len(set(ids))):
            break
    for own in ids or ():
        if own not in found:
            raise UsageError(f"--id {own}: {path} has no such row", f"Its first rows: {', '.join(first)}.")
    return [found[own] for own in ids] if ids else list(found.values())


def _bad(path: Path, raw: Raw, bad: BadRow) -> VocalnetError:
    where = f"field `{bad.field}`: " if bad.field else ""
    return VocalnetError(f"{path}:{raw.line}: {where}{told(bad)}", f"`vocalnet prep validate {path}` lists every bad row")


def told(bad: BadRow) -> str:
    """What is wrong with a row, in one line."""
    if bad.reason in ("not a record", "not a JSON row"):
        return bad.detail
    return f"{bad.reason}: {bad.detail}" if bad.detail else bad.reason


def files_of(record: Record, root: Path) -> tuple[Path, ...]:
    """Every file a row names, whether it is there or not."""
    return tuple(root / name for name in _files(record) if name)


def files_of_raw(raw: Raw, root: Path) -> tuple[Path, ...]:
    """The same of a row that may be none."""
    try:
        return files_of(record_of(raw, root)[0], root)
    except BadRow:
        return ()


def _files(record: Record) -> list[str]:
    earlier = [turn.audio for turn in record.history]
    named = [*earlier, record.question.audio, record.answer.audio, record.speech_tokens, record.meta.get(PARALLEL)]
    return [name for name in named if isinstance(name, str)]


def _is_unpacked(path: PurePath) -> bool:
    return path.is_absolute() and ".." not in path.parts and path.is_relative_to(_unpacked_folder().resolve())


def _leaves(name: str) -> bool:
    """Whether a path climbs out of the folder it is relative to. By its words alone: a link below the folder is the user's own."""
    path = PurePath(name)
    return ".." in path.parts or (path.is_absolute() and not _is_unpacked(path))


def file_of(root: Path, name: str, field: str) -> Path:
    """A file that a row names. Raises BadRow for one outside `root`."""
    path = Path(name)
    return path if _is_unpacked(path) else inside(root, name, field)


def sounds_of(record: Record, root: Path) -> list[Path]:
    """The recordings of a row, in the order they are said. Raises VocalnetError for one outside `root`."""
    earlier = [(f"history.{place}.audio", turn.audio) for place, turn in enumerate(record.history)]
    named = [*earlier, ("question.audio", record.question.audio), ("answer.audio", record.answer.audio)]
    try:
        return [file_of(root, name, field) for field, name in named if name]
    except BadRow as bad:
        raise VocalnetError(f"row {record.id}: {told(bad)}", "Name the folder that holds the sound: --root DIR") from bad


def check_one_tokenizer(path: Path, records: Iterable[Record]) -> None:
    """Raises VocalnetError if the rows' tokens come from more than one speech tokenizer: the same number would mean two sounds."""
    named = {f"{row.tokenizer.name} {row.tokenizer.sha256[:12]}": row.id for row in records if row.speech_tokens and row.tokenizer}
    if len(named) > 1:
        both = ", ".join(f"{name} (row {own})" for name, own in sorted(named.items())[:2])
        raise VocalnetError(
            f"{path}: tokens of more than one speech tokenizer: {both}", "Make all with one: vocalnet prep tokens --replace"
        )


def tokens_of(record: Record, root: Path) -> list[int]:
    """The speech tokens of a row that has some. Files of published rows may be pickled; nothing but arrays is read. Raises BadRow."""
    if isinstance(record.speech_tokens, list):
        return record.speech_tokens
    return read_tokens(inside(root, str(record.speech_tokens), "speech_tokens"), pickled=record.tokenizer == PUBLISHED)
