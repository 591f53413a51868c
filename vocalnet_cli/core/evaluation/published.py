"""Benchmarks as they are published, or made by hand: a folder of tables with recordings, read by the reader `prep questions` has."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from vocalnet_cli.core.config.places import cache_folder
from vocalnet_cli.core.data.prep.questions import Questions
from vocalnet_cli.core.data.prep.run import Manner, run_step
from vocalnet_cli.core.data.prep.shards import find_inputs
from vocalnet_cli.core.data.record import parse_row, read_lines
from vocalnet_cli.core.errors import VocalnetError
from vocalnet_cli.core.model import hub

OPENAUDIOBENCH = "eval_datas"
"""The folder of OpenAudioBench that holds its sets."""
LEFT_OUT = ("reasoning_qa",)
"""Sets of a whole collection that are measured only when named themselves: this one is in Chinese, and not in the papers."""

_GENERAL = {"data", "test", "train", "questions", "question", "index", "rows"}
"""Names of files and folders that say nothing: the folder above gives the benchmark its name."""
_PATTERNS = ["*.parquet", "*.csv", "*.json", "*.jsonl", "*.mp3", "*.wav", "*.flac", "*.ogg"]


def is_manifest(path: Path) -> bool:
    """Whether a file is a manifest already: its first row is a record, or no row of any layout that is known here."""
    if path.suffix != ".jsonl":
        return False
    line = next((line for _, line in read_lines(path)), "")
    return not line or not isinstance(parse_row(line), tuple) or '"answer":{' in line.replace(" ", "")


def find_tables(name: str) -> dict[str, list[Path]] | None:
    """The tables of questions a name stands for, by the benchmark each is of; None where the name is no such thing.

    A folder, with any number of tables at any depth; one table; or a data set of the hub, which is fetched.
    """
    given = Path(name).expanduser()
    if not given.exists() and hub.is_hub_id(name):
        given = hub.pull_data(name, _PATTERNS)
    if given.is_file():
        return None if is_manifest(given) else {_name(given, given.parent): [given.resolve()]}
    if not given.is_dir() or (given / "manifest.jsonl").is_file():
        return None
    root = given / OPENAUDIOBENCH if (given / OPENAUDIOBENCH).is_dir() else given
    tables: dict[str, list[Path]] = {}
    for path in find_inputs([str(root)]):
        tables.setdefault(_name(path, given), []).append(path.resolve())
    return {own: paths for own, paths in tables.items() if own not in LEFT_OUT or len(tables) == 1}


def _name(path: Path, root: Path) -> str:
    """A table's benchmark: parquet is cut into files, so there the folder says it; else the file does, unless its name says nothing."""
    parts = [path.stem, *(folder.name for folder in path.resolve().parents)]
    if path.suffix == ".parquet" and path.parent != root:
        parts = parts[1:]
    return next(part for part in parts if part.lower() not in _GENERAL)


def prepare(name: str, tables: Sequence[Path], note: Callable[[str], None]) -> Path | None:
    """The manifest of a benchmark, made from its tables in `cache_folder()`/benchmarks or there already; None if no row can be asked.

    Rows that cannot be asked (no recording, no question) are counted in a note. Raises VocalnetError as `prep questions` does.
    """
    digest = hashlib.sha256()
    for path in tables:
        digest.update(f"{path} ".encode() + path.read_bytes())
    output = cache_folder() / "benchmarks" / f"{name}-{digest.hexdigest()[:12]}" / name
    stats = run_step(Questions(name), [str(path) for path in tables], output, Manner(workers=1))
    if rejected := stats["rejected"]:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in rejected.items())
        note(f"note: {name}: {sum(rejected.values())} of {stats['rows_in']} rows are left out ({reasons}): {output / 'rejects.jsonl'}")
    return output / "manifest.jsonl" if stats["rows_out"] else None


def manifests_of(name: str, note: Callable[[str], None]) -> list[Path]:
    """The manifests a `--benchmark` that names tables stands for; none where it names something else. Raises VocalnetError."""
    tables = find_tables(name)
    if tables is None:
        return []
    found = [manifest for own, paths in tables.items() if (manifest := prepare(own, paths, note)) is not None]
    if not found:
        raise VocalnetError(
            f"--benchmark {name}: no row that can be asked",
            "A row needs its recording: {id, question, audio, references: [...]}, or a layout `vocalnet prep questions` reads.",
        )
    return found
