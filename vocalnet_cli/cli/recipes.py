"""`vocalnet recipes`: what can be run, by paper and table."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from vocalnet_cli.cli.options import JsonOpt

NameArg = Annotated[str | None, typer.Argument(metavar="NAME", help="Print this recipe with every setting it resolves to.")]


def recipes(name: NameArg = None, as_json: JsonOpt = False) -> None:
    """List the recipes by paper and table, or print one.

    \b
    Examples:
      vocalnet recipes
      vocalnet recipes mtp5 --json
    """
    from vocalnet_cli.core.config.load import load_recipe

    if name is None:
        _list(as_json)
        return
    resolved = load_recipe(name).resolved
    if as_json:
        typer.echo(json.dumps(resolved, ensure_ascii=False))
    else:
        import yaml

        typer.echo(yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True, width=120), nl=False)


def _list(as_json: bool) -> None:
    from vocalnet_cli.cli.console import show_table
    from vocalnet_cli.core.config.find import list_recipes
    from vocalnet_cli.core.config.load import load_recipe

    rows: list[dict[str, Any]] = []
    for info in list_recipes():
        recipe = load_recipe(str(info.path)).recipe
        paper = recipe.paper.model_dump() if recipe.paper is not None else None
        rows.append({"family": info.family, "name": info.short, "stage": recipe.stage, "paper": paper, "about": recipe.about})
    if as_json:
        typer.echo(json.dumps(rows, ensure_ascii=False))
        return
    show_table(
        ["family", "name", "stage", "paper", "about"],
        [[row["family"], row["name"], row["stage"] or "-", _place(row["paper"]), row["about"]] for row in rows],
    )


def _place(paper: dict[str, object] | None) -> str:
    return f"{paper['arxiv']}, {paper['table']}: {paper['row']}" if paper else "-"
