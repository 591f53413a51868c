"""What the thinker remembers of a conversation: the turns so far, and the key/value cache of all it has read."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vocalnet_cli.core.model.prompt import render_conversation
from vocalnet_cli.core.model.speech_llm import SpeechLLM

Row = int | tuple[int, int]
"""One row of the cache: a token id, or the number of a question and of its embedding."""


@dataclass(eq=False)
class Turn:
    """A question and what is known of its answer."""

    question: Tensor | str
    """Audio embeddings [A, H] as the thinker hears them, or words."""
    answer: str = ""
    """The words of the answer; of one that was cut off, those that were heard."""
    number: int = 0
    """Tells its embeddings from those of other questions in the cache."""


class Memory:
    """The thinker's side of one conversation. Everything it knows is in here, so a model serves many conversations at once.

    Before each answer the whole conversation is rendered anew as text around the sound of its questions, and the cache is kept as far
    as it holds the same rows; only what follows is read. So a cached turn is the uncached one, whatever the template, a trimmed answer
    or a dropped turn changes: it only costs reading again from there.
    """

    def __init__(self, model: SpeechLLM, system_prompt: str | None = None, turns: int = 0) -> None:
        self.turns: list[Turn] = []
        """The earlier turns that the next answer takes into account, oldest first."""
        self.dropped = 0
        """Turns forgotten so far because they did not fit into the thinker's positions."""
        self.reused = 0
        """Rows of the last prompt that were in the cache already."""
        self.prompt_rows = 0
        """Rows of the last prompt."""
        self._model = model
        self._system = model.settings.thinker.system_prompt if system_prompt is None else system_prompt
        self._most = turns
        self._cache = model.new_cache()
        self._rows: list[Row] = []
        self._asked: Turn | None = None
        self._count = 0

    def begin(self) -> None:
        """A new question is on its way: from now on `answered` speaks of that one, once it has been listened to."""
        self._asked = None

    def listen(self, audio: Tensor, room: int) -> tuple[Tensor, Tensor]:
        """Reads a question's embeddings [A, H] after all that is remembered: logits [1, V] and state [1, 1, H] after the prompt.

        The oldest turns are dropped, each as a whole, until prompt and `room` more tokens fit into the thinker's positions.
        """
        self._count += 1
        self._asked = Turn(audio, number=self._count)
        pieces = self._fitting(len(audio) + room)
        logits, states = self._read(pieces, [*self._spoken(), self._asked])
        return logits, states[:, -1:]

    def read(self, token_id: int) -> tuple[Tensor, Tensor]:
        """Reads one token of the answer: logits [1, V] and the state [1, 1, H] that has read it."""
        self._cache.truncate(len(self._rows))
        logits, states = self._model.read(self._model.embed([token_id]), self._cache)
        self._rows.append(token_id)
        return logits, states

    def answered(self, text: str) -> None:
        """Keeps the question last listened to, with this answer, as a turn; said again, it corrects the answer of that turn."""
        if self._asked is not None:
            self._asked.answer = text
            if self._most and self._asked not in self.turns:
                self.turns = [*self.turns, self._asked][-self._most :]

    @torch.inference_mode()
    def prepare(self, room: int) -> None:
        """Reads ahead what the next prompt starts with, up to the question: call it while nobody waits."""
        longest = max((len(turn.question) for turn in self._spoken()), default=0)
        self._read(self._fitting(longest + room)[:-1], self._spoken())

    def _spoken(self) -> list[Turn]:
        return [turn for turn in self.turns if not isinstance(turn.question, str)]

    def _fitting(self, room: int) -> list[list[int]]:
        """The prompt's ids around the sounds, after dropping turns until it fits beside `room` more rows."""
        limit = self._model.settings.thinker.max_positions
        while True:
            pieces = self._render()
            rows = sum(len(part) for part in [*pieces, *(turn.question for turn in self._spoken())])
            if not self.turns or rows + room <= limit:
                return pieces
            self.turns = self.turns[1:]
            self.dropped += 1

    def _render(self) -> list[list[int]]:
        settings = self._model.settings
        turns = [(turn.question if isinstance(turn.question, str) else None, turn.answer) for turn in self.turns]
        return render_conversation(self._model.tokenizer, settings.thinker.family, self._system, turns, compat=settings.compat)

    def _read(self, pieces: list[list[int]], sounds: list[Turn]) -> tuple[Tensor, Tensor]:
        """Reads ids and the sounds between them, as far as the cache does not hold them: logits [1, V] and states [1, n, H]."""
        rows: list[Row] = []
        embeds: list[Tensor] = []
        for place, ids in enumerate(pieces):
            rows += ids
            embeds.append(self._model.embed(ids)[0])
            if place < len(sounds):
                sound = sounds[place]
                assert isinstance(sound.question, Tensor)
                rows += [(sound.number, row) for row in range(len(sound.question))]
                embeds.append(sound.question)
        known = min(_common(rows, self._rows), len(rows) - 1)  # the last row is always read: its state is asked for
        # An interrupted read may leave some layers longer than others: only rows that all have are counted on.
        self._cache.truncate(known)
        self._rows = rows[:known]
        logits, states = self._model.read(torch.cat(embeds)[None, known:], self._cache)
        self._rows = rows
        self.reused, self.prompt_rows = known, len(rows)
        return logits, states


def _common(one: list[Row], other: list[Row]) -> int:
    """How many rows both start with."""
    for place, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return place
    return min(len(one), len(other))
