"""Right or wrong without a model: nano's own rules, and VocalBench's for every other question that has references."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from vocalnet_cli.core.evaluation.judge import JUDGE, KINDS, is_right
from vocalnet_cli.core.evaluation.judging.case import OPEN, Case
from vocalnet_cli.core.evaluation.normaliser import english
from vocalnet_cli.core.evaluation.results import Judging, Verdict

RULE = "rule"
CONTAINS = f"{JUDGE}; elsewhere a reference within the answer (VocalBench: Whisper's English normaliser, hyphens to spaces)"

_TAG = re.compile(r"<\|.*?\|>")


def plain(text: str) -> str:
    """A text as VocalBench compares it: `<|..|>` tags out, hyphens to spaces, normalised, lower case."""
    return english()(_TAG.sub("", text).replace("-", " ")).lower().strip()


def contains_reference(said: str, references: Sequence[str]) -> bool:
    """Whether a reference is part of the answer, as a string: VocalBench's rule, which finds `he` in `helium` too."""
    answer = plain(said)
    return any(wanted in answer for wanted in map(plain, references) if wanted)


class RuleJudge:
    """The judge that costs nothing and is always the same."""

    paid = False

    def check(self) -> None:
        """Nothing is missing."""

    def can(self, style: str) -> bool:
        return style != OPEN

    def judging(self, style: str) -> Judging:
        return Judging(judge=RULE, rule=CONTAINS)

    def verdicts(self, cases: Sequence[Case], advance: Callable[[int, int], None] = lambda done, total: None) -> list[Verdict]:
        found = []
        for number, case in enumerate(cases, 1):
            found.append(_verdict(case))
            advance(number, len(cases))
        return found


def _verdict(case: Case) -> Verdict:
    if case.record is not None and str(case.record.meta.get("kind", "")) in KINDS:
        return Verdict(value=is_right(case.said, case.record, case.alike))
    if not case.references:
        return Verdict(value=None, failure="an open question: the rule needs a reference")
    return Verdict(value=contains_reference(case.said, case.references))
