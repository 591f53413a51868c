"""`vocalnet eval`: how good the answers of a model are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vocalnet_cli.cli.console import progress, show_table
from vocalnet_cli.cli.options import (
    DeviceOpt,
    DtypeOpt,
    JsonOpt,
    LimitOpt,
    ModelOpt,
    OutputOpt,
    QuietOpt,
    SeedOpt,
    SetOpt,
    VocoderOpt,
    VoiceOpt,
)
from vocalnet_cli.cli.resynthesis import resynthesis as measure_vocoder
from vocalnet_cli.core.errors import UsageError, VocalnetError

if TYPE_CHECKING:
    from vocalnet_cli.core.evaluation.benchmarks import Benchmark

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
StepsListOpt = Annotated[
    str | None,
    typer.Option("--steps", metavar="N,N", help="Measure a masked-diffusion talker with each of these passes a block, such as 1,2,4,auto."),
]
SplitOpt = Annotated[str | None, typer.Option("--split", metavar="NAME", help="Rows of this split of the manifests only.")]
ResynthesisOpt = Annotated[
    bool, typer.Option("--resynthesis", help="Measure the vocoder alone: recorded answers to speech tokens and back to sound.")
]
DnsmosOpt = Annotated[
    Path | None, typer.Option("--dnsmos", metavar="DIR", help="With --resynthesis: DNSMOS scores too, by DIR/sig_bak_ovr.onnx.")
]
FreshOpt = Annotated[bool, typer.Option("--fresh", help="Ask again even what is cached.")]


def evaluate(
    ctx: typer.Context,
    model: ModelOpt = None,
    recipe: FinishedOpt = None,
    vocoder: VocoderOpt = None,
    voice: VoiceOpt = None,
    benchmarks: BenchmarkOpt = None,
    output: OutputOpt = None,
    device: DeviceOpt = "auto",
    dtype: DtypeOpt = "auto",
    seed: SeedOpt = None,
    overrides: SetOpt = None,
    limit: LimitOpt = None,
    steps: StepsListOpt = None,
    split: SplitOpt = None,
    resynthesis: ResynthesisOpt = False,
    dnsmos: DnsmosOpt = None,
    fresh: FreshOpt = False,
    as_json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Ask held-out questions: right answers in text and in speech, word errors of the speech.

    Answers are cached ($VOCALNET_CACHE, else ./cache): a run that was stopped goes on, and nothing is asked twice. -o DIR writes
    the report and every answer, with --steps also a picture.

    \b
    Examples:
      vocalnet eval
      vocalnet eval --recipe nano/mtp5 --benchmark nano-voice --limit 40 -o scores --json
      vocalnet eval --recipe nano/mdm --steps 1,2,4,8,16 -o curve
      vocalnet eval --resynthesis --recipe nano/flow --dnsmos DIR
    """
    if ctx.invoked_subcommand is not None:
        return
    where = Path(output) if output else None
    if resynthesis:
        measure_vocoder(model, recipe, vocoder, voice, benchmarks, split, dnsmos, where, device, overrides or [], limit, as_json, quiet)
        return
    if dnsmos is not None:
        raise UsageError("--dnsmos scores resynthesised recordings only", "Add --resynthesis, or leave --dnsmos out.")
    from vocalnet_cli.core.evaluation.benchmarks import load_benchmarks
    from vocalnet_cli.core.evaluation.curve import draw_curve, steps_of
    from vocalnet_cli.core.generation.load import find_model

    folder, chosen, results = find_model(model, recipe), load_benchmarks(benchmarks, split), []
    how = {"limit": limit, "device": device, "dtype": dtype, "seed": seed or 0, "vocoder": vocoder, "voice": voice, "fresh": fresh}
    for passes in steps_of(steps) if steps else [None]:
        result = _measured(folder, chosen, overrides or [], passes, where, quiet, how)
        results.append(result if passes is None else {"steps": passes if passes == "auto" else int(passes), **result})
        if not as_json:
            _show(result, _label(passes))
    if as_json:
        typer.echo(json.dumps(results if steps else results[0], ensure_ascii=False))
    if steps and where:
        draw_curve(results, where / "steps.png")
    _refuse_failures(results)


def _label(passes: str | None) -> str:
    return "" if passes is None else f", {passes} steps"


def _measured(
    folder: Path, chosen: list[Benchmark], overrides: list[str], passes: str | None, where: Path | None, quiet: bool, how: dict[str, Any]
) -> dict[str, Any]:
    """One measurement, with so many passes a block if given, under progress bars."""
    from vocalnet_cli.core.evaluation.measure import measure

    changes = [*overrides, *([] if passes is None else [f"generation.steps={passes}"])]
    with progress(quiet) as bars:
        tasks = {benchmark.name: bars.add_task(f"{benchmark.name}{_label(passes)}", total=None) for benchmark in chosen}

        def tell(text: str) -> None:
            bars.console.print(text, markup=False, soft_wrap=True)

        return measure(
            folder, chosen, overrides=changes, output=where and (where if passes is None else where / f"steps-{passes}"),
            note=(lambda text: None) if quiet else tell, fail=tell,
            advance=lambda name, done, total: bars.update(tasks[name], completed=done, total=total), **how,
        )  # fmt: skip


def _refuse_failures(results: list[dict[str, Any]]) -> None:
    if failed := sum(one["failed"] for result in results for one in result["benchmarks"].values()):
        raise VocalnetError(f"{failed} questions could not be answered", "The reasons are above; the same command asks only those again.")


def _show(result: dict[str, Any], label: str) -> None:
    """The tables of one measurement."""
    from vocalnet_cli.core.evaluation import report

    scores = result["benchmarks"]
    show_table(report.COLUMNS, report.table(scores), title=f"{result['model']}{label}: {result['recogniser']}; 95 % intervals")
    if kinds := report.kinds_table(scores):
        show_table(report.KIND_COLUMNS, kinds)
