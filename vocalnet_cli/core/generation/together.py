"""Several questions answered at once: one batch through encoder, thinker and talker, each answer the one it would get alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from vocalnet_cli.core.config.schema import GenerationSettings
from vocalnet_cli.core.generation.clock import Clock
from vocalnet_cli.core.generation.events import TurnDone
from vocalnet_cli.core.generation.speaker import speak_whole, speech_sampling
from vocalnet_cli.core.generation.text import decode, penalised, too_short
from vocalnet_cli.core.model.compat import RULES
from vocalnet_cli.core.model.speech_llm import SpeechLLM
from vocalnet_cli.core.model.thinker import last_hidden, text_logits
from vocalnet_cli.core.model.vocoder import Voice


@dataclass
class _Written:
    """One answer's text while the batch is being written."""

    ids: list[int] = field(default_factory=list)
    stop: int | None = None
    """The token that ended it."""
    truncated: bool = False

    @property
    def done(self) -> bool:
        return self.stop is not None or self.truncated


@torch.inference_mode()
def answer_together(
    model: SpeechLLM, questions: list[np.ndarray], settings: GenerationSettings, voices: Sequence[Voice | None] | None = None
) -> Iterator[tuple[TurnDone, list[int], list[np.ndarray]]]:
    """For each question (mono float32, 16 kHz), in order: its text and counts, its speech tokens, its sound (none without a vocoder).

    `voices` has one for each, or none where the vocoder's own is meant. Greedy only: draws of several answers cannot be kept apart.
    Times are those of the whole batch.
    """
    if settings.temperature or settings.speech_temperature:
        raise ValueError("several answers at once are drawn greedily: temperature and speech_temperature must be 0")
    clock = Clock(model.device)
    written, states = _write(model, questions, settings, clock)
    answers = [_talker_input(model, row, states[:, number : number + 1].transpose(0, 1)) for number, row in enumerate(written)]
    with clock.stage("talker"):
        filled = [answer for answer, row in zip(answers, written, strict=True) if row.ids]  # an empty answer is not spoken
        said = iter(speak_whole(model, filled, settings, speech_sampling(model, settings, None)))
    spoken = [next(said) if row.ids else [] for row in written]
    with clock.stage("vocoder"):
        sounds = _vocoded(model, spoken, voices or [None] * len(spoken))
    clock.mark(sum(len(part) for sound in sounds for part in sound))
    for row, tokens, sound in zip(written, spoken, sounds, strict=True):
        text = decode(model.tokenizer, row.ids)
        counts = {"text": len(row.ids), "speech": len(tokens)}
        truncated = row.truncated or len(tokens) >= settings.max_speech_tokens
        yield TurnDone(text, clock.timings(), counts, truncated, cut=too_short(text, len(tokens))), tokens, sound


def _vocoded(model: SpeechLLM, spoken: list[list[int]], voices: Sequence[Voice | None]) -> list[list[np.ndarray]]:
    """The sound of each answer's speech tokens; none of an answer without tokens, or without a vocoder."""
    vocoder = model.vocoder
    sounds: list[list[np.ndarray]] = [[] for _ in spoken]
    loud = [i for i, tokens in enumerate(spoken) if tokens]
    if vocoder is None or not loud:
        return sounds
    states = [vocoder.begin(voices[i]) for i in loud]
    tokens = [torch.tensor(spoken[i], dtype=torch.long) for i in loud]
    for i, samples in zip(loud, vocoder.push_many(states, tokens, [True] * len(loud)), strict=True):
        sounds[i] = [samples] if len(samples) else []
    return sounds


def _talker_input(model: SpeechLLM, row: _Written, states: Tensor) -> tuple[Tensor, list[int]]:
    """The states [1, n, H] the talker gets of an answer, and their tokens; `states` [1, T, H] starts at the last prompt position."""
    if not RULES[model.settings.compat].states_that_predict:
        read = torch.tensor([row.ids], dtype=torch.long, device=states.device)
        return model.talker_rows(states[:, 1 : len(row.ids) + 1], read), row.ids
    ids = row.ids if row.stop is None else [*row.ids, row.stop]
    return states[:, : len(ids)], ids


def _write(model: SpeechLLM, questions: list[np.ndarray], settings: GenerationSettings, clock: Clock) -> tuple[list[_Written], Tensor]:
    """The texts, and the states [T, B, H] that predicted each token, the last prompt position's first."""
    with clock.stage("encoder"):
        heard = model.hear(questions)
    with clock.stage("thinker"):
        prompts = [model.prompt(audio)[0] for audio in heard]
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=model.device)
        embeds = torch.nn.utils.rnn.pad_sequence(prompts, batch_first=True)
        cache = model.new_cache()
        # Padding stands after each prompt, and stays between it and the answer: masked for good, and not counted by positions.
        mask = torch.arange(embeds.shape[1], device=model.device) < lengths[:, None]
        hidden = last_hidden(model.thinker, embeds, mask, cache)
        state = hidden[torch.arange(len(prompts), device=model.device), lengths - 1]
        written = [_Written() for _ in prompts]
        states, ends = [state], model.end_ids
        while True:
            tokens = _draw(model, settings, written, state, ends)
            if all(row.done for row in written):
                return written, torch.stack(states)
            mask = torch.nn.functional.pad(mask, (0, 1), value=True)
            positions = (lengths + len(states) - 1)[:, None]
            read = model.thinker.get_input_embeddings()(torch.tensor(tokens, device=model.device)[:, None])
            state = last_hidden(model.thinker, read, mask, cache, positions)[:, 0]
            states.append(state)


def _draw(model: SpeechLLM, settings: GenerationSettings, written: list[_Written], state: Tensor, ends: frozenset[int]) -> list[int]:
    """The next token of every answer; those that have ended get one that nobody reads."""
    logits = text_logits(model.thinker, state)
    if settings.text_repetition_penalty != 1.0:
        rows = (penalised(row[None], answer.ids, settings.text_repetition_penalty) for row, answer in zip(logits, written, strict=True))
        logits = torch.cat(list(rows))
    tokens = logits.argmax(-1).tolist()
    for token, answer in zip(tokens, written, strict=True):
        if answer.done:
            continue
        if token in ends:
            answer.stop = token
        elif len(answer.ids) == settings.max_text_tokens:
            answer.truncated = True
        else:
            answer.ids.append(token)
    return tokens
