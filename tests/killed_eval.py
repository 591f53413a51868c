"""Run as a program: measures a model over and over and is killed at random moments. Only a process without threads may fork."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

# Imported here, so that no child spends its short life on it.
from vocalnet_cli.cli.app import run_cli
from vocalnet_cli.core.evaluation import measure, pack, runner  # noqa: F401
from vocalnet_cli.core.evaluation.judging import model_judge  # noqa: F401

_ENDED = os.WEXITED | os.WNOHANG | os.WNOWAIT


def main(command: list[str], cache: Path, kills: int, most: int) -> None:
    """Print how often it was killed, and the answers, transcripts and replies there were then."""
    torch.set_num_threads(1)
    chance = random.Random(0)
    killed = 0
    patterns = ("eval/*/answers*.jsonl", "eval/*/heard*.jsonl", "judge/*.jsonl")

    def written() -> list[int]:
        return [sum(path.read_bytes().count(b"\n") for path in cache.glob(pattern)) for pattern in patterns]

    for _ in range(kills):
        until = sum(written()) + chance.randint(0, most)
        child = os.fork()
        if child == 0:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            os.dup2(null, 2)
            run_cli(command)
            os._exit(0)
        deadline = time.monotonic() + 30
        while sum(written()) <= until and time.monotonic() < deadline and os.waitid(os.P_PID, child, _ENDED) is None:
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.02))
        os.kill(child, signal.SIGKILL)
        killed += os.WIFSIGNALED(os.waitpid(child, 0)[1])
    print(killed, *written())


if __name__ == "__main__":
    main(sys.argv[4:], Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
