"""`vocalnet eval`: how good the answers of a model are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vocalnet_cli.cli.console import progress, show_table
from vocalnet_cli.cli.options import DeviceOpt, DtypeOpt, JsonOpt, LimitOpt, ModelOpt, OutputOpt, QuietOpt, ResumeOpt, SeedOpt, SetOpt

if TYPE_CHECKING:
    from vocalnet_cli.core.evaluation.benchmarks import Benchmark
    from vocalnet_cli.core.evaluation.runner import Runner

BenchmarkOpt = Annotated[
    list[str] | None,
    typer.Option(
        "--benchmark", metavar="NAME", help="nano-combination, nano-voice, nano-human or a manifest. Repeatable; all three if none."
    ),
]


def evaluate(
    model: ModelOpt = None,
    benchmarks: BenchmarkOpt = None,
    output: OutputOpt = None,
    device: DeviceOpt = "auto",
    dtype: DtypeOpt = "auto",
    seed: SeedOpt = None,
    overrides: SetOpt = None,
    limit: LimitOpt = None,
    resume: ResumeOpt = False,
    as_json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Ask held-out questions: right answers in text and in speech, word errors of the speech. Answers go to ./eval/MODEL.

    \b
    Examples:
      vocalnet eval
      vocalnet eval --model runs/nano/mtp5/model --benchmark nano-voice --limit 40 --json
    """
    from vocalnet_cli.core.errors import VocalnetError
    from vocalnet_cli.core.evaluation import report
    from vocalnet_cli.core.evaluation.benchmarks import load_benchmarks
    from vocalnet_cli.core.evaluation.results import weights_hash
    from vocalnet_cli.core.evaluation.runner import Runner
    from vocalnet_cli.core.evaluation.wer import Recogniser
    from vocalnet_cli.core.generation import load
    from vocalnet_cli.core.model.device import pick_device, pick_dtype

    chosen = load_benchmarks(benchmarks)
    folder = load.find_model(model)
    settings = load.generation_settings(folder, overrides or [])
    where = pick_device(device)
    kind = pick_dtype(dtype, where)
    recogniser = Recogniser(record.answer.text for benchmark in chosen for record in benchmark.records)
    if recogniser.missing and not quiet:
        typer.echo(f"note: {recogniser.name}: has no pronunciation for {', '.join(recogniser.missing)}", err=True)
    runner = Runner(lambda: load.load_speaker(folder, where, kind), settings, recogniser, seed or 0)
    measured = {
        "weights_sha256": weights_hash(folder),
        "settings": {**settings.model_dump(mode="json"), "seed": seed or 0, "dtype": str(kind).removeprefix("torch.")},
        "recogniser": recogniser.name,
    }
    name = folder.resolve().name
    scores = {}
    for benchmark in chosen:
        scores[benchmark.name] = _measure(runner, benchmark, limit, Path(output or Path("eval") / name), measured, resume, quiet)
    result = report.report(name, measured, scores)
    if as_json:
        typer.echo(json.dumps(result, ensure_ascii=False))
    else:
        show_table(report.COLUMNS, report.table(scores), title=f"{name}: {recogniser.name}; 95 % intervals")
        if kinds := report.kinds_table(scores):
            show_table(report.KIND_COLUMNS, kinds)
    if failed := sum(one["failed"] for one in scores.values()):
        raise VocalnetError(f"{failed} questions could not be answered", "The reasons are above; --resume asks only those again.")


def _measure(
    runner: Runner, benchmark: Benchmark, limit: int | None, folder: Path, measured: dict[str, Any], resume: bool, quiet: bool
) -> dict[str, Any]:
    """Ask the questions of one benchmark with a bar on stderr; its scores."""
    from vocalnet_cli.core.evaluation.results import ResultsFile
    from vocalnet_cli.core.evaluation.score import score

    records = benchmark.records[:limit]
    header = {"benchmark": benchmark.name, "manifest_sha256": benchmark.sha256, **measured}
    with ResultsFile(folder / f"{benchmark.name}.jsonl", header, resume) as results, progress(quiet) as bars:
        bar = bars.add_task(benchmark.name, total=len(records))
        rows = []
        for row in runner.run(benchmark, records, results):
            rows.append(row)
            bars.advance(bar)
            if row.error is not None:
                bars.console.print(f"{benchmark.name} {row.id}: {row.error}", markup=False)
    return score(records, rows, runner.recogniser.alike)
