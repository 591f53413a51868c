"""`prep voiceassistant`: single-turn corpora into records, said as they can be spoken, short enough, each once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vocalnet_cli.core.data.prep.corpora import BadRow, Turn, read_turn
from vocalnet_cli.core.data.prep.shards import Raw
from vocalnet_cli.core.data.prep.speakable import speakable
from vocalnet_cli.core.data.prep.step import Reject, Row
from vocalnet_cli.core.data.record import HistoryTurn, Record, TokenizerName, Utterance
from vocalnet_cli.core.units import COSYVOICE2_CODES

PUBLISHED = TokenizerName(name="cosyvoice2, as published", sha256="unknown")
"""Tokenizer of tokens that came with a corpus: VocalNet's are CosyVoice 2's, drawn by its language model."""


@dataclass(frozen=True)
class SingleTurns:
    """VoiceAssistant-400K and corpora of its kind (gpt-omni's and SLAM-Omni's parquet, SLAM-Omni's JSONL, VocalNet's JSON)."""

    max_answer_words: int = 140
    """An answer of more words is too long to say: about 56 s, 1400 speech tokens (a cut the released code holds but does not use).
    The paper removes over-long answers (470 000 rows to 430 000, arXiv 2504.04060) and does not say which."""
    root: str | None = None
    """Folder that sound and tokens lie in; by default that of the input."""
    text_only: bool = False
    """Leave recordings where they are: the text is to be spoken anew."""
    source: str = "voiceassistant"
    split: str = "train"

    @property
    def name(self) -> str:
        return "voiceassistant"

    def settings(self) -> dict[str, Any]:
        return {"max_answer_words": self.max_answer_words, "text_only": self.text_only, "source": self.source, "split": self.split}

    def begin(self) -> None:
        """Nothing to load."""

    def work(self, raws: Iterable[Raw], output: Path) -> Iterator[Row | Reject]:
        for raw in raws:
            own = given_id(raw)
            try:
                turn = read_turn(raw, Path(self.root) if self.root else raw.file.parent)
                own = turn_id(turn)
                turn.sound = None if self.text_only else turn.sound
                yield self._row(raw, turn, own, output)
            except BadRow as bad:
                yield Reject(raw, bad.reason, own, bad.field, bad.detail)

    def _row(self, raw: Raw, turn: Turn, own: str, output: Path) -> Row:
        question, answer = speakable(turn.question), speakable(turn.answer)
        if not answer:
            raise BadRow("nothing to say", "answer", turn.answer[:80])
        if not question and turn.sound is None:
            raise BadRow("nothing to say", "question", turn.question[:80])
        words = len(answer.split())
        if words > self.max_answer_words:
            raise BadRow("answer too long", "answer", f"{words} words, at most {self.max_answer_words}")
        same = f"{question}\n{answer}".casefold() if question else ""
        return make_row(raw, turn, own, question, answer, output, self.source, self.split, same)


def given_id(raw: Raw) -> str:
    """What a row calls itself, for a reject; empty if it does not."""
    row = raw.row or {}
    return str(row.get("id", row.get("index", row.get("key", ""))))[:80]


def turn_id(turn: Turn) -> str:
    """Id of a single turn: its number in its corpus, with its split and round where there are any."""
    parts = [turn.note.get("split_name"), turn.index, str(turn.round) if turn.round > 1 else None]
    return "-".join(part for part in parts if part)


def make_row(
    raw: Raw, turn: Turn, own: str, question: str, answer: str, output: Path, source: str, split: str, same: str, history: bool = True
) -> Row:
    """The record of a turn, with its sound taken into `output` and its tokens into the row. Raises BadRow."""
    if not own:
        raise BadRow("field missing", "id")
    tokens = _tokens(turn)
    sound, seconds = None, 0.0
    if turn.sound is not None:
        from vocalnet_cli.core.data.prep.sounds import take_sound

        sound, seconds = take_sound(turn.sound, own, "questions", output, "question.audio")
    record = Record(
        id=own,
        source=source,
        split=split,
        round=turn.round,
        question=Utterance(text=question, audio=sound),
        history=[HistoryTurn(role=role, text=text) for role, text in turn.history] if history else [],
        answer=Utterance(text=answer),
        speech_tokens=tokens,
        tokenizer=PUBLISHED if tokens else None,
        meta=turn.note,
    )
    return Row(raw, record, same, seconds, tuple(file for file in (turn.sound, turn.tokens) if isinstance(file, Path)))


def _tokens(turn: Turn) -> list[int] | None:
    if turn.tokens is None:
        return None
    if isinstance(turn.tokens, Path):
        from vocalnet_cli.core.data.prep.npy import read_tokens

        return checked_tokens(read_tokens(turn.tokens, "units"))
    return checked_tokens(turn.tokens)


def checked_tokens(tokens: list[int]) -> list[int]:
    """Published tokens. Raises BadRow if there are none, or some that are not CosyVoice 2's."""
    for token in tokens:
        if not isinstance(token, int) or not 0 <= token < COSYVOICE2_CODES:
            raise BadRow("speech token out of range", "units", f"{token!r}, not in 0..{COSYVOICE2_CODES - 1}")
    if not tokens:
        raise BadRow("no speech tokens", "units")
    return tokens
