"""Stacked bars as a PNG."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vocalnet_cli.core.data.picture import can_draw, new_figure, write_png
from vocalnet_cli.core.errors import VocalnetError

Bars = Mapping[str, Mapping[str, float]]
"""Bar to its segments, each with its length; drawn in order. A segment of the same name has the same colour in every bar."""

_LEGEND_AT_MOST = 10
"""Names with a colour each; more segments, such as chunks, take turns in two colours and are not named."""


def check_chart() -> None:
    """Raises VocalnetError if charts cannot be drawn; before anything is measured."""
    if not can_draw():
        raise VocalnetError(
            "-o writes a chart with matplotlib, which is not installed", "pip install 'vocalnet-cli[eval]', or leave out -o and use --json."
        )


def draw(path: Path, title: str, unit: str, bars: Bars) -> None:
    """Write one horizontal bar each, its sum at its end, whole or not at all. Segments of length 0 or less are left out."""
    from matplotlib.patches import Patch

    names = list(dict.fromkeys(name for segments in bars.values() for name in segments))
    told = len(names) <= _LEGEND_AT_MOST
    figure = new_figure(9, 1.6 + 0.5 * len(bars))
    axes = figure.add_subplot()
    axes.barh(list(bars), 0)  # the order of the bars, whichever segments they have
    for number, name in enumerate(names):
        ends = {bar: _before(segments, name) for bar, segments in bars.items() if segments.get(name, 0) > 0}
        lengths = [bars[bar][name] for bar in ends]
        colour = f"C{number % 10}" if told else ("C0", "C9")[number % 2]
        axes.barh(list(ends), lengths, left=list(ends.values()), color=colour, edgecolor="white", linewidth=0.5)
    sums = {bar: sum(max(length, 0) for length in segments.values()) for bar, segments in bars.items()}
    for bar, total in sums.items():
        axes.text(total, bar, f" {total:.1f}", va="center")
    axes.set_xlim(0, 1.12 * max([*sums.values(), 1e-9]))
    axes.invert_yaxis()
    axes.set_xlabel(unit)
    axes.set_title(title, loc="left", fontsize="medium", wrap=True)
    if told and len(names) > 1:
        patches = [Patch(color=f"C{number % 10}", label=name) for number, name in enumerate(names)]
        figure.legend(handles=patches, loc="outside lower center", ncols=min(len(names), 6), frameon=False)
    write_png(figure, path)


def _before(segments: Mapping[str, float], name: str) -> float:
    """Length of what stands before a segment in its bar."""
    total = 0.0
    for other, length in segments.items():
        if other == name:
            return total
        total += max(length, 0)
    return total
