"""The papers' tables by the names people call them, and where results of ours for them lie."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vocalnet_cli.core.config.find import list_recipes
from vocalnet_cli.core.config.papers import VOCALNET, VOCALNET_MDM, Paper, load_paper
from vocalnet_cli.core.errors import UsageError
from vocalnet_cli.core.experiments.ours import OurRow, read_ours
from vocalnet_cli.core.experiments.places import RESULTS_FILE, table_folder

MDM = "mdm"
_MAIN = "main"


def find_published(name: str) -> tuple[Paper, str]:
    """The paper and its table: `1` to `11` are VocalNet's, `mdm` and `mdm-NAME` VocalNet-MDM's. Raises UsageError."""
    first, second = load_paper(VOCALNET), load_paper(VOCALNET_MDM)
    if name in first.tables:
        return first, name
    place = _MAIN if name == MDM else name.removeprefix(f"{MDM}-")
    if name.startswith(MDM) and place in second.tables:
        return second, place
    others = [MDM if one == _MAIN else f"{MDM}-{one}" for one in second.tables]
    raise UsageError(f"table {name}: no such table", f"There are: {', '.join([*first.tables, *others])}.")


def results_of(paper: Paper, table: str, family: str, given: Sequence[Path] | None) -> list[OurRow]:
    """Rows of ours for a table: those of the folders given, else what `recipes run` left under runs/tables of it and of its twins' tables.

    Raises UsageError for a family there is not, VocalnetError for a folder without results.
    """
    families = list(dict.fromkeys(info.family for info in list_recipes() if info.family))
    if family not in families:
        raise UsageError(f"--family {family}: no such family of recipes", f"There are: {', '.join(families)}.")
    if given:
        return [row for path in given for row in read_ours(path)]
    names = [table, *(row.twin.table for row in paper.tables[table].rows if row.twin is not None)]
    folders = [table_folder(family, paper.arxiv, name) for name in dict.fromkeys(names)]
    return [row for folder in folders if (folder / RESULTS_FILE).is_file() for row in read_ours(folder)]


def how_to_make(paper: Paper, table: str, family: str) -> str:
    """The command that makes rows of ours for a table."""
    metrics = {column.partition("@")[0] for column in paper.tables[table].columns}
    if any(metric.endswith("_ms") for metric in metrics):
        model = "" if family == "nano" else " --recipe latency-1b"
        return f"vocalnet latency{model} -o times, then --results times"
    if paper.arxiv == VOCALNET_MDM:
        recipe = "nano/mdm" if family == "nano" else "FAMILY/NAME"
        return f"vocalnet eval --recipe {recipe} --steps 1,2,4,8,16 -o curve, then --results curve"
    twins = [row.twin.table for row in paper.tables[table].rows if row.twin is not None]
    return f"vocalnet recipes run --table {(twins or [table])[0]} --family {family}"
