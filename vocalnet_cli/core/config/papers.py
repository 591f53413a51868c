"""The papers' own figures, kept as data: every row of every table, whoever it is about."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path

import yaml
from pydantic import Field, model_validator

from vocalnet_cli.core.config.talker_schema import Settings

VOCALNET, VOCALNET_MDM = "2504.04060", "2602.08607"


class Twin(Settings):
    """A row of another table that is the same model, measured in the same way."""

    table: str
    place: int


class FigureRow(Settings):
    """A line of a table: a system, or a way to train it."""

    row: str
    place: int | None = Field(None, gt=0)
    """`paper.place` of the recipes that stand for it; none: there are none, or it is known by its figures."""
    twin: Twin | None = Field(None, alias="as")
    """Where the recipe stands that has no row of its own here."""
    steps: int | None = Field(None, gt=0)
    """Passes a block the row is about."""
    source: str = "paper"
    """Where the figures stand: the paper, or the README of its repository."""
    values: list[float | None]


class PaperTable(Settings):
    """One table of a paper."""

    about: str
    columns: list[str] = Field(min_length=1)
    """METRIC, or METRIC@SUBSET."""
    rows: list[FigureRow] = Field(min_length=1)

    @model_validator(mode="after")
    def _rectangular(self) -> PaperTable:
        wrong = [row.row for row in self.rows if len(row.values) != len(self.columns)]
        if wrong:
            raise ValueError(f"{len(self.columns)} columns, but another number of values in: {', '.join(wrong)}")
        return self

    def figures(self, row: FigureRow) -> dict[str, float]:
        """The figures of a row by column; what is not stated is left out."""
        return {column: value for column, value in zip(self.columns, row.values, strict=True) if value is not None}

    def find(self, place: int | None, expect: dict[str, float]) -> FigureRow | None:
        """The row at a place, else the one row that has all the figures of `expect`; none if there is none, or several."""
        if place is not None:
            return next((row for row in self.rows if row.place == place), None)
        found = [row for row in self.rows if expect and expect.items() <= self.figures(row).items()]
        return found[0] if len(found) == 1 else None


class Paper(Settings):
    """A paper's tables, and how their figures were made."""

    arxiv: str
    title: str
    judge: str
    recogniser: str
    normaliser: str
    naturalness: str
    """What predicts how natural speech sounds."""
    machine: str
    """What times were measured on."""
    questions: dict[str, int]
    """Questions of each subset: averages of WER and UTMOS are weighted by them."""
    tables: dict[str, PaperTable]


@cache
def load_paper(arxiv: str) -> Paper:
    """The figures of a paper by its arXiv id."""
    text = (Path(str(files("vocalnet_cli"))) / "assets" / "papers" / f"{arxiv}.yaml").read_text(encoding="utf-8")
    return Paper.model_validate(yaml.safe_load(text))
