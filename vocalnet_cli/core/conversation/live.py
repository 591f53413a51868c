"""A live conversation: who speaks when. Knows no device: frames come in, sound is pulled out."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from vocalnet_cli.core.conversation.conversation import Conversation
from vocalnet_cli.core.conversation.ears import Ears
from vocalnet_cli.core.conversation.record import Recorder
from vocalnet_cli.core.conversation.turns import Listener, TurnResult
from vocalnet_cli.core.generation.events import AudioChunk, Event
from vocalnet_cli.core.units import ANSWER_HZ, QUESTION_HZ

MICROPHONE = Path("microphone")


class Player:
    """Sound on its way to the loudspeaker (24 kHz). Pushed by the answer's thread, pulled by the device's, silenced by a third."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[np.ndarray] = deque()
        self._turn: int | None = None
        self._played = 0
        self._held = False

    def begin(self, turn: int) -> None:
        """From now on the sound of this turn, and of no other, is played."""
        with self._lock:
            self._turn, self._played, self._held = turn, 0, False
            self._waiting.clear()

    def push(self, turn: int, samples: np.ndarray) -> None:
        """Adds sound; that of a turn which was silenced is dropped."""
        with self._lock:
            if turn == self._turn:
                self._waiting.append(samples)

    def pull(self, count: int) -> np.ndarray:
        """The next `count` samples, silence where there is no sound."""
        out = np.zeros(count, np.float32)
        filled = 0
        with self._lock:
            while filled < count and self._waiting and not self._held:
                piece = self._waiting.popleft()
                part = piece[: count - filled]
                out[filled : filled + len(part)] = part
                filled += len(part)
                if len(part) < len(piece):
                    self._waiting.appendleft(piece[len(part) :])
            self._played += filled
        return out

    def hold(self, held: bool) -> None:
        """Plays silence for as long as it is held; nothing is lost."""
        with self._lock:
            self._held = held

    def silence(self) -> int:
        """Drops what waits, and what may still come of this turn; returns how many samples of it were played."""
        with self._lock:
            self._turn = None
            self._waiting.clear()
            return self._played

    @property
    def empty(self) -> bool:
        """Nothing waits to be played."""
        with self._lock:
            return not self._waiting


class _Turn(threading.Thread):
    """One answer, made beside the microphone."""

    def __init__(self, number: int, question: np.ndarray, wait_s: float, talk: Conversation, player: Player, hear: Callable[[Event], None]):
        super().__init__(daemon=True)
        self.number, self.question, self.wait_s = number, question, wait_s
        self.listener = Listener()
        self.before = len(talk.turns)
        self.history: dict[str, int] = {}
        self.failed: BaseException | None = None
        self.stop = threading.Event()
        self._talk, self._player, self._hear = talk, player, hear

    def run(self) -> None:
        try:
            for event in self._talk.ask(self.question, self.stop.is_set):
                self.listener.follow(event)
                if isinstance(event, AudioChunk):
                    self._player.push(self.number, event.samples)
                if not self.stop.is_set():
                    self._hear(event)
            memory = self._talk.memory
            self.history = {"turns": self.before, "rows": memory.prompt_rows, "reused": memory.reused}
            if not self.stop.is_set():
                self._talk.prepare()
        except BaseException as error:  # told by the thread that waits for this one
            self.failed = error


class Live:
    """Turns of a live conversation. Speaking during an answer silences it at once, unless `half_duplex` stops the ears meanwhile.

    `hear(event)` follows the answers (on their threads), `state(word)` says what goes on: `listening`, `hearing` or `answering`.
    """

    def __init__(
        self,
        conversation: Conversation,
        ears: Ears,
        player: Player,
        *,
        recorder: Recorder | None = None,
        half_duplex: bool = False,
        hear: Callable[[Event], None] = lambda event: None,
        state: Callable[[str], None] = lambda word: None,
    ) -> None:
        self._talk, self._ears, self._player, self._recorder = conversation, ears, player, recorder
        self._half_duplex = half_duplex
        self._hear, self._state = hear, state
        self._turn: _Turn | None = None
        self._count = 0

    def run(self, frames: Iterable[np.ndarray]) -> Iterator[TurnResult]:
        """One result for each turn that is over, as long as frames [512] come. Whatever ends them, the turn in progress is saved.

        It is also the last result, before what the frames ended with goes on to the caller.
        """
        self._talk.prepare()
        self._state("listening")
        try:
            for frame in frames:
                mark = None
                if self._turn is not None and self._half_duplex:
                    self._ears.reset()
                else:
                    mark = self._ears.push(frame)
                    self._player.hold(self._ears.suspects)  # whoever speaks hears it yield before it is sure that they do
                if self._turn is not None and (mark == "start" or self._over(self._turn)):
                    yield self._finish(self._turn)
                    self._state("listening")
                if mark == "start":
                    self._state("hearing")
                elif mark == "end":
                    self._begin()
            if self._turn is not None:
                self._turn.join()
                yield self._finish(self._turn)
        except (Exception, KeyboardInterrupt):
            if self._turn is not None:
                yield self._finish(self._turn)
            raise
        finally:
            if self._turn is not None:
                self._finish(self._turn)

    def _begin(self) -> None:
        self._count += 1
        self._player.begin(self._count)
        self._turn = _Turn(self._count, self._ears.question, self._ears.wait_s, self._talk, self._player, self._hear)
        self._state("answering")
        self._turn.start()

    def _over(self, turn: _Turn) -> bool:
        return not turn.is_alive() and self._player.empty

    def _finish(self, turn: _Turn) -> TurnResult:
        """The turn's result; one that is not played to its end is cut off."""
        cut = not self._over(turn)
        played = self._player.silence()
        turn.stop.set()
        turn.join()
        self._turn = None
        if turn.failed is not None:
            raise turn.failed
        result = TurnResult(MICROPHONE, turn=turn.number, question_s=len(turn.question) / QUESTION_HZ, history=turn.history)
        turn.listener.fill(result)
        result.wait_ms = 1000 * turn.wait_s
        if cut:
            result.heard, result.audio_s, result.cut = self._talk.heard(played / ANSWER_HZ), played / ANSWER_HZ, False
        if self._recorder is not None:
            self._recorder.question(turn.number, turn.question)
            result.audio = self._recorder.answer(turn.number, turn.listener.samples[:played] if cut else turn.listener.samples)
            self._recorder.line(result.as_json())
        return result
