"""Times that wait for the device, and what is told of many of them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from vocalnet_cli.core.model.device import synchronize

DIGITS = 3
"""Decimals of what is reported: microseconds, of milliseconds."""


class Stopwatch:
    """Seconds of a call, the device's queue included."""

    def __init__(self, device: torch.device | str) -> None:
        self._device = torch.device(device)

    def __call__(self, work: Callable[[], Any]) -> float:
        synchronize(self._device)
        start = time.perf_counter()
        work()
        synchronize(self._device)
        return time.perf_counter() - start


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """p50, p90, p95 and max of at least one value, linear between neighbours."""
    p50, p90, p95 = np.percentile(values, [50, 90, 95])
    told = {"p50": p50, "p90": p90, "p95": p95, "max": max(values)}
    return {name: round(float(value), DIGITS) for name, value in told.items()}


def ratio_spread(upper: Sequence[float], lower: Sequence[float]) -> dict[str, float]:
    """Ratios of values measured in turn: their median, and p10 and p90 of the pairs. What drifts slowly drops out of each pair."""
    p10, p50, p90 = np.percentile([a / b for a, b in zip(upper, lower, strict=True)], [10, 50, 90])
    return {name: round(float(value), DIGITS) for name, value in {"p50": p50, "p10": p10, "p90": p90}.items()}


def processors() -> int:
    """CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
