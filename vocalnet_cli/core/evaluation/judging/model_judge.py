"""A language model as judge: asked at temperature 0, retried where it fails, never paid twice, never guessed at."""

from __future__ import annotations

import hashlib
import random
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vocalnet_cli.core.errors import VocalnetError
from vocalnet_cli.core.evaluation.judging import courier as kinds
from vocalnet_cli.core.evaluation.judging.case import Case
from vocalnet_cli.core.evaluation.judging.post import Post
from vocalnet_cli.core.evaluation.judging.prompts import SCALES, Prompt, read_reply
from vocalnet_cli.core.evaluation.judging.replies import reply_key
from vocalnet_cli.core.evaluation.results import Judging, Verdict

READS = 3
"""Replies that are asked for until one can be read."""
TRIES = 6
"""Calls that are made until one brings a reply."""
_LIMITED = 30
"""Calls that may be turned away for coming too fast, beside those."""
_LONGEST_WAIT_S = 60.0
_IN_VAIN = 3
"""Answers in a row that got no reply at all, after which the endpoint is given up."""
_UNPAID = (kinds.LIMITED, kinds.NO_CONNECTION)


@dataclass(frozen=True)
class Limits:
    """How a judge may be asked."""

    workers: int = 8
    """Calls at once."""
    timeout_s: float = 60.0
    max_calls: int | None = None
    """Calls of this run that may cost; replies that are kept do not count."""
    wait_s: float = 1.0
    """Before the second try of a call, doubled for each further one, unless the endpoint says how long."""


@dataclass
class Spent:
    """What replies cost."""

    calls: int = 0
    """Calls of this run that were paid, or may have been (timed out)."""
    kept: int = 0
    """Replies of earlier runs."""
    tokens_in: int = 0
    tokens_out: int = 0
    """Of the replies used, whenever they were paid."""

    def cost(self, prices: tuple[float, float]) -> float:
        """In the currency of `prices`, which are for a million tokens in and out."""
        return round((self.tokens_in * prices[0] + self.tokens_out * prices[1]) / 1e6, 4)


class NoReply(Exception):
    """A verdict that cannot be had: why."""


@dataclass
class _Gate:
    """What the threads share: whether to go on, until when to wait, and how many calls are left."""

    left: float
    not_before: float = 0.0
    in_vain: int = 0
    fatal: VocalnetError | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    mutex: threading.Lock = field(default_factory=threading.Lock)

    def enter(self) -> None:
        """Wait for one's turn and take a call. Raises NoReply."""
        while (wait := self.not_before - time.monotonic()) > 0 and not self.stop.is_set():
            self.stop.wait(wait)
        with self.mutex:
            if self.stop.is_set():
                raise NoReply("stopped")
            if self.left < 1:
                raise NoReply("no call was left (--max-judge-calls)")
            self.left -= 1

    def give_back(self) -> None:
        with self.mutex:
            self.left += 1

    def end(self, problem: str, hint: str) -> None:
        with self.mutex:
            self.fatal = self.fatal or VocalnetError(problem, hint)
        self.stop.set()


class ModelJudge:
    """Asks a model behind an OpenAI-compatible endpoint."""

    paid = True

    def __init__(self, model: str, url: str, key_env: str | None, prompts: Mapping[str, Prompt], limits: Limits, replies: Path) -> None:
        self.model, self.url, self.limits = model, url, limits
        self.spent = Spent()
        self._key_env, self._prompts, self._folder = key_env, prompts, replies
        self._gate = _Gate(float("inf") if limits.max_calls is None else limits.max_calls)
        self._models: dict[str, set[str]] = {}

    def check(self) -> None:
        """See that somebody is there, and which model, before anything is generated. Raises VocalnetError."""
        from vocalnet_cli.core.evaluation.judging.endpoint import listed_model

        self.model = self.model or listed_model(self.url, self._key_env) or "default"

    def can(self, style: str) -> bool:
        return style in self._prompts

    def judging(self, style: str) -> Judging:
        prompt = self._prompts[style]
        return Judging(
            judge=self.model,
            scale=SCALES[style],
            prompt=prompt.name,
            prompt_sha256=prompt.sha256,
            url=self.url,
            models=sorted(self._models.get(style, ())),
            temperature=0.0,
        )

    def verdicts(self, cases: Sequence[Case], advance: Callable[[int, int], None] = lambda done, total: None) -> list[Verdict]:
        """Verdicts of all cases; what is kept costs nothing. Raises VocalnetError where the endpoint refuses, or is not there."""
        found: list[Verdict | None] = [None] * len(cases)
        safe = re.sub(r"[^\w.-]", "_", self.model)[:60]
        file = self._folder / f"{safe}-{hashlib.sha256(f'{self.model} {self.url}'.encode()).hexdigest()[:8]}.jsonl"
        setup = {"url": self.url, "key_env": self._key_env, "timeout": self.limits.timeout_s, "workers": self.limits.workers}
        with closing(Post({**setup, "replies": str(file.resolve())})) as post, ThreadPoolExecutor(self.limits.workers) as pool:
            try:
                asked = {pool.submit(self._decide, post, case): number for number, case in enumerate(cases)}
                for done, future in enumerate(as_completed(asked), 1):
                    found[asked[future]] = future.result()
                    if self._gate.fatal is not None:
                        raise self._gate.fatal
                    advance(done, len(cases))
            except BaseException:
                self._gate.stop.set()
                post.close()  # first, so that no thread waits for a line
                pool.shutdown(cancel_futures=True)
                raise
        return [verdict for verdict in found if verdict is not None]

    def _decide(self, post: Post, case: Case) -> Verdict:
        messages = [{"role": "user", "content": self._prompts[case.style].fill(case)}]
        row: dict[str, Any] = {}
        for number in range(READS):
            try:
                row = self._reply(post, messages, number)
            except NoReply as none:
                return Verdict(value=None, attempts=number, failure=str(none))
            with self._gate.mutex:
                self._models.setdefault(case.style, set()).add(row["model"])
            value = read_reply(case.style, row["reply"])
            told = {"reply": row["reply"], "model": row["model"], "date": row["date"], "attempts": number + 1}
            if value is not None:
                return Verdict(value=value, **told)
        return Verdict(value=None, failure=f"{READS} replies that cannot be read", **told)

    def _reply(self, post: Post, messages: list[dict[str, str]], number: int) -> dict[str, Any]:
        """The `number`-th reply to a prompt, kept or new. Raises NoReply."""
        body = {"model": self.model, "messages": messages, "temperature": 0}
        asked = {"key": reply_key({"url": self.url, "number": number, **body}), "body": body}
        told = post.ask({**asked, "pay": False})
        tried = limited = 0
        while "row" not in told and tried < TRIES and limited < _LIMITED:
            if told["failure"] != kinds.NOT_KEPT:
                self._after(told, tried + limited)
            limited, tried = (limited + 1, tried) if told["failure"] == kinds.LIMITED else (limited, tried + 1)
            self._gate.enter()
            told = post.ask({**asked, "pay": True})
            if not told.get("paid", True) or told.get("failure") in _UNPAID:
                self._gate.give_back()
            else:
                with self._gate.mutex:
                    self.spent.calls += 1
        if "row" in told:
            return self._count(told)
        with self._gate.mutex:
            self._gate.in_vain += 1
        reason = f"{told['failure']}, call after call ({told['detail']})"
        if self._gate.in_vain >= _IN_VAIN:
            self._gate.end(f"{self.url}: {reason}", "What was judged is kept: run the same command again when the judge answers.")
        raise NoReply(reason)

    def _count(self, told: dict[str, Any]) -> dict[str, Any]:
        row: dict[str, Any] = told["row"]
        with self._gate.mutex:
            self._gate.in_vain = 0
            self.spent.kept += not told["paid"]
            self.spent.tokens_in += row["tokens_in"]
            self.spent.tokens_out += row["tokens_out"]
        return row

    def _after(self, told: dict[str, Any], tried: int) -> None:
        """Wait before the next try, or do not make it. Raises NoReply."""
        failure, detail = told["failure"], told["detail"]
        if failure == kinds.REFUSED:
            self._gate.end(f"{self.url} refuses to judge with {self.model}: {detail}", "Check the key, the model's name and the account.")
        if failure in (kinds.REFUSED, kinds.BAD):
            raise NoReply(f"{failure}: {detail}")
        wait = told["wait"] if told["wait"] is not None else self.limits.wait_s * 2 ** (tried - 1) * random.uniform(0.75, 1.25)
        until = time.monotonic() + min(wait, _LONGEST_WAIT_S)
        if failure == kinds.LIMITED:
            with self._gate.mutex:
                self._gate.not_before = max(self._gate.not_before, until)  # nobody else need try before
        else:
            self._gate.stop.wait(max(0.0, until - time.monotonic()))
