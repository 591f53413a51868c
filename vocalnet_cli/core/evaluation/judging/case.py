"""What a judge is given, and what every judge can do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from vocalnet_cli.core.data.record import Record
from vocalnet_cli.core.evaluation.results import Judging, Verdict

OPEN, SHORT, REFERENCES = "open", "short", "references"
"""Ways to judge: a mark for an answer to an open question, right or wrong by one standard answer, by any of several references."""

STYLES = (OPEN, SHORT, REFERENCES)


@dataclass(frozen=True)
class Case:
    """An answer to be judged."""

    question: str
    references: Sequence[str]
    said: str
    style: str
    record: Record | None = None
    """The row of the benchmark, for rules that know its kind."""
    alike: Mapping[str, str] = field(default_factory=dict)
    """Words that sound like another, mapped to it."""


def case_style(asked: str | None, references: Sequence[str]) -> str:
    """How a question is judged: as its benchmark asks (`meta.judge`), else by whether it has references."""
    return asked if asked in STYLES else REFERENCES if references else OPEN


class Judge(Protocol):
    """Says what answers are worth."""

    paid: bool
    """Whether a verdict costs: then only what the tables need is judged."""

    def check(self) -> None:
        """Say what is missing before anything is generated. Raises VocalnetError."""

    def can(self, style: str) -> bool:
        """Whether it can judge in this way."""

    def judging(self, style: str) -> Judging:
        """Who judges, and how; `models` is filled once it has replied."""

    def verdicts(self, cases: Sequence[Case], advance: Callable[[int, int], None] = lambda done, total: None) -> list[Verdict]:
        """A verdict for each case, in order. `advance(done, total)` hears of each. Raises VocalnetError if judging cannot go on."""
