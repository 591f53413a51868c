"""One answered question as numbers, all of them from the events of the streaming engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from vocalnet_cli.core.config.schema import GenerationSettings
from vocalnet_cli.core.generation.clock import STAGES
from vocalnet_cli.core.generation.events import Mark, TurnDone
from vocalnet_cli.core.generation.streaming import answer
from vocalnet_cli.core.model.speech_llm import SpeechLLM
from vocalnet_cli.core.model.vocoder import Voice

SEGMENTS = (*STAGES, "other")
"""Parts the time to the first sound is made of; `other` is Python between the stages."""

FIRST_CHUNK_S = 0.6
"""Sound that the papers' first chunk holds (arXiv 2504.04060, table 8)."""


@dataclass(frozen=True)
class Turn:
    """Milliseconds count from the last sample of the question: it is handed over whole, and nothing was computed before."""

    question: str
    first_ms: float | None
    """Until the first sound (without a vocoder, the first speech tokens); none if nothing was said."""
    stages_ms: dict[str, float]
    """What of that each of SEGMENTS took. They add up to `first_ms`; empty if nothing was said."""
    first_text_ms: float | None
    """Until the thinker's first chunk of text was written, which is when the talker begins."""
    first_chunk_ms: float | None
    """Until FIRST_CHUNK_S of sound were there; none for shorter answers."""
    first_audio_s: float
    """Length of the first piece of sound."""
    stall_ms: float
    """How long a listener who starts at the first sound waits for later ones, in all."""
    total_ms: float
    spent_ms: dict[str, float]
    """What each stage took of the whole answer."""
    audio_s: float
    text_tokens: int
    speech_tokens: int


def take_turn(
    model: SpeechLLM, name: str, samples_16k: np.ndarray, settings: GenerationSettings, seed: int, voice: Voice | None = None
) -> Turn:
    """Ask one question (mono float32, 16 kHz) and read what the engine tells. The draws depend on `seed` alone."""
    done: TurnDone | None = None
    for event in answer(model, samples_16k, settings, torch.Generator().manual_seed(seed), voice):
        done = event if isinstance(event, TurnDone) else None
    assert done is not None, "every answer ends with TurnDone"
    return read_turn(name, done)


def read_turn(name: str, done: TurnDone) -> Turn:
    """The numbers of an answer from its last event."""
    first = done.marks[0] if done.marks else None
    stages = first.stages_ms if first else {}
    return Turn(
        question=name,
        first_ms=first.at_ms if first else None,
        stages_ms={**stages, "other": max(0.0, round(first.at_ms - sum(stages.values()), 3))} if first else {},
        first_text_ms=done.began_ms.get("talker"),
        first_chunk_ms=next((mark.at_ms for mark in done.marks if mark.audio_s >= FIRST_CHUNK_S), None),
        first_audio_s=first.audio_s if first else 0.0,
        stall_ms=_stall_ms(done.marks),
        total_ms=done.timings_ms["total"],
        spent_ms={name: done.timings_ms[name] for name in STAGES},
        audio_s=done.marks[-1].audio_s if first else 0.0,
        text_tokens=done.tokens["text"],
        speech_tokens=done.tokens["speech"],
    )


def _stall_ms(marks: Sequence[Mark]) -> float:
    """How late sound comes for someone who plays all of it without a pause: the largest lag of a piece behind what was there before."""
    waits = [mark.at_ms - marks[0].at_ms - 1000 * before.audio_s for before, mark in zip(marks, marks[1:], strict=False)]
    return max([0.0, *waits])
