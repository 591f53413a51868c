"""Where the time of an answer goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from vocalnet_cli.core.generation.events import Mark
from vocalnet_cli.core.model.device import synchronize
from vocalnet_cli.core.units import ANSWER_HZ

STAGES = ("encoder", "thinker", "talker", "vocoder")


class Cancelled(Exception):
    """Nobody wants the rest of an answer: raised between two of its steps, never inside one."""


class Clock:
    """Time spent in each stage, and since the start of the turn: the moment the whole question was handed over.

    `stop` is asked before each step whether the answer is to end there.
    """

    def __init__(self, device: torch.device, stop: Callable[[], bool] | None = None) -> None:
        self._device = device
        self._stop = stop
        self._begin = time.perf_counter()
        self._spent = dict.fromkeys(STAGES, 0.0)
        self._samples = 0
        self.began_ms: dict[str, float] = {}
        """When each stage was first entered, in milliseconds since the start."""
        self.marks: list[Mark] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Adds the time of the body, one step, to stage `name`. Raises Cancelled instead of beginning it if `stop` says so."""
        if self._stop is not None and self._stop():
            raise Cancelled
        begin = self._now()
        self.began_ms.setdefault(name, _ms(begin - self._begin))
        yield
        self._spent[name] += self._now() - begin

    def mark(self, samples: int = 0) -> None:
        """Marks the moment a piece of speech is ready: `samples` of sound, or speech tokens of a model without a vocoder."""
        self._samples += samples
        spent = {name: _ms(value) for name, value in self._spent.items()}
        self.marks.append(Mark(_ms(time.perf_counter() - self._begin), spent, self._samples / ANSWER_HZ))

    def timings(self) -> dict[str, float]:
        """Milliseconds, as `TurnDone.timings_ms` describes them."""
        first = [mark.at_ms for mark in self.marks if mark.audio_s][:1]
        return {
            **{name: _ms(value) for name, value in self._spent.items()},
            **({"first_audio": first[0]} if first else {}),
            "total": _ms(time.perf_counter() - self._begin),
        }

    def _now(self) -> float:
        synchronize(self._device)
        return time.perf_counter()


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 3)
