"""`vocalnet latency`: the time to the first sound of whole answers, stage by stage."""

from __future__ import annotations

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
    refuse_options_before_command,
)


def turns(
    context: typer.Context,
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
    """Time to the first sound, stage by stage, counted from the last sample of the question; tokens/s, real-time factor, memory.

    --limit: questions asked of each set; --set latency.repeats=N: how often; -o DIR: also a chart and every answer's numbers.

    \b
    Examples:
      vocalnet latency
      vocalnet latency --model nano --limit 5 --json
      vocalnet latency --recipe nano/latency -o times
      vocalnet latency --model VocalNet/VocalNet-1B --vocoder FunAudioLLM/CosyVoice2-0.5B --voice me.wav
    """
    if context.invoked_subcommand is not None:
        refuse_options_before_command(context)
        return
    from vocalnet_cli.core.latency import report
    from vocalnet_cli.core.latency.bench import run_turns
    from vocalnet_cli.core.latency.results import first_sound_bars, write_results
    from vocalnet_cli.core.latency.setup import Asked, resolve

    setup = resolve(Asked(model, recipe, device, dtype, quantize, changes(overrides, steps), vocoder, voice))
    asked, folder = questions(setup.latency, benchmarks, limit), check_output(output)
    with watch("answers", quiet) as advance:
        measured = run_turns([setup], asked, seed or 0, advance)
    result = report.report(measured, seed or 0)
    title = report.title(result)
    if folder is not None:
        write_results(folder, "latency", result, title, "ms to the first sound", first_sound_bars(result), report.turn_lines(measured))
    finish(result, as_json, lambda: show_table(report.columns(result), report.table(result), title), report.remarks(result))
