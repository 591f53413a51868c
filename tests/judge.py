"""A judge on this machine that knows the prompts the package carries, and fails in every way a real one does."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SLOW_S = 6.0
"""How long a call hangs that is to time out."""


class FakeJudge:
    """Right if a reference stands in the answer; a mark by the answer's words.

    With `moody`, a prompt's hash decides what comes first: a time-out, a rate limit, a server error, nonsense, or half a reply; and one
    prompt in sixteen only ever gets nonsense.
    """

    def __init__(self, moody: bool = False, delay_s: float = 0.0) -> None:
        self.moody, self.delay_s = moody, delay_s
        self.asked: Counter[str] = Counter()
        """Calls of each prompt, whatever came of them."""
        self.paid: Counter[str] = Counter()
        """Replies to each prompt."""
        self.headers: list[dict[str, str]] = []
        self.bodies: list[dict[str, Any]] = []
        self.status: int | None = None
        """Answer every call with this."""
        self.mutex = threading.Lock()

    def reply(self, body: dict[str, Any]) -> tuple[int, str, dict[str, str]] | None:
        """(status, content or error, headers); None hangs."""
        prompt = body["messages"][0]["content"]
        mood = int(hashlib.sha256(prompt.encode()).hexdigest(), 16) % 48 % 16 if self.moody else -1
        with self.mutex:
            self.bodies.append(body)
            self.asked[prompt] += 1
            first = self.asked[prompt] == 1
            if self.status is not None:
                return self.status, "no", {}
            if first and mood == 0 and len(prompt) % 2:
                return None
            if first and mood in (1, 2):
                return 429, "slow down", {"Retry-After": "0.05"}
            if first and mood == 3:
                return 503, "try later", {"Retry-After": "0.05"}
            self.paid[prompt] += 1
            if mood == 4 or (mood == 5 and self.paid[prompt] == 1):
                return 200, "As a language model I find both sides compelling. the score is [Perhaps] Rating: [[eleven]]", {}
            if mood == 6 and self.paid[prompt] == 1:
                return 200, '{"analysis": "it says', {}
        return 200, verdict(prompt), {}


def verdict(prompt: str) -> str:
    """What a careful judge says to one of our prompts."""
    said = prompt.rpartition("nswer\n")[2].strip()
    if "Rating:" in prompt:
        return f"It has {len(said.split())} words. Rating: [[{min(10, 1 + len(said.split()))}]]"
    middle = prompt.rpartition("answers\n")[2] if "# Reference answers" in prompt else prompt.rpartition("# Standard answer\n")[2]
    wanted = middle.partition("\n\n#")[0].strip()
    references = json.loads(wanted) if wanted.startswith("[") else [wanted]
    right = any(one.lower() in said.lower() for one in references)
    if "judgment" in prompt:
        return json.dumps({"analysis": "compared", "judgment": "correct" if right else "incorrect"})
    return f"Compared, the score is [{'Correct' if right else 'Incorrect'}]"


@contextmanager
def serving(judge: FakeJudge) -> Iterator[str]:
    """The judge behind a url."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._send(200, {"data": [{"id": "fake-judge"}]}, {})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            judge.headers.append(dict(self.headers))
            told = judge.reply(body)
            if told is None:
                time.sleep(SLOW_S)
                self.close_connection = True
                return
            status, text, headers = told
            time.sleep(judge.delay_s)
            usage = {"prompt_tokens": len(body["messages"][0]["content"].split()), "completion_tokens": len(text.split())}
            content = {"id": "1", "object": "chat.completion", "model": f"{body['model']}-2026", "choices": [], "usage": usage}
            content["choices"] = [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}]
            self._send(status, content if status == 200 else {"error": {"message": text}}, headers)

        def _send(self, status: int, content: dict[str, Any], headers: dict[str, str]) -> None:
            data = json.dumps(content).encode()
            try:
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)
            except OSError:
                self.close_connection = True

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
