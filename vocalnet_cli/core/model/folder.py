"""What a model's folder says about itself, read without loading a weight."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from vocalnet_cli.core.config.load import resolved_name
from vocalnet_cli.core.config.places import EMBEDDED, embedded_folder
from vocalnet_cli.core.config.schema import ModelSettings, PartsElsewhere
from vocalnet_cli.core.config.vocoder_schema import RELEASED_CONFIGS, VocoderElsewhere
from vocalnet_cli.core.errors import MissingWeights, VocalnetError

FORMAT = "vocalnet-1"
PARTS = ("encoder", "adaptor", "thinker", "talker", "vocoder")

VOCODER_PARTS = {"speech-tokenizer": "tokenizer", "flow": "flow", "hift": "hift"}
"""Parts of a vocoder that are trained, and come from a folder, by themselves; and the module of each."""

VOICES_FILE = "voices.safetensors"
"""Voices a vocoder knows by name, beside its weights (model/vocoder/voices.py)."""

LOOKUP_FILE = "lookup.safetensors"
"""Bank of training questions (evaluation/lookup.py). It may lie beside the weights and is none of them."""

_BLOCK = 1 << 20


def is_vocoder(folder: Path) -> bool:
    """Whether a folder is laid out as CosyVoice2 is on the hub."""
    return any((folder / name).is_file() for name in RELEASED_CONFIGS)


def read_config(folder: Path) -> dict[str, Any]:
    """Settings of a folder, ours or in the released layout: `model`, and `generation` defaults; `vocoder` (VocoderElsewhere) where
    the model names one it does not carry, `shares` (PartsElsewhere) where parts come from another model, whose settings are then
    in `model` and `generation` too. Raises MissingWeights or VocalnetError.
    """
    path = folder / "config.json"
    if not path.is_file():
        if is_vocoder(folder):
            raise VocalnetError(f"{folder}: this is a vocoder, not a model that answers", f"Name it beside the model: --vocoder {folder}")
        raise MissingWeights(f"{folder}: no model there (config.json is missing)", "Name a folder written by `vocalnet train`, or `nano`.")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(config, dict) or config.get("format") != FORMAT:
            return _released(folder, path, config)
        if "shares" in config:
            config = _with_shared(folder, config)
        config["model"] = ModelSettings.model_validate(config["model"])
        if "vocoder" in config:
            config["vocoder"] = VocoderElsewhere.model_validate(config["vocoder"])
    except (json.JSONDecodeError, UnicodeDecodeError, ValidationError, KeyError) as error:
        first = str(error).splitlines()[0]
        raise VocalnetError(f"{path}: not a model description ({first})", "The file is damaged: copy or train the model again.") from error
    return config


def _with_shared(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """A raw config.json with the settings of the model it shares parts with, its own before those."""
    shares = PartsElsewhere.model_validate(config["shares"])
    place = _place(shares.model)
    if not (place / "config.json").is_file():
        raise MissingWeights(f"{folder}: takes parts from {shares.model}, which is not there", "Put it there, or name another model.")
    if not (place / "thinker.safetensors").is_file() or "format" not in (theirs := read_config(place)):
        raise VocalnetError(
            f"{folder}: takes parts from {shares.model}, which does not carry them", "Name a folder that `vocalnet train` wrote."
        )
    if weights_mark(place / "thinker.safetensors") != shares.thinker_mark:
        raise VocalnetError(
            f"{folder}: its talker reads another thinker than that of {shares.model}",
            "Train the talker on this thinker, then write it with `vocalnet models store MODEL talker --beside`.",
        )
    model = theirs["model"].model_dump(mode="json") | config["model"]
    generation = (theirs.get("generation") or {}) | (config.get("generation") or {})
    elsewhere = {"vocoder": theirs["vocoder"].model_dump()} if "vocoder" in theirs else {}
    return elsewhere | config | {"shares": shares, "model": model, "generation": generation}


def _place(model: str) -> Path:
    return embedded_folder(model) if model in EMBEDDED else Path(model)


def home(folder: Path, name: str) -> Path:
    """The folder that holds a file of a model: the model's own, or that of the one it shares parts with, if only that has it."""
    path = folder / "config.json"
    if (folder / name).is_file() or not path.is_file():
        return folder
    try:
        shared = _place(str(json.loads(path.read_text(encoding="utf-8"))["shares"]["model"]))
    except (ValueError, KeyError, TypeError):
        return folder  # damaged ones are told by `read_config`
    return shared if (shared / name).is_file() else folder


def _released(folder: Path, path: Path, config: Any) -> dict[str, Any]:
    from vocalnet_cli.core.model.released import is_released, released_config  # with it comes transformers, which takes seconds

    if isinstance(config, dict) and is_released(config):
        return released_config(folder, config)
    raise VocalnetError(
        f"{path}: format is not {FORMAT!r}, and it is no released VocalNet checkpoint",
        "Name a folder written by `vocalnet train`, or a released checkpoint.",
    )


def recipe_of(folder: Path) -> str | None:
    """Name of the recipe that made a model: what its config.json says, else that of the run it lies in; None if neither tells.

    Raises what `read_config` raises.
    """
    name = read_config(folder).get("recipe")
    return name if isinstance(name, str) else resolved_name(folder.resolve().parent)


def weights_hash(folder: Path) -> str:
    """SHA-256 over the names and contents of all that decides a model's answers: weights, settings, tokenizer, chat template."""
    files = _deciding(folder)
    shared = home(folder, "thinker.safetensors")
    if shared != folder:
        own = {path.name for path in files} - {"config.json"}
        files += [path for path in _deciding(shared) if path.name not in own]
    return sha256_of(files)


def _deciding(folder: Path) -> list[Path]:
    weights = [path for path in folder.glob("*.safetensors") if path.name != LOOKUP_FILE]
    return [*sorted(weights), *sorted(folder.glob("*.json")), *sorted(folder.glob("*.jinja"))]


def encoder_hash(folder: Path) -> str:
    """SHA-256 of a model's encoder weights; of all its weights where the encoder has no file of its own (released checkpoints)."""
    own = home(folder, "encoder.safetensors") / "encoder.safetensors"
    return sha256_of([own]) if own.is_file() else weights_hash(folder)


def weights_mark(path: Path) -> str:
    """SHA-256 over the size, start and end of a file of weights: tells trained weights apart without reading gigabytes."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(_BLOCK)
        file.seek(max(0, size - _BLOCK))
        return hashlib.sha256(f"{size}\n".encode() + start + file.read(_BLOCK)).hexdigest()


def sha256_of(paths: Iterable[Path]) -> str:
    """SHA-256 over the names, sizes and contents of files."""
    total = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            total.update(f"{path.name} {path.stat().st_size}\n".encode())
            while block := file.read(_BLOCK):
                total.update(block)
    return total.hexdigest()
