"""What is there before a table is run, and what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vocalnet_cli.core.errors import MissingWeights, RecipeError, UsageError, VocalnetError
from vocalnet_cli.core.evaluation.benchmarks import load_benchmarks
from vocalnet_cli.core.evaluation.wer import recogniser_identity
from vocalnet_cli.core.experiments.grid import Cell, Grid
from vocalnet_cli.core.training.estimate import dry_run
from vocalnet_cli.core.training.init import how_to_get, missing_init
from vocalnet_cli.core.training.stage_plan import parts_to_train


def plan(grid: Grid, device: str) -> dict[str, Any]:
    """What a run would do, from sizes and folders alone:

    `{"paper", "table", "family", "output", "rows": {ROW: {"recipe", "trainable", "seeds": {SEED: what is left}}},
    "missing": [{"weights", "parts", "rows", "command"}]}`
    """
    rows: dict[str, Any] = {}
    for cell in grid.asked:
        if cell.row.name not in rows:
            trainable = dry_run(cell.loaded, device)["trainable"]
            rows[cell.row.name] = {"recipe": cell.row.recipe, "trainable": trainable, "seeds": {}}
        rows[cell.row.name]["seeds"][str(cell.seed)] = cell.left
    return {
        "paper": grid.table.paper,
        "table": grid.table.table,
        "family": grid.table.family,
        "output": str(grid.output),
        "rows": rows,
        "missing": missing_weights(grid),
    }


def missing_weights(grid: Grid) -> list[dict[str, Any]]:
    """Weights that the cells still to train start from and that are not on this machine, each with the command that gets them."""
    found: dict[str, dict[str, Any]] = {}
    for cell in _to_train(grid).values():
        for where, parts in missing_init(cell.loaded.recipe, cell.row.recipe).items():
            entry = found.setdefault(where, {"weights": where, "parts": [], "rows": [], "command": how_to_get(where)})
            entry["parts"] += [part for part in parts if part not in entry["parts"]]
            entry["rows"].append(cell.row.name)
    return list(found.values())


def check_ready(grid: Grid) -> None:
    """Raise before anything is trained if a row cannot be: parts that learn, weights, corpus, question sets."""
    training = _to_train(grid)
    for cell in training.values():
        parts_to_train(cell.loaded)
    name = f"table {grid.table.table} of {grid.table.paper}, family {grid.table.family}"
    if missing := missing_weights(grid):
        raise MissingWeights(
            f"{name} starts from weights that are not on this machine: "
            + ", ".join(f"{one['weights']} ({', '.join(one['parts'])})" for one in missing),
            f"Get them first: {'; '.join(dict.fromkeys(one['command'] for one in missing))}",
        )
    manifests = dict.fromkeys(cell.loaded.recipe.data.manifest for cell in training.values())
    absent = [manifest for manifest in manifests if not Path(manifest).is_file()]
    if absent:
        raise VocalnetError(
            f"{name} is trained on a corpus that is not on this machine: {', '.join(absent)}",
            "`vocalnet prep` writes one: DIR/manifest.jsonl; name it with --set data.manifest=DIR/manifest.jsonl.",
        )
    sets = {tuple(cell.loaded.recipe.eval.benchmarks): cell.row.recipe for cell in grid.asked if cell.left != "done"}
    for benchmarks, recipe in sets.items():
        check_benchmarks(recipe, benchmarks)


def _to_train(grid: Grid) -> dict[str, Cell]:
    """The first cell of each row that has one to train."""
    cells: dict[str, Cell] = {}
    for cell in grid.asked:
        if cell.left in ("train", "resume"):
            cells.setdefault(cell.row.name, cell)
    return cells


def check_benchmarks(recipe: str, names: Sequence[str]) -> None:
    """Raise before a model is trained that could not be measured: no such question set, or no recogniser installed."""
    try:
        load_benchmarks(names)
    except UsageError as error:
        raise RecipeError(f"recipe {recipe}, eval.benchmarks: {error.problem.removeprefix('--benchmark ')}", error.hint) from error
    recogniser_identity([])
