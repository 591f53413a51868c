"""What people see: results on stdout, progress and errors on stderr, bars only on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text


def out() -> Console:
    """Console of results. Made when asked for, so that a redirected stdout is respected."""
    return Console(file=sys.stdout, width=None if sys.stdout.isatty() else 160, highlight=False)


def err() -> Console:
    """Console of progress, notes and errors."""
    return Console(file=sys.stderr, highlight=False)


def progress(quiet: bool = False) -> Progress:
    """Progress bars on stderr (a context manager); they draw nothing when quiet or away from a terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=err(),
        disable=quiet or not sys.stderr.isatty(),
        transient=True,
    )


class TableProgress:
    """What is told while a table of recipes is run: a line for each run, and a bar of the questions asked (a context manager).

    The bar is there only while questions are asked: training shows one of its own.
    """

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self.bars = progress(quiet)

    def note(self, text: str) -> None:
        """A line between runs."""
        self.close()
        if not self.quiet:
            self.failed(text)

    def failed(self, text: str) -> None:
        """A line about what went wrong, told even when quiet."""
        self.bars.console.print(text, markup=False, soft_wrap=True)

    def asked(self, name: str, done: int, total: int) -> None:
        """`done` of `total` questions of a set are asked; the bar goes when all are."""
        if not self.bars.task_ids:
            self.bars.start()
            self.bars.add_task(name, total=total)
        self.bars.update(self.bars.task_ids[0], completed=done)
        if done == total:
            self.close()

    def close(self) -> None:
        self.bars.stop()
        for task in self.bars.task_ids:
            self.bars.remove_task(task)

    def __enter__(self) -> TableProgress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def show_table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None) -> None:
    """Print a table on stdout. Cells are shown as they are: brackets are no markup."""
    table = Table(*columns, title=title, box=box.SIMPLE_HEAD, title_justify="left")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    out().print(table)
