"""The CosyVoice2 vocoder with random weights: what its caches save, what a bounded context and half precision save and change.

All ways of speaking take turns, chunk by chunk, so that what drifts (heat, neighbours) meets all alike.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vocalnet_cli.core.config.schema import LatencySettings, Recipe
from vocalnet_cli.core.config.vocoder_schema import CosyVoice2Settings
from vocalnet_cli.core.errors import UsageError
from vocalnet_cli.core.latency.memory import PeakMemory
from vocalnet_cli.core.latency.random_parts import speak_loudly
from vocalnet_cli.core.latency.recompute import Recomputed
from vocalnet_cli.core.latency.timers import DIGITS, Stopwatch
from vocalnet_cli.core.model.allocator import keep_freed_memory
from vocalnet_cli.core.model.device import DTYPES
from vocalnet_cli.core.model.vocoder.contract import Voice
from vocalnet_cli.core.model.vocoder.cosyvoice2.speaking import SoundState, next_sound
from vocalnet_cli.core.model.vocoder.cosyvoice2.vocoder import CosyVoice2State, CosyVoice2Vocoder, Schedule
from vocalnet_cli.core.units import ANSWER_HZ, FRAMES_PER_TOKEN, SPEECH_TOKEN_HZ, VOCODER_MEL_BINS

_THIRD = 3
"""The chunk that late ones are compared with. Its time is the median of its own and its neighbours': single ones scatter."""

_STEADY = 10
"""Late chunks whose median counts where the context is bounded, so that all of them have as much to do."""

_FIRSTS, _WHOLES = 5, 3
"""How often the first chunk and the answer at once are timed, in turn with the baseline; their medians count."""

_LOOKAHEADS = (0, 5, 13)
"""Frames HiFT may wait for whose sound is compared with the exact one's."""

_FFT, _HOP, _FLOOR = 1024, 256, 1e-3


class _Watched(CosyVoice2Vocoder):
    """Tells how long its flow works, and keeps the frames it makes."""

    clock: Stopwatch
    flow_s = 0.0
    mels: list[Tensor]

    def _mel(self, states: list[CosyVoice2State], size: int, following: int) -> Tensor:
        self.flow_s += self.clock(lambda: self.mels.append(super(_Watched, self)._mel(states, size, following)))
        return self.mels[-1]


class _Stream:
    """An answer spoken chunk by chunk."""

    def __init__(self, vocoder: _Watched, voice: Voice, tokens: Tensor, chunk: int, clock: Stopwatch) -> None:
        self.vocoder = copy.copy(vocoder)  # the same modules and prepared voices
        self.vocoder.flow_s, self.vocoder.mels = 0.0, []
        self.chunks_s: list[float] = []
        self.pieces: list[np.ndarray] = []
        self._clock, self._waiting = clock, _pieces(tokens, chunk, vocoder.settings.flow.lookahead_tokens)
        self.state = vocoder.begin(voice, Schedule(chunk, chunk))

    def step(self) -> None:
        """The next chunk, timed."""
        piece, last = next(self._waiting)
        self.chunks_s.append(self._clock(lambda: self.pieces.append(self.vocoder.push(self.state, piece, last))))

    @property
    def sound(self) -> np.ndarray:
        """What was spoken, float32 [samples]."""
        return np.concatenate(self.pieces)

    def growth(self, late: int = 3) -> dict[str, float]:
        """The `late` chunks before the end (which hands out what HiFT owes), their median, over the third; nothing if there are too few."""
        if len(self.chunks_s) < _THIRD + 2:
            return {}
        third = median(self.chunks_s[_THIRD - 2 : _THIRD + 1])
        return {"growth": round(median(self.chunks_s[max(_THIRD, len(self.chunks_s) - 1 - late) : -1]) / third, DIGITS)}

    def told(self, late: int = 3) -> dict[str, Any]:
        """Its times, and the memory of its keys."""
        return {
            "streaming_s": sum(self.chunks_s),
            "chunk_ms": [1000 * seconds for seconds in self.chunks_s],
            "flow_s": self.vocoder.flow_s,
            "cache_mb": round(self.state.flow.nbytes / 1e6, 1),
            **self.growth(late),
        }


def _pieces(tokens: Tensor, chunk: int, ahead: int) -> Iterator[tuple[Tensor, bool]]:
    """What each chunk has to wait for, and whether it is the last."""
    given = 0
    for end in range(chunk, len(tokens) + 1, chunk):
        last = end == len(tokens)
        piece = tokens[given:] if last else tokens[given : end + ahead]
        given += len(piece)
        yield piece, last


def vocoder_latency(
    asked: LatencySettings,
    settings: CosyVoice2Settings | None = None,
    device: torch.device | str = "cpu",
    seed: int = 0,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Times for an answer of `answer_s` (whole chunks) in a voice of `prompt_s`: random weights, real size unless `settings` differ.

    `offline_s`: all tokens as one chunk; `first_chunk_s`; both timed several times. `streaming_s`: in chunks of `chunk_tokens`;
    `chunk_ms`: each chunk in order; `flow_s`: the flow's part; `cache_mb`: keys of the answer at its end; `growth`: late chunks over the
    third, of an answer whose chunks follow each other as in use; `voice_s`: preparing the voice, once; `rtf`: streaming over the
    answer's length. `baseline` has the same keys for recomputation (see `Recomputed`), `ratio` is baseline over ours, for `offline`,
    `streaming` and `first_chunk`. `precision`: the flow in fp32 and in half precision; `window`: an answer of `long_s` under `context:
    window`, in the faster of them; `lookahead`: fewer frames for HiFT to wait for; each with its sound's log-spectral difference in dB,
    and of the flow's frames `mel_error`, the norm of the difference over that of the frames.
    Uses as many threads as torch is set to; `advance(done, total)` hears of every chunk.
    """
    chosen, where, chunk = settings or CosyVoice2Settings(), torch.device(device), asked.chunk_tokens
    counts = [_whole(seconds, chunk) for seconds in (asked.answer_s, max(asked.long_s, asked.answer_s))]
    chunks = counts[0] // chunk
    repeats = (_FIRSTS + _WHOLES) * (2 if asked.baseline else 1)
    rounds = 3 * chunks + (counts[1] // chunk if asked.long_s else 0) + (Recomputed.runs(chunks) if asked.baseline else 0)
    if where.type == "cpu":
        keep_freed_memory()  # as where a model is loaded to speak
    clock, peak = _Counted(where, rounds + repeats + 1, advance), PeakMemory(where)
    ours, other = (_build(one, where, seed) for one in (chosen, _other_precision(chosen)))
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(chosen.codes, (counts[1],), generator=generator)
    answer, voice = tokens[: counts[0]], _voice(chosen, asked.prompt_s, generator)
    with torch.no_grad():
        voice_s = clock(lambda: ours.begin(voice))
        streams = [_Stream(vocoder, voice, answer, chunk, clock) for vocoder in (ours, other)]
        baseline = Recomputed(ours, voice, answer, chunk, clock) if asked.baseline else None
        _in_turn([*streams, baseline] if baseline is not None else streams, chunks)
        undisturbed = _Stream(ours, voice, answer, chunk, clock)
        _in_turn([undisturbed], chunks)
        streamed, own = streams[0].told(), _Alone(ours, voice, answer, chunk, clock)
        told: dict[str, Any] = {**streamed, **undisturbed.growth(), "voice_s": voice_s, "audio_s": len(answer) / SPEECH_TOKEN_HZ}
        told["rtf"] = streamed["streaming_s"] / told["audio_s"]
        told |= _against(own, baseline, told) if baseline is not None else _often([own])[0]
        told["precision"] = _precision(*streams)
        told["lookahead"] = _lookahead(streams[0])
        if asked.long_s:
            told["window"] = _window(min(streams, key=lambda stream: sum(stream.chunks_s)), voice, tokens, asked, clock)
    return {**told, "memory_mb": peak.mb()}


class _Counted(Stopwatch):
    """A stopwatch that tells how many of its calls are done; calls inside a call are part of it."""

    def __init__(self, device: torch.device, total: int, advance: Callable[[int, int], None]) -> None:
        super().__init__(device)
        self._done, self._total, self._advance = 0, total, advance

    def __call__(self, work: Callable[[], Any]) -> float:
        self._advance(self._done, self._total)
        seconds = super().__call__(work)
        self._done += 1
        self._advance(self._done, self._total)
        return seconds


def _whole(seconds: float, chunk: int) -> int:
    """Tokens of about so many seconds, in whole chunks."""
    return chunk * max(1, round(seconds * SPEECH_TOKEN_HZ / chunk))


def _build(settings: CosyVoice2Settings, device: torch.device, seed: int) -> _Watched:
    """The same weights for the same seed, whatever their type."""
    torch.manual_seed(seed)
    vocoder = _Watched(settings.model_copy(update={"flow_dtype": "fp32"}))
    speak_loudly(vocoder)
    vocoder.settings = settings
    vocoder.flow.to(DTYPES[settings.flow_dtype or "fp32"])
    vocoder = vocoder.to(device).eval().requires_grad_(False)
    vocoder.clock, vocoder.mels = Stopwatch(device), []
    return vocoder


def _other_precision(settings: CosyVoice2Settings) -> CosyVoice2Settings:
    half = (settings.flow_dtype or "fp32") == "fp32"
    return settings.model_copy(update={"flow_dtype": "bf16" if half else "fp32"})


def _voice(settings: CosyVoice2Settings, seconds: float, generator: torch.Generator) -> Voice:
    count = round(seconds * SPEECH_TOKEN_HZ)
    tokens = torch.randint(settings.codes, (count,), generator=generator)
    mel = torch.randn(FRAMES_PER_TOKEN * count, VOCODER_MEL_BINS, generator=generator)
    return Voice(tokens, mel, torch.randn(settings.flow.speaker, generator=generator))


def _in_turn(ways: Sequence[_Stream | Recomputed], chunks: int) -> None:
    """Every chunk by every way, the order turned round each time."""
    for number in range(chunks):
        for way in ways if number % 2 == 0 else reversed(ways):
            way.step()


class _Alone:
    """A fresh answer: its first chunk, or all at once."""

    def __init__(self, vocoder: _Watched, voice: Voice, tokens: Tensor, chunk: int, clock: Stopwatch) -> None:
        self._vocoder, self._voice, self._tokens, self._chunk, self._clock = copy.copy(vocoder), voice, tokens, chunk, clock
        self._vocoder.mels = []

    def first(self) -> float:
        """Seconds of the first chunk."""
        piece, last = next(_pieces(self._tokens, self._chunk, self._vocoder.settings.flow.lookahead_tokens))
        return self._spoken(piece, last, self._chunk)

    def whole(self) -> float:
        """Seconds of one pass over everything."""
        return self._spoken(self._tokens, True, len(self._tokens))

    def _spoken(self, tokens: Tensor, last: bool, size: int) -> float:
        seconds = self._clock(lambda: self._vocoder.push(self._vocoder.begin(self._voice, Schedule(size, size)), tokens, last))
        self._vocoder.mels.clear()
        return seconds


def _often(ways: Sequence[_Alone | Recomputed]) -> list[dict[str, float]]:
    """The median times of each way's first chunk and whole answer, the ways in turn."""
    told: list[dict[str, float]] = [{} for _ in ways]
    turns: list[tuple[str, int, Callable[[_Alone | Recomputed], float]]] = [
        ("first_chunk_s", _FIRSTS, lambda way: way.first()),
        ("offline_s", _WHOLES, lambda way: way.whole()),
    ]
    for name, count, run in turns:
        times: list[list[float]] = [[] for _ in ways]
        for number in range(count):
            for place in range(len(ways))[:: 1 if number % 2 == 0 else -1]:
                times[place].append(run(ways[place]))
        for one, seconds in zip(told, times, strict=True):
            one[name] = median(seconds)
    return told


def _against(own: _Alone, baseline: Recomputed, told: dict[str, Any]) -> dict[str, Any]:
    mine, theirs = _often([own, baseline])
    sums = {**theirs, "streaming_s": sum(baseline.chunks_s)}
    ratio = {name.removesuffix("_s"): seconds / {**told, **mine}[name] for name, seconds in sums.items()}
    return {**mine, "baseline": {**sums, "chunk_ms": [1000 * seconds for seconds in baseline.chunks_s]}, "ratio": ratio}


def _precision(*streams: _Stream) -> dict[str, Any]:
    """Flow and stream of both types, the times of fp32 over those of the other, and how much their sound differs."""
    fp32, half = sorted(streams, key=lambda stream: stream.vocoder.settings.flow_dtype not in (None, "fp32"))
    times = [{"flow_s": one.vocoder.flow_s, "streaming_s": sum(one.chunks_s)} for one in (fp32, half)]
    return {
        "fp32": times[0],
        str(half.vocoder.settings.flow_dtype): times[1],
        "ratio": {name.removesuffix("_s"): round(times[0][name] / times[1][name], DIGITS) for name in times[0]},
        **_differences(fp32, half, len(fp32.pieces)),
    }


def _differences(one: _Stream, two: _Stream, chunks: int) -> dict[str, float]:
    """How much two answers differ in their first `chunks`: the flow's frames, and the sound."""
    first, second = (torch.cat(way.vocoder.mels[:chunks], dim=-1).float() for way in (one, two))
    error = float((first - second).norm() / first.norm())
    sounds = [np.concatenate(way.pieces[:chunks]) for way in (one, two)]
    return {"mel_error": round(error, DIGITS + 2), "log_spectral_db": log_spectral_difference(*sounds)}


def _lookahead(stream: _Stream) -> list[dict[str, Any]]:
    """The same frames through HiFT with less to wait for: how much sound the first chunk gives, and how much it all differs."""
    found = []
    exact = len(stream.pieces[0])
    for frames in _LOOKAHEADS:
        state, mels = SoundState(), stream.vocoder.mels
        pieces = [next_sound(stream.vocoder.hift, state, mel, mel is mels[-1], frames).cpu().numpy() for mel in mels]
        difference = log_spectral_difference(stream.sound, np.concatenate(pieces))
        found.append({"frames": frames, "first_sound_s": len(pieces[0]) / ANSWER_HZ, "log_spectral_db": difference})
    return [*found, {"frames": None, "first_sound_s": exact / ANSWER_HZ, "log_spectral_db": 0.0}]


def _window(full: _Stream, voice: Voice, tokens: Tensor, asked: LatencySettings, clock: Stopwatch) -> dict[str, Any]:
    """A long answer that sees the voice and `window_tokens` before each chunk; compared with `full` for as long as that spoke."""
    bounded = copy.copy(full.vocoder)
    bounded.settings = bounded.settings.model_copy(update={"context": "window", "window_tokens": asked.window_tokens})
    stream = _Stream(bounded, voice, tokens, asked.chunk_tokens, clock)
    for _ in range(len(tokens) // asked.chunk_tokens):
        stream.step()
    common = len(full.pieces) - 1  # the end of one is not that of the other
    about = {"audio_s": len(tokens) / SPEECH_TOKEN_HZ, "window_tokens": asked.window_tokens, "dtype": bounded.settings.flow_dtype or "fp32"}
    return {**about, **stream.told(_STEADY), **(_differences(full, stream, common) if common else {})}


def log_spectral_difference(one: np.ndarray, two: np.ndarray) -> float:
    """Root mean square in dB, over bins and then averaged over frames, between spectra of equally long sounds (float [samples], 24 kHz).

    1024 samples a frame, 256 apart; what is more than 60 dB below full scale counts as that.
    """
    spectra = []
    for sound in (one, two):
        samples = torch.from_numpy(np.asarray(sound, np.float32))
        window = torch.hann_window(_FFT)
        lines = torch.stft(samples, _FFT, _HOP, window=window, return_complex=True, pad_mode="constant").abs() * 2 / window.sum()
        spectra.append(20 * lines.clamp_min(_FLOOR).log10())
    return round(float((spectra[0] - spectra[1]).square().mean(0).sqrt().mean()), DIGITS)


_SMALL = (
    "model.vocoder.flow={hidden: 64, heads: 2, ffn: 128, layers: 1, up_layers: 1, channels: 32, estimator_heads: 2, head_dim: 16, "
    "groups: 1, transformers: 1}",
    "model.vocoder.hift={channels: 64, f0_channels: 32}",
)
"""A vocoder of the same build that anything can run in seconds."""


def vocoder_overrides(size: str, dtype: torch.dtype, overrides: Sequence[str]) -> list[str]:
    """What `--size` and `--dtype` say of a recipe's vocoder, as overrides; those given come last and win."""
    flow_dtype = next(name for name, kind in DTYPES.items() if kind == dtype)
    told = ["model.vocoder.kind=cosyvoice2", "model.vocoder.context=full", f"model.vocoder.flow_dtype={flow_dtype}"]
    return [*told, *(_SMALL if size == "nano" else ()), *overrides]


def measure_vocoder(recipe: Recipe, device: torch.device, seed: int, advance: Callable[[int, int], None]) -> dict[str, Any]:
    """`vocoder_latency` as a recipe's `model.vocoder` and `latency` say. Raises UsageError for another kind of vocoder."""
    settings = recipe.model.vocoder
    if not isinstance(settings, CosyVoice2Settings):
        raise UsageError("model.vocoder.kind is not cosyvoice2: only that one has caches to measure", "Leave model.vocoder.kind out.")
    told = vocoder_latency(recipe.latency, settings, device, seed, advance)
    chosen = ("steps", "guidance", "context", "window_tokens", "lookahead_frames")
    return {"dtype": settings.flow_dtype, **told, "settings": {name: getattr(settings, name) for name in chosen}}
