"""What a run would need, before anything is loaded: `--dry-run`."""

from __future__ import annotations

import os
from typing import Any

import torch

from vocalnet_cli.core.config.load import LoadedRecipe
from vocalnet_cli.core.config.places import cache_folder
from vocalnet_cli.core.config.schema import Recipe
from vocalnet_cli.core.model.speech_llm import build_model
from vocalnet_cli.core.training.activations import activation_bytes
from vocalnet_cli.core.training.processes import world
from vocalnet_cli.core.training.stage_plan import STAGES, parts_to_train, stage_class
from vocalnet_cli.core.training.tally import Count, halved, tally

_MOMENTS = {"adamw": 8, "adamw-8bit": 2}


def dry_run(loaded: LoadedRecipe, device: str) -> dict[str, Any]:
    """What a run would need, from sizes alone:

    `{"trainable", "total", "memory_gb", "tokens_per_step", "fits", "activations_gb", "stage", "parts": {PART: {"learns", "total"}},
    "advice": [...]}`

    Memory is the most one device holds: weights, the optimiser's moments, gradients, and activations (`activations_gb`, none where a
    stage's are not counted) of a batch of the longest rows. `advice` is what to change if that does not fit: each line alone, with the
    memory it leads to.
    """
    recipe = loaded.recipe
    parts = parts_to_train(loaded)
    with torch.device("meta"):
        model = build_model(recipe.model, STAGES[str(recipe.stage)].builds)
        stage = stage_class(str(recipe.stage))(recipe, model, cache_folder(), parts)
    counts = tally(stage)
    need, there = peak_bytes(recipe, counts, device), _memory(device)
    activations = activation_bytes(recipe, sum(one.learns for one in counts), device)
    rows = recipe.train.batch_size * recipe.train.accumulate * world()
    per_row = {"lm": 32, "align": 64, "asr-pretrain": 64}.get(str(recipe.stage), int(recipe.data.max_answer_s * 25))
    return {
        "trainable": sum(one.learns for one in counts),
        "total": sum(one.total for one in counts),
        "memory_gb": round(need / 1e9, 3),
        "tokens_per_step": recipe.train.tokens_per_batch * recipe.train.accumulate * world()
        if recipe.train.tokens_per_batch
        else rows * per_row,
        "fits": need < there,
        "activations_gb": None if activations is None else round(activations / 1e9, 3),
        "stage": recipe.stage,
        "parts": {one.part: {"learns": one.learns, "total": one.total} for one in counts},
        "advice": [] if need < there else _advice(recipe, counts, device),
    }


def peak_bytes(recipe: Recipe, counts: list[Count], device: str) -> int:
    """The most one device holds. Gradients come as activations go, unless those of an earlier batch are there already."""
    weights, gradients = held_bytes(recipe, counts)
    activations = activation_bytes(recipe, sum(one.learns for one in counts), device) or 0
    if recipe.train.accumulate > 1:
        return weights + gradients + activations
    return weights + max(gradients, activations)


def held_bytes(recipe: Recipe, counts: list[Count]) -> tuple[int, int]:
    """Bytes on one device of weights and moments, and of gradients: what learns, and its gradients, in single precision."""
    learning = tuple(one.part for one in counts if one.learns == one.total)
    small = halved(recipe.train.frozen_dtype, learning)
    weights = sum((2 if one.part in small else 4) * (one.total - one.learns) for one in counts)
    learns = sum(one.learns for one in counts)
    gradients = 4 * learns
    if world() > 1 and recipe.distributed.strategy == "ddp":
        gradients *= 2  # the buckets in which they are exchanged
    learned = (4 + _MOMENTS[recipe.train.optimizer]) * learns
    if world() == 1 or recipe.distributed.strategy == "ddp":
        return weights + learned, gradients
    if recipe.distributed.strategy == "zero2":
        return weights + 4 * learns + (learned - 4 * learns) // world(), gradients // world()
    return (weights + learned) // world(), gradients // world()


def _advice(recipe: Recipe, counts: list[Count], device: str) -> list[str]:
    """Settings that lower what is held, each with what it leads to."""
    told = []
    smaller = max(1, recipe.train.batch_size // 2)
    for key, value in (
        ("frozen_dtype", "bf16"),
        ("dtype", "bf16"),
        ("gradient_checkpointing", True),
        ("batch_size", smaller),
        ("optimizer", "adamw-8bit"),
    ):
        if getattr(recipe.train, key) != value:
            changed = recipe.model_copy(update={"train": recipe.train.model_copy(update={key: value})})
            told.append(f"--set train.{key}={str(value).lower()}: {peak_bytes(changed, counts, device) / 1e9:.1f} GB")
    if world() == 1 or recipe.distributed.strategy == "ddp":
        told.append("more devices, each with a part: --set distributed.strategy=fsdp under torchrun")
    return told


def _memory(device: str) -> int:
    if device.startswith("cuda"):
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
