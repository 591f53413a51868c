"""`vocalnet eval --resynthesis`: what the vocoder alone loses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from vocalnet_cli.cli.console import progress, show_table
from vocalnet_cli.core.errors import VocalnetError


def resynthesis(
    model: str | None,
    recipe: str | None,
    vocoder: str | None,
    voice: Path | None,
    benchmarks: list[str] | None,
    split: str | None,
    dnsmos: Path | None,
    output: Path | None,
    device: str,
    overrides: list[str],
    limit: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Recorded answers to speech tokens and back, printed as a table or JSON."""
    from vocalnet_cli.core.evaluation import resynthesis as core
    from vocalnet_cli.core.evaluation.benchmarks import load_benchmarks
    from vocalnet_cli.core.generation.load import find_model

    chosen = load_benchmarks(benchmarks, split, asked=False)
    alone = vocoder is not None and model is None and recipe is None
    plan = core.plan_resynthesis(find_model(model, recipe), overrides, vocoder, alone)
    with progress(quiet) as bars:
        tasks = {benchmark.name: bars.add_task(benchmark.name, total=None) for benchmark in chosen}
        result: dict[str, Any] = core.resynthesise(
            plan, chosen, voice=voice, dnsmos=dnsmos, limit=limit, device=device, output=output,
            fail=lambda text: bars.console.print(text, markup=False, soft_wrap=True),
            advance=lambda name, done, total: bars.update(tasks[name], completed=done, total=total),
        )  # fmt: skip
    if as_json:
        typer.echo(json.dumps(result, ensure_ascii=False))
    else:
        show_table(core.COLUMNS, core.table(result["benchmarks"]), title=f"{result['model']}, resynthesis: {result['recogniser']}")
    if failed := sum(one["failed"] for one in result["benchmarks"].values()):
        raise VocalnetError(f"{failed} recordings could not be used", "The reasons are above.")
