"""The process that talks to a judge's endpoint, run as a program beside the one that wants verdicts.

It is a process of its own so that nothing that is paid for is lost: if the other one is killed, it ends with the calls under way and
writes their replies down before it goes. It starts in no time: it needs only the standard library. First line in: where to ask.
Every further line: a call; out comes a line for each.
"""

from __future__ import annotations

import http.client
import json
import os
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from vocalnet_cli.core.evaluation.judging.replies import Replies

TIMED_OUT, NO_CONNECTION, LIMITED, BROKEN, REFUSED, BAD, NOT_KEPT = (
    "timed out",
    "no connection",
    "rate limit",
    "server error",
    "refused",
    "bad request",
    "not kept",
)
"""What becomes of a call that brings no reply. Refused: no other call can do better; bad: this one never will; not kept: not asked."""

_NO_USE = {401, 402, 403, 404}
_QUOTA = "insufficient_quota"
_PART, _LONGEST = 1 << 16, 1 << 24


class Courier:
    """Asks one endpoint, several calls at once."""

    def __init__(self, told: dict[str, Any]) -> None:
        self._url, self._timeout = told["url"], told["timeout"]
        self._key = os.environ.get(told["key_env"] or "", "")
        self._replies = Replies(Path(told["replies"]))

    def call(self, asked: dict[str, Any]) -> dict[str, Any]:
        """The reply to a call, from the disk if it is there: `{"row", "paid"}`, or `{"failure", "detail", "wait"}`."""
        key = asked["key"]
        if (kept := self._replies.get(key)) is not None:
            return {"row": kept, "paid": False}
        if not asked["pay"]:
            return _failed(NOT_KEPT, "")
        with self._replies.claim(key):
            if (kept := self._replies.get(key)) is not None:
                return {"row": kept, "paid": False}
            told = self._ask(key, asked["body"])
            if "row" in told:
                self._replies.add(key, told["row"])
            return told

    def _ask(self, key: str, body: dict[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(f"{self._url}/chat/completions", json.dumps(body).encode())
        request.add_header("Content-Type", "application/json")
        request.add_header("Idempotency-Key", key[:32])  # an endpoint that knows it answers a repeated call from its memory
        if self._key:
            request.add_unredirected_header("Authorization", f"Bearer {self._key}")
        until = time.monotonic() + self._timeout
        try:
            with _OPENER.open(request, timeout=self._timeout) as response:
                return {"row": _row(_read(response, until)), "paid": True}
        except urllib.error.HTTPError as error:
            return _refusal(error)
        except (OSError, http.client.HTTPException) as error:  # an URLError is an OSError
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            if isinstance(reason, TimeoutError):
                return _failed(TIMED_OUT, f"no reply in {self._timeout:g} s")
            kind = NO_CONNECTION if isinstance(error, urllib.error.URLError) else BROKEN
            return _failed(kind, " ".join(str(reason).split())[:200] or type(reason).__name__)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A judge that has moved is told to the user: a question must not become another request elsewhere."""

    def redirect_request(self, *_: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirect)


def _read(response: http.client.HTTPResponse, until: float) -> str:
    """The whole body. Raises TimeoutError for one that trickles past the time it has."""
    parts: list[bytes] = []
    while part := response.read1(_PART):
        parts.append(part)
        if time.monotonic() > until or len(parts) * _PART > _LONGEST:
            raise TimeoutError
    return b"".join(parts).decode(errors="replace")


def _failed(failure: str, detail: str, wait: float | None = None) -> dict[str, Any]:
    return {"failure": failure, "detail": detail, "wait": wait}


def _refusal(error: urllib.error.HTTPError) -> dict[str, Any]:
    try:
        text = error.read(_PART).decode(errors="replace")
    except (OSError, http.client.HTTPException):
        text = ""
    detail = f"HTTP {error.code}: {' '.join(text.split())[:200]}"
    wait = error.headers.get("retry-after")
    seconds = float(wait) if wait and wait.replace(".", "", 1).isdigit() else None
    if error.code in _NO_USE or _QUOTA in text:
        return _failed(REFUSED, detail)
    if error.code == 429:
        return _failed(LIMITED, detail, seconds)
    return _failed(BROKEN if error.code >= 500 or error.code in (408, 409) else BAD, detail, seconds)


def _row(text: str) -> dict[str, Any]:
    """What is kept of a reply: the judge's words, which model it was, what it counted; of one in another form, all of it."""
    row: dict[str, Any] = {"date": datetime.now(timezone.utc).isoformat(timespec="seconds")}
    try:
        told = json.loads(text)
        reply = told["choices"][0]["message"]["content"]
        usage = told.get("usage") or {}
        row |= {
            "model": str(told.get("model", "")),
            "tokens_in": _count(usage, "prompt_tokens"),
            "tokens_out": _count(usage, "completion_tokens"),
        }
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return {**row, "reply": text, "model": "", "tokens_in": 0, "tokens_out": 0}
    return {**row, "reply": reply if isinstance(reply, str) else text}


def _count(usage: dict[str, Any], name: str) -> int:
    value = usage.get(name)
    return value if isinstance(value, int) and value >= 0 else 0


def main() -> None:
    """Serve until the input ends, then see the calls under way to their end."""
    courier: Courier | None = None
    out = threading.Lock()

    def serve(asked: dict[str, Any]) -> None:
        assert courier is not None
        try:
            told = courier.call(asked)
        except Exception as error:  # whatever it is, the other side waits for a line
            told = _failed(BAD, f"{type(error).__name__}: {error}")
        with out:
            try:
                print(json.dumps({"number": asked["number"], **told}), flush=True)
            except OSError:
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody listens; the reply is on the disk

    setup = json.loads(sys.stdin.readline() or "null")
    if setup is None:
        return
    courier = Courier(setup)
    with ThreadPoolExecutor(setup["workers"]) as pool:
        for line in sys.stdin:
            pool.submit(serve, json.loads(line))


if __name__ == "__main__":
    main()
