"""How the released code hands a long answer's text to the talker: cut at punctuation when it is whole, in groups while it is written.

Pure bookkeeping on token ids, without and with the released code's defects (vocalnet.md, sections 6.2, 6.4 and 6.7).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

LONGEST = 50
"""A cut is allowed once more than this many tokens came since the last one; a stream may restart after this many."""

RESTARTS = (".", "!", "?")
"""Text after which a stream may restart."""

FILLER = [6324, 4137]
"""Speech tokens the released code says instead of a tail that has nothing to say (K15)."""


def cut(ids: Sequence[int], sentence_ends: Collection[int], broken: bool = False) -> list[tuple[int, int]]:
    """Segments [start, end) of an answer's token ids, the stop included if there is one; none for an empty answer.

    `broken` keeps the released code's defects: an answer of two tokens gives no segment, one that is cut off right after
    punctuation gives an empty one.
    """
    bounds, last = [0], 0
    for index, token_id in enumerate(ids):
        if token_id in sentence_ends and index - last > LONGEST:
            bounds.append(index + 1)
            last = index
    if last == len(ids) - 2 and (broken or len(bounds) > 1):
        bounds[-1] = len(ids)  # the stop alone is no segment
    else:
        bounds.append(len(ids))
    return [(a, b) for a, b in zip(bounds, bounds[1:], strict=False) if broken or b > a]


@dataclass(frozen=True)
class Call:
    """One call of the talker."""

    count: int | None
    """How many of the waiting states it gets; none: it goes on without new text."""
    end: bool = False
    """Whether the end vector follows them."""
    last: bool = False
    """The talker speaks to the end of the segment."""
    restart: bool = False
    """The next states begin a new segment."""
    filler: bool = False
    """Not a call: the filler tokens are said."""


@dataclass
class Groups:
    """Groups the states of an answer that is being written into calls of the talker."""

    size: int
    """States a call (C_t)."""
    decode: Callable[[list[int]], str]
    """Text of token ids, without special tokens."""
    interval: int = LONGEST
    """Tokens after which a sentence end restarts the talker."""
    broken: bool = False
    """Keep the released code's defects: tails without end vector, fillers."""
    _ids: list[int] = field(default_factory=list)
    _count: int = 0
    _restarted_at: int = 0
    _spoken: bool = False

    def push(self, token_id: int, stop: bool = False) -> list[Call]:
        """Calls that are due when this token, whose state now waits too, was drawn; `stop` says that it ends the answer."""
        self._ids.append(token_id)
        self._count += 1
        calls: list[Call] = []
        if self._count - self._restarted_at >= self.interval and self.decode(self._ids).endswith(RESTARTS):
            calls.append(self._call(end=True, last=True, restart=True))
            self._restarted_at = self._count
        elif len(self._ids) >= self.size and (self.broken or not stop):
            calls.append(self._call())
        if stop:
            calls += self._broken_end(token_id) if self.broken else self.finish(stop)
        return calls

    def finish(self, stop: bool = False) -> list[Call]:
        """The call that ends an answer: what waits and the end vector. None if nothing, or only the `stop`, came since a restart."""
        nothing_new = not self._spoken and len(self._ids) <= stop and self._restarted_at
        return [] if nothing_new else [self._call(end=True, last=True)]

    def _broken_end(self, stop_id: int) -> list[Call]:
        if self._ids and self._ids[0] != stop_id:
            return [self._call(end=True, last=True)]
        if self._count - self._restarted_at < 2:
            return [Call(None, filler=True)]
        return [Call(None, last=True)]

    def _call(self, end: bool = False, last: bool = False, restart: bool = False) -> Call:
        count, self._ids = len(self._ids), []
        self._spoken = not restart
        return Call(count, end, last, restart)
