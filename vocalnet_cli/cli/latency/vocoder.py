"""`vocalnet latency vocoder`: what the caches of the CosyVoice2 vocoder save."""

from __future__ import annotations

from typing import Annotated

import typer

from vocalnet_cli.cli.console import show_table
from vocalnet_cli.cli.latency.common import SizeOpt, check_output, finish, watch
from vocalnet_cli.cli.options import DeviceOpt, DtypeOpt, JsonOpt, OutputOpt, QuietOpt, SeedOpt, SetOpt

StepsOpt = Annotated[int | None, typer.Option("--steps", metavar="N", min=1, max=10, help="Steps of the ODE (10 if none).")]


def vocoder(
    size: SizeOpt = "1b",
    steps: StepsOpt = None,
    output: OutputOpt = None,
    device: DeviceOpt = "auto",
    dtype: DtypeOpt = "auto",
    seed: SeedOpt = None,
    overrides: SetOpt = None,
    as_json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """An answer in chunks and at once by the CosyVoice2 vocoder with random weights, against computing everything anew each chunk.

    1b and 8b have CosyVoice2's own sizes, nano a small vocoder of the same build. --dtype is the flow's. --set model.vocoder.KEY=VALUE:
    how it streams; latency.answer_s, latency.prompt_s, latency.chunk_tokens: what is spoken; latency.baseline=false: ours alone.

    \b
    Examples:
      vocalnet latency vocoder --size nano
      vocalnet latency vocoder --steps 5 --dtype bf16 --set model.vocoder.context=full --json
    """
    from vocalnet_cli.core.latency import part_report
    from vocalnet_cli.core.latency.random_parts import sized
    from vocalnet_cli.core.latency.results import write_results
    from vocalnet_cli.core.latency.vocoder import measure_vocoder, vocoder_overrides
    from vocalnet_cli.core.model.device import pick_device, pick_dtype

    where = pick_device(device)
    kind = pick_dtype(dtype, where)
    recipe = sized(size, vocoder_overrides(size, kind, steps, overrides or ()))
    folder = check_output(output)
    with watch("chunks", quiet) as advance:
        measured = measure_vocoder(recipe, where, seed or 0, advance)
    result = part_report.complete(measured, size, where, kind, seed or 0)
    title = part_report.title("vocoder", result)
    if folder is not None:
        write_results(folder, "vocoder", result, title, "ms, chunk by chunk", part_report.vocoder_bars(result))
    finish(
        result, as_json, lambda: show_table(part_report.VOCODER_COLUMNS, part_report.vocoder_table(result), title),
        part_report.vocoder_remarks(result),
    )  # fmt: skip
