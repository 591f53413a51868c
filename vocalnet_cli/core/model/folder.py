"""What a model's folder says about itself, read without loading a weight."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from vocalnet_cli.core.config.load import resolved_name
from vocalnet_cli.core.config.schema import ModelSettings
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
    the model names one it does not carry. Raises MissingWeights or VocalnetError.
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
        config["model"] = ModelSettings.model_validate(config["model"])
        if "vocoder" in config:
            config["vocoder"] = VocoderElsewhere.model_validate(config["vocoder"])
    except (json.JSONDecodeError, UnicodeDecodeError, ValidationError, KeyError) as error:
        first = str(error).splitlines()[0]
        raise VocalnetError(f"{path}: not a model description ({first})", "The file is damaged: copy or train the model again.") from error
    return config


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
    weights = [path for path in folder.glob("*.safetensors") if path.name != LOOKUP_FILE]
    return sha256_of([*sorted(weights), *sorted(folder.glob("*.json")), *sorted(folder.glob("*.jinja"))])


def encoder_hash(folder: Path) -> str:
    """SHA-256 of a model's encoder weights; of all its weights where the encoder has no file of its own (released checkpoints)."""
    own = folder / "encoder.safetensors"
    return sha256_of([own]) if own.is_file() else weights_hash(folder)


def sha256_of(paths: Iterable[Path]) -> str:
    """SHA-256 over the names, sizes and contents of files."""
    total = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            total.update(f"{path.name} {path.stat().st_size}\n".encode())
            while block := file.read(_BLOCK):
                total.update(block)
    return total.hexdigest()
