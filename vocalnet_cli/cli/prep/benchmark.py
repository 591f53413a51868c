"""`vocalnet prep benchmark`: held-out rows packed for `vocalnet eval`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from vocalnet_cli.cli.console import progress, show_table
from vocalnet_cli.cli.options import JsonOpt, LimitOpt, OutputOpt, QuietOpt, SeedOpt


def benchmark(
    manifest: Annotated[
        Path, typer.Argument(metavar="MANIFEST", help="Manifest of a corpus (JSONL), or the folder that holds manifest.jsonl.")
    ],
    split: Annotated[str, typer.Option("--split", metavar="SPLIT", help="Split the rows come from.")],
    without: Annotated[
        list[str] | None, typer.Option("--without", metavar="NAME", help="Leave out the rows of this benchmark. Repeatable.")
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Only rows whose recorded answer the recogniser hears without error.")] = False,
    output: OutputOpt = None,
    limit: LimitOpt = None,
    seed: SeedOpt = None,
    as_json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Pack rows of one split for `vocalnet eval`: every kind of question, sound as Opus; 120 rows unless --limit says otherwise.

    \b
    Examples:
      vocalnet prep benchmark data/nano --split test-voice -o nano-voice
      vocalnet prep benchmark data/nano --split test-combination --without nano-combination --clear --limit 60 -o nano-ablation
    """
    from vocalnet_cli.core.errors import UsageError
    from vocalnet_cli.core.evaluation.benchmarks import load_benchmark
    from vocalnet_cli.core.evaluation.pack import ROWS, pack_benchmark

    if output is None:
        raise UsageError("no folder for the benchmark", f"name one: vocalnet prep benchmark {manifest} --split {split} -o DIR")
    known = {record.id for name in without or () for record in load_benchmark(name).records}
    source = manifest / "manifest.jsonl" if manifest.is_dir() else manifest
    with progress(quiet) as bars:
        bar = bars.add_task("rows", total=None)
        stats = pack_benchmark(
            source,
            split,
            Path(output),
            limit or ROWS,
            seed or 0,
            lambda done, total: bars.update(bar, completed=done, total=total),
            without=known,
            clear=clear,
        )
    if as_json:
        typer.echo(json.dumps(stats))
    else:
        show_table(("rows", "kinds", "MB"), [(stats["rows_out"], len(stats["kinds"]), stats["megabytes"])], title=output)
