"""A training run from recipe to finished model folder."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import set_seed

from vocalnet_cli.core.config.load import LoadedRecipe, save_resolved
from vocalnet_cli.core.config.places import cache_folder, run_folder
from vocalnet_cli.core.errors import Interrupted, VocalnetError
from vocalnet_cli.core.model.speech_llm import build_model
from vocalnet_cli.core.model.weights import save_model
from vocalnet_cli.core.training.init import load_init, locate_all, vocoder_elsewhere
from vocalnet_cli.core.training.loop import latest_checkpoint, train_stage
from vocalnet_cli.core.training.run_log import origin
from vocalnet_cli.core.training.stage_plan import parts_to_train, stage_class
from vocalnet_cli.core.training.tally import table_lines, tally


def run_training(loaded: LoadedRecipe, output: Path | None, device: str, resume: bool, quiet: bool) -> dict[str, Any]:
    """Train a recipe's stage into `output` (default runs/RECIPE): checkpoints/, metrics.jsonl, recipe.yaml, origin.json, model/.

    Raises VocalnetError for a recipe without stage, missing weights, or a folder that already holds a run; Interrupted
    after SIGINT or SIGTERM, with the state saved.
    """
    recipe = loaded.recipe
    folder = output or run_folder(loaded.name)
    parts = parts_to_train(loaded)
    _refuse_other_run(folder, resume)
    folders = locate_all(recipe, loaded.name)
    folder.mkdir(parents=True, exist_ok=True)
    save_resolved(loaded, folder)
    (folder / "origin.json").write_text(json.dumps(origin(recipe.train.seed, device), indent=1) + "\n")
    transformers.logging.set_verbosity_error()
    set_seed(recipe.train.seed)
    model = build_model(recipe.model)
    load_init(model, folders)
    stage = stage_class(str(recipe.stage))(recipe, model, cache_folder(), parts)
    stage.load_examples()
    if not quiet:
        print(
            f"recipe {loaded.name}, stage {recipe.stage}, {len(stage.examples)} rows", *table_lines(tally(stage)), sep="\n", file=sys.stderr
        )
    step, loss, stopped = train_stage(stage, folder, device, resume, quiet)
    if stopped is not None:
        raise Interrupted(
            f"{signal.Signals(stopped).name}: stopped at step {step} of {recipe.train.steps}, state saved in {folder}",
            f"Continue with: vocalnet train --recipe {loaded.name} -o {folder} --resume",
        )
    stage.finish()
    model.eval()
    generation = recipe.generation.model_dump(mode="json")
    elsewhere = None if "vocoder" in stage.trained() else vocoder_elsewhere(recipe)
    save_model(model, folder / "model", stage.save_parts(), recipe.train.save_dtype, generation, loaded.name, elsewhere)
    return {"recipe": loaded.name, "steps": step, "loss": loss, "left_out": stage.left_out, "model": str(folder / "model")}


def _refuse_other_run(folder: Path, resume: bool) -> None:
    held = latest_checkpoint(folder / "checkpoints")
    if held is not None and not resume:
        raise VocalnetError(
            f"{folder} already holds a run, at step {held[1]}", "Add --resume to continue it, or choose another folder with -o."
        )


def dry_run(loaded: LoadedRecipe, device: str) -> dict[str, Any]:
    """What a run would need, from sizes alone: {"trainable", "total", "memory_gb", "tokens_per_step", "fits"}.

    Memory counts fp32 weights, and gradients and two AdamW moments of what learns; activations come on top.
    """
    recipe = loaded.recipe
    parts = parts_to_train(loaded)
    with torch.device("meta"):
        stage = stage_class(str(recipe.stage))(recipe, build_model(recipe.model), cache_folder(), parts)
    counts = tally(stage)
    total, trainable = sum(one.total for one in counts), sum(one.learns for one in counts)
    memory = 4 * (total + 3 * trainable)
    rows = recipe.train.batch_size * recipe.train.accumulate
    per_row = {"lm": 32, "align": 64, "asr-pretrain": 64}.get(str(recipe.stage), int(recipe.data.max_answer_s * 25))
    return {
        "trainable": trainable,
        "total": total,
        "memory_gb": round(memory / 1e9, 3),
        "tokens_per_step": rows * per_row,
        "fits": memory < _memory(device),
    }


def _memory(device: str) -> int:
    if device.startswith("cuda"):
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
