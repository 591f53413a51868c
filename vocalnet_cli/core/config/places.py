"""Where the toolkit keeps what it makes, unless told otherwise."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path


def cache_folder() -> Path:
    """What can be computed again: `$VOCALNET_CACHE`, or `cache` in the working directory."""
    return Path(os.environ.get("VOCALNET_CACHE") or "cache")


def run_folder(recipe_name: str) -> Path:
    """Run of a recipe by its `family/name`: checkpoints/, metrics.jsonl, recipe.yaml, and model/ when it is finished."""
    return Path("runs") / recipe_name


NANO = "nano"
"""Name of the model the package carries."""


def nano_folder() -> Path:
    """Folder of the embedded model, with the recorded question `question.wav` beside its weights."""
    return Path(str(files("vocalnet_cli"))) / "assets" / "nano"
