"""Where the time of an answer goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

STAGES = ("encoder", "thinker", "talker", "vocoder")


class Clock:
    """Time spent in each stage, and since the start of the turn."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._begin = time.perf_counter()
        self._spent = dict.fromkeys(STAGES, 0.0)
        self._first_audio: float | None = None

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Adds the time of the body to stage `name`."""
        begin = self._now()
        yield
        self._spent[name] += self._now() - begin

    def sound(self) -> None:
        """Marks the moment a chunk of sound is ready; only the first counts."""
        if self._first_audio is None:
            self._first_audio = time.perf_counter() - self._begin

    def timings(self) -> dict[str, float]:
        """Milliseconds, as `TurnDone.timings_ms` describes them."""
        seconds = dict(self._spent)
        if self._first_audio is not None:
            seconds["first_audio"] = self._first_audio
        seconds["total"] = time.perf_counter() - self._begin
        return {name: round(1000 * value, 3) for name, value in seconds.items()}

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()
