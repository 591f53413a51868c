"""The papers' figures kept as data: they agree with themselves, and with what the recipes say."""

from __future__ import annotations

import pytest

from vocalnet_cli.core.config.find import list_recipes
from vocalnet_cli.core.config.load import load_recipe
from vocalnet_cli.core.config.papers import VOCALNET, VOCALNET_MDM, load_paper

WEIGHTED = ("wer_percent", "utmos")


@pytest.mark.parametrize("arxiv", [VOCALNET, VOCALNET_MDM])
def test_printed_averages_follow_from_the_subsets(arxiv):
    """Scores are averaged plainly, word errors and UTMOS by questions. What is printed is rounded, and so are its parts."""
    paper, compared = load_paper(arxiv), 0
    for name, table in paper.tables.items():
        for row in table.rows:
            figures = table.figures(row)
            for metric in {column.partition("@")[0] for column in table.columns if "@" in column}:
                parts = [(figures.get(f"{metric}@{subset}"), n if metric in WEIGHTED else 1) for subset, n in paper.questions.items()]
                known = [(value, weight) for value, weight in parts if value is not None]
                if metric not in figures or len(known) < len(parts):
                    continue
                mean = sum(value * weight for value, weight in known) / sum(weight for _, weight in known)
                assert abs(mean - figures[metric]) < 0.0101, (name, row.row, metric, mean)
                compared += 1
    assert compared >= (62 if arxiv == VOCALNET else 1)


def test_kinds_of_word_errors_add_up():
    table = load_paper(VOCALNET).tables["10"]
    for row in table.rows:
        assert sum(row.values[:3]) == pytest.approx(row.values[3], abs=0.011)


def test_recipes_say_what_the_data_say():
    seen = 0
    for info in list_recipes():
        stands = load_recipe(str(info.path)).recipe.paper
        if stands is None or not (stands.expect or stands.place) or stands.table.startswith("Figure"):
            continue
        table = load_paper(stands.arxiv).tables[stands.table]
        row = table.find(stands.place, stands.expect)
        assert row is not None, f"{info.name}: table {stands.table} has no such row"
        figures = table.figures(row)
        if row.twin is not None:  # the same model: what another table tells of it holds too
            other = load_paper(stands.arxiv).tables[row.twin.table]
            twin = other.find(row.twin.place, {})
            assert twin is not None
            figures = {**other.figures(twin), **figures}
        assert stands.expect.items() <= figures.items(), info.name
        seen += 1
    assert seen >= 110


def test_rows_measured_elsewhere_are_there():
    paper = load_paper(VOCALNET)
    twins = [(row, row.twin) for table in paper.tables.values() for row in table.rows if row.twin is not None]
    assert len(twins) == 4
    for row, twin in twins:
        there = paper.tables[twin.table].find(twin.place, {})
        assert there is not None and there.row == row.row and row.values[-1] in there.values, "the last column is the one both have"
