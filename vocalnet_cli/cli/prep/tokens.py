"""`vocalnet prep tokens`: spoken answers into speech tokens."""

from __future__ import annotations

from typing import Annotated

import typer

from vocalnet_cli.cli.options import DeviceOpt, JsonOpt, LimitOpt, OutputOpt, QuietOpt, ShardOpt
from vocalnet_cli.cli.prep.common import EngineOpt, InputArg, RootOpt, ShardRowsOpt, WorkersOpt, run


def tokens(
    inputs: InputArg,
    output: OutputOpt = None,
    tokenizer: Annotated[
        str,
        typer.Option("--tokenizer", metavar="NAME", help="nano, a folder of CosyVoice2-0.5B, its speech_tokenizer_v2 file, or its hub id."),
    ] = "FunAudioLLM/CosyVoice2-0.5B",
    collapse_repeats: Annotated[
        bool, typer.Option("--collapse-repeats", help="Merge runs of equal tokens; each row records it. Loses durations.")
    ] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Make tokens anew where a row has those of another tokenizer.")] = False,
    batch_size: Annotated[int, typer.Option("--batch-size", metavar="N", min=1, help="Windows of up to 30 s computed at once.")] = 8,
    root: RootOpt = None,
    device: DeviceOpt = "auto",
    workers: WorkersOpt = 0,
    engine: EngineOpt = "local",
    shard: ShardOpt = None,
    shard_rows: ShardRowsOpt = 128,
    limit: LimitOpt = None,
    as_json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Give every row of a manifest the speech tokens of its answer.audio, 25 a second. Run again to resume.

    Longer recordings are cut into windows of 30 s that overlap by 4 s, whose outer 2 s are dropped at each joint. The tokenizer's hash
    is recorded in each row.

    \b
    Examples:
      vocalnet prep tokens data/spoken -o data/train --tokenizer models/CosyVoice2-0.5B
      vocalnet prep tokens data/spoken -o data/nano-train --tokenizer nano --json
    """
    from vocalnet_cli.core.data.prep.tokens import Tokens

    where: str = device
    if device != "cpu":  # for which torch, a second, is needed only in workers
        from vocalnet_cli.core.model.device import pick_device

        where = str(pick_device(device))
    step = Tokens(tokenizer, where, batch_size, collapse_repeats, replace, str(root) if root else None)
    run(
        step,
        inputs,
        output,
        workers=workers if workers or where == "cpu" else 1,
        engine=engine,
        shard=shard,
        shard_rows=shard_rows,
        limit=limit,
        as_json=as_json,
        quiet=quiet,
    )
