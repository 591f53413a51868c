"""The objects of `latency talker`, `vocoder` and `roofline`, and their tables and charts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from vocalnet_cli.core.latency.report import machine, origin, shown_machine

TALKER_COLUMNS = (
    "talker",
    "tokens a step",
    "tokens/s",
    "real-time factor",
    "first chunk ms, p50",
    "over the first",
    "p10-p90",
    "without caches",
)
VOCODER_COLUMNS = ("s", "with caches", "computed anew", "anew / cached")
ROOFLINE_COLUMNS = ("stage", "MB read a step", "GFLOP a step", "ms a step", "ms at the limit", "of the limit", "bound by")


def complete(measured: Mapping[str, Any], size: str, device: torch.device, dtype: torch.dtype, seed: int) -> dict[str, Any]:
    """What was measured, with where and when."""
    return {"size": size, **machine(device, dtype), **measured, "seed": seed, **origin()}


def title(what: str, result: Mapping[str, Any]) -> str:
    """Over a table."""
    return f"{what}, size {result['size']}, random weights, on {shown_machine(result)}"


# --- talker --------------------------------------------------------------------------------------------------------


def rates(result: Mapping[str, Any]) -> dict[str, float]:
    """Tokens a second of every talker, with caches and without."""
    without = {f"{name}, no caches": rate for name, rate in result.get("baseline", {}).get("tokens_per_s", {}).items()}
    return {**result["tokens_per_s"], **without}


def talker_table(result: Mapping[str, Any]) -> list[Sequence[object]]:
    """A row a talker."""
    rows: list[Sequence[object]] = []
    names = list(result["tokens_per_s"])
    for name in names:
        over = f"{name}/{names[0]}"
        ratio = f"{result['ratio'][over]:.3f}" if over in result["ratio"] else "-"
        spread = "{:.3f}-{:.3f}".format(*result["spread"][over]) if over in result["spread"] else "-"
        anew = result.get("baseline", {}).get("tokens_per_s", {}).get(name)
        rows.append(
            (
                name,
                f"{result['tokens_per_step'][name]:g}",
                f"{result['tokens_per_s'][name]:.1f}",
                f"{result['rtf'][name]:.3f}",
                f"{result['first_chunk_ms'][name]['p50']:.1f}",
                ratio,
                spread,
                "-" if anew is None else f"{anew:.1f}",
            )
        )
    return rows


# --- vocoder -------------------------------------------------------------------------------------------------------


def vocoder_table(result: Mapping[str, Any]) -> list[Sequence[object]]:
    """Whole, streamed, and single chunks; beside them the baseline, where it was measured."""
    last = len(result["chunk_ms"])
    chunks = {**({3: "third chunk"} if last > 3 else {}), **({last: "last chunk"} if last > 1 else {})}
    values = {
        "at once": _both(result, "offline_s"),
        "in chunks": _both(result, "streaming_s"),
        "first chunk": _both(result, "first_chunk_s"),
    }
    for number, name in chunks.items():
        values[name] = [None if times is None else times[number - 1] / 1000 for times in _both(result, "chunk_ms")]
    rows: list[Sequence[object]] = [("voice, once", f"{result['voice_s']:.3f}", "-", "-")]
    for name, (ours, theirs) in values.items():
        rows.append((name, f"{ours:.3f}", *(("-", "-") if theirs is None else (f"{theirs:.3f}", f"{theirs / ours:.2f}"))))
    return rows


def _both(result: Mapping[str, Any], name: str) -> list[Any]:
    return [result[name], result.get("baseline", {}).get(name)]


def vocoder_remarks(result: Mapping[str, Any]) -> list[str]:
    """Under the table."""
    memory = f"; peak memory {result['memory_mb']:g} MB" if result["memory_mb"] is not None else ""
    precision = result["precision"]
    types = [name for name in precision if isinstance(precision[name], dict) and name != "ratio"]
    found = [
        f"{result['audio_s']:g} s of sound in {len(result['chunk_ms'])} chunks; real-time factor {result['rtf']:.3f}{_growth(result)}; "
        f"keys {result['cache_mb']:g} MB{memory}",
        f"{types[1]}: flow {precision['ratio']['flow']:.2f} times as fast as in {types[0]}, stream {precision['ratio']['streaming']:.2f}"
        f"{_difference(precision)}",
    ]
    if "window" in result:
        one = result["window"]
        found.append(
            f"context window of {one['window_tokens']} tokens, {one['audio_s']:g} s of sound, {one['dtype']}: keys {one['cache_mb']:g} MB"
            f"{_growth(one)}{_difference(one)}"
        )
    *fewer, exact = result["lookahead"]
    waits = [f"{one['frames']} frames: {one['first_sound_s']:.2f} s{_difference(one)}" for one in fewer]
    return [*found, f"sound of the first chunk {exact['first_sound_s']:.2f} s; HiFT waiting for {', '.join(waits)}"]


def _growth(result: Mapping[str, Any]) -> str:
    return f"; late chunk over third {result['growth']:.2f}" if "growth" in result else ""


def _difference(result: Mapping[str, Any]) -> str:
    """Of what speaks otherwise than the exact sound; nothing if there was no full chunk to compare."""
    if "log_spectral_db" not in result:
        return ""
    frames = f", frames differ by {100 * result['mel_error']:.1f} %" if "mel_error" in result else ""
    return f"{frames}, log-spectral difference {result['log_spectral_db']:.2f} dB"


def vocoder_bars(result: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """A bar each way, a segment a chunk."""
    ways = {"with caches": result, **({"computed anew": result["baseline"]} if "baseline" in result else {})}
    return {way: {f"chunk {number}": ms for number, ms in enumerate(one["chunk_ms"], 1)} for way, one in ways.items()}


# --- roofline ------------------------------------------------------------------------------------------------------


def roofline_table(result: Mapping[str, Any]) -> list[Sequence[object]]:
    """A row a stage."""
    return [
        (
            name,
            f"{one['bytes_per_step'] / 1e6:.1f}",
            f"{one['flops_per_step'] / 1e9:.2f}",
            f"{one['ms_per_step']:.2f}",
            f"{one['limit_ms']:.2f}",
            f"{100 * one['fraction_of_limit']:.0f} %",
            one["bound"],
        )
        for name, one in result["stages"].items()
    ]


def roofline_remarks(result: Mapping[str, Any]) -> list[str]:
    """Under the table."""
    return [f"this machine: reads {result['bandwidth_gb_s']:g} GB/s, multiplies {result['matmul_gflop_s']:g} GFLOP/s ({result['dtype']})"]


def roofline_bars(result: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """What a step takes at the limit, and what it takes longer."""
    return {
        name: {"limit": min(one["limit_ms"], one["ms_per_step"]), "lost": one["ms_per_step"] - one["limit_ms"]}
        for name, one in result["stages"].items()
    }
