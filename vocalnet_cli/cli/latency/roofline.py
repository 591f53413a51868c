"""`vocalnet latency roofline`: how near each stage comes to what the machine can do."""

from __future__ import annotations

from vocalnet_cli.cli.console import show_table
from vocalnet_cli.cli.latency.common import SizeOpt, check_output, finish, watch
from vocalnet_cli.cli.options import DeviceOpt, DtypeOpt, JsonOpt, OutputOpt, QuietOpt, SeedOpt, SetOpt


def roofline(
    size: SizeOpt = "1b",
    output: OutputOpt = None,
    device: DeviceOpt = "auto",
    dtype: DtypeOpt = "auto",
    seed: SeedOpt = None,
    overrides: SetOpt = None,
    as_json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Bandwidth and matmul rate of this machine, and what part of them each stage reaches, in the same run.

    Bandwidth: a read-only sum over 2 GiB, all threads, best of 5. Weights are random; stages are built one at a time.

    \b
    Examples:
      vocalnet latency roofline --size nano
      vocalnet latency roofline --size 1b --dtype bf16 --json
    """
    from vocalnet_cli.core.latency import part_report
    from vocalnet_cli.core.latency.random_parts import sized
    from vocalnet_cli.core.latency.results import write_results
    from vocalnet_cli.core.latency.roofline import roofline as measure
    from vocalnet_cli.core.model.device import pick_device, pick_dtype

    recipe = sized(size, overrides or ())
    where = pick_device(device)
    kind = pick_dtype(dtype, where)
    folder = check_output(output)
    with watch("stages", quiet) as advance:
        measured = measure(recipe, where, kind, seed or 0, advance)
    result = part_report.complete(measured, size, where, kind, seed or 0)
    title = part_report.title("roofline", result)
    if folder is not None:
        write_results(
            folder, "roofline", result, title, "ms a step: at the machine's limit, and what is lost", part_report.roofline_bars(result)
        )
    finish(
        result, as_json, lambda: show_table(part_report.ROOFLINE_COLUMNS, part_report.roofline_table(result), title),
        part_report.roofline_remarks(result),
    )  # fmt: skip
