"""Where the runs of a table and what came of them lie. Light, so that reading results loads nothing else."""

from __future__ import annotations

import re
from pathlib import Path

CELL_FILE = "cell.json"
"""What became of a cell, in its run folder: seconds, and once it is measured its scores."""

RESULTS_FILE = "results.json"
"""The whole table, in its folder."""


TABLES = Path("runs/tables")
"""Where all tables lie unless told otherwise."""


def table_folder(family: str, paper: str, table: str) -> Path:
    """Folder of a table's runs."""
    return TABLES / f"{family}-{paper}-table{re.sub(r'[^A-Za-z0-9.]+', '-', table)}"
