"""A checkpoint of VocalNet-1B's size loads in little more memory than its weights, and in little more time than reading its files.

Not run by default (5 GB on disk): `pytest -m slow tests/slow`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.tiny import TEXTS
from vocalnet_cli.core.config.load import load_recipe
from vocalnet_cli.core.model.export import ENCODER_FOLDER, released_keys
from vocalnet_cli.core.model.official_weights import PREFIXES, official_name
from vocalnet_cli.core.model.speech_llm import build_model
from vocalnet_cli.core.model.tokenizer import train_tokenizer

SHARD_BYTES = 1_500_000_000
LOAD = """
import sys, time, torch
from vocalnet_cli.core.model.weights import load_model
def high(name):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(name))
before = high("VmRSS")
start = time.perf_counter()
model = load_model(sys.argv[1], "cpu", getattr(torch, sys.argv[2]))
touched = sum(float(p.flatten()[:: 4096 // p.element_size()].sum()) for p in model.parameters())  # every page is read
print(time.perf_counter() - start, high("VmHWM") - before)
"""
READ = """
import sys, time, pathlib
start, buffer = time.perf_counter(), bytearray(1 << 24)
for path in sorted(pathlib.Path(sys.argv[1]).glob("*.safetensors")):
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
print(time.perf_counter() - start)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Random bf16 weights under the released names, in shards."""
    folder = tmp_path_factory.mktemp("large") / "model"
    folder.mkdir()
    settings = load_recipe("vocalnet/mtp5").recipe.model.model_copy(update={"compat": "released"})
    with torch.device("meta"):
        model = build_model(settings)
    model.tokenizer = train_tokenizer(TEXTS, 300, "llama")
    model.tokenizer.save_pretrained(str(folder))
    (folder / ENCODER_FOLDER).mkdir()
    model.encoder.config.save_pretrained(str(folder / ENCODER_FOLDER))
    (folder / "config.json").write_text(json.dumps(released_keys(model, "bf16")))
    shapes = {official_name(part, name): t.shape for part in PREFIXES for name, t in getattr(model, part).state_dict().items()}
    del shapes["lm_head.weight"]
    where: dict[str, str] = {}
    shard: dict[str, torch.Tensor] = {}

    def flush() -> None:
        name = f"model-{len(set(where.values())) + 1:05}.safetensors"
        save_file(shard, folder / name)
        where.update(dict.fromkeys(shard, name))
        shard.clear()

    for name, shape in shapes.items():
        shard[name] = torch.empty(shape, dtype=torch.bfloat16).uniform_(-0.02, 0.02)
        if sum(t.numel() for t in shard.values()) * 2 > SHARD_BYTES:
            flush()
    flush()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    return folder


def run(code: str, *arguments: object) -> list[float]:
    result = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=True)
    return [float(number) for number in result.stdout.split()]


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("dtype, size", [("bfloat16", 2), ("float16", 2)])
def test_memory_and_time_of_a_large_checkpoint(folder, dtype, size):
    files = sorted(folder.glob("*.safetensors"))
    assert len(files) > 2
    weights = sum(file.stat().st_size for file in files) / 2 * size
    [reading] = run(READ, folder)
    seconds, peak = run(LOAD, folder, dtype)
    print(f"{dtype}: {weights / 1e9:.2f} GB of weights, peak {peak / 1e9:.2f} GB; {seconds:.1f} s against {reading:.1f} s of reading")
    assert peak <= 1.2 * weights
    if dtype == "bfloat16":  # as stored: nothing is computed
        assert seconds <= 1.3 * reading + time_of_building()


def time_of_building() -> float:
    """Seconds that the empty model and the tokenizer take."""
    start = time.perf_counter()
    with torch.device("meta"):
        build_model(load_recipe("vocalnet/mtp5").recipe.model)
    return time.perf_counter() - start
