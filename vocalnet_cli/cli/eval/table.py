"""`vocalnet eval table`: the papers' tables with ours beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from vocalnet_cli.cli.console import show_table
from vocalnet_cli.cli.options import JsonOpt
from vocalnet_cli.core.errors import UsageError, VocalnetError

NameArg = Annotated[
    str, typer.Argument(metavar="TABLE", help="1 to 11 of VocalNet; mdm, mdm-text, mdm-latency, mdm-ablation of VocalNet-MDM.")
]
FamilyOpt = Annotated[str, typer.Option("--family", metavar="FAMILY", help="Whose results to look for: nano or vocalnet.")]
ResultsOpt = Annotated[
    list[Path] | None,
    typer.Option("--results", metavar="DIR", help="Results of `recipes run`, `eval -o` or `latency -o`. Repeatable; else runs/tables."),
]
FormOpt = Annotated[str, typer.Option("--format", metavar="FORM", help="terminal, markdown, latex or csv.")]
SubsetsOpt = Annotated[bool, typer.Option("--subsets", help="Every subset's column too, not the averages alone.")]
MixedOpt = Annotated[bool, typer.Option("--mixed", help="Show rows of ours although judge, scale or recogniser differ; the notes tell.")]


def table(
    name: NameArg,
    family: FamilyOpt = "nano",
    results: ResultsOpt = None,
    form: FormOpt = "terminal",
    subsets: SubsetsOpt = False,
    mixed: MixedOpt = False,
    as_json: JsonOpt = False,
) -> None:
    """A table of the papers, our rows beside theirs, with what made ours: recipe, weights, judge, recogniser, versions, date.

    Differences are shown only where judge, scale, recogniser, questions or machine are the paper's; else each side's change from
    the first row. Rows of ours that were not measured alike are refused.

    \b
    Examples:
      vocalnet eval table 5 --family nano
      vocalnet eval table 1 --results scores --subsets --format markdown
      vocalnet eval table mdm --results curve --format latex
    """
    from vocalnet_cli.core.experiments import layout
    from vocalnet_cli.core.experiments.published import find_published, how_to_make, results_of

    if form not in ("terminal", *layout.FORMS):
        raise UsageError(f"--format {form}: no such form", f"There are: terminal, {', '.join(layout.FORMS)}.")
    paper, place = find_published(name)
    from vocalnet_cli.core.experiments.comparison import compare

    ours = results_of(paper, place, family, results)
    found = compare(paper, place, family, ours, subsets, mixed)
    if results and not any(line.made for line in found.lines):
        raise VocalnetError(
            f"table {name}: none of its rows are in {', '.join(map(str, results))}", f"Make them: {how_to_make(paper, place, family)}"
        )
    if as_json:
        typer.echo(json.dumps(found.as_json(), ensure_ascii=False))
        return
    if form != "terminal":
        typer.echo(layout.FORMS[form](found), nl=False)
        return
    show_table(*layout.cells(found), title=layout.title(found))
    for note in layout.notes(found):
        typer.echo(note)
    if not any(line.made for line in found.lines):
        typer.echo(f"Ours: none yet. Make them: {how_to_make(paper, place, family)}")
