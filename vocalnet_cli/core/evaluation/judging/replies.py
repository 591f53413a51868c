"""Replies on disk: written down before anybody hears of them, so that none is paid for twice. Standard library only."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_POLL_S = 0.05


def reply_key(request: dict[str, Any]) -> str:
    """What a reply is found again by: all that was asked, whom, and for which time."""
    return hashlib.sha256(json.dumps(request, sort_keys=True, ensure_ascii=False).encode("utf-8", "surrogatepass")).hexdigest()


class Replies:
    """FILE.jsonl with a reply a line, which several processes on this machine may share.

    A line is on the disk before `add` returns. Whoever is about to ask holds the key's `claim`: another process that wants the same
    reply waits for it, also where the one that asked has lost its parent.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        # Closing any descriptor of a locked file would give up its locks: this one stays open, and is opened nowhere else.
        self._locks = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o644)
        self._rows: dict[str, dict[str, Any]] = {}
        self._read_to = 0
        self._mutex = threading.Lock()
        self._claimed: dict[str, threading.Lock] = {}

    def get(self, key: str) -> dict[str, Any] | None:
        """The reply under a key, also if another process wrote it just now."""
        with self._mutex:
            if key not in self._rows:
                self._read_on()
            return self._rows.get(key)

    def add(self, key: str, row: dict[str, Any]) -> None:
        """Keep a reply."""
        line = json.dumps({"key": key, **row}, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"
        with self._mutex:
            torn = (size := os.fstat(self._file).st_size) and os.pread(self._file, 1, size - 1) != b"\n"
            os.write(self._file, b"\n" + line if torn else line)
            os.fsync(self._file)
            self._rows[key] = row

    @contextmanager
    def claim(self, key: str) -> Iterator[None]:
        """Only one thread of one process at a time is in here for a key."""
        with self._mutex:
            own = self._claimed.setdefault(key, threading.Lock())
        byte = int(key[:12], 16)  # a byte far behind the file's end stands for the key
        with own:
            while not self._locked(byte):
                time.sleep(_POLL_S)
            try:
                yield
            finally:
                fcntl.lockf(self._locks, fcntl.LOCK_UN, 1, byte)

    def _locked(self, byte: int) -> bool:
        """Without waiting in the kernel, which would see a deadlock in two processes whose threads wait for each other's keys."""
        try:
            fcntl.lockf(self._locks, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                return False
            raise
        return True

    def _read_on(self) -> None:
        """Take over the lines that came since; half a line waits for its end, a damaged one is left out."""
        size = os.fstat(self._file).st_size - self._read_to
        whole, end, _ = os.pread(self._file, size, self._read_to).rpartition(b"\n")
        self._read_to += len(whole) + len(end)
        for line in whole.split(b"\n"):
            try:
                row = json.loads(line)
                self._rows[row.pop("key")] = row
            except (ValueError, KeyError, AttributeError, TypeError):
                continue
