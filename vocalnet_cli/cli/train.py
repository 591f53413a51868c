"""`vocalnet train`: one stage of one recipe; `vocalnet distill`: the rounds of a self-distillation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from vocalnet_cli.cli.options import DeviceOpt, DryRunOpt, JsonOpt, OutputOpt, QuietOpt, RecipeOpt, ResumeOpt, SeedOpt, SetOpt

OverfitOpt = Annotated[int | None, typer.Option("--overfit", metavar="N", min=1, help="Only check that N rows can be learned by heart.")]
CacheOpt = Annotated[
    Path | None, typer.Option("--cache-frozen", metavar="DIR", help="Compute what frozen parts say once, and keep it here (data.cache).")
]
LogToOpt = Annotated[str | None, typer.Option("--log-to", metavar="TRACKER", help="Tell a tracker too: tensorboard, trackio or wandb.")]


def train(
    recipe: RecipeOpt,
    overrides: SetOpt = None,
    output: OutputOpt = None,
    device: DeviceOpt = "auto",
    seed: SeedOpt = None,
    resume: ResumeOpt = False,
    dry_run: DryRunOpt = False,
    overfit: OverfitOpt = None,
    cache_frozen: CacheOpt = None,
    log_to: LogToOpt = None,
    as_json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Train one stage of a recipe; the run goes to runs/RECIPE unless -o says otherwise.

    \b
    Examples:
      vocalnet train --recipe nano/lm
      vocalnet train --recipe mtp5 --dry-run --json
      vocalnet train --recipe mtp5 --cache-frozen /fast/cache
      vocalnet train --recipe nano/mtp5 --overfit 4
    """
    from vocalnet_cli.core.config.load import load_recipe

    extra = [*([] if seed is None else [f"train.seed={seed}"]), *([] if cache_frozen is None else ["data.cache=true"])]
    loaded = load_recipe(recipe, [*(overrides or []), *extra])
    from vocalnet_cli.core.model.device import pick_device
    from vocalnet_cli.core.training.estimate import dry_run as plan
    from vocalnet_cli.core.training.processes import parting
    from vocalnet_cli.core.training.run import run_training

    chosen = str(pick_device(device))
    if dry_run:
        result = plan(loaded, chosen)
    elif overfit is not None:
        from vocalnet_cli.core.training.overfit import overfit as learn_by_heart

        result = learn_by_heart(loaded, overfit, chosen, quiet, cache_frozen)
    else:
        with parting():
            result = run_training(loaded, Path(output) if output else None, chosen, resume, quiet, log_to, cache_frozen)
    _show(result, as_json)


def distill(
    recipe: RecipeOpt,
    overrides: SetOpt = None,
    output: OutputOpt = None,
    device: DeviceOpt = "auto",
    seed: SeedOpt = None,
    resume: ResumeOpt = False,
    dry_run: DryRunOpt = False,
    as_json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Distil a masked-diffusion talker from itself, so that it needs fewer passes; the run goes to runs/RECIPE unless -o says otherwise.

    \b
    Examples:
      vocalnet distill --recipe nano/mdm-distill
      vocalnet distill --recipe nano/mdm-distill --set distill.rounds=2 --resume
    """
    from vocalnet_cli.core.config.load import load_recipe
    from vocalnet_cli.core.model.device import pick_device
    from vocalnet_cli.core.training.estimate import dry_run as plan
    from vocalnet_cli.core.training.processes import parting
    from vocalnet_cli.core.training.rounds import distil

    changes = [*(overrides or []), *([] if seed is None else [f"train.seed={seed}"])]
    chosen = str(pick_device(device))
    if dry_run:
        result = plan(load_recipe(recipe, changes), chosen)
    else:
        with parting():
            result = distil(recipe, changes, Path(output) if output else None, chosen, resume, quiet)
    _show(result, as_json)


def _show(result: dict[str, Any], as_json: bool) -> None:
    from vocalnet_cli.core.training.processes import is_main

    if not is_main():
        return
    if as_json:
        typer.echo(json.dumps(result))
    else:
        for key, value in result.items():
            typer.echo(f"{key}: {value}")
