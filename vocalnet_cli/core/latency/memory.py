"""The most memory that was in use."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import torch

MB = 1e6

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """Peak since it was made: on CUDA what torch had allocated there, elsewhere the process's own memory.

    Linux can forget earlier peaks of a process; where that is not so (macOS), the peak is that since its start.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            with contextlib.suppress(OSError):
                _CLEAR.write_text("5")

    def mb(self) -> float | None:
        """In 10^6 bytes; none where the system does not tell."""
        if self._device.type == "cuda":
            return round(torch.cuda.max_memory_allocated(self._device) / MB, 1)
        with contextlib.suppress(OSError):
            for line in _STATUS.read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return round(int(line.split()[1]) * 1024 / MB, 1)
        try:
            import resource
        except ImportError:  # Windows
            return None
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return round(peak * (1 if sys.platform == "darwin" else 1024) / MB, 1)
