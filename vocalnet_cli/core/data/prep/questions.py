"""`prep questions`: published benchmarks into evaluation sets for `vocalnet eval`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vocalnet_cli.core.data.prep.corpora import BadRow, Turn, good_row, sound_of, text_of
from vocalnet_cli.core.data.prep.shards import Raw
from vocalnet_cli.core.data.prep.single import given_id, make_row
from vocalnet_cli.core.data.prep.step import Reject, Row

_ANSWERS = ("Answer", "answers", "output", "answer_normalized_value", "参考答案", "answer")
_QUESTIONS = ("Questions", "question", "instruction", "Prompt", "Question")
_JUDGED = {"instruction": "open", "Prompt": "open", "Questions": "short"}
"""How OpenAudioBench judges the sets that have these columns; the others by their references."""
_CLOSED = ("knowledge", "reasoning")
"""Sets of VocalBench with answers that are right or wrong."""
_NO_ANSWER = "(open)"
"""Answer of a question that only a judge can score."""


@dataclass(frozen=True)
class Questions:
    """OpenAudioBench's CSV, VoiceBench's parquet, VocalBench's JSON, URO-Bench's JSONL, and one's own: told by their fields.

    `meta.aliases` are further right answers, `meta.judge` how the publishers judge, where the references do not say it.
    """

    benchmark: str
    root: str | None = None
    name: str = "questions"

    def settings(self) -> dict[str, Any]:
        return {"benchmark": self.benchmark}

    def begin(self) -> None:
        """Nothing to load."""

    def work(self, raws: Iterable[Raw], output: Path) -> Iterator[Row | Reject]:
        for raw in raws:
            try:
                turn = self._turn(raw)
                own = turn.index if turn.keeps_id else f"{self.benchmark}-{turn.index}"
                question, answer = turn.question.strip(), turn.answer.strip() or _NO_ANSWER
                if not question:
                    raise BadRow("empty question", "question")
                if turn.sound is None:
                    raise BadRow("no spoken question", "question.audio")
                yield make_row(raw, turn, own, question, answer, output, self.benchmark, "test", "")
            except BadRow as bad:
                yield Reject(raw, bad.reason, given_id(raw), bad.field, bad.detail)

    def _turn(self, raw: Raw) -> Turn:
        row = good_row(raw)
        root = Path(self.root) if self.root else raw.file.parent
        for name, reader in _LAYOUTS.items():
            if name in row:
                return reader(row, raw, root)
        raise BadRow("no known layout", detail=", ".join(sorted(map(str, row))[:8]))


def _openaudiobench(row: dict[str, Any], raw: Raw, root: Path) -> Turn:
    """A row of `eval_datas/SUBSET/SUBSET.csv`; the clips are in `audios/` beside it."""
    question, answer = _first(row, _QUESTIONS), _first(row, _ANSWERS)
    aliases = [one.strip() for one in answer.split(";") if one.strip()] if "answers" in row else [answer.strip()]
    listed = row.get("answer_normalized_aliases")
    aliases += [one.strip(" []'\"") for one in str(listed).split(",")] if listed else []
    others = list(dict.fromkeys(one for one in aliases[1:] if one))
    note: dict[str, Any] = {"aliases": others} if others else {}
    if judged := next((how for name, how in _JUDGED.items() if name in row), None):
        note["judge"] = judged
    clip = text_of(row, "audio_filename")
    sound = sound_of(clip if (root / clip).exists() else f"audios/{clip}", root)
    return Turn(Path(clip).stem, question, aliases[0] if aliases else "", sound=sound, note=note)


def _vocalbench(row: dict[str, Any], raw: Raw, root: Path) -> Turn:
    history = []
    for said in row.get("Context") or ():
        if not isinstance(said, dict):
            raise BadRow("field of the wrong kind", "Context")
        history.append((text_of(said, "from"), text_of(said, "value")))
    note = {"kind": str(row["Set"])} if row.get("Set") else {}
    for name in ("Topic", "Category", "Source"):
        if row.get(name):
            note[name.lower()] = str(row[name])
    if note.get("kind", _CLOSED[0]) not in _CLOSED:
        note["judge"] = "open"
    answer = row.get("Answer") or ""
    return Turn(
        text_of(row, "Qid"), text_of(row, "Question"), str(answer), history=history, sound=sound_of(row.get("Audio"), root), note=note
    )


def _voicebench(row: dict[str, Any], raw: Raw, root: Path) -> Turn:
    note = {name: json.loads(json.dumps(row[name], default=str)) for name in row if name not in ("audio", "prompt", "reference")}
    index = f"{raw.file.stem}-{raw.line}" if raw.line else raw.file.stem
    return Turn(index, text_of(row, "prompt"), str(row.get("reference") or ""), sound=sound_of(row.get("audio"), root), note=note)


def _uro(row: dict[str, Any], raw: Raw, root: Path) -> Turn:
    """URO-Bench, one round: recording, text and one or more answers."""
    targets = row.get("target_text") or []
    return _with_references(row, raw, root, "source_text", "source_wav", [targets] if isinstance(targets, str) else targets)


def _own(row: dict[str, Any], raw: Raw, root: Path) -> Turn:
    """A row made by hand: `{id, question, audio, references: [...]}` (or one `answer`), none for an open question."""
    one = [row["answer"]] if isinstance(row.get("answer"), str) and row["answer"] else []
    return _with_references(row, raw, root, "question", "audio", row.get("references") or one)


def _with_references(row: dict[str, Any], raw: Raw, root: Path, question: str, sound: str, references: Any) -> Turn:
    if not isinstance(references, list) or not all(isinstance(one, str) for one in references):
        raise BadRow("field of the wrong kind", "references")
    own = row.get("id", row.get("key", raw.line))
    note: dict[str, Any] = {"aliases": references[1:]} if references[1:] else {}
    note |= {name: row[name] for name in ("judge", "kind") if isinstance(row.get(name), str)}
    answer = references[0] if references else ""
    turn = Turn(str(own), text_of(row, question), answer, sound=sound_of(row.get(sound), root), note=note)
    turn.keeps_id = "id" in row
    return turn


_LAYOUTS: dict[str, Callable[[dict[str, Any], Raw, Path], Turn]] = {
    "audio_filename": _openaudiobench,
    "Qid": _vocalbench,
    "prompt": _voicebench,
    "source_wav": _uro,
    "audio": _own,
}
"""The field a layout is known by, and how it is read."""


def _first(row: dict[str, Any], names: Iterable[str]) -> str:
    for name in names:
        if isinstance(row.get(name), str):
            return str(row[name])
    raise BadRow("field missing", " or ".join(names))
