"""The stages of training, the parts of a model, and where the weights of each start from."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

Stage = Literal[
    "lm", "encoder", "speech-tokenizer", "flow", "hift", "align", "speak", "joint", "asr-pretrain", "tts-pretrain", "distill",
]  # fmt: skip
PART_NAMES = ("tokenizer", "encoder", "adaptor", "thinker", "talker", "vocoder")
Part = Literal["tokenizer", "encoder", "adaptor", "thinker", "talker", "vocoder", "speech-tokenizer", "flow", "hift"]


def _named(parts: Any) -> Any:
    """Without the parts that are null: a recipe so takes back what the one it extends names."""
    return {part: place for part, place in parts.items() if place is not None} if isinstance(parts, dict) else parts


Init = Annotated[dict[Part, str], BeforeValidator(_named)]
