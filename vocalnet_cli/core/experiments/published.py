"""The papers' tables by the names people call them, and where results of ours for them lie."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vocalnet_cli.core.config.find import list_recipes
from vocalnet_cli.core.config.load import load_recipe
from vocalnet_cli.core.config.papers import VOCALNET, VOCALNET_MDM, Paper, load_paper
from vocalnet_cli.core.errors import UsageError
from vocalnet_cli.core.experiments.ours import OurRow, read_ours
from vocalnet_cli.core.experiments.places import RESULTS_FILE, table_folder

_LAPTOP = "nano"


def find_published(name: str) -> tuple[Paper, str]:
    """The paper that has a table, and the table: `1` to `11` are VocalNet's, `mdm` and `mdm-NAME` VocalNet-MDM's. Raises UsageError."""
    papers = [load_paper(VOCALNET), load_paper(VOCALNET_MDM)]
    for paper in papers:
        if name in paper.tables:
            return paper, name
    raise UsageError(f"table {name}: no such table", f"There are: {', '.join(one for paper in papers for one in paper.tables)}.")


def results_of(paper: Paper, table: str, family: str, given: Sequence[Path] | None) -> list[OurRow]:
    """Rows of ours for a table: those of the folders given, else what `recipes run` left under runs/tables, of it or of the table
    its rows are twins of.

    Raises UsageError for a family there is not, VocalnetError for a folder without results.
    """
    families = list(dict.fromkeys(info.family for info in list_recipes() if info.family))
    if family not in families:
        raise UsageError(f"--family {family}: no such family of recipes", f"There are: {', '.join(families)}.")
    if given:
        return [row for path in given for row in read_ours(path)]
    names = [table, *(row.twin.table for row in paper.tables[table].rows if row.twin is not None)]
    folders = [table_folder(family, paper.arxiv, name) for name in names]
    found = next((folder for folder in folders if (folder / RESULTS_FILE).is_file()), None)
    return read_ours(found) if found is not None else []


def how_to_make(paper: Paper, table: str, family: str) -> str:
    """The commands that make rows of ours for a table."""
    metrics = {column.partition("@")[0] for column in paper.tables[table].columns}
    if paper.arxiv == VOCALNET_MDM:
        model = "--model runs/nano/mdm-distill/model" if family == _LAPTOP else "--recipe vocalnet-mdm/latency-s1"
    elif table == "8":
        model = f"--recipe {family}/t8-first-chunk"
    else:
        model = "--recipe nano/latency" if family == _LAPTOP else "--recipe t6-1b"
    measured = f"vocalnet latency {model} -o times, then --results times"
    if all(metric.endswith("_ms") for metric in metrics):
        return measured
    rows = ((info.family, load_recipe(str(info.path)).recipe.paper) for info in list_recipes())
    known = [own for own, row in rows if row is not None and (row.arxiv, row.table) == (paper.arxiv, table)]
    if not known:
        return "vocalnet eval --model MODEL --benchmark OpenAudioBench --judge qwen-max -o scores, then --results scores"
    run = f"vocalnet recipes run --table {table} --family {family if family in known else next(one for one in known if one != _LAPTOP)}"
    return f"{run}; its times: {measured}" if any(metric.endswith("_ms") for metric in metrics) else run
