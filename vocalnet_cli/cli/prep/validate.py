"""`vocalnet prep validate`: is a manifest whole?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from vocalnet_cli.cli.console import progress, show_table
from vocalnet_cli.cli.options import JsonOpt, QuietOpt
from vocalnet_cli.cli.prep.common import RootOpt, WorkersOpt


def validate(
    manifest: Annotated[Path, typer.Argument(metavar="INPUT", help="A manifest (JSONL), or the folder that holds manifest.jsonl.")],
    max_bad: Annotated[int, typer.Option("--max-bad", metavar="N", min=0, help="Exit with code 1 only past N bad rows.")] = 0,
    headers: Annotated[bool, typer.Option("--headers", help="Do not decode sound: quick, but silence and clipping are not seen.")] = False,
    plots: Annotated[Path | None, typer.Option("--plots", metavar="DIR", help="Write histograms there as PNG.")] = None,
    root: RootOpt = None,
    workers: WorkersOpt = 0,
    as_json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Check every row of a manifest and the files it names; exit code 1 if any row is bad.

    Looked at: fields, ids, paths, sound (readable, silent, clipped), tokens (range, number against the sound's length, one
    tokenizer), and whether the text can be what is said.

    \b
    Examples:
      vocalnet prep validate data/nano
      vocalnet prep validate data/train --max-bad 20 --plots plots --json
    """
    from vocalnet_cli.core.data.prep.run import cores
    from vocalnet_cli.core.data.prep.validate import validate_manifest

    with progress(quiet) as bars:
        bar = bars.add_task("rows", total=None)
        report = validate_manifest(
            manifest / "manifest.jsonl" if manifest.is_dir() else manifest,
            root,
            not headers,
            lambda done, total: bars.update(bar, completed=done, total=total),
            workers or cores(),
        )
    values = report.pop("values")
    if plots is not None:
        values.plot(plots)
    if as_json:
        typer.echo(json.dumps(report))
    else:
        if report["problems"]:
            show_table(("line", "field", "reason", "what to do"), [tuple(problem.values()) for problem in report["problems"]])
        if report["statistics"]:
            show_table(tuple(report["statistics"][0]), [tuple(row.values()) for row in report["statistics"]])
        typer.echo(f"{report['rows']} rows, {report['bad']} bad")
    if report["bad"] > max_bad:
        raise typer.Exit(1)
