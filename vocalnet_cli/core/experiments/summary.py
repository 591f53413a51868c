"""The cells of a table as one object and one table: means, and deviations over the seeds."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

from vocalnet_cli import __version__
from vocalnet_cli.core.data.record import write_text_atomically
from vocalnet_cli.core.experiments.grid import Cell, Grid
from vocalnet_cli.core.experiments.places import RESULTS_FILE
from vocalnet_cli.core.training.run_log import PACKAGES, read_metrics

SCORES = ("wer", "s2t", "s2s", "truncated")
"""Rates in percent, as `vocalnet eval` names them."""
FIGURES = (*SCORES, "loss", "dev_loss", "train_seconds", "eval_seconds")
"""What a run has one number of."""
COLUMNS = ("row", "the paper's", "n", "WER %", "text right %", "speech right %", "cut off %", "loss")

_DIGITS = 4


def scores_of(measured: Mapping[str, Any]) -> dict[str, float]:
    """SCORES of one `eval --json` object, each the mean over its question sets (as in the papers, a set counts once).

    A rate that one of the sets does not have is left out.
    """
    sets = [{**one, **one.get("accuracy", {})} for one in measured["benchmarks"].values()]
    return {name: round(statistics.fmean(one[name] for one in sets), _DIGITS) for name in SCORES if all(name in one for one in sets)}


def losses_of(metrics: Path) -> dict[str, float]:
    """Last training loss, and last dev loss if one was measured, of a metrics.jsonl."""
    lines = read_metrics(metrics)
    return {name: line[name] for name in ("loss", "dev_loss") for line in lines if name in line}


def summarise(grid: Grid, failures: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Everything the folder holds of the table, whichever command made it; `failures` are this command's (row, seed, error).

    Rows that were neither asked for nor run are left out. `std` is the sample deviation: absent with one run.
    """
    asked = {cell.row.name for cell in grid.cells}
    rows = {}
    for row in grid.table.rows:
        if row.name not in asked:
            continue
        cells = sorted((cell for cell in grid.cells if cell.row == row), key=lambda cell: cell.seed)
        rows[row.name] = {
            "recipe": row.recipe,
            "paper_row": row.paper.row,
            "paper_expect": row.paper.expect,
            **_spread([run for cell in cells if (run := _run(cell))]),
        }
    return {
        "paper": grid.table.paper,
        "table": grid.table.table,
        "family": grid.table.family,
        "seeds": sorted({cell.seed for cell in grid.cells}),
        "rows": rows,
        "failed": list(failures),
        "versions": {"vocalnet": __version__, **{name: version(name) for name in PACKAGES}},
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def write_results(grid: Grid, failures: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Sum up into results.json, whole or not at all, and return what it holds."""
    results = summarise(grid, failures)
    write_text_atomically(grid.output / RESULTS_FILE, json.dumps(results, ensure_ascii=False, indent=1) + "\n")
    return results


def _run(cell: Cell) -> dict[str, Any]:
    """The numbers of a finished cell; nothing of another."""
    stored = cell.stored()
    return {"seed": cell.seed, **{name: stored[name] for name in FIGURES if name in stored}} if "scores" in stored else {}


def _spread(runs: list[dict[str, Any]]) -> dict[str, Any]:
    values = {name: [run[name] for run in runs if name in run] for name in FIGURES}
    spread: dict[str, Any] = {"runs": runs}
    spread["mean"] = {name: round(statistics.fmean(of), _DIGITS) for name, of in values.items() if of}
    if len(runs) > 1:
        spread["std"] = {name: round(statistics.stdev(of), _DIGITS) for name, of in values.items() if len(of) > 1}
    return spread


def table(results: Mapping[str, Any]) -> list[Sequence[object]]:
    """A line a row, for COLUMNS: the paper's figures, and ours as mean ± deviation."""
    return [
        (
            name,
            ", ".join(f"{key} {value:g}" for key, value in row["paper_expect"].items()) or "-",
            len(row["runs"]),
            *(_shown(row, figure, 1) for figure in SCORES),
            _shown(row, "loss", 3),
        )
        for name, row in results["rows"].items()
    ]


def _shown(row: Mapping[str, Any], figure: str, digits: int) -> str:
    if figure not in row["mean"]:
        return "-"
    deviation = row.get("std", {}).get(figure)
    return f"{row['mean'][figure]:.{digits}f}" + (f" ± {deviation:.{digits}f}" if deviation is not None else "")
