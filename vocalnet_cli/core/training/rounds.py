"""`vocalnet distill`: rounds of a `distill` recipe, in each of which the last round's student is the teacher."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vocalnet_cli.core.config.load import load_recipe
from vocalnet_cli.core.config.places import run_folder
from vocalnet_cli.core.errors import RecipeError
from vocalnet_cli.core.training.run import run_training


def distil(recipe: str, overrides: Sequence[str], output: Path | None, device: str, resume: bool, quiet: bool) -> dict[str, Any]:
    """Train all rounds of a recipe: the last into `output` (default runs/RECIPE), those before into its round-1, round-2, ...

    With `resume`, finished rounds are kept and the one that was stopped goes on. Returns what `run_training` returns of the last round,
    and `rounds`. Raises RecipeError for a recipe of another stage, and what `run_training` raises.
    """
    loaded = load_recipe(recipe, overrides)
    if loaded.recipe.stage != "distill":
        raise RecipeError(
            f"recipe {loaded.name} has stage {loaded.recipe.stage}: nothing is distilled there",
            f"Run: vocalnet train --recipe {loaded.name}",
        )
    folder = output or run_folder(loaded.name)
    rounds = loaded.recipe.distill.rounds
    for number in range(1, rounds):
        here = folder / f"round-{number}"
        if not (resume and (here / "model" / "config.json").is_file()):
            run_training(loaded, here, device, resume, quiet)
        loaded = load_recipe(recipe, [*overrides, f"init.talker={here / 'model'}"])
    return {**run_training(loaded, folder, device, resume, quiet), "rounds": rounds}
