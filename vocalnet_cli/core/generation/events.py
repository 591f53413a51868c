"""What an answer is made of while it is being written. Every front end reads these events and nothing else."""

from __future__ import annotations

from dataclasses import dataclass

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


Event = TextDelta | SpeechTokens | AudioChunk | TurnDone
