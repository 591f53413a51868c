"""What became of one turn, told the same way whether it came from a file or a microphone."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vocalnet_cli.core.generation.batch import Answered
from vocalnet_cli.core.generation.events import AudioChunk, Event, TextDelta, TurnDone
from vocalnet_cli.core.units import ANSWER_HZ


@dataclass
class TurnResult(Answered):
    """An answered question in its conversation."""

    turn: int = 0
    """Its number, from 1."""
    heard: str | None = None
    """The words that were heard of an answer that was interrupted; none if it was not."""
    stalled_ms: float = 0.0
    """Time a listener waited inside the answer because sound came later than it was needed."""
    wait_ms: float | None = None
    """Live: how long after the last sound of the question it was clear that it had ended. Not part of `first_audio`."""
    history: dict[str, int] = field(default_factory=dict)
    """`turns` before this one that were taken into account, `rows` of the prompt, and how many of these were `reused`."""

    def as_json(self) -> dict[str, Any]:
        """The row `chat --json` prints: those of `infer`, and what only a conversation has."""
        row = {"turn": self.turn, **super().as_json()}
        if self.error is not None:
            return row
        row |= {"stalled_ms": round(self.stalled_ms, 3), "history": self.history}
        own = {"heard": self.heard, "wait_ms": None if self.wait_ms is None else round(self.wait_ms, 3)}
        return row | {name: value for name, value in own.items() if value is not None}


class Listener:
    """Follows the events of one answer: collects its sound and text, and how a listener would have heard it."""

    def __init__(self) -> None:
        self.text = ""
        self.sound: list[np.ndarray] = []
        self.done: TurnDone | None = None
        self.stalled_s = 0.0
        self._end: float | None = None

    def follow(self, event: Event) -> None:
        """Takes the next event, at the moment it comes."""
        if isinstance(event, TextDelta):
            self.text += event.text
        elif isinstance(event, AudioChunk):
            self.sound.append(event.samples)
            now = time.perf_counter()
            if self._end is not None:
                self.stalled_s += max(0.0, now - self._end)
            self._end = max(now, self._end or now) + len(event.samples) / event.rate
        elif isinstance(event, TurnDone):
            self.done = event

    @property
    def left_s(self) -> float:
        """Seconds until the last sound so far is played, if each piece is played as soon as it can be."""
        return max(0.0, (self._end or 0.0) - time.perf_counter())

    @property
    def samples(self) -> np.ndarray:
        """All sound so far, mono at 24 kHz."""
        return np.concatenate(self.sound) if self.sound else np.zeros(0, np.float32)

    def fill(self, result: TurnResult) -> None:
        """Enters into a result what was heard."""
        result.text, result.stalled_ms = self.text, 1000 * self.stalled_s
        result.audio_s = len(self.samples) / ANSWER_HZ
        if self.done is not None:
            result.text, result.timings_ms, result.tokens = self.done.text, self.done.timings_ms, self.done.tokens
            result.truncated, result.cut = self.done.truncated, self.done.cut
