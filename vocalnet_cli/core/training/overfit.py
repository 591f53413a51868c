"""`vocalnet train --overfit N`: learn a few rows by heart, which any sound recipe can; where it cannot, the data are wrong."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch

from vocalnet_cli.core.config.load import LoadedRecipe
from vocalnet_cli.core.errors import UsageError, VocalnetError
from vocalnet_cli.core.training.init import locate_all
from vocalnet_cli.core.training.loop import train_stage
from vocalnet_cli.core.training.processes import world
from vocalnet_cli.core.training.run import prepared
from vocalnet_cli.core.training.stage_plan import parts_to_train
from vocalnet_cli.core.training.stages.stage import DEV_DRAW, Stage


def overfit(loaded: LoadedRecipe, rows: int, device: str, quiet: bool, cache: Path | None = None) -> dict[str, Any]:
    """Train on the first `rows` rows alone, at a constant rate, and keep nothing: `{"recipe", "rows", "steps", "loss", "wanted"}`.

    The loss is the mean over the rows, each by itself and without dropout. Raises VocalnetError, naming the rows that are worst, if it
    stays above `train.overfit_loss`.
    """
    if world() > 1:
        raise UsageError(f"--overfit {rows} in {world()} processes: a few rows are for one", "Run it without torchrun.")
    recipe = loaded.recipe
    settings = recipe.train
    changes = {
        "steps": settings.overfit_steps,
        "batch_size": min(rows, settings.batch_size),
        "tokens_per_batch": None,
        "accumulate": 1,
        "schedule": "constant",
        "warmup": 0.0,
        "weight_decay": 0.0,
        "save_every": settings.overfit_steps,
    }
    recipe = recipe.model_copy(update={"train": settings.model_copy(update=changes)})
    stage = prepared(recipe, locate_all(recipe, loaded.name), parts_to_train(loaded), cache)
    stage.load_examples()
    stage.examples, stage.dev_examples, stage.kinds = stage.examples[:rows], [], None
    with tempfile.TemporaryDirectory(prefix="vocalnet-overfit-") as name:
        step, _, stopped = train_stage(stage, Path(name), device, resume=False, quiet=quiet)
    if stopped is not None:
        raise KeyboardInterrupt
    losses = dict(zip(stage.ids, _losses(stage, device), strict=False))
    loss = statistics.fmean(losses.values())
    if not loss <= settings.overfit_loss:
        worst = sorted(losses, key=lambda row: -losses[row])[:3]
        raise VocalnetError(
            f"{len(losses)} rows have loss {loss:.3f} after {step} steps, not {settings.overfit_loss:g}; worst: "
            + ", ".join(f"{row} ({losses[row]:.3f})" for row in worst),
            "Look at these rows' texts, sounds and tokens; if they are right, raise train.overfit_steps or train.lr.",
        )
    return {"recipe": loaded.name, "rows": len(losses), "steps": step, "loss": round(loss, 4), "wanted": settings.overfit_loss}


@torch.no_grad()
def _losses(stage: Stage, device: str) -> list[float]:
    """The loss of each example by itself."""
    stage.eval()
    losses = []
    for example in stage.examples:
        batch = {name: value.to(device) for name, value in stage.collate([(example, DEV_DRAW)]).items()}
        losses.append(float(stage(**batch)["loss"]))
    return losses
