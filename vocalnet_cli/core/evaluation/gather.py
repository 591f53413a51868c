"""The answers of one model to a benchmark: those on disk, and those that are still to be asked for, here or over Ray."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vocalnet_cli.core.data.prep.ray_engine import actors
from vocalnet_cli.core.data.record import Record
from vocalnet_cli.core.errors import UsageError
from vocalnet_cli.core.evaluation.benchmarks import Benchmark
from vocalnet_cli.core.evaluation.cache import AnswerCache, Row
from vocalnet_cli.core.evaluation.lookup import BankFile

if TYPE_CHECKING:
    from vocalnet_cli.core.evaluation.runner import Runner

ENGINES = ("local", "ray")


@dataclass(frozen=True)
class Manner:
    """How answers are asked for; none of it is meant to change them."""

    batch_size: int = 1
    part: tuple[int, int] = (1, 1)
    """(i, n): only every n-th question, the i-th first; from 1."""
    engine: str = "local"
    workers: int = 0
    """Models that are asked at once with Ray; 0: one a GPU, or one."""
    fresh: bool = False
    """Ask again even what is on disk."""

    def check(self) -> None:
        """Raises UsageError for an engine there is not."""
        if self.engine not in ENGINES:
            raise UsageError(f"--engine {self.engine}: no such engine", f"There are: {', '.join(ENGINES)}.")


def gather(
    benchmark: Benchmark,
    records: Sequence[Record],
    cache: AnswerCache,
    runner: Callable[[], Runner],
    bank: BankFile | None,
    manner: Manner,
    advance: Callable[[int, int], None],
) -> list[Row | None]:
    """A row for each of `records`, each on disk as soon as it is there; None for those of other parts that are not there yet.

    `runner()` makes who is asked, and is called only where something is missing.
    """
    index, count = manner.part
    rows: dict[str, Row] = {}
    todo: list[Record] = []
    for record in records[index - 1 :: count]:
        row = None if manner.fresh else cache.rows.get(record.id)
        if row is None or (row.audio and not (cache.folder / row.audio).is_file()):
            todo.append(record)
            continue
        if bank is None:
            row = replace(row, lookup=None, bank=None)  # of a bank that is no longer there
        elif row.bank != bank.sha256:
            row = runner().look_up(benchmark, record, row)
            cache.add(row)
        rows[row.id] = row
    total = len(records[index - 1 :: count])
    advance(len(rows), total)
    for row in _asked(benchmark, todo, cache.folder, runner, manner):
        cache.add(row)
        rows[row.id] = row
        advance(len(rows), total)
    others = {} if manner.part == (1, 1) else cache.rows
    return [rows.get(record.id) or others.get(record.id) for record in records]


def _asked(benchmark: Benchmark, todo: Sequence[Record], folder: Path, runner: Callable[[], Runner], manner: Manner) -> Iterator[Row]:
    if not todo:
        return
    if manner.engine == "local":
        yield from runner().ask(benchmark, todo, folder)
        return
    size = manner.batch_size
    batches = [[record.model_dump(mode="json") for record in todo[at : at + size]] for at in range(0, len(todo), size)]
    for told in actors(_Asker, (runner, benchmark, str(folder.resolve())), batches, manner.workers):
        yield from (Row(**row) for row in told)


class _Asker:
    """A model in a process of its own; its sound goes to the folder of the cache, which every node sees."""

    def __init__(self, runner: Callable[[], Runner], benchmark: Benchmark, folder: str) -> None:
        self._runner, self._benchmark, self._folder = runner(), benchmark, Path(folder)

    def __call__(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        records = [Record.model_validate(row) for row in rows]
        return [vars(row) for row in self._runner.ask(self._benchmark, records, self._folder)]
