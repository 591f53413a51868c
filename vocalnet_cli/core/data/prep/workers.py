"""Shards over worker processes of this machine. A worker that dies costs time and nothing else."""

from __future__ import annotations

import multiprocessing
import signal
import traceback
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from vocalnet_cli.core.data.prep.shards import Shard
from vocalnet_cli.core.data.prep.step import TOGETHER, Care, Done, Step, work_shard
from vocalnet_cli.core.errors import VocalnetError

PATIENCE = 2
"""A shard that ended this many workers is worked on with care, and a row that then does so this many times is rejected."""


@dataclass
class _Task:
    """A shard, and what is known of how it fares."""

    shard: Shard
    deaths: int = 0
    died_on: Counter[int] = field(default_factory=Counter)

    def care(self) -> Care | None:
        if self.deaths < PATIENCE:
            return None
        deadly = {line for line, times in self.died_on.items() if times >= PATIENCE}
        return Care(frozenset(deadly - {TOGETHER}), TOGETHER in deadly)


class _Worker:
    def __init__(self, step: Step, output: Path, number: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.number = number
        self.pipe, theirs = context.Pipe()
        self.at = context.RawValue("q", 0)
        self.process = context.Process(target=_serve, args=(theirs, self.at, step, output), daemon=True)
        self.process.start()
        theirs.close()
        self.task: _Task | None = None

    def give(self, task: _Task | None) -> None:
        self.task = task
        message = None if task is None else (task.shard, task.care())
        with suppress(ConnectionError):  # it died: reading from it says so
            self.pipe.send(message)


def _serve(pipe: Connection, at: Any, step: Step, output: Path) -> None:
    """A worker's life. It ends with its parent: the pipe then closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C stops the parent, which lets each worker finish its file
    try:
        step.begin()
        while (message := pipe.recv()) is not None:
            shard, care = message
            pipe.send(work_shard(step, shard, output, lambda line: setattr(at, "value", line), care))
    except (EOFError, BrokenPipeError):
        return
    except VocalnetError as error:
        pipe.send((error.problem, error.hint))
    except Exception:
        pipe.send((f"a worker failed:\n{traceback.format_exc()}", "This is a defect of vocalnet, or of the machine: run it again."))


def run_local(step: Step, shards: Sequence[Shard], output: Path, workers: int, finished: Callable[[Shard, Done], None]) -> None:
    """Work on shards; `finished(shard, done)` is called in this process as each is written. Raises VocalnetError as workers do.

    One worker means this process.
    """
    if workers <= 1 or len(shards) <= 1:
        step.begin()
        for shard in shards:
            done = work_shard(step, shard, output)
            done.worker = "0"
            finished(shard, done)
        return
    todo = deque(_Task(shard) for shard in shards)
    # The first hand-out goes to every worker before any of them is ready: none is left without work.
    pool = [_Worker(step, output, number) for number in range(min(workers, len(shards)))]
    for worker in pool:
        worker.give(todo.popleft())
    try:
        while busy := [worker for worker in pool if worker.task]:
            for pipe in wait([worker.pipe for worker in busy]):
                worker = next(worker for worker in busy if worker.pipe is pipe)
                if not _hear(worker, finished):
                    _bury(worker)
                    pool[pool.index(worker)] = worker = _replacement(worker, todo, step, output)
                if worker.task is None and todo:
                    worker.give(todo.popleft())
    finally:
        for worker in pool:
            worker.give(None)
        for worker in pool:
            worker.process.join()


def _hear(worker: _Worker, finished: Callable[[Shard, Done], None]) -> bool:
    """Take what a worker says; False if it has died."""
    try:
        told = worker.pipe.recv()
    except (EOFError, ConnectionError):
        return False
    if isinstance(told, tuple):
        raise VocalnetError(*told)
    assert worker.task is not None
    task, worker.task = worker.task, None
    told.worker = str(worker.number)
    finished(task.shard, told)
    return True


def _bury(worker: _Worker) -> None:
    worker.process.join()
    worker.pipe.close()
    assert worker.task is not None
    worker.task.deaths += 1
    if worker.task.deaths > PATIENCE:
        worker.task.died_on[worker.at.value] += 1


def _replacement(dead: _Worker, todo: deque[_Task], step: Step, output: Path) -> _Worker:
    task = dead.task
    assert task is not None
    if task.deaths > PATIENCE * 50:
        raise VocalnetError(
            f"shard {task.shard.number} ended {task.deaths} workers (the last with code {dead.process.exitcode})",
            "Look for what ends them: the machine may be out of memory. Fewer --workers need less.",
        )
    new = _Worker(step, output, dead.number)
    new.give(task)
    return new
