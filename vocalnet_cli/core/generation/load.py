"""Find a model that can answer, and how it wants its answers drawn."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vocalnet_cli.core.config.find import find_recipe, recipe_name
from vocalnet_cli.core.config.load import check_tree
from vocalnet_cli.core.config.places import NANO, nano_folder, run_folder
from vocalnet_cli.core.config.schema import GenerationSettings
from vocalnet_cli.core.config.yaml_tree import parse
from vocalnet_cli.core.errors import MissingWeights, RecipeError, UsageError, VocalnetError
from vocalnet_cli.core.model.folder import read_config

if TYPE_CHECKING:
    import torch

    from vocalnet_cli.core.model.speech_llm import SpeechLLM


def find_model(model: str | None, recipe: str | None = None, fetch: bool = True) -> Path:
    """Folder of a model by name: none or `nano` is the embedded one; else a folder, ours or of the released layout, or a hub id.

    A hub id is looked for in the local cache first, then fetched (unless told not to `fetch`) with the library's progress bars.
    With `recipe`, the model of that recipe's finished run instead. Raises MissingWeights for anything that cannot be had,
    RecipeError for a recipe that is not there, UsageError for both names at once.
    """
    if recipe is not None:
        if model is not None:
            raise UsageError(f"--model {model} and --recipe {recipe} both name a model", "Give one of the two.")
        return _finished_run(recipe)
    if model is None or model == NANO:
        return nano_folder()
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    from vocalnet_cli.core.model import hub

    if hub.is_hub_id(model):
        here = hub.cached(model)
        if here is None and not fetch:
            raise MissingWeights(f"{model}: not on this machine", f"Get it with `vocalnet models pull {model}`.")
        return here or hub.pull(model)
    raise MissingWeights(
        f"model {model!r}: no such folder, and no model of that name is on this machine",
        "Answer with the embedded model (--model nano), name a folder written by `vocalnet train`, or a hub id (`vocalnet models`).",
    )


def _finished_run(recipe: str) -> Path:
    name = recipe_name(find_recipe(recipe))
    run = run_folder(name)
    if not (run / "model").is_dir():
        resume = " --resume" if (run / "checkpoints").is_dir() else ""
        raise MissingWeights(
            f"recipe {name}: no finished run, there is no {run / 'model'}", f"Train it first: vocalnet train --recipe {recipe}{resume}"
        )
    return run / "model"


def carried_question() -> Path:
    """The recorded question the package carries."""
    return nano_folder() / "question.wav"


def generation_settings(folder: Path, overrides: Sequence[str] = ()) -> GenerationSettings:
    """How the model of a folder wants its answers drawn (`generation` in config.json), changed by `generation.x=y` overrides.

    Raises UsageError for an override of anything else (the rest of a trained model is fixed), RecipeError for a value that
    cannot be, and what `read_config` raises.
    """
    config = read_config(folder)
    for override in overrides:
        if not override.lstrip().startswith("generation."):
            raise UsageError(
                f"--set {override}: only generation.KEY=VALUE can be set here", "`vocalnet recipes` tells what a recipe can set."
            )
    # As a recipe, so that a model's own defaults and the overrides are checked and told like any other setting.
    recipe = {"stage": "speak", "model": config["model"].model_dump(mode="json"), "generation": config.get("generation") or {}}
    mistakes: list[str] = []
    tree = parse(json.dumps(recipe), str(folder / "config.json"), mistakes, numbered=False)
    checked = check_tree(tree, overrides, mistakes)
    if mistakes or checked is None:
        raise RecipeError("\n".join(mistakes), "Fix it and run again; `vocalnet recipes NAME` prints every key of `generation`.")
    return checked.generation


def load_answerer(folder: Path, device: torch.device, dtype: torch.dtype, quantize: str | None = None) -> SpeechLLM:
    """The model of a folder on a device, ready to answer; without a vocoder it answers in text and speech tokens.

    `quantize` is `8bit`, `4bit` or none (see `quantize.quantized`). Raises VocalnetError for `compat: official`, whose defects are of
    use to parity tests only.
    """
    from vocalnet_cli.core.model.quantize import quantized
    from vocalnet_cli.core.model.weights import load_model

    model = load_model(folder, device, dtype)
    if model.settings.compat == "official":
        raise VocalnetError(f"{folder}: compat is 'official', which is for parity tests", "Set model.compat to 'released' in config.json.")
    return quantized(model, quantize) if quantize else model


def load_speaker(folder: Path, device: torch.device, dtype: torch.dtype) -> SpeechLLM:
    """As `load_answerer`, ready to answer aloud. Raises MissingWeights if the model has no vocoder."""
    model = load_answerer(folder, device, dtype)
    if model.vocoder is None:
        raise MissingWeights(f"{folder}: this model has no vocoder, so it cannot speak", "Answer with the embedded model: --model nano.")
    return model
