"""Run as a program: prepares a corpus over and over and kills it at random moments. Only a process without threads may fork."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

from vocalnet_cli.core.data.prep.rounds import Rounds
from vocalnet_cli.core.data.prep.run import Manner, run_step
from vocalnet_cli.core.data.prep.step import STATE


def main(source: str, out: Path, kills: int, shard_rows: int) -> None:
    """Print how often it was killed and how many shards were finished then."""
    chance = random.Random(0)
    killed = 0

    def finished() -> int:
        return len(list((out / STATE).glob("*.tsv")))

    for _ in range(kills):
        until = finished() + chance.randint(0, 4)
        child = os.fork()
        if child == 0:
            os.nice(19)  # so that it is noticed in time how far it is, also on a busy machine
            run_step(Rounds(), [source], out, Manner(workers=1, shard_rows=shard_rows))
            os._exit(0)
        deadline = time.monotonic() + 5
        while finished() < until and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.003))
        os.kill(child, signal.SIGKILL)
        killed += os.WIFSIGNALED(os.waitpid(child, 0)[1])
    print(killed, finished())


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
