"""`vocalnet eval report`: results as a page to listen to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from vocalnet_cli.cli.options import JsonOpt, OutputOpt

RunArg = Annotated[Path, typer.Argument(metavar="DIR", help="Results of `vocalnet eval -o DIR`.")]


def report(folder: RunArg, output: OutputOpt = None, as_json: JsonOpt = False) -> None:
    """Write a page with each question and answer to listen to, what was heard, and the verdicts: DIR/page, or -o.

    The folder is complete: move it, zip it, open it from a disk.

    \b
    Examples:
      vocalnet eval report scores
      vocalnet eval report scores -o page --json
    """
    from vocalnet_cli.core.evaluation.page import write_page
    from vocalnet_cli.core.evaluation.results import read_run

    page = write_page(read_run(folder), Path(output) if output else folder / "page")
    typer.echo(json.dumps({"page": str(page)}) if as_json else str(page))
