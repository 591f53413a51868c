"""What a piece of work holds at most, as the operating system sees it (Linux)."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path

M_MMAP_THRESHOLD, M_TRIM_THRESHOLD = -3, -1


def peak_bytes(work: Callable[[], object]) -> int:
    """The most memory `work` added to this process while it ran."""
    libc = ctypes.CDLL("libc.so.6")
    libc.mallopt(M_MMAP_THRESHOLD, 1 << 16)  # every tensor a mapping of its own, which goes when the tensor goes
    libc.mallopt(M_TRIM_THRESHOLD, 1 << 16)
    gc.collect()
    libc.malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    before = _high("VmRSS")
    work()
    return _high("VmHWM") - before


def _high(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))
