"""Rows that differ only in how answers are drawn train the same model: it is trained once a seed."""

from __future__ import annotations

import json
import shutil
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from vocalnet_cli.core.config.load import LoadedRecipe, load_recipe, save_resolved
from vocalnet_cli.core.config.places import run_folder
from vocalnet_cli.core.experiments.grid import Cell, Grid, settings_of, stored
from vocalnet_cli.core.experiments.places import TABLES
from vocalnet_cli.core.model.tensor_file import whole_folder

_LATER = ("generation.", "eval.")
"""Settings that training does not read."""
_COPIED = ("metrics.jsonl", "origin.json")


class Twin(NamedTuple):
    """A finished run."""

    name: str
    folder: Path


def twin_of(grid: Grid, cell: Cell) -> Twin | None:
    """What has trained already what `cell` is about to train: same seed, same settings but those read after training.

    A cell of the grid, or where the grid lies among the tables of this folder of work, a run of another of them, or of `vocalnet train`
    with the row's recipe; none of those if weights it started from, of a run here, are newer.
    """
    wanted, begun = _training(cell.loaded), _newest_start(cell.loaded)
    twins = [Twin(str(one), one.folder) for one in grid.cells if one is not cell]
    if grid.output.parent == TABLES:
        saved = sorted(path.parent for path in TABLES.glob(f"*/*/{cell.folder.name}/recipe.yaml"))
        elsewhere = [run for run in saved if run.parents[1] != grid.output] + [run_folder(cell.loaded.name)]
        twins += [Twin(str(run), run) for run in elsewhere if _began(run) > begun]
    finished = (twin for twin in twins if (twin.folder / "model" / "config.json").is_file())
    return next((twin for twin in finished if _training(load_recipe(str(twin.folder / "recipe.yaml"))) == wanted), None)


def claim_of(grid: Grid, cell: Cell) -> Path:
    """The lock of what `cell` trains, which its twins in the grid have too: two commands then share a table, and train nothing twice."""
    told = json.dumps(_training(cell.loaded), sort_keys=True, default=str)
    return grid.output / ".locks" / sha256(told.encode()).hexdigest()[:16]


def _newest_start(loaded: LoadedRecipe) -> float:
    """When the last of the runs that `loaded` starts from ended; 0 without such."""
    runs = (Path(where) / "config.json" for where in loaded.recipe.init.values() if Path(where).is_dir())
    return max((path.stat().st_mtime for path in runs if path.is_file()), default=0.0)


def _began(run: Path) -> float:
    """When a run began; kept where its model is taken over."""
    origin = run / "origin.json"
    return origin.stat().st_mtime if origin.is_file() else 0.0


def take_over(twin: Twin, cell: Cell) -> None:
    """Make `cell` a finished run with the model of `twin`, its own way to draw answers, and a note in cell.json of where it came from."""
    cell.folder.mkdir(parents=True, exist_ok=True)
    save_resolved(cell.loaded, cell.folder)
    for name in _COPIED:
        if (twin.folder / name).is_file():
            shutil.copy2(twin.folder / name, cell.folder / name)
    cell.store(trained_as=twin.name, train_seconds=stored(twin.folder).get("train_seconds", 0.0))
    with whole_folder(cell.model) as new:
        shutil.copytree(twin.folder / "model", new, dirs_exist_ok=True)
        config = json.loads((new / "config.json").read_text(encoding="utf-8"))
        config |= {"generation": cell.loaded.recipe.generation.model_dump(mode="json"), "recipe": cell.loaded.name}
        (new / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def _training(recipe: LoadedRecipe) -> dict[str, Any]:
    return {key: value for key, value in settings_of(recipe.resolved).items() if not key.startswith(_LATER)}
