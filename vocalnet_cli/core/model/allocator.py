"""How memory that a step of training, or a chunk of an answer, frees is kept for the next one."""

from __future__ import annotations

import ctypes
import sys

# Numbers of malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3


def keep_freed_memory() -> None:
    """Let glibc keep what tensors leave: given back to the system and asked for anew at each step, every page is zeroed again.

    Does nothing where the C library is another one. The most that is held does not change.
    """
    if not sys.platform.startswith("linux"):
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "gnu_get_libc_version"):
        for name, value in ((_MMAP_THRESHOLD, 2**25), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 2**26)):
            library.mallopt(name, value)
