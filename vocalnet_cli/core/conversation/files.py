"""A conversation whose questions come from files, in real time or as fast as possible."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from vocalnet_cli.core.audio.wav import read_question
from vocalnet_cli.core.conversation.conversation import Conversation
from vocalnet_cli.core.conversation.record import Recorder
from vocalnet_cli.core.conversation.turns import Listener, TurnResult
from vocalnet_cli.core.errors import AudioError
from vocalnet_cli.core.generation.events import Event
from vocalnet_cli.core.units import QUESTION_HZ


def converse(
    conversation: Conversation,
    questions: Sequence[Path],
    *,
    recorder: Recorder | None = None,
    realtime: bool = False,
    start: Callable[[Path], None] = lambda file: None,
    hear: Callable[[Event], None] = lambda event: None,
) -> Iterator[TurnResult]:
    """One result for each file, in order. A file that cannot be used is told in its result, and the conversation goes on without it.

    With `realtime` each question takes as long as it lasts, and the next one begins when the answer has been played. `start(file)` and
    then `hear(event)` follow each turn while it goes on. Reading ahead for a question happens before it begins, as in a live
    conversation it does while the user speaks.
    """
    for turn, file in enumerate(questions, 1):
        try:
            samples = read_question(file, conversation.settings.max_question_s)
        except AudioError as error:
            yield TurnResult(file, turn=turn, error=error)
            continue
        before = len(conversation.turns)
        start(file)
        begun = time.perf_counter()
        conversation.prepare()
        if realtime:
            time.sleep(max(0.0, len(samples) / QUESTION_HZ - (time.perf_counter() - begun)))
        listener = Listener()
        for event in conversation.ask(samples):
            listener.follow(event)
            hear(event)
        result = TurnResult(file, turn=turn, question_s=len(samples) / QUESTION_HZ)
        result.history = {"turns": before, "rows": conversation.memory.prompt_rows, "reused": conversation.memory.reused}
        listener.fill(result)
        _save(recorder, result, samples, listener)
        if realtime:
            time.sleep(listener.left_s)
        yield result


def _save(recorder: Recorder | None, result: TurnResult, samples: np.ndarray, listener: Listener) -> None:
    if recorder is None:
        return
    recorder.question(result.turn, samples)
    result.audio = recorder.answer(result.turn, listener.samples)
    recorder.line(result.as_json())
