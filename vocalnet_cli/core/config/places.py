"""Where the toolkit keeps what it makes, unless told otherwise."""

from __future__ import annotations

import os
import shutil
from importlib.resources import files
from pathlib import Path


def cache_folder() -> Path:
    """What can be computed again: `$VOCALNET_CACHE`, or `cache` in the working directory."""
    return Path(os.environ.get("VOCALNET_CACHE") or "cache")


def run_folder(recipe_name: str) -> Path:
    """Run of a recipe by its `family/name`: checkpoints/, metrics.jsonl, recipe.yaml, and model/ when it is finished."""
    return Path("runs") / recipe_name


NANO = "nano"
EMBEDDED = {
    NANO: "embedded model, trained from nothing, English",
    "nano-mdm": "nano with a masked-diffusion talker and vocoder of its own; its other parts are nano's",
}
"""The models of the package, and what they are."""


def embedded_folder(name: str) -> Path:
    """Folder of a model of EMBEDDED."""
    return Path(str(files("vocalnet_cli"))) / "assets" / name


def default_voice() -> Path:
    """Recording of the voice of a CosyVoice2 folder that has none of its own."""
    return Path(str(files("vocalnet_cli"))) / "assets" / "voice" / "voice.flac"


def is_embedded(name: str) -> bool:
    """Whether the package carries a model of this name here."""
    return name in EMBEDDED and (embedded_folder(name) / "config.json").is_file()


def nano_folder() -> Path:
    """Folder of the embedded model, with the recorded question `question.wav` beside its weights."""
    return embedded_folder(NANO)


def model_name(folder: Path) -> str:
    """How `--model` takes the model of a folder: an embedded one by its name."""
    return next((name for name in EMBEDDED if folder == embedded_folder(name)), str(folder))


def link_or_copy(source: Path, target: Path) -> None:
    """`target`, which is not there yet, as another name of a file; as a copy where the disk has no links. Raises OSError if it refuses."""
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)
