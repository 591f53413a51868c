"""How fast data preparation is, and what memory it takes: `python -m pytest -m slow tests/slow/test_prep_speed.py -s` prints it.

On two idle cores that takes about five minutes. Times are wall clock, start-up included, of `vocalnet prep` with two workers.
VOCALNET_PREP_ROWS says how many short utterances are made (default 10 000; a tenth of them comes first, to see memory grow).
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from vocalnet_cli.core.data.record import Record, Utterance, write_manifest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]

ROOT = Path(__file__).parents[2]
ROWS = int(os.environ.get("VOCALNET_PREP_ROWS", "10000"))
CORES = 2
S3_ROWS = max(16, ROWS // 100)
"""The released tokenizer's size takes as long for one utterance as nano's for some hundred."""
FEW = "zero one two three four five six seven eight nine ten eleven twelve".split()

OWN_MEMORY = """
import re
def largest():  # ru_maxrss would count what the process was before it became this program, pytest
    return int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1]) / 1024
"""

MEASURED = (
    OWN_MEMORY
    + """
import json, resource, sys
from vocalnet_cli.cli.app import run_cli
code = run_cli(sys.argv[1:])
own, others = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
spent = own.ru_utime + own.ru_stime + others.ru_utime + others.ru_stime
print(json.dumps([max(largest(), others.ru_maxrss / 1024), spent]))
sys.exit(code)
"""
)
"""A command, and then the most memory (MB) one of its processes took, and the processor seconds of all."""

ALONE = (
    OWN_MEMORY
    + """
import sys, time
from pathlib import Path
from vocalnet_cli.core.audio.wav import read_audio
from vocalnet_cli.core.data.prep.tokens import Tokens
step = Tokens(sys.argv[1], batch_size=8)
step.begin()
sounds = sorted((read_audio(path, step.rate) for path in sorted(Path(sys.argv[2]).rglob("answers/*/*"))), key=len)
step._tokenize(sounds[:8])
started = time.process_time()
step._tokenize(sounds)
print(time.process_time() - started, largest())
"""
)
"""The tokenizer's own batched compute: processor seconds from sound in memory to tokens, and the process's memory."""


@dataclass(frozen=True)
class Run:
    """One `vocalnet prep`."""

    stats: dict[str, Any]
    wall_s: float
    cpu_s: float
    memory_mb: float

    @property
    def audio_s(self) -> float:
        return float(self.stats["audio_hours"]) * 3600


def prep(*args: object) -> Run:
    command = [sys.executable, "-c", MEASURED, "prep", *map(str, args), "--workers", str(CORES), "--json"]
    started = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    wall = time.monotonic() - started
    stats, (memory, cpu) = (json.loads(line) for line in done.stdout.splitlines()[-2:])
    return Run(stats, wall, cpu, memory)


def spoken(folder: Path, rows: int) -> Run:
    """Short answers said by flite, each other than the others, in an order without pattern."""
    (folder / "in").mkdir(parents=True)
    numbers = random.Random(0).sample(range(13**4), rows)
    texts = [f"{FEW[n % 13]} {FEW[n // 13 % 13]} {FEW[n // 169 % 13]} {FEW[n // 2197]}" for n in numbers]
    row = {"source": "t", "split": "train"}
    records = [
        Record(id=str(n), question=Utterance(text=f"What is {text}?"), answer=Utterance(text=f"{text}."), **row)
        for n, text in enumerate(texts)
    ]
    write_manifest(folder / "in" / "manifest.jsonl", records)
    return prep("synth", folder / "in", "-o", folder / "spoken", "--voice", "flite:slt", "--say", "answer")


def test_synthesis_and_tokens_of_short_utterances(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    most: dict[str, list[float]] = {"synth": [], "tokens": []}
    for rows in (ROWS // 10, ROWS):
        folder = tmp_path / str(rows)
        synth = spoken(folder, rows)
        tokens = prep("tokens", folder / "spoken", "-o", folder / "train", "--tokenizer", "nano", "--device", "cpu")
        assert synth.stats["rows_out"] == tokens.stats["rows_out"] == rows
        assert all(min(run.stats["rows_by_worker"].values()) > 0 for run in (synth, tokens))
        from_text = synth.audio_s / (synth.wall_s + tokens.wall_s)
        from_sound = tokens.audio_s / tokens.wall_s
        most["synth"].append(synth.memory_mb)
        most["tokens"].append(tokens.memory_mb)
        with capsys.disabled():
            print(f"\n{rows} utterances, {tokens.audio_s:.0f} s: from text {from_text:.1f} x real time, from sound {from_sound:.1f} x")
            for name, run in (("synth", synth), ("tokens", tokens)):
                spent = f"{run.wall_s:.1f} s, {run.cpu_s:.1f} processor seconds, {1000 * run.cpu_s / rows:.1f} ms a row"
                print(f"  {name}: {spent}; a process takes {run.memory_mb:.0f} MB")
    assert from_text >= 15 and from_sound >= 50
    assert all(last - first < 100 and last < 1000 for first, last in most.values()), "memory grows with the rows"


def test_token_extraction_against_the_tokenizer_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """CosyVoice2's tokenizer at its released size, with random weights; start-up, the same for any number of rows, is subtracted."""
    import torch
    from safetensors.torch import save_file

    from vocalnet_cli.core.model.voice.s3_tokenizer import S3Tokenizer

    torch.manual_seed(0)
    file = tmp_path / "speech_tokenizer_v2.safetensors"
    save_file({name: tensor.half() for name, tensor in S3Tokenizer().state_dict().items()}, file)
    spoken(tmp_path / "one", 1)
    spoken(tmp_path, S3_ROWS)
    options = ("--tokenizer", file, "--device", "cpu", "--shard-rows", S3_ROWS)
    idle = prep("tokens", tmp_path / "one" / "spoken", "-o", tmp_path / "one" / "train", *options)
    run = prep("tokens", tmp_path / "spoken", "-o", tmp_path / "train", *options)
    command = [sys.executable, "-c", ALONE, str(file), str(tmp_path / "spoken")]
    own_s, own_mb = map(float, subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split())
    ratio = (run.cpu_s - idle.cpu_s) / own_s
    with capsys.disabled():
        print(f"\n{S3_ROWS} utterances with CosyVoice 2's tokenizer: {run.cpu_s - idle.cpu_s:.1f} processor seconds above start-up,")
        print(f"  the tokenizer alone {own_s:.1f}: {ratio:.3f} x; {run.memory_mb:.0f} MB, the tokenizer alone {own_mb:.0f}")
    assert ratio <= 1.15 and run.memory_mb <= own_mb + 1000
