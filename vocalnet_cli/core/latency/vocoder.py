"""The CosyVoice2 vocoder against what upstream does in its place: caches against computing everything spoken so far again.

Both run the same modules with the same weights, threads and arithmetic, so that the difference is the method's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from vocalnet_cli.core.config.schema import Recipe
from vocalnet_cli.core.config.vocoder_schema import CosyVoice2Settings
from vocalnet_cli.core.errors import UsageError
from vocalnet_cli.core.latency.memory import PeakMemory
from vocalnet_cli.core.latency.timers import Stopwatch
from vocalnet_cli.core.model.device import DTYPES
from vocalnet_cli.core.model.vocoder.contract import Voice
from vocalnet_cli.core.model.vocoder.cosyvoice2.attention import KeyCache
from vocalnet_cli.core.model.vocoder.cosyvoice2.flow import FlowState
from vocalnet_cli.core.model.vocoder.cosyvoice2.vocoder import CosyVoice2Vocoder, Schedule
from vocalnet_cli.core.units import FRAMES_PER_TOKEN, SPEECH_TOKEN_HZ, VOCODER_HOP, VOCODER_MEL_BINS

_MEL_KEPT = 8
"""Mel frames before a chunk that upstream gives to HiFT once more (cosyvoice2.md section 3.2)."""

_THIRD = 3
"""The chunk that the last one is compared with: the first ones are still filling caches."""


class _Kept(KeyCache):
    """Keeps nothing: what recomputation needs."""

    def write(self, layer: int, keys: Tensor, values: Tensor) -> list[tuple[Tensor, Tensor]]:
        return [(keys, values)]


def vocoder_latency(
    seconds: float = 10.0,
    chunk_tokens: int = 15,
    prompt_s: float = 3.0,
    settings: CosyVoice2Settings | None = None,
    device: torch.device | str = "cpu",
    seed: int = 0,
    baseline: bool = True,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Times for an answer of about `seconds` (whole chunks) in a voice of `prompt_s`: random weights, real size unless `settings` differ.

    `offline_s`: all tokens as one chunk; `streaming_s`: in chunks of `chunk_tokens`; `chunk_ms`: each chunk in order; `voice_s`:
    preparing the voice, once; `audio_s`: length of the answer; `rtf`: streaming over that; `growth`: the last chunk over the third.
    `baseline` has the same keys for recomputation: every chunk runs the flow over prompt and all tokens so far, and HiFT over the
    chunk and 8 frames. `ratio` is baseline over ours, for `offline`, `streaming` and `first_chunk`. Uses as many threads as torch is
    set to; `advance(done, total)` hears of every chunk, the baseline's included.
    """
    torch.manual_seed(seed)
    chosen = settings or CosyVoice2Settings()
    vocoder = CosyVoice2Vocoder(chosen).to(device).eval().requires_grad_(False)
    count = chunk_tokens * max(1, round(seconds * SPEECH_TOKEN_HZ / chunk_tokens))
    prompt = round(prompt_s * SPEECH_TOKEN_HZ)
    tokens = torch.randint(chosen.codes, (count,))
    mel = torch.randn(FRAMES_PER_TOKEN * prompt, VOCODER_MEL_BINS)
    voice = Voice(torch.randint(chosen.codes, (prompt,)), mel, torch.randn(chosen.flow.speaker))
    clock = _Counted(torch.device(device), (1 + baseline) * (1 + count // chunk_tokens) + 1, advance)
    audio_s, peak = count / SPEECH_TOKEN_HZ, PeakMemory(torch.device(device))
    with torch.no_grad():
        voice_s = clock(lambda: vocoder.begin(voice))
        ours = _ours(vocoder, voice, tokens, chunk_tokens, clock)
        theirs = _recomputed(vocoder, voice, tokens, chunk_tokens, clock) if baseline else None
    told = {**ours, "voice_s": voice_s, "audio_s": audio_s, "rtf": ours["streaming_s"] / audio_s, "memory_mb": peak.mb()}
    if len(ours["chunk_ms"]) >= _THIRD:
        told["growth"] = ours["chunk_ms"][-1] / ours["chunk_ms"][_THIRD - 1]
    if theirs is None:
        return told
    ratio = {name: theirs[f"{name}_s"] / ours[f"{name}_s"] for name in ("offline", "streaming")}
    return {**told, "baseline": theirs, "ratio": {**ratio, "first_chunk": theirs["chunk_ms"][0] / ours["chunk_ms"][0]}}


class _Counted(Stopwatch):
    """A stopwatch that tells how many of its calls are done."""

    def __init__(self, device: torch.device, total: int, advance: Callable[[int, int], None]) -> None:
        super().__init__(device)
        self._done, self._total, self._advance = 0, total, advance

    def __call__(self, work: Callable[[], Any]) -> float:
        self._advance(self._done, self._total)
        seconds = super().__call__(work)
        self._done += 1
        self._advance(self._done, self._total)
        return seconds


def _summary(offline_s: float, chunks_s: list[float]) -> dict[str, Any]:
    return {"offline_s": offline_s, "streaming_s": sum(chunks_s), "chunk_ms": [1000 * chunk for chunk in chunks_s]}


def _ours(vocoder: CosyVoice2Vocoder, voice: Voice, tokens: Tensor, chunk: int, clock: Stopwatch) -> dict[str, Any]:
    schedule, ahead = Schedule(chunk, chunk), vocoder.settings.flow.lookahead_tokens
    at_once = Schedule(len(tokens), len(tokens))
    offline_s = clock(lambda: vocoder.push(vocoder.begin(voice, at_once), tokens, True))
    state, times, given = vocoder.begin(voice, schedule), [], 0
    for end in range(chunk, len(tokens) + 1, chunk):
        last = end == len(tokens)
        piece = tokens[given:] if last else tokens[given : end + ahead]
        given += len(piece)
        times.append(clock(lambda piece=piece, last=last: vocoder.push(state, piece, last)))  # type: ignore[misc]
    return _summary(offline_s, times)


def _recomputed(vocoder: CosyVoice2Vocoder, voice: Voice, tokens: Tensor, chunk: int, clock: Stopwatch) -> dict[str, Any]:
    settings, flow, hift = vocoder.settings, vocoder.flow, vocoder.hift
    device, prompt, ahead = hift.conv_pre.weight.device, len(voice.tokens), settings.flow.lookahead_tokens
    ids = torch.cat([voice.tokens, tokens]).to(device)[None]
    prompt_blocks = _blocks(prompt, settings.trained_block)

    def spoken(start: int, end: int, kept: int) -> Tensor:
        """Frames of tokens start..end, with everything before them; then their sound, with `kept` frames before them."""
        known = torch.zeros(1, VOCODER_MEL_BINS, FRAMES_PER_TOKEN * (prompt + end), device=device)
        known[:, :, : FRAMES_PER_TOKEN * prompt] = voice.mel.T.to(device)
        seen = ids[:, : prompt + min(len(tokens), end + ahead)]
        mel = flow.extend([_forgetful(vocoder, voice)], seen, [*prompt_blocks, *_blocks(end, chunk)], known)
        mel = mel[:, :, FRAMES_PER_TOKEN * (prompt + start) - kept :]
        noise = torch.randn(1, VOCODER_HOP * mel.shape[-1], settings.hift.harmonics + 1, device=device)
        return hift(mel, noise).cpu()

    offline_s = clock(lambda: spoken(0, len(tokens), 0))
    times = []
    for start in range(0, len(tokens), chunk):
        end = min(start + chunk, len(tokens))
        times.append(clock(lambda start=start, end=end: spoken(start, end, _MEL_KEPT if start else 0)))  # type: ignore[misc]
    return _summary(offline_s, times)


def _forgetful(vocoder: CosyVoice2Vocoder, voice: Voice) -> FlowState:
    """A fresh state that keeps no keys."""
    settings = vocoder.settings
    state = vocoder.flow.begin(voice.speaker.to(vocoder.hift.conv_pre.weight.device), settings.steps, settings.guidance)
    state.tokens, state.frames = _Kept(state.layers[0]), _Kept(state.layers[1])
    state.steps = [(memory, _Kept(state.layers[2])) for memory, _ in state.steps]
    return state


def _blocks(total: int, size: int) -> list[int]:
    return [min(size, total - at) for at in range(0, total, size)]


_SMALL = (
    "model.vocoder.flow={hidden: 64, heads: 2, ffn: 128, layers: 1, up_layers: 1, channels: 32, estimator_heads: 2, head_dim: 16, "
    "groups: 1, transformers: 1}",
    "model.vocoder.hift={channels: 64, f0_channels: 32}",
)
"""A vocoder of the same build that anything can run in seconds."""


def vocoder_overrides(size: str, dtype: torch.dtype, overrides: Sequence[str]) -> list[str]:
    """What `--size` and `--dtype` say of a recipe's vocoder, as overrides; those given come last and win."""
    flow_dtype = next(name for name, kind in DTYPES.items() if kind == dtype)
    told = ["model.vocoder.kind=cosyvoice2", *(_SMALL if size == "nano" else ()), f"model.vocoder.flow_dtype={flow_dtype}"]
    return [*told, *overrides]


def measure_vocoder(recipe: Recipe, device: torch.device, seed: int, advance: Callable[[int, int], None]) -> dict[str, Any]:
    """`vocoder_latency` as a recipe's `model.vocoder` and `latency` say. Raises UsageError for another kind of vocoder."""
    settings, asked = recipe.model.vocoder, recipe.latency
    if not isinstance(settings, CosyVoice2Settings):
        raise UsageError("model.vocoder.kind is not cosyvoice2: only that one has caches to measure", "Leave model.vocoder.kind out.")
    told = vocoder_latency(
        asked.answer_s, asked.chunk_tokens, asked.prompt_s, settings, device, seed, baseline=asked.baseline, advance=advance
    )
    chosen = ("steps", "guidance", "context", "window_tokens", "lookahead_frames")
    return {"dtype": settings.flow_dtype, **told, "settings": {name: getattr(settings, name) for name in chosen}}
