"""A paper's table with our rows beside its own, and what may be compared: never another scale, judge or recogniser without a word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from vocalnet_cli.core.config.papers import FigureRow, Paper, PaperTable
from vocalnet_cli.core.errors import UsageError, VocalnetError
from vocalnet_cli.core.experiments.ours import OurRow, subset_of

METRICS = {
    "s2t_score": ("text", 2), "s2s_score": ("speech", 2), "s2t_percent": ("text right %", 1), "s2s_percent": ("speech right %", 1),
    "wer_percent": ("WER %", 2), "sub_percent": ("sub %", 2), "ins_percent": ("ins %", 2), "del_percent": ("del %", 2),
    "utmos": ("UTMOS", 3), "dnsmos": ("DNSMOS", 3), "encoder_ms": ("encoder ms", 1), "thinker_ms": ("thinker ms", 1),
    "talker_ms": ("talker ms", 1), "vocoder_ms": ("vocoder ms", 1), "first_audio_ms": ("first sound ms", 1),
    "tokens_per_s": ("tokens/s", 1), "rtf": ("real-time factor", 4),
}  # fmt: skip
"""What a table calls a metric, and the digits it shows."""

_INSTEAD = {"s2t_score": "s2t_percent", "s2s_score": "s2s_percent", "utmos": "dnsmos"}
"""What we may have where the paper has the first: shown under its own name, never subtracted."""
_SCORES = ("s2t_score", "s2s_score", "s2t_percent", "s2s_percent")
_WORDS = ("wer_percent", "sub_percent", "ins_percent", "del_percent")
_TIMES = ("tokens_per_s", "rtf")


@dataclass
class Line:
    """A row of the table: the paper's figures, ours, and how they lie."""

    row: str
    source: str | None
    """Where the paper's figures stand; none for a row of ours alone."""
    paper: dict[str, float]
    ours: dict[str, float]
    std: dict[str, float]
    runs: int
    difference: dict[str, float]
    """Ours minus the paper's, where they compare."""
    from_first: dict[str, dict[str, float]]
    """Where they do not: by the paper's column, `paper` and `ours` in percent above the first row that has both."""
    made: list[dict[str, Any]]


@dataclass
class Comparison:
    """A whole table."""

    paper: str
    title: str
    table: str
    about: str
    family: str
    columns: list[str]
    """The paper's columns that are shown."""
    instead: dict[str, str]
    """The paper's column to that of ours, where ours has another."""
    lines: list[Line]
    not_compared: dict[str, list[str]]
    """Column to why there is no difference."""
    conditions: dict[str, str]
    """How the paper measured."""

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def compare(paper: Paper, name: str, family: str, ours: Sequence[OurRow], subsets: bool = False, mixed: bool = False) -> Comparison:
    """Table `name` of a paper with rows of ours; `subsets` shows every subset's column too.

    Ours stand where their recipe says; those that stand nowhere in the table come below it. Raises UsageError for a table there is not,
    VocalnetError for two results of one row, and, unless `mixed`, for rows of ours whose judge, scale, recogniser or normaliser differ.
    """
    if name not in paper.tables:
        raise UsageError(f"table {name}: {paper.arxiv} has none of that name", f"It has: {', '.join(paper.tables)}.")
    table = paper.tables[name]
    columns = [column for column in table.columns if subsets or "@" not in column or all("@" in one for one in table.columns)]
    ours = [row for row in ours if _fits(row, paper, name) or _tells(row, columns)]
    if not mixed:
        _refuse_mixed(ours)
    lines, left = [], list(ours)
    for row in table.rows:
        own = [one for one in left if _is_row(one, paper, name, row)]
        left = [one for one in left if one not in own]
        lines.append(_line(row, table, columns, own))
    lines += [_line(None, table, columns, [one]) for one in left]
    taken = {name for line in lines for name in line.ours}
    instead = {one: other for one in columns if one not in taken and (other := _instead(one)) in taken}
    comparison = Comparison(paper.arxiv, paper.title, name, table.about, family, columns, instead, lines, {}, _conditions(paper, table))
    comparison.not_compared = {column: why for column in columns if (why := _reasons(column, instead, paper, ours))}
    _relate(comparison)
    return comparison


def _conditions(paper: Paper, table: PaperTable) -> dict[str, str]:
    """How the paper measured what this table tells."""
    metrics = {column.partition("@")[0] for column in table.columns}
    told = {"judge": _SCORES, "recogniser": _WORDS, "normaliser": _WORDS, "naturalness": ("utmos",)}
    found = {name: str(getattr(paper, name)) for name, needs in told.items() if metrics & {*needs}}
    timed = any(_is_time(metric) for metric in metrics)
    return {**found, **({"machine": paper.machine} if timed else {})}


def _is_time(metric: str) -> bool:
    return metric.endswith("_ms") or metric in _TIMES


def _instead(column: str) -> str:
    metric, at, subset = column.partition("@")
    return f"{_INSTEAD.get(metric, metric)}{at}{subset}"


def _fits(one: OurRow, paper: Paper, name: str) -> bool:
    """Whether a row of ours stands in this table."""
    return any(_is_row(one, paper, name, row) for row in paper.tables[name].rows)


def _is_row(one: OurRow, paper: Paper, name: str, row: FigureRow) -> bool:
    if one.paper is not None and one.paper.arxiv != paper.arxiv:
        return False
    if one.paper is None and _key(one.label.rstrip("/").rpartition("/")[2]) == _key(row.row):
        return True  # a released model, or the answers of another system, by its name
    if row.steps is not None and one.steps is not None and _counts_steps(one, paper):
        return row.steps == one.steps
    return one.stands_at(paper.arxiv, name, row.place, row.twin)


def _counts_steps(one: OurRow, paper: Paper) -> bool:
    """Whether a row of ours is known by its passes a block. Those of an ablation are other models, and known by their place."""
    stands = paper.tables.get(one.paper.table) if one.paper is not None else None
    return stands is None or any(row.steps is not None for row in stands.rows)


def _tells(one: OurRow, columns: Sequence[str]) -> bool:
    """Whether a row of ours that stands nowhere in particular has something to say in this table."""
    return (one.paper is None or one.paper.place is None) and any(
        column in one.figures or _instead(column) in one.figures for column in columns
    )


def _refuse_mixed(ours: Sequence[OurRow]) -> None:
    """Raise VocalnetError for rows of ours that were not measured alike."""
    for what, plural in (("judges", "judge or scale"), ("recogniser", "recogniser"), ("normaliser", "normaliser")):
        ways: dict[Any, OurRow] = {}
        for one in ours:
            if value := getattr(one.made, what):
                ways.setdefault(value, one)
        if len(ways) > 1:
            (first, a), (second, b), *_ = ways.items()
            told = " | ".join(first) if isinstance(first, tuple) else first
            other = " | ".join(second) if isinstance(second, tuple) else second
            raise VocalnetError(
                f"rows of ours differ in their {plural}: {a.label} ({a.made.source}) has {told}; {b.label} ({b.made.source}) has {other}",
                "Measure or rescore them alike (vocalnet eval rescore), or name each with --mixed.",
            )


def _line(row: FigureRow | None, table: PaperTable, columns: Sequence[str], own: Sequence[OurRow]) -> Line:
    """One row, the results of ours that stand there joined. Raises VocalnetError where two of them tell the same figure."""
    figures: dict[str, float] = {}
    std: dict[str, float] = {}
    wanted = {*columns, *map(_instead, columns)}
    for one in own:
        fresh = {name: value for name, value in one.figures.items() if name in wanted}
        if twice := sorted({*fresh} & {*figures}):
            sources = " and ".join(other.made.source for other in own)
            raise VocalnetError(
                f"two results for {row.row if row else one.label} ({', '.join(twice)}): {sources}", "Name one of them only."
            )
        figures |= fresh
        std |= {name: value for name, value in one.std.items() if name in fresh}
    theirs = {name: value for name, value in table.figures(row).items() if name in columns} if row else {}
    label = row.row if row else own[0].label
    runs = max((one.runs for one in own), default=0)
    return Line(label, row.source if row else None, theirs, figures, std, runs, {}, {}, [asdict(one.made) for one in own])


def _reasons(column: str, instead: dict[str, str], paper: Paper, ours: Sequence[OurRow]) -> list[str]:
    """Why our figures of a column must not be subtracted from the paper's; nothing where they may, or there are none."""
    metric, _, subset = column.partition("@")
    there = [one for one in ours if column in one.figures or _instead(column) in one.figures]
    if not there:
        return []
    found = []
    if column in instead:
        found.append(f"ours is {METRICS[_instead(metric)][0]}, the paper's {METRICS[metric][0]}{' of 10' if metric in _SCORES else ''}")
    made = [one.made for one in there]
    if metric in _SCORES and (judges := _others((judge for one in made for judge in one.judges), paper.judge)):
        found.append(f"judge: {'; '.join(judges)}; the paper's: {paper.judge}")
    if metric in _WORDS and (heard := _others((one.recogniser for one in made), paper.recogniser)):
        found.append(f"recogniser: {'; '.join(heard)}; the paper's: {paper.recogniser}")
    if _is_time(metric):
        if machines := sorted({one.machine or "not told" for one in made if "L20" not in (one.machine or "")}):
            found.append(f"machine: {'; '.join(machines)}; the paper's: {paper.machine}")
    elif asked := sorted({", ".join(one.questions) or "not told" for one in made if not _asked_alike(one.questions, subset, paper)}):
        theirs = ", ".join(f"{key} ({n})" for key, n in paper.questions.items())
        found.append(f"questions: {'; '.join(asked)}; the paper's: {theirs}")
    return found


def _others(told: Any, wanted: str) -> list[str]:
    """Those of `told` that are not what the paper used; names are compared by their letters and digits."""
    key = _key(wanted.split(" ")[0])
    return sorted({one for one in (name or "not told" for name in told) if key not in _key(one)})


def _key(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _asked_alike(questions: Sequence[str], subset: str, paper: Paper) -> bool:
    """Whether sets, told as `name (n)`, are the paper's, all of each: for an average every one of them and no other."""
    counts = {}
    for question in questions:
        name, _, count = question.rpartition(" (")
        counts[subset_of(name)] = count.rstrip(")")
    wanted = {name: str(n) for name, n in paper.questions.items()}
    return counts.get(subset) == wanted[subset] if subset in wanted else counts == wanted


def _relate(comparison: Comparison) -> None:
    """Fill in differences where they may be taken, and changes from the first row where not."""
    for column in comparison.columns:
        own = comparison.instead.get(column, column)
        both = [line for line in comparison.lines if column in line.paper and own in line.ours]
        if column not in comparison.not_compared:
            for line in both:
                line.difference[column] = round(line.ours[own] - line.paper[column], 4)
            continue
        for line in both[1:]:
            theirs, first = both[0].paper[column], both[0].ours[own]
            if theirs and first:
                change = {"paper": 100 * (line.paper[column] / theirs - 1), "ours": 100 * (line.ours[own] / first - 1)}
                line.from_first[column] = {name: round(value, 1) for name, value in change.items()}
