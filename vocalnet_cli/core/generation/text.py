"""Text tokens to text, one token at a time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vocalnet_cli.core.units import SPEECH_TOKEN_HZ

FASTEST_LETTERS_A_SECOND = 25
_FIRST_SYLLABLE = "\u2e80"
UNFINISHED = "\ufffd"
"""What a tokenizer shows for the bytes of a character that is not complete yet."""


class TextStream:
    """Decodes a growing list of token ids; each token is decoded together with the piece before it and never again.

    A piece is given out only when it ends with a whole character, so that the joined pieces equal `decode(all ids)`.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.ids: list[int] = []
        self.text = ""
        self._tokenizer = tokenizer
        self._start = 0  # first id of the piece before
        self._done = 0  # first id whose text is still owed

    def push(self, token_id: int) -> str:
        """Add one token; returns the text that is complete with it, often empty."""
        self.ids.append(token_id)
        fresh = self._fresh()
        if not fresh or fresh.endswith(UNFINISHED):
            return ""
        return self._give(fresh)

    def finish(self) -> str:
        """Text of tokens that never became a whole character; empty for sound answers."""
        fresh = self._fresh()
        return self._give(fresh) if fresh else ""

    def _fresh(self) -> str:
        known = decode(self._tokenizer, self.ids[self._start : self._done])
        return decode(self._tokenizer, self.ids[self._start :])[len(known) :]

    def _give(self, fresh: str) -> str:
        self._start, self._done = self._done, len(self.ids)
        self.text += fresh
        return fresh


def decode(tokenizer: Any, ids: list[int]) -> str:
    """The text of `ids`, without special tokens and with every space as written."""
    return tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False) if ids else ""


def draw_token(logits: Tensor, temperature: float, top_p: float, generator: torch.Generator | None) -> int:
    """One text token from `logits` [1, V]: the likeliest at temperature 0, else nucleus sampling.

    `generator` lives on the CPU, whatever the device, so that a seed gives the same draws everywhere.
    """
    if temperature == 0:
        return int(logits[0].argmax())
    odds = torch.softmax(logits[0].float().cpu() / temperature, dim=-1)
    ranked, order = odds.sort(descending=True)
    ranked = ranked.masked_fill(ranked.cumsum(0) - ranked > top_p, 0.0)  # the likeliest token always stays
    return int(order[torch.multinomial(ranked, 1, generator=generator)])


def penalised(logits: Tensor, written: list[int], penalty: float) -> Tensor:
    """Logits [1, V] after transformers' repetition penalty for the token ids already written in this answer."""
    if penalty == 1.0 or not written:
        return logits
    past = torch.tensor([written], device=logits.device)
    scores = logits.gather(1, past)
    return logits.scatter(1, past, torch.where(scores < 0, scores * penalty, scores / penalty))


def letters(text: str) -> int:
    """How much there is to say of a text: its letters and digits; a sign that stands for a syllable (Chinese, Korean) counts as three."""
    return sum(3 if sign >= _FIRST_SYLLABLE else 1 for sign in text if sign.isalnum())


def too_short(text: str, speech_tokens: int) -> bool:
    """Whether so few speech tokens cannot be all of a text: nobody says more than 25 letters a second, read speech has 10 to 20."""
    return speech_tokens * FASTEST_LETTERS_A_SECOND < letters(text) * SPEECH_TOKEN_HZ
