"""A compared table as cells, and as Markdown, LaTeX and CSV. Whatever the form, what made our figures goes with them."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from typing import Any

from vocalnet_cli.core.experiments.comparison import METRICS, Comparison, Line

_LATEX = {"&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}"}
_LATEX |= {
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
    "±": r"$\pm$",
    "|": r"\textbar{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}
_HASH = 12


def cells(table: Comparison) -> tuple[list[str], list[list[str]]]:
    """Headers and rows: for each of the paper's columns its figure, ours, and the difference or the changes from the first row."""
    headers, rows = ["row"], [[_label(line)] for line in table.lines]
    for column in table.columns:
        own = table.instead.get(column, column)
        name, digits = _shown(column)
        headers.append(f"{name}, paper")
        headers.append(f"{_shown(own)[0]}, ours")
        for row, line in zip(rows, table.lines, strict=True):
            row += [_number(line.paper.get(column), digits), _ours(line, own)]
        if any(column in line.difference for line in table.lines):
            headers.append("difference")
            for row, line in zip(rows, table.lines, strict=True):
                row.append(_number(line.difference.get(column), digits, sign=True))
        if any(column in line.from_first for line in table.lines):
            headers.append("from first row: paper, ours")
            for row, line in zip(rows, table.lines, strict=True):
                change = line.from_first.get(column)
                row.append(f"{change['paper']:+.0f} %, {change['ours']:+.0f} %" if change else "-")
    return headers, rows


def _shown(column: str) -> tuple[str, int]:
    metric, _, subset = column.partition("@")
    name, digits = METRICS.get(metric, (metric, 2))
    return (f"{name}, {subset}" if subset else name), digits


def _label(line: Line) -> str:
    return f"{line.row} ({line.source})" if line.source not in (None, "paper") else line.row


def _number(value: float | None, digits: int, sign: bool = False) -> str:
    return "-" if value is None else f"{value:{'+' if sign else ''}.{digits}f}"


def _ours(line: Line, column: str) -> str:
    digits = _shown(column)[1]
    deviation = line.std.get(column)
    return _number(line.ours.get(column), digits) + (f" ± {deviation:.{digits}f}" if deviation is not None else "")


def title(table: Comparison) -> str:
    """What the table is."""
    return f"{table.title}, arXiv {table.paper}, table {table.table}: {table.about}; ours: family {table.family}"


def notes(table: Comparison) -> list[str]:
    """Below the table: how the paper measured, what is not compared and why, and what made each row of ours."""
    told = []
    if table.conditions:
        told.append("The paper: " + "; ".join(f"{name} {value}" for name, value in table.conditions.items()) + ".")
    whys: dict[str, list[str]] = {}
    for column, reasons in table.not_compared.items():
        whys.setdefault("; ".join(reasons), []).append(_shown(column)[0])
    told += [f"No difference for {', '.join(names)}: {why}." for why, names in whys.items()]
    told += [f"{line.row}: {_made(one, line.runs)}" for line in table.lines for one in line.made]
    return told


def _made(made: dict[str, Any], runs: int) -> str:
    weights = [sha[:_HASH] for sha in made["weights"] if sha]
    parts = [
        f"recipe {made['recipe']}" if made["recipe"] else "",
        f"{runs} runs" if runs > 1 else "",
        f"weights {', '.join(weights)}" if weights else "",
        f"judge {'; '.join(made['judges'])}" if made["judges"] else "",
        f"recogniser {made['recogniser']}" if made["recogniser"] else "",
        f"normaliser {made['normaliser']}" if made["normaliser"] else "",
        f"questions {', '.join(made['questions'])}" if made["questions"] else "",
        f"{made['unjudged']} without a verdict" if made["unjudged"] else "",
        f"on {made['machine']}" if made["machine"] else "",
        " ".join(f"{name} {number}" for name, number in made["versions"].items()),
        made["date"],
        made["source"],
    ]
    return "; ".join(part for part in parts if part)


def markdown(table: Comparison) -> str:
    """A Markdown table and its notes as a list."""
    headers, rows = cells(table)
    lines = [f"**{_escaped(title(table))}**", ""]
    lines += [_bar(headers), _bar(["---"] + ["---:"] * (len(headers) - 1)), *map(_bar, rows), ""]
    return "\n".join([*lines, *(f"- {_escaped(note)}" for note in notes(table))]) + "\n"


def _escaped(text: str) -> str:
    return text.replace("|", r"\|")


def _bar(parts: Sequence[str]) -> str:
    return f"| {' | '.join(map(_escaped, parts))} |"


def latex(table: Comparison) -> str:
    """A `tabular` in a `table`; the notes are comments above it, so that they go where the table goes."""
    headers, rows = cells(table)
    body = [" & ".join(map(_tex, row)) + r" \\" for row in rows]
    lines = [
        *(f"% {note}" for note in notes(table)),
        r"\begin{table}",
        rf"\caption{{{_tex(title(table))}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(headers) - 1)}}}",
        r"\hline",
        " & ".join(map(_tex, headers)) + r" \\",
        r"\hline",
        *body,
        r"\hline",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _tex(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text)


def comma_separated(table: Comparison) -> str:
    """A line a row, full figures; what made ours stands in columns of its own."""
    numbers = [(f"{column} {what}", _pick(what, column)) for column in table.columns for what in ("paper", "difference")]
    own = list(dict.fromkeys(table.instead.get(column, column) for column in table.columns))
    numbers += [(f"{column} {what}", _pick(what, column)) for column in own for what in ("ours", "std")]
    made = ("recipe", "weights", "judges", "recogniser", "normaliser", "questions", "unjudged", "machine", "versions", "date", "source")
    whole = io.StringIO()
    writer = csv.writer(whole, lineterminator="\n")
    writer.writerow(["row", "figures in", "runs", *(name for name, _ in numbers), *made, "not compared"])
    why = "; ".join(f"{column}: {' / '.join(reasons)}" for column, reasons in table.not_compared.items())
    for line in table.lines:
        told = [" | ".join(dict.fromkeys(_flat(one[name]) for one in line.made)) for name in made]
        values = ["" if (value := find(line)) is None else value for _, find in numbers]
        writer.writerow([line.row, line.source or "", line.runs or "", *values, *told, why if line.made else ""])
    return whole.getvalue()


def _pick(what: str, column: str) -> Callable[[Line], float | None]:
    return lambda line: getattr(line, what).get(column)


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{name} {number}" for name, number in value.items())
    return "; ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value or "")


FORMS: dict[str, Callable[[Comparison], str]] = {"markdown": markdown, "latex": latex, "csv": comma_separated}
"""Forms a table can be written in, beside the terminal's."""
