"""Rows that differ only in how answers are drawn train the same model: it is trained once a seed."""

from __future__ import annotations

import json
import shutil
from typing import Any

from vocalnet_cli.core.config.load import save_resolved
from vocalnet_cli.core.experiments.grid import Cell, Grid, settings_of
from vocalnet_cli.core.model.tensor_file import whole_folder

_LATER = ("generation.", "eval.")
"""Settings that training does not read."""
_COPIED = ("metrics.jsonl", "origin.json")


def twin_of(grid: Grid, cell: Cell) -> Cell | None:
    """A cell of the grid that has trained what `cell` is about to train: same seed, same settings but those read after training."""
    wanted = _training(cell)
    trained = (one for one in grid.cells if one is not cell and (one.model / "config.json").is_file())
    return next((one for one in trained if _training(one) == wanted), None)


def take_over(twin: Cell, cell: Cell) -> None:
    """Make `cell` a finished run with the model of `twin`, its own way to draw answers, and a note in cell.json of where it came from."""
    cell.folder.mkdir(parents=True, exist_ok=True)
    save_resolved(cell.loaded, cell.folder)
    for name in _COPIED:
        if (twin.folder / name).is_file():
            shutil.copyfile(twin.folder / name, cell.folder / name)
    cell.store(trained_as=str(twin), train_seconds=twin.stored().get("train_seconds", 0.0))
    with whole_folder(cell.model) as new:
        shutil.copytree(twin.model, new, dirs_exist_ok=True)
        config = json.loads((new / "config.json").read_text(encoding="utf-8"))
        config |= {"generation": cell.loaded.recipe.generation.model_dump(mode="json"), "recipe": cell.loaded.name}
        (new / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def _training(cell: Cell) -> dict[str, Any]:
    return {key: value for key, value in settings_of(cell.loaded.resolved).items() if not key.startswith(_LATER)}
