"""`vocalnet latency compare`: two settings in the same run."""

from __future__ import annotations

from typing import Annotated

import typer

from vocalnet_cli.cli.console import show_table
from vocalnet_cli.cli.latency.common import BenchmarkOpt, MeasuredOpt, changes, check_output, finish, questions, watch
from vocalnet_cli.cli.options import (
    DeviceOpt,
    DtypeOpt,
    JsonOpt,
    LimitOpt,
    ModelOpt,
    OutputOpt,
    QuantizeOpt,
    QuietOpt,
    SeedOpt,
    SetOpt,
    StepsOpt,
    VocoderOpt,
    VoiceOpt,
)

SideArg = Annotated[str, typer.Argument(metavar="A", help="A model, KEY=VALUE, or several joined by commas.", show_default=False)]
OtherArg = Annotated[str, typer.Argument(metavar="B", help="What it is compared with.", show_default=False)]


def compare(
    a: SideArg,
    b: OtherArg,
    model: ModelOpt = None,
    recipe: MeasuredOpt = None,
    benchmarks: BenchmarkOpt = None,
    output: OutputOpt = None,
    device: DeviceOpt = "auto",
    dtype: DtypeOpt = "auto",
    seed: SeedOpt = None,
    overrides: SetOpt = None,
    limit: LimitOpt = None,
    quantize: QuantizeOpt = None,
    steps: StepsOpt = None,
    vocoder: VocoderOpt = None,
    voice: VoiceOpt = None,
    as_json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Ask A and B the same questions in turn, and tell each time of B over that of A, with its spread.

    A side names a model, or changes what the options say for both: model=, recipe=, device=, dtype=, quantize=, vocoder=, voice=,
    generation.KEY=VALUE, vocoder.KEY=VALUE.

    \b
    Examples:
      vocalnet latency compare generation.streaming=true generation.streaming=false
      vocalnet latency compare nano runs/nano/ntp/model --limit 5 --json
      vocalnet latency compare dtype=fp32 dtype=bf16,generation.tokens_per_step=5 --model nano
    """
    from vocalnet_cli.core.latency import report
    from vocalnet_cli.core.latency.bench import run_turns
    from vocalnet_cli.core.latency.results import compare_bars, write_results
    from vocalnet_cli.core.latency.setup import Asked, resolve, side

    common = Asked(model, recipe, device, dtype, quantize, changes(overrides, steps), vocoder, voice)
    setups = [resolve(side(text, common)) for text in (a, b)]
    asked, folder = questions(setups[0].latency, benchmarks, limit), check_output(output)
    with watch("answers", quiet) as advance:
        measured = run_turns(setups, asked, seed or 0, advance)
    result = report.compared(measured, [a, b], seed or 0)
    title = f"A: {a}; B: {b}; {result['pairs']} pairs of answers, asked in turn"
    if folder is not None:
        write_results(
            folder, "compare", result, title, "ms to the first sound", compare_bars(result), report.turn_lines(measured, ["a", "b"])
        )
    finish(result, as_json, lambda: show_table(report.COMPARE_COLUMNS, report.compare_table(result), title))
