"""`vocalnet eval`: how good the answers of a model are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from vocalnet_cli.cli.console import progress, show_table
from vocalnet_cli.cli.options import DeviceOpt, DtypeOpt, JsonOpt, LimitOpt, ModelOpt, OutputOpt, QuietOpt, SeedOpt, SetOpt
from vocalnet_cli.core.errors import VocalnetError

BenchmarkOpt = Annotated[
    list[str] | None,
    typer.Option(
        "--benchmark",
        metavar="NAME",
        help="nano-combination, nano-voice, nano-human, nano-ablation or a manifest. Repeatable; the first three if none.",
    ),
]
FinishedOpt = Annotated[
    str | None, typer.Option("--recipe", metavar="NAME", help="Measure the finished run of this recipe (runs/NAME) instead of --model.")
]
FreshOpt = Annotated[bool, typer.Option("--fresh", help="Ask again even what is cached.")]


def evaluate(
    model: ModelOpt = None,
    recipe: FinishedOpt = None,
    benchmarks: BenchmarkOpt = None,
    output: OutputOpt = None,
    device: DeviceOpt = "auto",
    dtype: DtypeOpt = "auto",
    seed: SeedOpt = None,
    overrides: SetOpt = None,
    limit: LimitOpt = None,
    fresh: FreshOpt = False,
    as_json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Ask held-out questions: right answers in text and in speech, word errors of the speech.

    Answers are cached ($VOCALNET_CACHE, else ./cache): a run that was stopped goes on, and nothing is asked twice. -o DIR writes
    the report and every answer.

    \b
    Examples:
      vocalnet eval
      vocalnet eval --recipe nano/mtp5 --benchmark nano-voice --limit 40 -o scores --json
    """
    from vocalnet_cli.core.evaluation import report
    from vocalnet_cli.core.evaluation.benchmarks import load_benchmarks
    from vocalnet_cli.core.evaluation.measure import measure
    from vocalnet_cli.core.generation.load import find_model

    folder = find_model(model, recipe)
    chosen = load_benchmarks(benchmarks)
    with progress(quiet) as bars:
        tasks = {benchmark.name: bars.add_task(benchmark.name, total=None) for benchmark in chosen}

        def tell(text: str) -> None:
            bars.console.print(text, markup=False, soft_wrap=True)

        result = measure(
            folder, chosen, overrides=overrides or [], limit=limit, device=device, dtype=dtype, seed=seed or 0, fresh=fresh,
            output=Path(output) if output else None, note=lambda text: None if quiet else tell(text), fail=tell,
            advance=lambda name, done, total: bars.update(tasks[name], completed=done, total=total),
        )  # fmt: skip
    scores = result["benchmarks"]
    if as_json:
        typer.echo(json.dumps(result, ensure_ascii=False))
    else:
        show_table(report.COLUMNS, report.table(scores), title=f"{result['model']}: {result['recogniser']}; 95 % intervals")
        if kinds := report.kinds_table(scores):
            show_table(report.KIND_COLUMNS, kinds)
    if failed := sum(one["failed"] for one in scores.values()):
        raise VocalnetError(f"{failed} questions could not be answered", "The reasons are above; the same command asks only those again.")
