"""Questions to measure with: the sets the package carries, by name, or any manifest."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from vocalnet_cli.core.config.places import nano_folder
from vocalnet_cli.core.data.manifest import read_manifest
from vocalnet_cli.core.data.record import Record
from vocalnet_cli.core.errors import UsageError, VocalnetError
from vocalnet_cli.core.evaluation.published import manifests_of
from vocalnet_cli.core.evaluation.wer import known_words

BENCHMARKS = ("nano-combination", "nano-voice", "nano-human", "nano-ablation")
"""Sets the package carries, each a folder of its name. Values never seen together, a voice never heard, people never heard; and for
experiments, values never seen together whose recorded answers the recogniser hears without error."""

USUAL = BENCHMARKS[:3]
"""Sets that are measured where none is named."""

MANIFEST = "manifest.jsonl"


@dataclass(frozen=True)
class Benchmark:
    """Questions with their answers."""

    name: str
    manifest: Path
    records: list[Record]
    sha256: str
    """Of the manifest, so that results of another version are told apart."""

    @cached_property
    def words(self) -> list[str]:
        """The words a recogniser must know to hear the answers, whichever other benchmarks are measured."""
        return known_words(record.answer.text for record in self.records)

    def sound(self, name: str) -> Path:
        """Where a sound file that the manifest names lies."""
        return self.manifest.parent / name


def load_benchmark(name: str, split: str | None = None, asked: bool = True) -> Benchmark:
    """A set by name, or a manifest by its path (the file, or the folder that holds manifest.jsonl); of one split alone if given.

    Without `asked` its answers are all that is wanted, so rows need no recorded question.
    Raises UsageError for a name that is neither, VocalnetError for a manifest that cannot be used.
    """
    if name in BENCHMARKS:
        manifest = nano_folder() / "eval" / name / MANIFEST
        if not manifest.is_file():
            raise VocalnetError(f"benchmark {name}: {manifest} is missing", "Install the package again, or give the path of a manifest.")
        shown = name
    else:
        given = Path(name).expanduser()
        manifest = given / MANIFEST if given.is_dir() else given
        if not manifest.is_file():
            close = difflib.get_close_matches(name, BENCHMARKS, n=1)
            nearest = f". Nearest: {close[0]}." if close else ""
            raise UsageError(f"--benchmark {name}: no such benchmark or manifest{nearest}", f"There are: {', '.join(BENCHMARKS)}.")
        shown = manifest.resolve().parent.name if manifest.name == MANIFEST else manifest.stem
    rows = read_manifest(manifest)
    records = [record for record in rows if split in (None, record.split)]
    if rows and not records:
        raise UsageError(f"{manifest}: no row of split {split!r}", f"Its splits: {', '.join(sorted({row.split for row in rows}))}.")
    mute = [record.id for record in records if record.question.audio is None]
    if asked and mute:
        raise VocalnetError(f"{manifest}: {len(mute)} rows have no recorded question, first `{mute[0]}`", "Every row needs question.audio.")
    if not records:
        raise VocalnetError(f"{manifest}: no rows", "Give a manifest that holds questions.")
    return Benchmark(shown, manifest, records, hashlib.sha256(manifest.read_bytes()).hexdigest())


def load_benchmarks(
    names: Sequence[str] | None, split: str | None = None, asked: bool = True, note: Callable[[str], None] = lambda text: None
) -> list[Benchmark]:
    """The sets named, or the usual three (see `load_benchmark`); a folder or table of published questions stands for each set in it.

    `note` hears of rows that cannot be asked. Raises UsageError if two would write to the same file.
    """
    chosen = []
    for name in names or USUAL:
        manifests = manifests_of(name, note) if name not in BENCHMARKS else []
        chosen += [load_benchmark(one, split, asked) for one in (*map(str, manifests),) or (name,)]
    shown = [benchmark.name for benchmark in chosen]
    twice = sorted({name for name in shown if shown.count(name) > 1})
    if twice:
        raise UsageError(f"two benchmarks are called {twice[0]}", "Measure them in two runs with different folders (-o).")
    return chosen
