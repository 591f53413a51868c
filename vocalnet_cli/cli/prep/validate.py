"""`vocalnet prep validate`: is a manifest whole?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from vocalnet_cli.cli.console import show_table
from vocalnet_cli.cli.options import JsonOpt


def validate(
    manifest: Annotated[Path, typer.Argument(metavar="INPUT", help="A manifest (JSONL), or the folder that holds manifest.jsonl.")],
    as_json: JsonOpt = False,
) -> None:
    """Check every row of a manifest and the files it names; exit code 1 if any row is bad.

    \b
    Examples:
      vocalnet prep validate data/nano
      vocalnet prep validate data/nano/text.jsonl --json
    """
    from vocalnet_cli.core.data.record import validate_manifest

    report = validate_manifest(manifest / "manifest.jsonl" if manifest.is_dir() else manifest)
    if as_json:
        typer.echo(json.dumps(report))
    else:
        if report["problems"]:
            show_table(("line", "field", "reason"), [tuple(problem.values()) for problem in report["problems"]])
        typer.echo(f"{report['rows']} rows, {report['bad']} bad")
    if report["bad"]:
        raise typer.Exit(1)
