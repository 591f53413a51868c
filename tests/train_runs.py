"""Tiny training runs: a corpus of spoken digits, tiny copies of the nano recipes, and what a run leaves."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from tests.vocoder_runs import JUDGED, VOCODER

ROOT = Path(__file__).parents[1]
DIGITS = ROOT / "tests" / "assets" / "digits"
WORDS = "zero one two three four five six seven".split()
SIZES = """
model:
  encoder: {hidden: 32, layers: 2, heads: 2, ffn: 64, window_s: 2}
  adaptor: {hidden: 32}
  thinker: {hidden: 32, layers: 2, heads: 2, kv_heads: 2, ffn: 64, vocab: 300, lora: {rank: 4, alpha: 8}}
  talker: {hidden: 32, heads: 2, ffn: 64, projector_layers: 1, decoder_layers: 1, codes: 16, modules: 2}
  vocoder: WAY_BACK
data: {manifest: MANIFEST, max_question_s: 2}
generation: {max_text_tokens: 6, max_speech_tokens: 20}
"""


def save_corpus(folder: Path) -> None:
    """A manifest of eight spoken digits."""
    rows = []
    (folder / "digits").symlink_to(DIGITS)
    for number, word in enumerate(WORDS):
        wav = f"digits/{number}_jackson_10.wav"
        row = {
            "id": word,
            "source": "test",
            "split": "train" if number < 6 else "dev",
            "question": {"text": word, "audio": wav},
            "answer": {"text": f"You said {word}.", "audio": wav, "voice": "flite:slt"},
            "meta": {"kind": "digit"},
        }
        rows.append(json.dumps(row))
    (folder / "manifest.jsonl").write_text("\n".join(rows))


def recipe(corpus: Path, stage: str, flow: bool = False, **train: object) -> Path:
    """A tiny copy of a nano recipe, starting from the runs beside it; without `flow` it speaks by the tokenizer's own way back."""
    settings = {
        "steps": 3,
        "batch_size": 2,
        "log_every": 1,
        "save_every": 2,
        "eval_every": 2,
        "dtype": "fp32",
        "save_dtype": "fp32",
        **train,
    }
    flow = stage in ("hift", "flow") or (flow and stage != "speech-tokenizer")
    way_back = VOCODER if flow else {"kind": "griffin-lim", "codes": 16, "iterations": 2, **VOCODER["tokenizer"]}
    sizes = SIZES.replace("MANIFEST", "manifest.jsonl").replace("WAY_BACK", json.dumps(way_back))
    if stage == "hift":
        settings["hift"] = JUDGED
    if stage.startswith("mdm"):
        sizes = sizes.replace(", modules: 2", "")
    text = f"extends: nano/{stage}\n{sizes}train: {json.dumps(settings)}\n"
    if stage in ("mtp5-written", "mtp5", "ntp") and not flow:
        text += "init: {vocoder: runs/nano/speech-tokenizer/model}\n"
    path = corpus / f"{stage}.yaml"
    path.write_text(text)
    return path


def metrics(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def parts(run: str) -> dict[str, dict[str, torch.Tensor]]:
    return {path.stem: load_file(path) for path in Path(run, "model").glob("*.safetensors")}
