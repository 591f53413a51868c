"""Speech and tokens made by commands that are killed 30 times at random moments, their workers left behind: not a byte is different."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vocalnet_cli.core.data.prep.step import STATE
from vocalnet_cli.core.data.record import Record, Utterance, write_manifest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

KILLS = 30
ROWS = 90


def command(step: str, source: Path, output: Path) -> list[str]:
    how = ("--voice", "flite:slt") if step == "synth" else ("--tokenizer", "nano", "--device", "cpu")
    rest = ("-o", str(output), "--workers", "2", "--shard-rows", "1", "--json")
    return [sys.executable, "-m", "vocalnet_cli", "prep", step, str(source), *how, *rest]


def tree(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and STATE not in path.parts and path.name != "stats.json")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def finished(output: Path) -> int:
    return len(list((output / STATE).glob("*.tsv")))


def killed_again_and_again(step: str, source: Path, output: Path) -> int:
    """How often a run was killed before it was done; about as much is done by each."""
    chance, killed = random.Random(0), 0
    for number in range(1, KILLS + 1):
        process = subprocess.Popen(command(step, source, output), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = min(ROWS - 1, ROWS * number // (KILLS + 1))
        while finished(output) < until and process.poll() is None:
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
    return killed


@pytest.mark.parametrize("step", ["synth", "tokens"])
def test_thirty_kills_change_nothing(step: str, tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    texts = [f"{n % 7} and {n % 5} and {n // 5}" for n in range(ROWS)]
    row = {"source": "t", "split": "train"}
    write_manifest(
        source / "manifest.jsonl",
        [Record(id=str(n), question=Utterance(text=text), answer=Utterance(text=text), **row) for n, text in enumerate(texts)],
    )
    if step == "tokens":
        subprocess.run(command("synth", source, tmp_path / "spoken"), capture_output=True, check=True)
        source = tmp_path / "spoken"
    subprocess.run(command(step, source, tmp_path / "straight"), capture_output=True, check=True)
    assert killed_again_and_again(step, source, tmp_path / "out") == KILLS
    kept = finished(tmp_path / "out")
    last = subprocess.run(command(step, source, tmp_path / "out"), capture_output=True, text=True, check=True)
    stats = json.loads(last.stdout)
    assert stats["rows_in"] == stats["rows_out"] == ROWS and kept > 0 and stats["rows_kept"] >= kept
    assert tree(tmp_path / "out") == tree(tmp_path / "straight")
