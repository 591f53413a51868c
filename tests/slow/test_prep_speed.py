"""How fast data preparation is, and what memory it takes: `python -m pytest -m slow tests/slow/test_prep_speed.py -s` prints it.

Times are processor seconds of all processes, start-up included, shared by two cores: what else a machine does hardly changes them.
VOCALNET_PREP_ROWS says how many short utterances (default 10 000; the same with a tenth comes first).
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vocalnet_cli.core.data.record import Record, Utterance, write_manifest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]

ROOT = Path(__file__).parents[2]
ROWS = int(os.environ.get("VOCALNET_PREP_ROWS", "10000"))
CORES = 2
FEW = "zero one two three four five six seven eight nine ten eleven twelve".split()

OWN = """
import sys, time, torch
from pathlib import Path
from vocalnet_cli.core.audio.wav import read_audio
from vocalnet_cli.core.data.prep.tokens import Tokens
step = Tokens(sys.argv[1], batch_size=8)
step.begin()
sounds = sorted((read_audio(path, step.rate) for path in sorted(Path(sys.argv[2]).rglob("answers/*/*"))), key=len)
step._tokenize(sounds[:8])
started = time.process_time()
step._tokenize(sounds)
print(time.process_time() - started)
"""


def manifest(folder: Path, rows: int) -> Path:
    """Short questions and answers, `rows` of them; each differs from the others."""
    folder.mkdir(parents=True)
    texts = [f"{FEW[n % 13]} {FEW[n // 13 % 13]} {FEW[n // 169 % 13]} {FEW[n // 2197 % 13]}" for n in range(rows)]
    write_manifest(
        folder / "manifest.jsonl",
        (
            Record(
                id=str(n), source="t", split="train", question=Utterance(text=f"What is {text}?"), answer=Utterance(text=f"It is {text}.")
            )
            for n, text in enumerate(texts)
        ),
    )
    return folder


def measured(*args: object) -> tuple[dict[str, float], float, float]:
    """Stats of one `vocalnet prep`, its processor seconds, and the most memory of one of its processes in MB."""
    code = "import resource, sys; from vocalnet_cli.cli.app import run_cli; code = run_cli(sys.argv[1:]);" + (
        "print(max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))); sys.exit(code)"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-c", code, "prep", *map(str, args), "--workers", str(CORES), "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    stats, memory = done.stdout.splitlines()[-2:]
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return json.loads(stats), spent, int(memory) / 1024


def times_real(stats: dict[str, float], spent: float) -> float:
    return stats["audio_hours"] * 3600 / (spent / CORES)


def test_synthesis_and_tokens_of_short_utterances(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    peaks: dict[str, list[float]] = {"synth": [], "tokens": []}
    for rows in (ROWS // 10, ROWS):
        folder = tmp_path / str(rows)
        started = time.monotonic()
        spoken, synth_s, synth_mb = measured("synth", manifest(folder / "in", rows), "-o", folder / "spoken", "--voice", "flite:slt")
        made, tokens_s, tokens_mb = measured("tokens", folder / "spoken", "-o", folder / "train", "--tokenizer", "nano", "--device", "cpu")
        assert spoken["rows_out"] == made["rows_out"] == rows
        speed = times_real(spoken, synth_s + tokens_s), times_real(made, tokens_s)
        peaks["synth"].append(synth_mb)
        peaks["tokens"].append(tokens_mb)
        with capsys.disabled():
            print(
                f"\n{rows} rows ({time.monotonic() - started:.0f} s): from text {speed[0]:.1f} x real time, from sound {speed[1]:.1f} x;"
                f" a process of synth takes {synth_mb:.0f} MB, of tokens {tokens_mb:.0f} MB"
            )
    assert speed[0] >= 15 and speed[1] >= 50
    assert all(most - least < 100 for least, most in peaks.values()), "memory grows with the rows"


def test_token_extraction_against_the_tokenizer_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """CosyVoice2's tokenizer at its released size, with random weights; start-up, the same for any number of rows, is subtracted."""
    import torch
    from safetensors.torch import save_file

    from vocalnet_cli.core.model.voice.s3_tokenizer import S3Tokenizer

    torch.manual_seed(0)
    model = S3Tokenizer()
    save_file({name: tensor.half() for name, tensor in model.state_dict().items()}, tmp_path / "speech_tokenizer_v2.safetensors")
    rows = max(16, ROWS // 100)
    measured("synth", manifest(tmp_path / "in", rows), "-o", tmp_path / "spoken", "--voice", "flite:slt", "--say", "answer")
    manifest(tmp_path / "one", 1)
    measured("synth", tmp_path / "one", "-o", tmp_path / "one-spoken", "--voice", "flite:slt", "--say", "answer")
    tokens = ("--tokenizer", tmp_path / "speech_tokenizer_v2.safetensors", "--device", "cpu")
    _, idle, _ = measured("tokens", tmp_path / "one-spoken", "-o", tmp_path / "one-train", *tokens)
    _, spent, _ = measured("tokens", tmp_path / "spoken", "-o", tmp_path / "train", *tokens, "--shard-rows", rows)
    command = [sys.executable, "-c", OWN, str(tokens[1]), str(tmp_path / "spoken")]
    own = float(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
    with capsys.disabled():
        print(f"\n{rows} rows: tokens {spent - idle:.1f} s above start-up, the tokenizer alone {own:.1f} s: {(spent - idle) / own:.3f}")
    assert (spent - idle) / own <= 1.15
