"""What is measured: a model, where it runs, and how it answers; from names and settings as the command line takes them."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from vocalnet_cli.core.config.load import check_tree, load_recipe
from vocalnet_cli.core.config.places import model_name
from vocalnet_cli.core.config.schema import GenerationSettings, LatencySettings, PaperRow
from vocalnet_cli.core.config.yaml_tree import parse
from vocalnet_cli.core.errors import MissingWeights, RecipeError, UsageError
from vocalnet_cli.core.generation.load import Plan, find_model, plan_answers
from vocalnet_cli.core.model.device import pick_device, pick_dtype
from vocalnet_cli.core.model.quantize import check_quantize

_LATENCY, _GENERATION, _VOCODER = "latency.", "generation.", "vocoder."


@dataclass(frozen=True)
class Asked:
    """What to measure in the words of the command line: the options that every `vocalnet latency` of whole turns takes."""

    model: str | None = None
    recipe: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    quantize: str | None = None
    overrides: tuple[str, ...] = ()
    """`generation.KEY=VALUE`, `vocoder.KEY=VALUE` and `latency.KEY=VALUE`."""
    vocoder: str | None = None
    """CosyVoice2 folder or hub id the model speaks through, instead of its own vocoder."""
    voice: Path | None = None
    """Recording whose voice the answers take."""


@dataclass(frozen=True)
class Setup:
    """One thing to measure."""

    plan: Plan
    device: torch.device
    dtype: torch.dtype
    quantize: str | None
    latency: LatencySettings
    paper: PaperRow | None = None
    """The row of a paper that the recipe stands for."""
    voice: Path | None = None
    """Recording whose voice the answers take."""

    @property
    def folder(self) -> Path:
        """The model's."""
        return self.plan.folder

    @property
    def settings(self) -> GenerationSettings:
        """How it answers."""
        return self.plan.generation

    @property
    def name(self) -> str:
        """The model as `--model` takes it."""
        return model_name(self.folder)


def resolve(asked: Asked) -> Setup:
    """Find and check everything, and load nothing. With a recipe: the model its `latency.model` names, answering as its `generation`
    says, else its finished run.

    Raises UsageError, RecipeError, VocalnetError and MissingWeights for what cannot be.
    """
    check_quantize(asked.quantize)
    own = [override for override in asked.overrides if override.lstrip().startswith(_LATENCY)]
    rest = [override for override in asked.overrides if override not in own]
    for override in rest:
        if not override.lstrip().startswith((_GENERATION, _VOCODER)):
            raise UsageError(
                f"--set {override}: only generation.KEY=VALUE, vocoder.KEY=VALUE and latency.KEY=VALUE can be set here",
                "`vocalnet recipes NAME` lists them.",
            )
    device = pick_device(asked.device)
    paper, answering = None, []
    if asked.recipe is None:
        folder, latency = find_model(asked.model), latency_settings(own)
    else:
        recipe = load_recipe(asked.recipe, own).recipe
        latency, paper = recipe.latency, recipe.paper
        folder = _named_by(asked, latency.model)
        if latency.model is not None:
            told = recipe.generation.model_dump(mode="json", exclude_unset=True)
            answering = [f"{_GENERATION}{key}={json.dumps(value)}" for key, value in told.items()]
    plan = plan_answers(folder, [*answering, *rest], asked.vocoder)
    return Setup(plan, device, pick_dtype(asked.dtype, device), asked.quantize, latency, paper, asked.voice)


def _named_by(asked: Asked, model: str | None) -> Path:
    if model is None or asked.model is not None:  # both names at once are refused there
        return find_model(asked.model, asked.recipe)
    try:
        return find_model(model, fetch=False)
    except MissingWeights as error:
        twin = "Laptop twin: vocalnet latency --recipe nano/latency"
        raise MissingWeights(f"recipe {asked.recipe}: {error.problem}", f"{error.hint} {twin}") from error


def latency_settings(overrides: Sequence[str] = ()) -> LatencySettings:
    """The defaults, changed by `latency.x=y` overrides. Raises RecipeError for a key or value that cannot be."""
    mistakes: list[str] = []
    checked = check_tree(parse("{}", "--set", mistakes, numbered=False), overrides, mistakes)
    if mistakes or checked is None:
        raise RecipeError("\n".join(mistakes), "Fix the --set option; `vocalnet recipes NAME` prints every key of `latency`.")
    return checked.latency


KEYS = ("model", "recipe", "device", "dtype", "quantize", "vocoder", "voice")
"""What a side of a comparison may say, besides settings."""


def side(text: str, common: Asked) -> Asked:
    """`MODEL`, `KEY=VALUE`, or several of them with commas: what one side of a comparison changes of what both share.

    KEY is one of KEYS, or a `generation.` or `vocoder.` setting. Raises UsageError for anything else.
    """
    changed: dict[str, Any] = {}
    own: list[str] = []
    for word in (part.strip() for part in text.split(",")):
        key, _, value = word.partition("=") if "=" in word else ("model", "=", word)
        if not key or not value:
            raise UsageError(f"side {text!r}: {f'no value in {word}' if word else 'nothing stands there'}", _sides_hint())
        if key.startswith((_GENERATION, _VOCODER)):
            own.append(word)
        elif key in KEYS:
            changed[key] = Path(value) if key == "voice" else value
        else:
            close = difflib.get_close_matches(key, [*KEYS, *(f"{_GENERATION}{name}" for name in GenerationSettings.model_fields)], n=1)
            raise UsageError(f"side {text!r}: {key} is nothing it can set{f'. Nearest: {close[0]}' if close else ''}", _sides_hint())
    if changed.keys() & {"model", "recipe"}:  # the model that both share is not this one's
        changed = {"model": None, "recipe": None, **changed}
    return replace(common, **changed, overrides=(*common.overrides, *own))


def _sides_hint() -> str:
    keys = ", ".join(f"{key}=" for key in KEYS)
    return f"A side is a model, or {keys}, generation.KEY=VALUE or vocoder.KEY=VALUE, several joined by commas."
