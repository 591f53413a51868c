"""`vocalnet eval compare`: two runs on the same questions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from vocalnet_cli.cli.console import show_table
from vocalnet_cli.cli.options import JsonOpt

COLUMNS = ("benchmark", "answers", "n", "first", "second", "difference", "95 % interval", "p")


def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="Folder that `vocalnet eval -o` wrote.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another, of the same questions and judge.")],
    as_json: JsonOpt = False,
) -> None:
    """What B has over A, each question compared with itself: difference, bootstrap interval, and the chance that it is none.

    Right answers in percent (McNemar's exact test), marks out of ten (sign flips). Runs that do not compare are refused.

    \b
    Examples:
      vocalnet eval compare scores/ntp scores/mtp5
      vocalnet eval compare scores/mtp5 scores/mdm --json
    """
    from vocalnet_cli.core.evaluation.compare import compare as paired
    from vocalnet_cli.core.evaluation.results import read_run

    runs = read_run(first), read_run(second)
    found = paired(*runs)
    if as_json:
        typer.echo(json.dumps({"first": str(first), "second": str(second), "benchmarks": found}, ensure_ascii=False))
        return
    rows = []
    for name, one in found.items():
        for kind, label in (("s2t", "text"), ("s2s", "speech")):
            if told := one.get(kind):
                low, high = told["ci"]
                shown = f"{told['difference']:+g}", f"{low:+g} to {high:+g}", told["p"]
                rows.append((name, label, told["n"], told["first"], told["second"], *shown))
    show_table(COLUMNS, rows, title=f"{second} over {first}; judge: {runs[0].report.judge}")
