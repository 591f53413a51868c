"""A corpus of written questions with speech tokens of a wanted length, and recipes of stages that read it."""

from __future__ import annotations

import json
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from tests.tiny import TEXTS
from vocalnet_cli.core.model.tokenizer import train_tokenizer

TEXT_HZ, SPEECH_HZ = 4, 25


def write_corpus(seconds: list[int]) -> PreTrainedTokenizerBase:
    """`manifest.jsonl` and the tokenizer `start` in the working folder: a row for each answer of so many seconds."""
    tokenizer = train_tokenizer(TEXTS, 512, "llama")
    tokenizer.save_pretrained("start")
    word = next(one for one in range(300, 512) if ids(tokenizer, tokenizer.decode([one] * 9)) == [one] * 9)
    rows = [
        {
            "id": str(number),
            "source": "test",
            "split": "train",
            "question": {"text": tokenizer.decode([word] * 40)},
            "answer": {"text": tokenizer.decode([word] * (TEXT_HZ * length))},
            "speech_tokens": [number] * (SPEECH_HZ * length),
        }
        for number, length in enumerate(seconds)
    ]
    Path("manifest.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tokenizer


def ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def recipe(stage: str, width: int, answer_s: int, train: dict) -> dict:
    """Settings of `stage`, whose thinker and talker have `width`."""
    layers = 4 if stage == "lm" else 1
    return {
        "stage": stage,
        "model": {
            "encoder": {"hidden": 32, "layers": 1, "heads": 2, "ffn": 64, "mel_bins": 80, "window_s": 2, "padding": "fit"},
            "adaptor": {"hidden": 32},
            "thinker": {
                "hidden": width, "layers": layers, "heads": 4, "kv_heads": 4, "ffn": 3 * width, "vocab": 512, "max_positions": 1024,
                "system_prompt": "",
            },
            "talker": {"kind": "mtp-vocalnet", "hidden": width, "ffn": 4 * width, "heads": 4, "dropout": 0.0, "modules": 5},
        },
        "data": {"manifest": "manifest.jsonl", "questions": "written", "max_answer_s": answer_s},
        "train": {"steps": 2, "log_every": 9, "save_every": 9, "eval_every": 9, "schedule": "constant", **train},
        "init": {"tokenizer": "start"},
    }  # fmt: skip
