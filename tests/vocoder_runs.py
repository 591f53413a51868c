"""Tiny trainings of nano's vocoder on recorded digits: sizes, a corpus, recipes."""

from __future__ import annotations

import json
from pathlib import Path

import soundfile
import torch
from torch import nn

from tests.tiny import tiny_model
from vocalnet_cli.core.audio.wav import resample
from vocalnet_cli.core.config.vocoder_schema import CosyVoice2Settings
from vocalnet_cli.core.model.speech_llm import SpeechLLM
from vocalnet_cli.core.model.vocoder import Voice, build_vocoder
from vocalnet_cli.core.model.vocoder.voices import VoiceTable

DIGITS = Path(__file__).parent / "assets" / "digits"
WORDS = "zero one two three four five six seven".split()
CODES = 16

VOCODER = {
    "kind": "cosyvoice2",
    "codes": CODES,
    "tokenizer": {"latent": 8, "hidden": 16, "blocks": 2},
    "trained_block": 4,
    "first_tokens": 3,
    "block_tokens": 6,
    "steps": 2,
    "flow": {
        "hidden": 32, "heads": 2, "ffn": 32, "layers": 1, "up_layers": 1, "speaker": 8,
        "channels": 32, "estimator_heads": 2, "head_dim": 8, "groups": 1, "transformers": 1,
    },
    "hift": {
        "channels": 32, "f0_channels": 16, "upsample_rates": [8, 5], "upsample_kernels": [16, 11], "kernels": [3], "dilations": [[1, 3]],
        "source_kernels": [7, 7], "source_dilations": [[1], [1]], "istft_fft": 48, "istft_hop": 12,
    },
}  # fmt: skip
JUDGED = {"segment_frames": 12, "judged_from": 0.5, "period_channels": 1, "spectrum_channels": 2, "periods": [2, 3], "resolutions": [256]}


def make_corpus(folder: Path) -> Path:
    """`folder`/manifest.jsonl: six digits to train on, two for dev; three of the six once more by a deeper, slower voice."""
    rows = []
    for number, word in enumerate(WORDS):
        sound, rate = soundfile.read(DIGITS / f"{number}_jackson_10.wav", dtype="float32")
        samples = resample(sound, rate, 24_000)
        soundfile.write(folder / f"{number}.wav", samples, 24_000)
        split = "train" if number < 6 else "dev"
        answer = {"text": f"{word}.", "audio": f"{number}.wav", "voice": "flite:slt"}
        rows.append({"id": word, "source": "test", "split": split, "question": {"text": word}, "answer": answer})
        if number < 3:
            soundfile.write(folder / f"{number}-deep.wav", resample(samples, 20_000, 24_000), 24_000)
            deep = {**answer, "audio": f"{number}-deep.wav", "voice": "flite:rms"}
            meta = {"parallel": f"{number}.wav"}
            rows.append(
                {"id": f"{word}-deep", "source": "test", "split": "voices", "question": {"text": word}, "answer": deep, "meta": meta}
            )
    (folder / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "manifest.jsonl"


def write_recipe(folder: Path, stage: str, train: dict | None = None, data: dict | None = None) -> Path:
    """`folder`/STAGE.yaml: a tiny copy of a nano recipe, starting from the runs beside it."""
    vocoder = {"kind": "griffin-lim", "codes": CODES, **VOCODER["tokenizer"]} if stage == "speech-tokenizer" else VOCODER
    settings = {"steps": 4, "batch_size": 2, "log_every": 1, "save_every": 2, "eval_every": 2, "dtype": "fp32", "save_dtype": "fp32"}
    own = {"hift": {**settings, "hift": JUDGED}}.get(stage, settings)
    recipe = {
        "extends": f"nano/{stage}",
        "model": {"talker": {"codes": CODES}, "vocoder": vocoder},
        "data": {"manifest": "manifest.jsonl", **(data or {})},
        "train": {**own, **(train or {})},
    }
    path = folder / f"{stage}.yaml"
    path.write_text(json.dumps(recipe))
    return path


def with_named_voices() -> SpeechLLM:
    """A tiny model with a vocoder of nano's kind that knows two voices, `slt` and `rms`."""
    model = tiny_model()
    settings = CosyVoice2Settings.model_validate_json(json.dumps(VOCODER))
    model.settings = model.settings.model_copy(update={"vocoder": settings})
    torch.manual_seed(0)
    model.vocoder = build_vocoder(settings)
    nn.init.normal_(model.vocoder.tokenizer.codebook)
    none = torch.zeros(0, dtype=torch.long), torch.zeros(0, 80)
    model.vocoder.know(VoiceTable({name: Voice(*none, torch.randn(8)) for name in ("slt", "rms")}))
    return model
