"""`vocalnet latency talker`: how fast talkers speak, at any size."""

from __future__ import annotations

from typing import Annotated

import typer

from vocalnet_cli.cli.console import show_table
from vocalnet_cli.cli.latency.common import SizeOpt, check_output, finish, watch
from vocalnet_cli.cli.options import DeviceOpt, DtypeOpt, JsonOpt, OutputOpt, QuietOpt, SeedOpt, SetOpt

CompareOpt = Annotated[
    str,
    typer.Option(
        "--compare",
        metavar="A,B",
        help="Talkers, each with its tokens a step (mdm: passes a block) behind it; told over the first.",
    ),
]


def talker(
    size: SizeOpt = "1b",
    compare: CompareOpt = "ntp,mtp3",
    output: OutputOpt = None,
    device: DeviceOpt = "auto",
    dtype: DtypeOpt = "auto",
    seed: SeedOpt = None,
    overrides: SetOpt = None,
    as_json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Speech tokens a second of talkers with random weights, in turn, and of each without its caches. Nothing is downloaded.

    --set latency.answer_s=4: a shorter answer; --set latency.repeats=5: more rounds; --set latency.baseline=false: with caches only.

    \b
    Examples:
      vocalnet latency talker --size nano
      vocalnet latency talker --size 1b --dtype bf16 --compare ntp,mtp3,mdm4 --json
    """
    from vocalnet_cli.core.latency import part_report
    from vocalnet_cli.core.latency.random_parts import sized
    from vocalnet_cli.core.latency.results import write_results
    from vocalnet_cli.core.latency.talker import find_variants, talker_latency
    from vocalnet_cli.core.model.device import pick_device, pick_dtype

    recipe = sized(size, overrides or ())
    variants = find_variants(compare, recipe)
    where = pick_device(device)
    kind = pick_dtype(dtype, where)
    folder = check_output(output)
    with watch("answers", quiet) as advance:
        measured = talker_latency(variants, recipe, where, kind, seed or 0, advance)
    result = part_report.complete(measured, size, where, kind, seed or 0)
    title = part_report.title("talkers", result)
    if folder is not None:
        bars = {name: {"tokens/s": rate} for name, rate in part_report.rates(result).items()}
        write_results(folder, "talker", result, title, "speech tokens a second", bars)
    finish(result, as_json, lambda: show_table(part_report.TALKER_COLUMNS, part_report.talker_table(result), title))
