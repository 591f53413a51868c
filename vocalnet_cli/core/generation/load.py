"""Find a model that can answer, and how it wants its answers drawn."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vocalnet_cli.core.config.find import find_recipe, recipe_name
from vocalnet_cli.core.config.load import check_tree
from vocalnet_cli.core.config.places import NANO, embedded_folder, is_embedded, nano_folder, run_folder
from vocalnet_cli.core.config.schema import GenerationSettings
from vocalnet_cli.core.config.vocoder_schema import CosyVoice2Settings, VocoderSettings
from vocalnet_cli.core.config.yaml_tree import parse
from vocalnet_cli.core.errors import MissingWeights, RecipeError, UsageError, VocalnetError
from vocalnet_cli.core.generation.vocoder import NAME_A_VOCODER, find_vocoder, load_vocoder
from vocalnet_cli.core.model.allocator import keep_freed_memory
from vocalnet_cli.core.model.folder import read_config

if TYPE_CHECKING:
    import torch

    from vocalnet_cli.core.model.speech_llm import SpeechLLM


def find_model(model: str | None, recipe: str | None = None, fetch: bool = True) -> Path:
    """Folder of a model by name: of an embedded model, none being `nano`; else a folder, ours or of the released layout, or a hub id.

    A hub id is looked for in the local cache first, then fetched (unless told not to `fetch`) with the library's progress bars.
    With `recipe`, the model of that recipe's finished run instead. Raises MissingWeights for anything that cannot be had,
    RecipeError for a recipe that is not there, UsageError for both names at once.
    """
    if recipe is not None:
        if model is not None:
            raise UsageError(f"--model {model} and --recipe {recipe} both name a model", "Give one of the two.")
        return _finished_run(recipe)
    if model is None or model == NANO or is_embedded(model):
        return embedded_folder(model or NANO)
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


@dataclass(frozen=True)
class Plan:
    """A model and how it is to answer: found and checked, nothing loaded."""

    folder: Path
    """The model's."""
    generation: GenerationSettings
    vocoder: VocoderSettings | None
    """How it speaks; none: it has no vocoder and answers in text and speech tokens."""
    vocoder_folder: Path | None = None
    """CosyVoice2 folder the vocoder's weights come from; none: the model's own."""


def plan_answers(folder: Path, overrides: Sequence[str] = (), vocoder: str | None = None) -> Plan:
    """How the model of a folder answers: as its config.json says, changed by `generation.x=y` and `vocoder.x=y` overrides.

    `vocoder` (a folder or hub id) is the CosyVoice2 it speaks through; none is what `find_vocoder` finds. Raises UsageError for an
    override of anything else (the rest of a trained model is fixed), RecipeError for a value that cannot be, VocalnetError for a vocoder
    of other speech tokens, and what `read_config` and `find_vocoder` raise.
    """
    config = read_config(folder)
    speaks: VocoderSettings | None = config["model"].vocoder
    place = find_vocoder(vocoder, config)
    if place is not None:
        from vocalnet_cli.core.model.vocoder.cosyvoice2.checkpoint import settings_for

        speaks = settings_for(place, config["model"].talker.codes)
    told = speaks.model_dump(mode="json") if speaks is not None else None
    if place is not None and told is not None and "vocoder" in config:
        told |= config["vocoder"].settings
    allowed = [_allowed(override, speaks, folder) for override in overrides]
    # As a recipe, so that a model's own defaults and the overrides are checked and told like any other setting.
    model = config["model"].model_dump(mode="json") | {"vocoder": told}
    recipe = {"stage": "speak", "model": model, "generation": config.get("generation") or {}}
    mistakes: list[str] = []
    tree = parse(json.dumps(recipe), str(folder / "config.json"), mistakes, numbered=False)
    checked = check_tree(tree, allowed, mistakes)
    if mistakes or checked is None:
        lines = "\n".join(mistakes).replace("model.vocoder.", "vocoder.")
        raise RecipeError(lines, "Fix it and run again; `vocalnet recipes NAME` prints every key of `generation` and `model.vocoder`.")
    return Plan(folder, checked.generation, checked.model.vocoder, place)


def _allowed(override: str, speaks: VocoderSettings | None, folder: Path) -> str:
    """The override as a recipe spells it. Raises UsageError if it changes what is fixed."""
    section, _, rest = override.strip().partition(".")
    if section == "vocoder" and rest:
        key = rest.partition("=")[0].strip()
        if speaks is None:
            raise UsageError(f"--set {override}: {folder} has no vocoder", "Name one: --vocoder FOLDER, or a hub id.")
        if key.partition(".")[0] in set(type(speaks).model_fields) - set(speaks.TUNED):
            known = ", ".join(f"vocoder.{name}" for name in speaks.TUNED)
            raise UsageError(f"--set {override}: {key} is fixed by the vocoder's weights", f"What can be set: {known}.")
        return f"model.{override.strip()}"
    if section != "generation":
        raise UsageError(
            f"--set {override}: only generation.KEY=VALUE and vocoder.KEY=VALUE can be set here",
            "`vocalnet recipes` tells what a recipe can set.",
        )
    return override


def generation_settings(folder: Path, overrides: Sequence[str] = ()) -> GenerationSettings:
    """How the model of a folder wants its answers drawn: the `generation` of `plan_answers`, which says what is raised."""
    return plan_answers(folder, overrides).generation


def load_answerer(model: Plan | Path, device: torch.device, dtype: torch.dtype, quantize: str | None = None) -> SpeechLLM:
    """A model (a plan, or a folder planned without overrides) on a device, ready to answer; without a vocoder in text and speech tokens.

    `quantize` is `8bit`, `4bit` or none (see `quantize.quantized`). Raises VocalnetError for `compat: official`, whose defects are of
    use to parity tests only.
    """
    from vocalnet_cli.core.model.quantize import quantized
    from vocalnet_cli.core.model.weights import load_model

    plan = model if isinstance(model, Plan) else plan_answers(model)
    own = plan.vocoder_folder is None
    loaded = load_model(plan.folder, device, dtype, plan.vocoder if own else None)
    if loaded.settings.compat == "official":
        raise VocalnetError(
            f"{plan.folder}: compat is 'official', which is for parity tests", "Set model.compat to 'released' in config.json."
        )
    if plan.vocoder_folder is not None:
        assert isinstance(plan.vocoder, CosyVoice2Settings)
        loaded.speak_through(load_vocoder(plan.vocoder_folder, plan.vocoder, device, dtype))
    return quantized(loaded, quantize) if quantize else loaded


def load_speaker(model: Plan | Path, device: torch.device, dtype: torch.dtype) -> SpeechLLM:
    """As `load_answerer`, ready to answer aloud. Raises MissingWeights if the model has no vocoder."""
    loaded = load_answerer(model, device, dtype)
    if loaded.vocoder is None:
        folder = model.folder if isinstance(model, Plan) else model
        raise MissingWeights(f"{folder}: this model has no vocoder, so it cannot speak", NAME_A_VOCODER)
    if device.type == "cpu":
        keep_freed_memory()
    return loaded
