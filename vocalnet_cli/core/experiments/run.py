"""Train, measure and sum up the cells of a table, one after the other."""

from __future__ import annotations

import gc
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from vocalnet_cli.core.data.claim import claimed
from vocalnet_cli.core.errors import Interrupted, VocalnetError
from vocalnet_cli.core.evaluation.benchmarks import load_benchmarks
from vocalnet_cli.core.evaluation.measure import Watch as Watching
from vocalnet_cli.core.evaluation.measure import measure
from vocalnet_cli.core.experiments.grid import Cell, Grid
from vocalnet_cli.core.experiments.plan import check_ready
from vocalnet_cli.core.experiments.share import claim_of, take_over, twin_of
from vocalnet_cli.core.experiments.summary import losses_of, scores_of, write_results
from vocalnet_cli.core.training.run import run_training

_LOOK_AGAIN_S = 2.0


@dataclass(frozen=True)
class Watch:
    """Who is told what happens."""

    note: Callable[[str], None]
    """A line for people: which cell is run, how it went."""
    failed: Callable[[str], None]
    """A line about what went wrong."""
    asked: Callable[[str, int, int], None]
    """Told of each question: benchmark, questions asked, questions in all."""


def run_table(grid: Grid, device: str, again: str, watch: Watch, quiet: bool) -> dict[str, Any]:
    """Run every cell that is not done, and rewrite results.json after each; returns what it holds. Several commands share the work:
    each leaves alone what another works on, and waits for it in the end.

    A cell that fails is told, counted in `failed`, and left behind. Raises what `check_ready` raises before anything is run, and
    Interrupted with the command `again` after SIGINT, or SIGTERM in training, with the state saved.
    """
    check_ready(grid)
    failures: list[dict[str, Any]] = []
    results = write_results(grid, failures)
    pending = list(enumerate(grid.asked, 1))
    told = False
    while pending:
        held = []
        for number, cell in pending:
            if cell.left == "done":
                continue
            with claimed(claim_of(grid, cell)) as ours:
                if not ours:
                    held.append((number, cell))
                elif cell.left != "done":
                    _run_in_turn(grid, number, cell, failures, device, again, watch, quiet)
                    results = write_results(grid, failures)
        if held and len(held) == len(pending):
            if not told:
                watch.note(f"{len(held)} runs wait for another command that works on them: {held[0][1]}, ...")
            told = True
            time.sleep(_LOOK_AGAIN_S)
        pending = held
    return write_results(grid, failures) if told else results


def _run_in_turn(
    grid: Grid, number: int, cell: Cell, failures: list[dict[str, Any]], device: str, again: str, watch: Watch, quiet: bool
) -> None:
    left, place = cell.left, f"[{number} of {len(grid.asked)}] {cell}"
    watch.note(f"{place}: {left}{_time_left(grid, number - 1)}")
    try:
        if left == "train" and (twin := twin_of(grid, cell)):
            watch.note(f"{cell} is trained as {twin.name}, and measured in its own way")
            take_over(twin, cell)
        run_cell(cell, device, watch, quiet)
    except Interrupted as error:
        raise Interrupted(f"{cell}: {error.problem}", f"Continue with: {again}") from error
    except KeyboardInterrupt as error:
        raise Interrupted(f"{cell}: interrupted, state saved in {cell.folder}", f"Continue with: {again}") from error
    except (VocalnetError, RuntimeError, ValueError) as error:  # one bad run must not lose the others
        reason = error.problem if isinstance(error, VocalnetError) else " ".join(f"{type(error).__name__}: {error}".split())
        watch.failed(f"{cell}: {reason}")
        failures.append({"row": cell.row.name, "seed": cell.seed, "error": reason})
    else:
        watch.note(f"{place}: {_outcome(cell)}")


def run_cell(cell: Cell, device: str, watch: Watch, quiet: bool) -> None:
    """Do what is left of a cell: train it as `vocalnet train` does, measure it, write its scores to cell.json.

    Checkpoints are removed once the model is there. Raises VocalnetError if a question could not be answered, and what training raises.
    """
    if cell.left in ("train", "resume"):
        with _timed(cell, "train_seconds"):
            run_training(cell.loaded, cell.folder, device, resume=True, quiet=quiet)
        gc.collect()  # the trainer and its model hold each other: they would lie beside those of the next cell
    shutil.rmtree(cell.folder / "checkpoints", ignore_errors=True)
    wanted = cell.loaded.recipe.eval
    with _timed(cell, "eval_seconds"):
        measured = measure(
            cell.model,
            load_benchmarks(wanted.benchmarks),
            limit=wanted.limit,
            device=device,
            seed=cell.seed,
            output=cell.folder / "eval",
            watch=Watching(fail=watch.failed, advance=watch.asked),
        )
    failed = sum(one["failed"] for one in measured["benchmarks"].values())
    if failed:
        raise VocalnetError(f"{failed} questions could not be answered", "Run the same command again to ask them again.")
    cell.store(**losses_of(cell.folder / "metrics.jsonl"), **scores_of(measured), scores=measured)


@contextmanager
def _timed(cell: Cell, name: str) -> Iterator[None]:
    """Add the seconds spent, in this session and in those before that were stopped."""
    start = time.monotonic()
    try:
        yield
    finally:
        cell.store(**{name: round(cell.stored().get(name, 0.0) + time.monotonic() - start, 1)})


def _time_left(grid: Grid, passed: int) -> str:
    """`, about 12 min left` once a cell is done: those to come take what those of their row took, or else the mean."""
    took = [(cell.row.name, _seconds(cell)) for cell in grid.cells if cell.left == "done"]
    if not took:
        return ""
    seconds = 0.0
    for cell in grid.asked[passed:]:
        if cell.left != "done":
            own = [spent for row, spent in took if row == cell.row.name]
            seconds += statistics.fmean(own or [spent for _, spent in took])
    return f", about {seconds / 60:.0f} min left" if seconds >= 60 else f", about {seconds:.0f} s left"


def _seconds(cell: Cell) -> float:
    stored = cell.stored()
    return sum(stored.get(name, 0.0) for name in ("train_seconds", "eval_seconds"))


def _outcome(cell: Cell) -> str:
    stored = cell.stored()
    told = [f"{label} {stored[name]:.1f} %" for name, label in (("wer", "WER"), ("s2s", "speech right")) if name in stored]
    return ", ".join([*told, f"loss {stored['loss']:.3f}"] if "loss" in stored else told) or "done"
