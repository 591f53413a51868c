"""Steps of data preparation that end their process, for tests of what outlives that."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vocalnet_cli.core.data.prep.rounds import Rounds
from vocalnet_cli.core.data.prep.shards import Raw
from vocalnet_cli.core.data.prep.step import Reject, Row


@dataclass(frozen=True)
class Deadly(Rounds):
    """UltraChat's step, except that the dialogue `poison` always kills the process, and each dialogue of `once` does so once.

    With `crowd`, so many dialogues in one go always kill it.
    """

    poison: str = ""
    crowd: int = 1_000_000
    once: tuple[str, ...] = ()
    marks: str = ""

    def settings(self) -> dict[str, Any]:
        return Rounds.settings(self)

    def work(self, raws: Iterable[Raw], output: Path) -> Iterator[Row | Reject]:
        def watched() -> Iterator[Raw]:
            for number, raw in enumerate(raws, 1):
                own = str((raw.row or {}).get("id"))
                mark = Path(self.marks, own)
                if number >= self.crowd or own == self.poison or (own in self.once and not mark.exists()):
                    mark.touch()
                    os.kill(os.getpid(), signal.SIGKILL)
                yield raw

        yield from super().work(watched(), output)


@dataclass(frozen=True)
class Counting(Deadly):
    """The same, and rows tell how many were worked on together."""

    def work(self, raws: Iterable[Raw], output: Path) -> Iterator[Row | Reject]:
        made = list(super().work(raws, output))
        for one in made:
            assert isinstance(one, Row)
            yield replace(one, record=one.record.model_copy(update={"meta": {"batch": len(made)}}))
