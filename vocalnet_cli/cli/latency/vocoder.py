"""`vocalnet latency vocoder`: what the caches of the CosyVoice2 vocoder save."""

from __future__ import annotations

from vocalnet_cli.cli.console import show_table
from vocalnet_cli.cli.latency.common import SizeOpt, check_output, finish, watch
from vocalnet_cli.cli.options import DeviceOpt, DtypeOpt, JsonOpt, OutputOpt, QuietOpt, SeedOpt, SetOpt


def vocoder(
    size: SizeOpt = "1b",
    output: OutputOpt = None,
    device: DeviceOpt = "auto",
    dtype: DtypeOpt = "auto",
    seed: SeedOpt = None,
    overrides: SetOpt = None,
    as_json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """An answer in chunks and at once by the CosyVoice2 vocoder with random weights, in turn with computing everything anew each chunk.

    Also: fp32 against bf16, a minute under `context: window`, less look-ahead in HiFT, each with what it changes of the sound.
    1b and 8b have CosyVoice2's own sizes (minutes on a CPU), nano a small vocoder of the same build; --dtype is the
    flow's. With --set: model.vocoder.steps, .guidance and more: how it works; latency.answer_s, .prompt_s, .chunk_tokens, .long_s,
    .window_tokens: what it speaks; latency.baseline=false: not without caches.

    \b
    Examples:
      vocalnet latency vocoder --size nano
      vocalnet latency vocoder --dtype bf16 --set model.vocoder.steps=5 --json
    """
    from vocalnet_cli.core.latency import part_report
    from vocalnet_cli.core.latency.random_parts import sized
    from vocalnet_cli.core.latency.results import write_results
    from vocalnet_cli.core.latency.vocoder import measure_vocoder, vocoder_overrides
    from vocalnet_cli.core.model.device import pick_device, pick_dtype

    where = pick_device(device)
    kind = pick_dtype(dtype, where)
    recipe = sized(size, vocoder_overrides(size, kind, overrides or ()))
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
