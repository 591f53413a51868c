"""The papers' own times, to stand beside ours."""

from __future__ import annotations

from typing import Any

from vocalnet_cli.core.config.find import list_recipes
from vocalnet_cli.core.config.load import load_recipe
from vocalnet_cli.core.config.papers import VOCALNET, load_paper
from vocalnet_cli.core.config.schema import PaperRow
from vocalnet_cli.core.generation.clock import STAGES

FIRST = "first_audio_ms"
"""A paper row with this number is about the time to the first sound."""

MACHINE = "L20"
"""The GPU of tables 6 and 8 of arXiv 2504.04060."""


def others_ms() -> dict[str, float]:
    """First sound of other systems, in ms (arXiv 2504.04060, table 8; on the same GPU, 0.6 s of sound for most), soonest first."""
    table = load_paper(VOCALNET).tables["8"]
    found = {row.row: table.figures(row)[FIRST] for row in table.rows if row.place is None}
    return dict(sorted(found.items(), key=lambda one: one[1]))


def paper_rows(own: PaperRow | None = None) -> list[dict[str, Any]]:
    """Every row of a paper that a recipe has and that tells the time to the first sound, in table order.

    Each `{"arxiv", "table", "row", "machine", "stages_ms", "first_audio_ms"}`. A recipe measured for a row of its own (`own`) gets
    that row alone.
    """
    rows = [own] if own is not None and FIRST in own.expect else _known()
    return [
        {
            "arxiv": row.arxiv,
            "table": row.table,
            "row": row.row,
            "machine": MACHINE,
            "stages_ms": {stage: row.expect[f"{stage}_ms"] for stage in STAGES if f"{stage}_ms" in row.expect},
            FIRST: row.expect[FIRST],
        }
        for row in rows
    ]


def _known() -> list[PaperRow]:
    papers = (load_recipe(str(info.path)).recipe.paper for info in list_recipes() if info.family.startswith("vocalnet"))
    rows = [paper for paper in papers if paper is not None and FIRST in paper.expect]
    # Table 8 tells the whole of what table 6 tells stage by stage.
    staged = {(row.arxiv, row.row) for row in rows if len(row.expect) > 1}
    rows = [row for row in rows if len(row.expect) > 1 or (row.arxiv, row.row) not in staged]
    return sorted(rows, key=lambda row: (row.arxiv, row.table, row.place or len(rows)))
