"""The way to the courier: calls go out as lines, and each thread waits for the line that answers its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import Future
from itertools import count
from pathlib import Path
from typing import Any

import vocalnet_cli
from vocalnet_cli.core.errors import VocalnetError
from vocalnet_cli.core.evaluation.judging.courier import BAD

ENDED = "the process that asks the judge has ended"


class Post:
    """A courier (judging/courier.py) and who waits for its answers. Its process outlives this one by the calls under way."""

    def __init__(self, setup: dict[str, Any]) -> None:
        root = str(Path(vocalnet_cli.__file__).parents[1])
        path = os.pathsep.join(part for part in (root, os.environ.get("PYTHONPATH", "")) if part)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "vocalnet_cli.core.evaluation.judging.courier"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,  # Ctrl-C, and whoever kills this process and its group, leaves it to finish
        )
        self._numbers = count()
        self._waiting: dict[int, Future[dict[str, Any]]] = {}
        self._mutex = threading.Lock()
        self._ended = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._send(setup)
        self._reader.start()

    def ask(self, asked: dict[str, Any]) -> dict[str, Any]:
        """What the courier says to one call."""
        future: Future[dict[str, Any]] = Future()
        with self._mutex:
            if self._ended:
                return {"failure": BAD, "detail": ENDED, "wait": None}
            number = next(self._numbers)
            self._waiting[number] = future
            self._send({"number": number, **asked})
        return future.result()

    def close(self) -> None:
        """No more calls; those under way are seen to their end without anybody waiting."""
        with self._mutex:
            if self._process.stdin and not self._process.stdin.closed:
                self._process.stdin.close()
        self._answer_all()

    def _send(self, line: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(line) + "\n")
            self._process.stdin.flush()
        except (OSError, ValueError) as error:
            raise VocalnetError(ENDED, "Run the same command again: what was judged is kept.") from error

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            told = json.loads(line)
            with self._mutex:
                future = self._waiting.pop(told.pop("number"), None)
            if future is not None:
                future.set_result(told)
        self._answer_all()
        self._process.wait()

    def _answer_all(self) -> None:
        with self._mutex:
            self._ended = True
            waiting, self._waiting = list(self._waiting.values()), {}
        for future in waiting:
            future.set_result({"failure": BAD, "detail": ENDED, "wait": None})
