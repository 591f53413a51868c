"""Run as a program: judges saved answers over and over and is killed at random moments. Only a process without threads may fork."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

from vocalnet_cli.core.evaluation.judging.endpoint import Asked, find_judge
from vocalnet_cli.core.evaluation.judging.model_judge import Limits
from vocalnet_cli.core.evaluation.rescore import read_answers, rescore


def main(answers: Path, url: str, replies: Path, kills: int) -> None:
    """Print how often it was killed and how many replies there were then."""
    chance = random.Random(0)
    killed = 0

    def written() -> int:
        return sum(path.read_bytes().count(b"\n") for path in replies.glob("*.jsonl"))

    for _ in range(kills):
        until = written() + chance.randint(0, 3)
        child = os.fork()
        if child == 0:
            judge = find_judge(Asked("fake", url, limits=Limits(4, 3.0, wait_s=0.05)), replies)
            rescore(read_answers(answers), judge)
            os._exit(0)
        deadline = time.monotonic() + 20
        while written() <= until and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.02))
        os.kill(child, signal.SIGKILL)
        killed += os.WIFSIGNALED(os.waitpid(child, 0)[1])
    print(killed, written())


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
