"""What `-o` leaves in a folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vocalnet_cli.core.data.record import write_text_atomically
from vocalnet_cli.core.latency.chart import Bars, draw
from vocalnet_cli.core.latency.paper import FIRST
from vocalnet_cli.core.latency.turns import SEGMENTS


def write_results(
    folder: Path, name: str, result: Mapping[str, Any], title: str, unit: str, bars: Bars, lines: Sequence[Mapping[str, Any]] = ()
) -> None:
    """`folder`/NAME.json (what `--json` prints), NAME.png (`bars`, lengths in `unit`) and, with `lines`, NAME-turns.jsonl."""
    write_text_atomically(folder / f"{name}.json", json.dumps(result, ensure_ascii=False, indent=1) + "\n")
    if lines:
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        write_text_atomically(folder / f"{name}-turns.jsonl", text)
    draw(folder / f"{name}.png", title, unit, bars)


def first_sound_bars(result: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Ours warm (medians of the stages) and cold, then the papers' rows."""
    bars = {f"{result['model']}, p50": _medians(result)}
    if result["cold"]:
        bars[f"{result['model']}, cold"] = dict(result["cold"]["stages_ms"])
    for row in result["paper"]:
        bars[f"{row['row']}, {row['machine']} (paper)"] = row["stages_ms"] or {"vocoder": row[FIRST]}
    return bars


def compare_bars(result: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Both sides, medians of the stages."""
    return {f"{side.upper()}: {result[side]['name']}": _medians(result[side]) for side in ("a", "b")}


def _medians(side: Mapping[str, Any]) -> dict[str, float]:
    return {name: side["stages_ms"][name]["p50"] for name in SEGMENTS if name in side["stages_ms"]}
