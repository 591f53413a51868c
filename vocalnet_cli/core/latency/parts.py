"""The stages of the signal path by themselves, at any size with random weights, each with the step it repeats."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vocalnet_cli.core.config.schema import Recipe
from vocalnet_cli.core.config.vocoder_schema import CosyVoice2Settings
from vocalnet_cli.core.latency.random_parts import random_part
from vocalnet_cli.core.model.adaptor import Adaptor
from vocalnet_cli.core.model.cache import GrowingCache
from vocalnet_cli.core.model.device import DTYPES
from vocalnet_cli.core.model.encoder import build_encoder, encoder_frames
from vocalnet_cli.core.model.talker import build_talker
from vocalnet_cli.core.model.talker.contract import SpeechSampling
from vocalnet_cli.core.model.thinker import build_thinker, last_hidden, text_logits
from vocalnet_cli.core.model.vocoder import CosyVoice2Vocoder, build_vocoder
from vocalnet_cli.core.model.vocoder.cosyvoice2.vocoder import Schedule
from vocalnet_cli.core.units import QUESTION_HZ

_PROMPT = 64
"""Rows the thinker has read before the token that is timed."""

_CHUNKS = 12
"""Chunks of text the talker has: more than its timed steps use up."""

_ANSWER = 1 << 14
"""Tokens after which the talker would stop."""


@dataclass
class Made:
    """A stage that can run."""

    part: nn.Module
    step: Callable[[], Any]
    dtype: torch.dtype


def encoder(recipe: Recipe, device: torch.device, dtype: torch.dtype, seed: int) -> Made:
    """Encoder and adaptor; a step hears one question of `latency.question_s`."""
    settings = recipe.model

    def build() -> nn.ModuleDict:
        adaptor = Adaptor(settings.adaptor, settings.encoder.hidden, settings.thinker.hidden)
        return nn.ModuleDict({"encoder": build_encoder(settings.encoder), "adaptor": adaptor})

    part: Any = random_part(build, device, dtype, seed)
    samples = torch.randn(round(min(recipe.latency.question_s, settings.encoder.window_s) * QUESTION_HZ)) * 0.1

    def step() -> Tensor:
        mel = part["encoder"].features(samples)
        frames = torch.tensor([mel.shape[1]])
        heard = part["encoder"].encode(mel[None].to(device, dtype), frames.to(device))
        return part["adaptor"](heard[:, : int(encoder_frames(frames))])

    return Made(part, step, dtype)


def thinker(recipe: Recipe, device: torch.device, dtype: torch.dtype, seed: int) -> Made:
    """A step reads one token after a short prompt and scores the next."""
    settings = recipe.model.thinker
    part = random_part(lambda: build_thinker(settings), device, dtype, seed)
    cache = GrowingCache()
    last_hidden(part, torch.zeros(1, _PROMPT, settings.hidden, device=device, dtype=dtype), cache=cache)
    token = torch.zeros(1, 1, dtype=torch.long, device=device)
    return Made(part, lambda: text_logits(part, last_hidden(part, part.get_input_embeddings()(token), cache=cache)[:, -1]), dtype)


def talker(recipe: Recipe, device: torch.device, dtype: torch.dtype, seed: int) -> Made:
    """A step draws `generation.tokens_per_step` tokens, or fills a block in `generation.steps` passes; its text is there."""
    settings, generation = recipe.model.talker, recipe.generation
    part = random_part(lambda: build_talker(settings), device, dtype, seed)
    sampling = SpeechSampling(max_speech_tokens=_ANSWER, steps=generation.steps if isinstance(generation.steps, int) else None)
    state = part.begin(1, True, generation.tokens_per_step, sampling)
    text = torch.zeros(1, _CHUNKS * settings.text_chunk, recipe.model.thinker.hidden, device=device, dtype=dtype)
    part.step(state, text, False, limit=1)

    def step() -> None:
        state.done = False  # random weights end anywhere
        part.step(state, None, False, limit=1)

    return Made(part, step, dtype)


def vocoder(recipe: Recipe, device: torch.device, dtype: torch.dtype, seed: int) -> Made:
    """A step turns the next chunk of `latency.chunk_tokens` tokens into sound; sizes without a vocoder get CosyVoice2's."""
    settings, count = recipe.model.vocoder or CosyVoice2Settings(), recipe.latency.chunk_tokens
    torch.manual_seed(seed)
    part: Any
    ahead = 0
    if isinstance(settings, CosyVoice2Settings):
        flow_dtype = next(name for name, kind in DTYPES.items() if kind == dtype)
        part = CosyVoice2Vocoder(settings.model_copy(update={"flow_dtype": flow_dtype})).to(device).eval().requires_grad_(False)
        state, ahead = part.begin(None, Schedule(count, count)), settings.flow.lookahead_tokens
    else:
        part, dtype = build_vocoder(settings).to(device).eval().requires_grad_(False), torch.float32
        state = part.begin()
    part.push(state, torch.randint(settings.codes, (count + ahead,)), False)
    tokens = torch.randint(settings.codes, (count,))
    return Made(part, lambda: part.push(state, tokens, False), dtype)


PARTS: dict[str, Callable[[Recipe, torch.device, torch.dtype, int], Made]] = {
    "encoder": encoder,
    "thinker": thinker,
    "talker": talker,
    "vocoder": vocoder,
}
