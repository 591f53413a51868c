"""`vocalnet prep lookup`: the baseline `vocalnet eval` compares a model with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from vocalnet_cli.cli.console import progress
from vocalnet_cli.cli.options import DeviceOpt, DtypeOpt, JsonOpt, LimitOpt, ModelOpt, OutputOpt, QuietOpt


def lookup(
    manifest: Annotated[
        Path, typer.Argument(metavar="MANIFEST", help="Manifest the model was trained on (JSONL), or the folder that holds manifest.jsonl.")
    ],
    model: ModelOpt = None,
    output: OutputOpt = None,
    split: Annotated[list[str] | None, typer.Option("--split", metavar="SPLIT", help="Training split; train if none. Repeatable.")] = None,
    per_question: Annotated[int, typer.Option("--per-question", metavar="N", min=1, help="At most N recordings of each question.")] = 1,
    device: DeviceOpt = "auto",
    dtype: DtypeOpt = "auto",
    limit: LimitOpt = None,
    as_json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Keep what a model's encoder hears in its training questions, with their answers, as lookup.safetensors in the model's folder.

    `vocalnet eval` then also scores the answer of the most similar training question: what the model must beat. --limit counts
    questions; -o DIR writes into another folder.

    \b
    Examples:
      vocalnet prep lookup data/nano
      vocalnet prep lookup data/nano --model runs/nano/mtp5/model --per-question 3 --json
    """
    from vocalnet_cli.core.evaluation.lookup import TRAIN_SPLITS, make_bank
    from vocalnet_cli.core.generation.load import find_model
    from vocalnet_cli.core.model.device import pick_device, pick_dtype

    folder = find_model(model)
    where = pick_device(device)
    with progress(quiet) as bars:
        bar = bars.add_task("questions", total=None)
        stats = make_bank(
            manifest / "manifest.jsonl" if manifest.is_dir() else manifest,
            folder,
            Path(output) if output else folder,
            where,
            pick_dtype(dtype, where),
            splits=split or TRAIN_SPLITS,
            per_question=per_question,
            limit=limit,
            advance=lambda done, total: bars.update(bar, completed=done, total=total),
        )
    if as_json:
        typer.echo(json.dumps(stats))
    else:
        typer.echo(f"{stats['file']}: {stats['rows_out']} recordings of {stats['questions']} questions, {stats['megabytes']} MB")
