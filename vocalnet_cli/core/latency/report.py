"""The objects `vocalnet latency` and `latency compare` print, and the rows of their tables."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from importlib.metadata import version
from typing import Any

import torch

from vocalnet_cli import __version__
from vocalnet_cli.core.generation.clock import STAGES
from vocalnet_cli.core.latency.bench import Measured, Side
from vocalnet_cli.core.latency.paper import FIRST, others_ms, paper_rows
from vocalnet_cli.core.latency.setup import Setup
from vocalnet_cli.core.latency.timers import DIGITS, percentiles, processors, ratio_spread
from vocalnet_cli.core.latency.turns import FIRST_CHUNK_S, SEGMENTS, Turn
from vocalnet_cli.core.model.device import DTYPES
from vocalnet_cli.core.model.folder import recipe_of

FIRST_TOKENS = "first_tokens_ms"
"""What a model without a vocoder has in place of `first_audio_ms`."""

TIMES: dict[str, Callable[[Turn], float | None]] = {
    "first_text_ms": lambda turn: turn.first_text_ms,
    "first_600ms_ms": lambda turn: turn.first_chunk_ms,
    "total_ms": lambda turn: turn.total_ms,
    "stall_ms": lambda turn: turn.stall_ms,
}
"""Times beside those of the first sound. 600 ms is FIRST_CHUNK_S."""

_BUSY = 1.25
"""Load of each processor above which others are in the way; our own threads are part of it."""

_SHOWN = {
    FIRST: "first sound",
    FIRST_TOKENS: "first speech tokens",
    "first_text_ms": "first chunk of text",
    "first_600ms_ms": f"first {FIRST_CHUNK_S} s of sound",
    "total_ms": "whole answer",
    "stall_ms": "stalls while playing",
}


def machine(device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """Where something was measured: the keys every object of `vocalnet latency` starts with. `load_1m` is the system's load average."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "device": str(device),
        **({"device_name": name} if name else {}),
        "dtype": next(short for short, kind in DTYPES.items() if kind == dtype),
        "threads": torch.get_num_threads(),
        **({"load_1m": round(os.getloadavg()[0], 2)} if hasattr(os, "getloadavg") else {}),
    }


def shown_machine(result: Mapping[str, Any]) -> str:
    """The machine in a title."""
    count = result["threads"]
    return f"{result.get('device_name', result['device'])}, {result['dtype']}, {count} thread{'s' if count > 1 else ''}"


def busy(result: Mapping[str, Any]) -> str | None:
    """A warning where other programs wanted this machine too."""
    load, count = result.get("load_1m", 0), processors()
    if load <= _BUSY * count:
        return None
    return f"note: this machine is busy (load {load:g} on {count} processors): trust the ratios, not the times"


def origin() -> dict[str, Any]:
    """With what and when: the keys every object ends with."""
    return {
        "versions": {"vocalnet": __version__, **{name: version(name) for name in ("torch", "transformers")}},
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def report(measured: Measured, seed: int) -> dict[str, Any]:
    """What `vocalnet latency --json` prints of its one side."""
    side = measured.sides[0]
    return {
        **_side(side),
        "memory_mb": measured.memory_mb,
        "stands_for": side.setup.paper.model_dump(mode="json") if side.setup.paper is not None else None,
        "paper": paper_rows(side.setup.paper),
        "seed": seed,
        "interrupted": measured.stopped,
        **origin(),
    }


def compared(measured: Measured, names: Sequence[str], seed: int) -> dict[str, Any]:
    """What `latency compare --json` prints: both sides, and B over A for each time, from pairs of turns on the same question."""
    a, b = measured.sides
    ratios = {}
    for name, of in _figures(a.turns + b.turns).items():
        pairs = [(up, low) for one, two in zip(b.turns, a.turns, strict=True) if (up := of(one)) and (low := of(two))]
        if pairs:
            ratios[name] = ratio_spread(*zip(*pairs, strict=True))
    return {
        "a": {"name": names[0], **_side(a)},
        "b": {"name": names[1], **_side(b)},
        "pairs": len(a.turns),
        "ratio": {"b/a": ratios},
        "memory_mb": measured.memory_mb,
        "seed": seed,
        "interrupted": measured.stopped,
        **origin(),
    }


def _figures(turns: Sequence[Turn]) -> dict[str, Callable[[Turn], float | None]]:
    """What two sides are compared in: the first sound and its stages, and the other times."""
    first = FIRST if any(turn.audio_s for turn in turns) else FIRST_TOKENS
    stages = {f"{name}_ms": _stage(name) for name in STAGES}
    return {**stages, first: lambda turn: turn.first_ms, **TIMES, "rtf": _rtf}


def _stage(name: str) -> Callable[[Turn], float | None]:
    return lambda turn: turn.stages_ms.get(name)


def _rtf(turn: Turn) -> float | None:
    return turn.total_ms / (1000 * turn.audio_s) if turn.audio_s else None


def _side(side: Side) -> dict[str, Any]:
    setup, spoke = side.setup, [turn for turn in side.turns if turn.first_ms is not None]
    first = FIRST if any(turn.audio_s for turn in spoke) else FIRST_TOKENS
    times = {first: [turn.first_ms for turn in spoke], **{name: [of(turn) for turn in spoke] for name, of in TIMES.items()}}
    rtf = [value for turn in spoke if (value := _rtf(turn))]
    return {
        "model": setup.name,
        "recipe": recipe_of(setup.folder),
        **machine(setup.device, setup.dtype),
        **({"quantize": setup.quantize} if setup.quantize else {}),
        "n": len(spoke),
        "silent": len(side.turns) - len(spoke),
        "questions": len({turn.question for turn in side.turns}),
        "stages_ms": {name: percentiles([turn.stages_ms[name] for turn in spoke]) for name in SEGMENTS} if spoke else {},
        **{name: percentiles(told) for name, values in times.items() if (told := [value for value in values if value is not None])},
        **({"first_audio_s": round(statistics.median(turn.first_audio_s for turn in spoke), DIGITS)} if first == FIRST and spoke else {}),
        **_rates(spoke),
        **({"rtf": round(statistics.median(rtf), 4)} if rtf else {}),
        "load_s": round(side.load_s, DIGITS),
        "cold": _cold(side.cold, first),
        "settings": setup.settings.model_dump(mode="json"),
        **_vocoder(setup),
        "latency": setup.latency.model_dump(mode="json"),
    }


def _vocoder(setup: Setup) -> dict[str, Any]:
    """Through what it speaks, and in whose voice."""
    plan, told = setup.plan, {} if setup.voice is None else {"voice": str(setup.voice)}
    if plan.vocoder is None:
        return told
    tuned = plan.vocoder.model_dump(mode="json", include=set(plan.vocoder.TUNED))
    return told | {"vocoder": {"kind": plan.vocoder.kind, **({"folder": str(plan.vocoder_folder)} if plan.vocoder_folder else {}), **tuned}}


def _rates(turns: Sequence[Turn]) -> dict[str, float]:
    """Speech tokens a second of talker time and text tokens a second of thinker time (the prompt's reading included), over all turns."""
    counts = {
        "tokens_per_s": (sum(turn.speech_tokens for turn in turns), sum(turn.spent_ms["talker"] for turn in turns)),
        "text_tokens_per_s": (sum(turn.text_tokens for turn in turns), sum(turn.spent_ms["thinker"] for turn in turns)),
    }
    return {name: round(1000 * count / spent, 1) for name, (count, spent) in counts.items() if spent}


def _cold(turn: Turn | None, first: str) -> dict[str, Any]:
    if turn is None or turn.first_ms is None:
        return {}
    return {"stages_ms": {name: round(turn.stages_ms[name], DIGITS) for name in SEGMENTS}, first: turn.first_ms, "total_ms": turn.total_ms}


def turn_lines(measured: Measured, names: Sequence[str] = ("",)) -> list[dict[str, Any]]:
    """Every turn that counts, as `-o` writes them."""
    sides = zip(names, measured.sides, strict=True)
    return [{**({"side": name} if name else {}), **asdict(turn)} for name, side in sides for turn in side.turns]


# --- tables --------------------------------------------------------------------------------------------------------


def columns(result: Mapping[str, Any]) -> list[str]:
    """Of the table of one side."""
    papers = [f"{row['row']}, {row['machine']}" for row in result["paper"]]
    return ["ms", "p50", "p90", "p95", "max", "cold", *papers]


def table(result: Mapping[str, Any]) -> list[Sequence[object]]:
    """A row a stage of the first sound, then their sum and the other times; the papers' numbers beside."""
    cold, papers = result["cold"], result["paper"]
    rows: list[Sequence[object]] = [
        (name, *_percentiles(told), _ms(cold.get("stages_ms", {}).get(name)), *(_ms(row["stages_ms"].get(name)) for row in papers))
        for name, told in result["stages_ms"].items()
    ]
    for name, shown in _SHOWN.items():
        if name in result:
            rows.append((shown, *_percentiles(result[name]), _ms(cold.get(name)), *(_ms(row.get(name)) for row in papers)))
    return rows


def title(result: Mapping[str, Any]) -> str:
    """Over the table: what, where, how often."""
    where = f"{result['model']} on {shown_machine(result)}"
    return f"{where}: {result['n']} answers to {result['questions']} questions, counted from the last sample of the question"


def remarks(result: Mapping[str, Any]) -> list[str]:
    """Under the table."""
    facts = [
        f"{result['tokens_per_s']:g} speech tokens/s" if "tokens_per_s" in result else None,
        f"{result['text_tokens_per_s']:g} text tokens/s" if "text_tokens_per_s" in result else None,
        f"real-time factor {result['rtf']:g}" if "rtf" in result else "no vocoder: no sound",
        f"first piece {result['first_audio_s']:g} s" if "first_audio_s" in result else None,
        f"peak memory {result['memory_mb']:g} MB" if result.get("memory_mb") is not None else None,
        f"loaded in {result['load_s']:.1f} s",
        f"{result['silent']} silent answers left out" if result["silent"] else None,
    ]
    others = ", ".join(f"{name} {value:g}" for name, value in others_ms().items())
    return ["; ".join(fact for fact in facts if fact), f"first sound of others, ms (arXiv 2504.04060, table 8): {others}"]


COMPARE_COLUMNS = ("ms, p50", "A", "B", "B/A", "p10-p90 of the pairs")


def compare_table(result: Mapping[str, Any]) -> list[Sequence[object]]:
    """A row a time that both sides have."""
    rows: list[Sequence[object]] = []
    for name, ratio in result["ratio"]["b/a"].items():
        a, b = (_median(result[side], name) for side in ("a", "b"))
        shown = _SHOWN.get(name, "real-time factor" if name == "rtf" else name.removesuffix("_ms"))
        rows.append((shown, a, b, f"{ratio['p50']:.3f}", f"{ratio['p10']:.3f}-{ratio['p90']:.3f}"))
    return rows


def _median(side: Mapping[str, Any], name: str) -> str:
    if name == "rtf":
        return f"{side['rtf']:.3f}"
    stage = side["stages_ms"].get(name.removesuffix("_ms"))
    return _ms((stage or side[name])["p50"])


def _percentiles(told: Mapping[str, float]) -> list[str]:
    return [_ms(told[name]) for name in ("p50", "p90", "p95", "max")]


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
