"""What an answer is made of while it is being written. Every front end reads these events and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from vocalnet_cli.core.units import ANSWER_HZ


@dataclass(frozen=True)
class TextDelta:
    """The next piece of the answer's text: whole characters only. All pieces joined are the whole text."""

    text: str
    token_id: int
    """Text token that completed the piece; a character spread over several tokens comes with its last one."""


@dataclass(frozen=True)
class SpeechTokens:
    """Speech tokens of one talker call, 25 a second, before they are turned into sound."""

    tokens: list[int]


@dataclass(frozen=True, eq=False)
class AudioChunk:
    """The next piece of sound; pieces laid end to end are the spoken answer."""

    samples: np.ndarray
    """Mono float32, full scale 1 (a loud peak may pass it a little), never empty."""
    rate: int = ANSWER_HZ
    """Samples a second."""


@dataclass(frozen=True)
class Mark:
    """How far an answer was when a piece of speech was ready: an `AudioChunk`, or `SpeechTokens` of a model without a vocoder."""

    at_ms: float
    """Milliseconds since the whole question was handed over."""
    stages_ms: dict[str, float]
    """Milliseconds spent in each stage by then; what is missing to `at_ms` is Python between them."""
    audio_s: float
    """Seconds of sound handed out, this piece included."""


@dataclass(frozen=True)
class TurnDone:
    """Last event of every answer."""

    text: str
    """The whole text."""
    timings_ms: dict[str, float]
    """Milliseconds spent in `encoder` (with the adaptor), `thinker`, `talker` and `vocoder`; `first_audio` (absent if nothing was
    said) and `total` are wall-clock times since the question was handed over."""
    tokens: dict[str, int]
    """How many `text` and `speech` tokens were drawn."""
    truncated: bool
    """The answer was cut off by `max_text_tokens` or `max_speech_tokens`."""
    began_ms: dict[str, float] = field(default_factory=dict)
    """When each stage was first entered, in milliseconds since the question was handed over; nothing for answers made together."""
    marks: list[Mark] = field(default_factory=list)
    """One for each piece of speech, in order; none for answers made together."""
    cut: bool = False
    """Too few speech tokens for the text: some of what is written was not said (see `text.too_short`)."""


Event = TextDelta | SpeechTokens | AudioChunk | TurnDone
