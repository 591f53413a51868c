"""Turns of one or several setups in one run: warm-up, alternation, and what is told of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vocalnet_cli.core.audio.wav import read_question
from vocalnet_cli.core.errors import VocalnetError
from vocalnet_cli.core.generation.load import load_answerer
from vocalnet_cli.core.generation.vocoder import find_voice
from vocalnet_cli.core.latency.memory import PeakMemory
from vocalnet_cli.core.latency.setup import Setup
from vocalnet_cli.core.latency.timers import Stopwatch
from vocalnet_cli.core.latency.turns import Turn, take_turn
from vocalnet_cli.core.model.speech_llm import SpeechLLM
from vocalnet_cli.core.model.vocoder import Voice


@dataclass
class Side:
    """One setup and its turns."""

    setup: Setup
    model: SpeechLLM
    load_s: float
    """Time to read the weights; 0 for a side that shares those of an earlier one."""
    voice: Voice | None = None
    """Of its answers; none is the vocoder's own."""
    cold: Turn | None = None
    """The first answer after loading: what is allocated, compiled or tuned once is in it."""
    turns: list[Turn] = field(default_factory=list)
    """All that count, in order. Turn i of every side is about the same question."""


@dataclass
class Measured:
    """One run."""

    sides: list[Side]
    memory_mb: float | None
    """Peak of the run, weights included; none where the system does not tell."""
    stopped: bool
    """Ctrl-C ended it early: each side has as many turns as the others, but fewer than asked for."""


def run_turns(
    setups: Sequence[Setup],
    questions: Sequence[tuple[str, Path]],
    seed: int = 0,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> Measured:
    """Load every setup and ask all of them every question (name and sound file), `repeats` times by the first one's `latency`.

    The sides take turns, and swap places each time, so that what drifts (heat, neighbours) meets all alike. `advance(done, total)`
    hears of every turn. Ctrl-C ends the run early, but is passed on before each side has a turn. Raises VocalnetError for a question,
    voice or model that cannot be used, or if nothing was said.
    """
    latency = setups[0].latency
    asked = [(name, read_question(path, min(one.settings.max_question_s for one in setups))) for name, path in questions]
    sides = _load(setups)
    rounds = list(_rounds(len(sides), len(asked), latency.warmup, latency.repeats))
    peak = PeakMemory(setups[0].device)
    stopped = False
    try:
        for done, (counts, number, question) in enumerate(rounds):
            advance(done, len(rounds))
            _ask(sides[number], counts, *asked[question], seed)
        advance(len(rounds), len(rounds))
    except KeyboardInterrupt:
        if not all(side.turns for side in sides):
            raise
        stopped = True
    fewest = min(len(side.turns) for side in sides)
    for side in sides:
        del side.turns[fewest:]
    if not any(turn.first_ms is not None for side in sides for turn in side.turns):
        raise VocalnetError(f"none of {fewest} answers had any speech", "Ask other questions (--benchmark), or another model (--model).")
    return Measured(sides, peak.mb(), stopped)


def _load(setups: Sequence[Setup]) -> list[Side]:
    """Sides that differ in how they answer alone, or in their voice, share their weights."""
    loaded: dict[Any, SpeechLLM] = {}
    voices = [find_voice(one.plan, one.voice, one.device) for one in setups]
    sides = []
    for one, voice in zip(setups, voices, strict=True):
        plan, seconds = one.plan, 0.0
        key = (plan.folder, plan.vocoder_folder, plan.vocoder, one.device, one.dtype, one.quantize)
        if key not in loaded:

            def load(one: Setup = one, key: Any = key) -> None:
                loaded[key] = load_answerer(one.plan, one.device, one.dtype, one.quantize)

            seconds = Stopwatch(one.device)(load)
        sides.append(Side(one, loaded[key], seconds, voice))
    return sides


def _rounds(sides: int, questions: int, warmup: int, repeats: int) -> Iterator[tuple[bool, int, int]]:
    """Whether it counts, the side and the question of every turn, in order."""
    for turn in range(warmup):
        yield from ((False, side, turn % questions) for side in range(sides))
    for turn in range(repeats * questions):
        order = range(sides) if turn % 2 == 0 else range(sides - 1, -1, -1)
        yield from ((True, side, turn % questions) for side in order)


def _ask(side: Side, counts: bool, name: str, samples: np.ndarray, seed: int) -> None:
    turn = take_turn(side.model, name, samples, side.setup.settings, seed, side.voice)
    if counts:
        side.turns.append(turn)
    elif side.cold is None:
        side.cold = turn
