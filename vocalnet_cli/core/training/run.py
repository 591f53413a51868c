"""A training run from recipe to finished model folder."""

from __future__ import annotations

import importlib.util
import json
import signal
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import transformers
from safetensors.torch import load_file
from transformers import set_seed

from vocalnet_cli.core.config.load import LoadedRecipe, save_resolved
from vocalnet_cli.core.config.places import cache_folder, run_folder
from vocalnet_cli.core.config.schema import Recipe
from vocalnet_cli.core.data.claim import LOCK_FILE, claimed
from vocalnet_cli.core.errors import Interrupted, UsageError, VocalnetError
from vocalnet_cli.core.model.allocator import keep_freed_memory
from vocalnet_cli.core.model.speech_llm import build_model
from vocalnet_cli.core.training.card import write_card
from vocalnet_cli.core.training.init import load_init, locate_all
from vocalnet_cli.core.training.loop import latest_checkpoint, train_stage
from vocalnet_cli.core.training.processes import is_main, main_first, sharded
from vocalnet_cli.core.training.run_log import origin
from vocalnet_cli.core.training.stage_plan import STAGES, parts_to_train, stage_class
from vocalnet_cli.core.training.stages.stage import Stage
from vocalnet_cli.core.training.tally import halved, table_lines, tally

TRACKERS = ("tensorboard", "trackio", "wandb")


def run_training(
    loaded: LoadedRecipe,
    output: Path | None,
    device: str,
    resume: bool,
    quiet: bool,
    log_to: str | None = None,
    cache: Path | None = None,
) -> dict[str, Any]:
    """Train a recipe's stage into `output` (default runs/RECIPE): checkpoints/, metrics.jsonl, recipe.yaml, origin.json, model/.

    Raises VocalnetError for a recipe without stage, missing weights, or a folder that already holds a run, or that another command
    trains in; Interrupted after SIGINT or SIGTERM, with the state saved. In a run of several processes the first one alone writes, and
    tells. `log_to` names a tracker (tensorboard, trackio, wandb) that is told the same numbers as metrics.jsonl. Outputs of frozen
    parts, if the recipe keeps them (`data.cache`), lie in `cache` (default `cache_folder()`).
    """
    check_tracker(log_to)
    check_optimizer(loaded.recipe.train.optimizer)
    folder = output or run_folder(loaded.name)
    parts = parts_to_train(loaded)
    _refuse_other_run(folder, resume)
    folders = locate_all(loaded.recipe, loaded.name)
    with claimed(folder / LOCK_FILE) if is_main() else nullcontext(True) as ours:
        if not ours:
            raise VocalnetError(f"{folder}: another command trains there now", "Wait for its end, or choose another folder with -o.")
        return _run(loaded, folder, folders, parts, device, resume, quiet, log_to, cache)


def _run(
    loaded: LoadedRecipe,
    folder: Path,
    folders: dict[str, Path],
    parts: tuple[str, ...],
    device: str,
    resume: bool,
    quiet: bool,
    log_to: str | None,
    cache: Path | None,
) -> dict[str, Any]:
    recipe = loaded.recipe
    if is_main():
        save_resolved(loaded, folder)
        (folder / "origin.json").write_text(json.dumps(origin(recipe.train.seed, device), indent=1) + "\n")
    transformers.logging.set_verbosity_error()
    set_seed(recipe.train.seed)
    if device == "cpu":
        keep_freed_memory()
    stage = prepared(recipe, folders, parts, cache)
    stage.device = device
    with main_first(device):
        stage.load_examples()
    told = [f"recipe {loaded.name}, stage {recipe.stage}, {len(stage.examples)} rows", *table_lines(tally(stage))]
    if not quiet and is_main():
        print(*told, sep="\n", file=sys.stderr)
    step, loss, stopped = train_stage(stage, folder, device, resume, quiet, log_to)
    if stopped is not None:
        raise Interrupted(
            f"{signal.Signals(stopped).name}: stopped at step {step} of {recipe.train.steps}, state saved in {folder}",
            f"Continue with: vocalnet train --recipe {loaded.name} -o {folder} --resume",
        )
    if is_main():
        if sharded(recipe.distributed):
            stage = _gathered(stage, folders, parts, folder)
        stage.finish()
        stage.model.eval()
        stage.write(folder / "model", loaded.name)
        write_card(loaded, folder, told, stage.left_out)
    return {"recipe": loaded.name, "steps": step, "loss": loss, "left_out": stage.left_out, "model": str(folder / "model")}


def prepared(recipe: Recipe, folders: dict[str, Path], parts: tuple[str, ...], cache: Path | None = None) -> Stage:
    """The recipe's stage with the weights it starts from, all frozen but `parts`."""
    built = STAGES[str(recipe.stage)].builds
    model = build_model(recipe.model, built)
    load_init(model, folders, talker_learns="talker" in parts and recipe.stage != "distill")
    for name in set(halved(recipe.train.frozen_dtype, parts)) & set(built):
        for parameter in getattr(model, name).parameters():  # LoRA's factors are added later, in single precision
            parameter.data = parameter.data.bfloat16()
    stage: Stage = stage_class(str(recipe.stage))(recipe, model, cache or cache_folder(), parts)
    return stage


def _gathered(stage: Stage, folders: dict[str, Path], parts: tuple[str, ...], folder: Path) -> Stage:
    """A whole copy of a stage whose weights are spread over processes: where it started from, and what the last checkpoint learned."""
    held = latest_checkpoint(folder / "checkpoints")
    assert held is not None
    whole = prepared(stage.recipe, folders, parts)
    whole.load_state_dict(load_file(held[0] / "model.safetensors"), strict=False)
    whole.model.tokenizer, whole.left_out = stage.model.tokenizer, stage.left_out
    return whole


def check_tracker(name: str | None) -> None:
    """Raise VocalnetError for a tracker that is unknown or not installed."""
    if name is None:
        return
    if name not in TRACKERS:
        raise UsageError(f"--log-to {name}: no such tracker", f"There are {', '.join(TRACKERS)}.")
    if importlib.util.find_spec(name) is None:
        raise VocalnetError(f"--log-to {name}: it is not installed", f"pip install {name}")


def check_optimizer(name: str) -> None:
    """Raise VocalnetError for an optimiser whose package is not installed."""
    if name == "adamw-8bit" and importlib.util.find_spec("bitsandbytes") is None:
        raise VocalnetError(f"train.optimizer is {name}: bitsandbytes is not installed", "pip install bitsandbytes, or say adamw.")


def _refuse_other_run(folder: Path, resume: bool) -> None:
    held = latest_checkpoint(folder / "checkpoints")
    if held is not None and not resume:
        raise VocalnetError(
            f"{folder} already holds a run, at step {held[1]}", "Add --resume to continue it, or choose another folder with -o."
        )
