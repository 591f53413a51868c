"""What the corpus steps of `vocalnet prep` share: their options, progress and how they end."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vocalnet_cli.cli.console import err, progress, show_table

if TYPE_CHECKING:
    from vocalnet_cli.core.data.prep.step import Step

InputArg = Annotated[
    list[str],
    typer.Argument(metavar="INPUT...", help="Files, folders of parquet, JSONL or JSON, or a data set of the hub (OWNER/NAME)."),
]
WorkersOpt = Annotated[int, typer.Option("--workers", metavar="N", min=0, help="Processes; 0: one a core. The outcome is the same.")]
EngineOpt = Annotated[str, typer.Option("--engine", metavar="ENGINE", help="local: processes; ray: Ray Data, RAY_ADDRESS or this machine.")]
ShardRowsOpt = Annotated[int, typer.Option("--shard-rows", metavar="N", min=1, help="Rows that are finished, and kept, together.")]
RootOpt = Annotated[
    Path | None, typer.Option("--root", metavar="DIR", help="Folder that sound and token paths are relative to, and may not leave.")
]
TextOnlyOpt = Annotated[bool, typer.Option("--text-only", help="Leave the corpus's recordings out: the text is to be spoken anew.")]
SplitOpt = Annotated[str, typer.Option("--split", metavar="NAME", help="Split the rows are given.")]


def run(
    step: Step,
    inputs: list[str],
    output: str | None,
    *,
    workers: int = 0,
    engine: str = "local",
    shard: str | None = None,
    shard_rows: int = 500,
    limit: int | None = None,
    as_json: bool = False,
    quiet: bool = False,
) -> None:
    """Run a step with progress on stderr, and print its stats."""
    from vocalnet_cli.core.data.prep.run import Manner, Tally, parse_part, run_step

    if output is None:
        raise no_folder(step.name, inputs[0])
    manner = Manner(workers, engine, parse_part(shard) if shard else (1, 1), shard_rows, limit)
    started = time.monotonic()
    with progress(quiet) as bars:
        bar = bars.add_task(step.name, total=None)

        def advance(tally: Tally) -> None:
            rate = tally.rows / max(1e-9, time.monotonic() - started)
            told = f"{step.name}: {rate:.0f} rows/s, {tally.audio_s / 3600:.2f} h of sound"
            bars.update(bar, completed=tally.rows, total=tally.total, description=told)

        stats = run_step(step, inputs, Path(output), manner, advance)
    _tell(stats, output, as_json, quiet)


def no_folder(step: str, given: str) -> Exception:
    """The mistake of not saying where the manifest goes."""
    from vocalnet_cli.core.errors import UsageError

    return UsageError("no folder for the manifest", f"name one: vocalnet prep {step} {given} -o DIR")


def _tell(stats: dict[str, Any], output: str, as_json: bool, quiet: bool) -> None:
    if as_json:
        typer.echo(json.dumps(stats))
    elif "unfinished" in stats:
        typer.echo(f"{output}: {stats['unfinished']} shards are still to do")
    else:
        rejected = stats["rejected"]
        columns = ("rows in", "rows out", "rejected", "hours", "seconds", "rows/s")
        cells = (stats["rows_in"], stats["rows_out"], sum(rejected.values()), stats["audio_hours"], stats["seconds"], stats["rows_per_s"])
        show_table(columns, [cells], title=output)
        if rejected:
            show_table(("rejected", "rows"), rejected.items(), title=str(Path(output) / "rejects.jsonl"))
    if "unfinished" in stats and not quiet:
        err().print("The manifest is written when every part has run; then any part may be run again to write it.", markup=False)
