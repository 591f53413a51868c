"""The runs of a table: one cell for each row and seed, each a run folder that says how far it is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vocalnet_cli.core.config.load import LoadedRecipe, load_recipe
from vocalnet_cli.core.data.record import write_text_atomically
from vocalnet_cli.core.errors import UsageError, VocalnetError
from vocalnet_cli.core.experiments.places import CELL_FILE, table_folder
from vocalnet_cli.core.experiments.table import Row, Table
from vocalnet_cli.core.training.loop import DONE_MARK

Left = Literal["train", "resume", "evaluate", "done"]
"""What is still to do for a cell, from its start; nothing in the end."""

_TOLD = ("about", "paper", "tried")
"""Sections of a recipe that only tell: they change no result."""


def stored(folder: Path) -> dict[str, Any]:
    """What the cell.json of a run folder holds; nothing before the first run. Raises VocalnetError if it is damaged."""
    path = folder / CELL_FILE
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise VocalnetError(f"{path}: not a result ({str(error).splitlines()[0]})", "Remove that file to measure the run again.") from error
    return facts if isinstance(facts, dict) else {}


@dataclass(frozen=True)
class Cell:
    """One row with one seed."""

    row: Row
    seed: int
    folder: Path
    """Run folder, as `vocalnet train -o` makes it, with cell.json and eval/ beside the model."""
    loaded: LoadedRecipe

    def __str__(self) -> str:
        return f"{self.row.name}, seed {self.seed}"

    @property
    def model(self) -> Path:
        return self.folder / "model"

    @property
    def left(self) -> Left:
        if "scores" in self.stored():
            return "done"
        if (self.model / "config.json").is_file():
            return "evaluate"
        return "resume" if any(self.folder.glob(f"checkpoints/*/{DONE_MARK}")) else "train"

    def stored(self) -> dict[str, Any]:
        """What cell.json holds (see `stored`)."""
        return stored(self.folder)

    def store(self, **facts: Any) -> None:
        """Add to cell.json, whole or not at all."""
        text = json.dumps({**self.stored(), **facts}, ensure_ascii=False, indent=1)
        write_text_atomically(self.folder / CELL_FILE, text + "\n")

    def refuse_other_recipe(self) -> None:
        """Raise VocalnetError if the folder holds a run of other settings than the recipe resolves to now (and has a step to lose)."""
        saved = self.folder / "recipe.yaml"
        if self.left == "train" or not saved.is_file():
            return
        # Loaded again, so that settings the schema has learned since then have their defaults in both.
        before, now = settings_of(load_recipe(str(saved)).resolved), settings_of(self.loaded.resolved)
        changed = [f"{key} was {before.get(key)}, is {now.get(key)}" for key in {**before, **now} if before.get(key) != now.get(key)]
        if changed:
            more = f" ({len(changed) - 1} more)" if len(changed) > 1 else ""
            raise VocalnetError(
                f"{self.folder} was run with other settings than {self.row.recipe} has now: {changed[0]}{more}",
                "Choose another folder with -o, or undo the change.",
            )


@dataclass(frozen=True)
class Grid:
    """What one `vocalnet recipes run` is about."""

    table: Table
    output: Path
    asked: list[Cell]
    """Cells to run: all rows with the first seed, then with the next, so that the whole table is there early."""
    others: list[Cell]
    """Further cells of the table the folder already holds: they are summed up too."""

    @property
    def cells(self) -> list[Cell]:
        return [*self.asked, *self.others]


def make_grid(table: Table, rows: Sequence[Row], seeds: int, output: Path | None, overrides: Sequence[str]) -> Grid:
    """Cells of `rows` with the seeds 0 to `seeds` - 1 under `output` (default runs/tables/FAMILY-PAPER-tableN).

    Raises RecipeError for overrides that cannot be, UsageError for one of the seed, and VocalnetError if a cell's folder holds
    a run of other settings.
    """
    if any(override.partition("=")[0].strip() == "train.seed" for override in overrides):
        raise UsageError("--set train.seed: every run of a table has a seed of its own", "Say how many seeds with --seeds.")
    folder = output or table_folder(table.family, table.paper, table.table)
    wanted = [(row, seed) for seed in range(seeds) for row in rows]
    found = [(row, seed) for row in table.rows for seed in _seeds_in(folder / row.name) if (row, seed) not in wanted]

    def cell(row: Row, seed: int) -> Cell:
        return Cell(row, seed, folder / row.name / f"seed-{seed}", load_recipe(row.recipe, [*overrides, f"train.seed={seed}"]))

    grid = Grid(table, folder, [cell(*one) for one in wanted], [cell(*one) for one in found])
    for one in grid.cells:
        one.refuse_other_recipe()
    return grid


def _seeds_in(folder: Path) -> list[int]:
    """Seeds of the runs a row's folder holds, smallest first."""
    names = [path.parent.name for path in folder.glob("seed-*/recipe.yaml")]
    return sorted(int(seed) for name in names if (seed := name.removeprefix("seed-")).isdecimal())


def settings_of(resolved: dict[str, Any]) -> dict[str, Any]:
    """The settings of a resolved recipe that change a result, by dotted name."""
    return _flat({key: section for key, section in resolved.items() if key not in _TOLD})


def _flat(values: dict[str, Any], path: str = "") -> dict[str, Any]:
    """`{"train": {"lr": 1}}` as `{"train.lr": 1}`."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{path}.{key}" if path else key
        flat.update(_flat(value, name) if isinstance(value, dict) and value else {name: value})
    return flat
