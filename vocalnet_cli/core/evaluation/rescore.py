"""Verdicts on answers that somebody else generated: JSONL in, JSONL out."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vocalnet_cli.core.data.record import read_lines
from vocalnet_cli.core.errors import UsageError, VocalnetError
from vocalnet_cli.core.evaluation.judging.case import OPEN, STYLES, Case, Judge, case_style
from vocalnet_cli.core.evaluation.results import Judging, Verdict

_HEARD = {"s2t": "text", "s2s": "heard"}


class AnswerRow(BaseModel):
    """A saved answer; further fields are allowed and not looked at."""

    model_config = ConfigDict(extra="ignore")

    id: str = Field(min_length=1)
    question: str
    references: list[str] = []
    text: str | None = None
    """What the model wrote."""
    heard: str | None = None
    """What was heard in its speech."""


@dataclass(frozen=True)
class Rescored:
    """The verdicts on one row; None where the row has nothing to judge."""

    id: str
    s2t: Verdict | None
    s2s: Verdict | None
    judging: Judging

    def as_json(self) -> dict[str, Any]:
        """`{id, s2t, s2s}`: true or false, or a mark; null without a verdict, with why in `failure`."""
        both = {"s2t": self.s2t, "s2s": self.s2s}
        told: dict[str, Any] = {"id": self.id, **{name: self._value(verdict) for name, verdict in both.items()}}
        failures = {name: verdict.failure for name, verdict in both.items() if verdict is not None and verdict.value is None}
        return {**told, "failure": failures} if failures else told

    def _value(self, verdict: Verdict | None) -> bool | float | None:
        if verdict is None or verdict.value is None:
            return None
        return bool(verdict.value) if self.judging.scale == "right" else verdict.value


def read_answers(path: Path, limit: int | None = None) -> list[AnswerRow]:
    """The rows of ANSWERS.jsonl. Raises VocalnetError for one that cannot be used, with file and line."""
    rows = []
    for number, line in read_lines(path)[:limit]:
        try:
            rows.append(AnswerRow.model_validate_json(line))
        except ValidationError as error:
            wrong = error.errors()[0]
            place = ".".join(map(str, wrong["loc"]))
            hint = "A row is {id, question, references: [...], text, heard}."
            raise VocalnetError(f"{path}:{number}: {place or 'row'}: {wrong['msg']}", hint) from error
    if not rows:
        raise VocalnetError(f"{path}: no rows", "A row is {id, question, references: [...], text, heard}.")
    return rows


def rescore(
    rows: Sequence[AnswerRow], judge: Judge, style: str | None = None, advance: Callable[[int, int], None] = lambda done, total: None
) -> list[Rescored]:
    """Verdicts on what each row wrote (`s2t`) and what was heard of it (`s2s`). `style` says how all are judged; else their references do.

    Raises UsageError for a style the judge cannot judge in, VocalnetError if judging cannot go on.
    """
    styles = [style or case_style(None, row.references) for row in rows]
    for row, own in zip(rows, styles, strict=True):
        if own not in STYLES:
            raise UsageError(f"--prompt {own}: no such prompt", f"There are: {', '.join(STYLES)}.")
        if not judge.can(own):
            raise UsageError(f"row `{row.id}`: {judge_lacks(judge, own)}", "Name a judge: --judge qwen-max, or --judge-url URL.")
        if own != OPEN and not row.references:
            raise UsageError(f"row `{row.id}`: prompt {own} needs references", "Give the row `references`, or judge it with --prompt open.")
    said = [(number, name, getattr(row, field)) for number, row in enumerate(rows) for name, field in _HEARD.items()]
    asked = [(number, name, text) for number, name, text in said if text is not None]
    cases = [Case(rows[number].question, rows[number].references, text, styles[number]) for number, _, text in asked]
    found = {(number, name): verdict for (number, name, _), verdict in zip(asked, judge.verdicts(cases, advance), strict=True)}
    return [
        Rescored(row.id, found.get((number, "s2t")), found.get((number, "s2s")), judge.judging(styles[number]))
        for number, row in enumerate(rows)
    ]


def judge_lacks(judge: Judge, style: str) -> str:
    """Why a judge cannot judge in a style."""
    return "an open question, which only a model can judge" if not judge.paid else f"--judge-prompts holds no prompt `{style}`"


def summary(results: Sequence[Rescored]) -> list[Sequence[object]]:
    """A row for each scale: scale, answers, mean of s2t and of s2s (percent, or marks), and how many have no verdict."""
    table: list[Sequence[object]] = []
    for scale in ("right", "0-10"):
        own = [one for one in results if one.judging.scale == scale]
        if own:
            missing = sum(verdict is not None and verdict.value is None for one in own for verdict in (one.s2t, one.s2s))
            table.append((scale, len(own), _mean([one.s2t for one in own], scale), _mean([one.s2s for one in own], scale), missing))
    return table


def _mean(verdicts: Sequence[Verdict | None], scale: str) -> str:
    values = [verdict.value for verdict in verdicts if verdict is not None and verdict.value is not None]
    if not values:
        return "-"
    mean = sum(values) / len(values)
    return f"{100 * mean:.1f} %" if scale == "right" else f"{mean:.2f}"


def lines(results: Sequence[Rescored]) -> str:
    """What `--json` prints."""
    return "".join(json.dumps(one.as_json(), ensure_ascii=False) + "\n" for one in results)
