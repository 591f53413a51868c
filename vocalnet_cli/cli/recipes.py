"""`vocalnet recipes`: what can be run, by paper and table, and whole tables run at once."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from vocalnet_cli.cli.console import TableProgress, show_table
from vocalnet_cli.cli.options import DeviceOpt, DryRunOpt, JsonOpt, LimitOpt, OutputOpt, QuietOpt, SetOpt


class NameOrCommand(TyperGroup):
    """A group that also takes a NAME: a first word that is no subcommand is one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] in self.commands:
            return super().parse_args(ctx, ["", *args])  # an empty NAME, so that the subcommand is not taken for it
        ctx.allow_interspersed_args, ctx.allow_extra_args = True, False
        return super().parse_args(ctx, args)

    def get_params(self, ctx: Any) -> Any:
        """A subcommand shows its parent's arguments in its usage; NAME never goes with one."""
        return super().get_params(ctx) if ctx.command is self else []


app = typer.Typer(cls=NameOrCommand, invoke_without_command=True, subcommand_metavar="| COMMAND [ARGS]...")

NameArg = Annotated[str | None, typer.Argument(metavar="NAME", help="Print this recipe with every setting it resolves to.")]
TableOpt = Annotated[str, typer.Option("--table", metavar="N", help="Table of the paper, as `vocalnet recipes` names it.")]
OfTableOpt = Annotated[str | None, typer.Option("--table", metavar="N", help="Only the rows of this table, with the paper's figures.")]
FamilyOpt = Annotated[str, typer.Option("--family", metavar="FAMILY", help="Recipes to take: nano (its ablation-* recipes), vocalnet.")]
PaperOpt = Annotated[str | None, typer.Option("--paper", metavar="ARXIV", help="arXiv id, where two papers have a table of that number.")]
SeedsOpt = Annotated[int, typer.Option("--seeds", metavar="K", min=1, help="Runs of each row, with the seeds 0 to K-1.")]
RowsOpt = Annotated[str | None, typer.Option("--limit-rows", metavar="A,B", help="Run these rows only.")]


@app.callback()
def recipes(context: typer.Context, name: NameArg = None, table: OfTableOpt = None, as_json: JsonOpt = False) -> None:
    """List the recipes by paper and table, print one, or run a whole table.

    \b
    Examples:
      vocalnet recipes
      vocalnet recipes mtp5 --json
      vocalnet recipes --table 5
      vocalnet recipes run --table 5 --seeds 3
    """
    if context.invoked_subcommand is not None:
        return
    from vocalnet_cli.core.config.load import load_recipe
    from vocalnet_cli.core.errors import UsageError

    if name and table is not None:
        raise UsageError(f"--table {table} and {name}: a table and a recipe", "Give one of them.")
    if name is None:
        _list(table, as_json)
        return
    resolved = load_recipe(name).resolved
    if as_json:
        typer.echo(json.dumps(resolved, ensure_ascii=False))
    else:
        import yaml

        typer.echo(yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True, width=120), nl=False)


@app.command()
def run(
    table: TableOpt,
    family: FamilyOpt = "nano",
    seeds: SeedsOpt = 3,
    paper: PaperOpt = None,
    limit_rows: RowsOpt = None,
    output: OutputOpt = None,
    device: DeviceOpt = "auto",
    limit: LimitOpt = None,
    overrides: SetOpt = None,
    dry_run: DryRunOpt = False,
    as_json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Train and measure every row of a paper's table with several seeds; what is done already is kept. --limit: questions a set.

    Means and deviations go to DIR/results.json (DIR: runs/tables/FAMILY-PAPER-tableN). Stop it and run it again to go on.

    \b
    Examples:
      vocalnet recipes run --table 5 --seeds 3 --dry-run
      vocalnet recipes run --table 5 --limit-rows ntp,mtp3 --seeds 2 --json
    """
    from vocalnet_cli.core.errors import VocalnetError
    from vocalnet_cli.core.experiments.table import find_table

    found = find_table(family, table, paper)
    rows = found.choose(limit_rows)
    from vocalnet_cli.core.experiments.grid import make_grid
    from vocalnet_cli.core.experiments.plan import plan
    from vocalnet_cli.core.experiments.run import Watch, run_table
    from vocalnet_cli.core.experiments.summary import COLUMNS
    from vocalnet_cli.core.experiments.summary import table as lines
    from vocalnet_cli.core.model.device import pick_device

    changed = [*(overrides or []), *([f"eval.limit={limit}"] if limit is not None else [])]
    grid = make_grid(found, rows, seeds, Path(output) if output else None, changed)
    where = str(pick_device(device))
    if dry_run:
        _show_plan(plan(grid, where), as_json)
        return
    options = [("--paper", paper), ("--limit-rows", limit_rows), ("-o", output), ("--device", device if device != "auto" else None)]
    given = [word for name, value in [*options, *(("--set", one) for one in changed)] if value is not None for word in (name, value)]
    again = shlex.join(["vocalnet", "recipes", "run", "--table", table, "--family", family, "--seeds", str(seeds), *given])
    with TableProgress(quiet) as shown:
        results = run_table(grid, where, again, Watch(shown.note, shown.failed, shown.asked), quiet)
    if as_json:
        typer.echo(json.dumps(results, ensure_ascii=False))
    else:
        show_table(COLUMNS, lines(results), title=f"table {found.table} of {found.paper}, family {found.family}: {grid.output}")
    if failed := results["failed"]:
        told = ", ".join(f"{one['row']} with seed {one['seed']}" for one in failed)
        raise VocalnetError(
            f"{len(failed)} of {len(grid.asked)} runs failed: {told}", "The reasons are above; the same command tries only these again."
        )


def _show_plan(planned: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(planned, ensure_ascii=False))
        return
    seeds = list(dict.fromkeys(seed for row in planned["rows"].values() for seed in row["seeds"]))
    show_table(
        ["row", "recipe", "trainable", *(f"seed {seed}" for seed in seeds)],
        [[name, row["recipe"], row["trainable"], *(row["seeds"][seed] for seed in seeds)] for name, row in planned["rows"].items()],
        title=f"table {planned['table']} of {planned['paper']}, family {planned['family']}: {planned['output']}",
    )
    for one in planned["missing"]:
        typer.echo(f"missing: {one['weights']} ({', '.join(one['parts'])} of {', '.join(one['rows'])}): {one['command']}")


def _list(table: str | None, as_json: bool) -> None:
    from vocalnet_cli.core.experiments.table import catalogue

    rows = catalogue(table)
    if as_json:
        typer.echo(json.dumps(rows, ensure_ascii=False))
    elif table is None:
        show_table(
            ["family", "name", "stage", "paper", "about"],
            [[row["family"], row["name"], row["stage"] or "-", _place(row["paper"]), row["about"]] for row in rows],
        )
    else:
        show_table(
            ["paper", "row", "the paper's", "recipe", "stage"],
            [
                [row["paper"]["arxiv"], row["paper"]["row"], _figures(row["paper"]), f"{row['family']}/{row['name']}", row["stage"] or "-"]
                for row in rows
            ],
            title=f"table {table}",
        )


def _place(paper: dict[str, object] | None) -> str:
    return f"{paper['arxiv']}, {paper['table']}: {paper['row']}" if paper else "-"


def _figures(paper: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in paper["expect"].items()) or "-"
