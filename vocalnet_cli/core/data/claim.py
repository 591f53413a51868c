"""A folder that one command works in at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

LOCK_FILE = ".lock"


@contextmanager
def claimed(lock: Path) -> Iterator[bool]:
    """Whether the file `lock`, made with its folder if need be, is held by this block alone; it ends with the block, or the process.

    On a disk without locks every claim is granted.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(lock)
    try:
        held.acquire(blocking=False)
    except Timeout:
        yield False
        return
    except NotImplementedError:
        yield True
        return
    try:
        yield True
    finally:
        held.release()
