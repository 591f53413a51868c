"""The rows of a paper's table, each a recipe."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from vocalnet_cli.core.config.find import RecipeInfo, list_recipes
from vocalnet_cli.core.config.load import load_recipe
from vocalnet_cli.core.config.schema import PaperRow, Recipe
from vocalnet_cli.core.errors import UsageError

_NANO, _ABLATION = "nano", "ablation-"
"""At laptop size the tables have recipes of their own: those of the embedded model are trained longer, and only some rows have one."""


@dataclass(frozen=True)
class Row:
    """One row: a recipe, and what the paper says of it."""

    name: str
    """The recipe's name without its family (for nano, without `ablation-` too)."""
    recipe: str
    """The recipe as `--recipe` takes it."""
    paper: PaperRow


@dataclass(frozen=True)
class Table:
    """A table of one paper, as far as a family of recipes has it."""

    paper: str
    """arXiv id."""
    table: str
    family: str
    rows: list[Row]
    """In the table's own order."""

    def choose(self, names: str | None) -> list[Row]:
        """The rows of a comma-separated list of names; none = all. Raises UsageError for a name no row has."""
        wanted = [name.strip() for name in names.split(",") if name.strip()] if names is not None else [row.name for row in self.rows]
        known = {row.name for row in self.rows}
        unknown = [name for name in wanted if name not in known]
        if unknown or not wanted:
            raise UsageError(
                f"--limit-rows {names}: {f'no row is called {unknown[0]}' if unknown else 'names no row'}",
                f"Table {self.table} of {self.paper} has, in family {self.family}: {', '.join(row.name for row in self.rows)}.",
            )
        return [row for row in self.rows if row.name in wanted]


def find_table(family: str, table: str, paper: str | None = None) -> Table:
    """The recipes of a family that stand for rows of a table: for nano its `ablation-*` recipes, else all.

    Raises UsageError for a family, table or paper there is no recipe of, and for a table of two papers when `paper` is none.
    """
    families = list(dict.fromkeys(info.family for info in list_recipes() if info.family))
    if family not in families:
        raise UsageError(f"--family {family}: no such family of recipes", f"There are: {', '.join(families)}.")
    rows = [row for info in list_recipes() if info.family == family and (row := _row(info)) is not None]
    found = [row for row in rows if row.paper.table == table and paper in (None, row.paper.arxiv)]
    papers = sorted({row.paper.arxiv for row in found})
    if len(papers) > 1:
        raise UsageError(
            f"--table {table}: there is one in {' and one in '.join(papers)}",
            f"Choose with {' or '.join(f'--paper {one}' for one in papers)}.",
        )
    if not found:
        there = sorted({(row.paper.arxiv, row.paper.table) for row in rows}, key=lambda one: (one[0], _natural(one[1])))
        raise UsageError(
            f"--table {table}: family {family} has no row of it{f' in {paper}' if paper is not None else ''}",
            f"It has rows of: {', '.join(f'table {name} of {arxiv}' for arxiv, name in there) or 'no table yet'}.",
        )
    return Table(papers[0], table, family, sorted(found, key=_place))


def catalogue(table: str | None = None) -> list[dict[str, Any]]:
    """Every recipe of the toolkit, or those of one table (`mdm` with its parts, `mdm-ablation` ...) in its order, family by family:

    `{"family", "name", "stage", "paper", "about"}`. Raises UsageError for a table no recipe stands in.
    """
    found: list[tuple[RecipeInfo, Recipe]] = [(info, load_recipe(str(info.path)).recipe) for info in list_recipes()]
    if table is not None:
        tables = sorted({recipe.paper.table for _, recipe in found if recipe.paper is not None}, key=_natural)
        if not any(_part_of(one, table) for one in tables):
            raise UsageError(f"--table {table}: no recipe stands for a row of it", f"There are rows of: {', '.join(tables)}.")
        families = {info.family: number for number, (info, _) in reversed(list(enumerate(found)))}
        chosen = [
            (info, recipe, recipe.paper) for info, recipe in found if recipe.paper is not None and _part_of(recipe.paper.table, table)
        ]
        chosen.sort(key=lambda one: (one[2].arxiv, one[2].table, families[one[0].family], _place(Row(one[0].short, one[0].name, one[2]))))
        found = [(info, recipe) for info, recipe, _ in chosen]
    return [
        {
            "family": info.family,
            "name": info.short,
            "stage": recipe.stage,
            "paper": recipe.paper.model_dump() if recipe.paper is not None else None,
            "about": recipe.about,
        }
        for info, recipe in found
    ]


def _part_of(table: str, name: str) -> bool:
    return table == name or table.startswith(f"{name}-")


def _row(info: RecipeInfo) -> Row | None:
    """The row a recipe stands for, if it trains and stands for one."""
    name = info.short
    if info.family == _NANO:
        if not name.startswith(_ABLATION):
            return None
        name = name.removeprefix(_ABLATION)
    recipe = load_recipe(str(info.path)).recipe
    if recipe.paper is None or recipe.stage is None:
        return None
    return Row(name, info.name, recipe.paper)


def _place(row: Row) -> tuple[bool, int, list[str | int]]:
    return row.paper.place is None, row.paper.place or 0, _natural(row.name)


def _natural(name: str) -> list[str | int]:
    """Sorts 9 before 10. Text and numbers take turns, so that any two names can be compared."""
    return [int(part) if part.isdigit() else part for part in re.split(r"([0-9]+)", name)]
