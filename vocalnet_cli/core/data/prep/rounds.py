"""`prep ultrachat`: dialogues of several rounds into one record a round."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vocalnet_cli.core.data.prep.corpora import BadRow, Turn, good_row, read_turn
from vocalnet_cli.core.data.prep.shards import Raw
from vocalnet_cli.core.data.prep.single import given_id, make_row
from vocalnet_cli.core.data.prep.speakable import speakable
from vocalnet_cli.core.data.prep.step import Reject, Row

KEEP = ("all", "first", "standalone")

ROLES = ("user", "assistant")

_NAMES = {"human": "user", "gpt": "assistant", "prompter": "user"}
_LEANING = re.compile(
    r"(?i)\b(it|its|they|them|their|theirs|this|that|these|those|he|him|his|she|her|hers|one|ones|such|former|latter|above|previous(ly)?"
    r"|earlier|mentioned|you (said|say|mean|described|suggested|gave|listed|recommend(ed)?)|your (answer|response|list|suggestions?)"
    r"|more|another|others?|else|instead|again|also|too|then|same)\b"
)
_REPLYING = re.compile(
    r"(?i)^\W*(and|but|so|or|ok(ay)?|yes|yeah|no|sure|thanks?|thank you|great|wow|interesting|absolutely|i see|ah|oh|hmm|well|that'?s"
    r"|continue|go on)\b"
)
_FEWEST_WORDS = 4


def leans(question: str) -> bool:
    """Whether a later question seems to need what stood before it: it replies, points back, or is hardly a sentence. By its words."""
    return len(question.split()) < _FEWEST_WORDS or bool(_REPLYING.search(question) or _LEANING.search(question))


@dataclass(frozen=True)
class Rounds:
    """UltraChat (thunlp's `data`, or `messages` with roles), and SLAM-Omni's version that is split already."""

    keep: str = "all"
    """`all` rounds, with what stood before as history; the `first` of each; `standalone` ones, which need no history."""
    speakable: bool = False
    """Whether text is made speakable; otherwise it is kept as it stands, blanks at its ends aside."""
    root: str | None = None
    text_only: bool = False
    """Leave recordings where they are: the text is to be spoken anew."""
    source: str = "ultrachat"
    split: str = "train"

    @property
    def name(self) -> str:
        return "ultrachat"

    def settings(self) -> dict[str, Any]:
        told = {"keep": self.keep, "speakable": self.speakable, "text_only": self.text_only}
        return {**told, "source": self.source, "split": self.split}

    def begin(self) -> None:
        """Nothing to load."""

    def work(self, raws: Iterable[Raw], output: Path) -> Iterator[Row | Reject]:
        for raw in raws:
            try:
                row = good_row(raw)
                if "data" in row or "messages" in row:
                    turns = dialogue(row)
                else:
                    turns = iter([read_turn(raw, Path(self.root) if self.root else raw.file.parent)])
                for turn in turns:
                    yield self._kept(raw, turn, output)
            except BadRow as bad:
                yield Reject(raw, bad.reason, given_id(raw), bad.field, bad.detail)

    def _kept(self, raw: Raw, turn: Turn | tuple[str, BadRow], output: Path) -> Row | Reject:
        if isinstance(turn, tuple):
            return Reject(raw, turn[1].reason, turn[0], turn[1].field, turn[1].detail)
        turn.sound = None if self.text_only else turn.sound
        own = f"{turn.index}-{turn.round}"
        try:
            if [role for role, _ in turn.history] != [ROLES[place % 2] for place in range(len(turn.history))] or len(turn.history) % 2:
                raise BadRow("roles do not alternate", "history")
            if any(not text for _, text in turn.history):
                raise BadRow("an earlier round is empty", "history")
            if turn.round > 1 and self.keep == "first":
                raise BadRow("not kept: a later round")
            if turn.round > 1 and self.keep == "standalone" and leans(turn.question):
                raise BadRow("not kept: needs its history", "question", turn.question[:80])
            said = speakable if self.speakable else str.strip
            question, answer = said(turn.question), said(turn.answer)
            for text, name in ((question, "question"), (answer, "answer")):
                if not text:
                    raise BadRow(f"empty {name}", name)
            history = self.keep == "all"
            before = "\n".join(text for _, text in turn.history) if history else ""
            same = f"{before}\n{question}\n{answer}".casefold()
            return make_row(raw, turn, own, question, answer, output, self.source, self.split, same, history)
        except BadRow as bad:
            return Reject(raw, bad.reason, own, bad.field, bad.detail)


def dialogue(row: dict[str, Any]) -> Iterator[Turn | tuple[str, BadRow]]:
    """The rounds of a dialogue; a round that is none as (id, why). Raises BadRow for what is no dialogue."""
    index = row.get("id", row.get("prompt_id"))
    if not isinstance(index, (str, int)) or index == "":
        raise BadRow("field missing", "id")
    said = _said(row)
    if not said:
        raise BadRow("no rounds", "data")
    before: list[tuple[str, str]] = []
    for place in range(0, len(said), 2):
        number = place // 2 + 1
        pair = said[place : place + 2]
        if len(pair) < 2:
            yield f"{index}-{number}", BadRow("question without an answer", "data", pair[0][1][:80])
            continue
        (_, question), (_, answer) = pair
        yield Turn(str(index), question, answer, number, list(before))
        before += [("user", question), ("assistant", answer)]


def _said(row: dict[str, Any]) -> list[tuple[str, str]]:
    """(role, text) of all turns, which begin with the user and alternate."""
    name = "data" if "data" in row else "messages"
    parts = row[name]
    if not isinstance(parts, list):
        raise BadRow("field of the wrong kind", name)
    said = []
    for place, part in enumerate(parts):
        role = ROLES[place % 2]
        if isinstance(part, dict):
            role = str(part.get("role", part.get("from", "")))
            part = part.get("content", part.get("value"))
        if not isinstance(part, str):
            raise BadRow("field of the wrong kind", name, f"turn {place + 1}")
        said.append((_NAMES.get(role, role), part.strip()))
    if said and said[0][0] == "system":
        said = said[1:]
    if any(role != ROLES[place % 2] for place, (role, _) in enumerate(said)):
        raise BadRow("roles do not alternate", name)
    return said
