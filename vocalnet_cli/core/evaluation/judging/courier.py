"""The process that talks to a judge's endpoint, run as a program beside the one that wants verdicts.

It is a process of its own so that nothing that is paid for is lost: if the other one is killed, it ends with the calls under way and
writes their replies down before it goes. First line in: where to ask. Every further line: a call; out comes a line for each.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from functools import cached_property
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


class Courier:
    """Asks one endpoint, several calls at once."""

    def __init__(self, told: dict[str, Any]) -> None:
        self._url, self._timeout = told["url"], told["timeout"]
        self._key = os.environ.get(told["key_env"] or "", "") or "none"
        self._replies = Replies(Path(told["replies"]))
        self._loading = threading.Lock()

    @cached_property
    def _client(self) -> Any:
        import openai  # seconds, and of no use where every reply is kept

        return openai.OpenAI(base_url=self._url, api_key=self._key, timeout=self._timeout, max_retries=0)

    def call(self, asked: dict[str, Any]) -> dict[str, Any]:
        """The reply to a call, from the disk if it is there: `{"row", "paid"}`, or `{"failure", "detail", "wait"}`."""
        key = asked["key"]
        if (kept := self._replies.get(key)) is not None:
            return {"row": kept, "paid": False}
        if not asked["pay"]:
            return {"failure": NOT_KEPT, "detail": "", "wait": None}
        with self._replies.claim(key):
            if (kept := self._replies.get(key)) is not None:
                return {"row": kept, "paid": False}
            told = self._ask(key, asked["body"])
            if "row" in told:
                self._replies.add(key, told["row"])
            return told

    def _ask(self, key: str, body: dict[str, Any]) -> dict[str, Any]:
        with self._loading:
            client = self._client
        import openai

        try:
            # An endpoint that knows the header answers a repeated call from its memory.
            raw = client.chat.completions.with_raw_response.create(**body, extra_headers={"Idempotency-Key": key[:32]})
        except openai.APITimeoutError:
            return {"failure": TIMED_OUT, "detail": f"no reply in {self._timeout:g} s", "wait": None}
        except openai.APIConnectionError as error:
            return {"failure": NO_CONNECTION, "detail": " ".join(str(error.__cause__ or error).split())[:200], "wait": None}
        except openai.APIStatusError as error:
            return _refusal(error.status_code, error.response)
        return {"row": _row(raw.text), "paid": True}


def _refusal(status: int, response: Any) -> dict[str, Any]:
    detail = f"HTTP {status}: {' '.join(response.text.split())[:200]}"
    wait = response.headers.get("retry-after")
    seconds = float(wait) if wait and wait.replace(".", "", 1).isdigit() else None
    if status in _NO_USE or _QUOTA in response.text:
        failure = REFUSED
    elif status == 429:
        failure = LIMITED
    else:
        failure = BROKEN if status >= 500 or status in (408, 409) else BAD
    return {"failure": failure, "detail": detail, "wait": seconds}


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
            told = {"failure": BAD, "detail": f"{type(error).__name__}: {error}", "wait": None}
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
