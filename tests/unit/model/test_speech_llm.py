"""Hearing, windows and checkpoints of the whole model, with tiny random weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from tests.tiny import tiny_model, tone
from vocalnet_cli.core.errors import MissingWeights, VocalnetError
from vocalnet_cli.core.model.folder import PARTS
from vocalnet_cli.core.model.weights import load_model, save_model


def test_a_question_sounds_the_same_alone_and_in_a_batch() -> None:
    model = tiny_model()
    questions = [tone(0.4), tone(1.1, 500), tone(0.73, 220)]
    together = model.hear(questions)
    for question, heard in zip(questions, together, strict=True):
        assert_close(model.hear([question])[0], heard, atol=1e-5, rtol=1e-5)


def test_a_long_question_is_heard_in_windows_and_nothing_is_lost() -> None:
    model = tiny_model()
    window = model.encoder.window_samples
    question = np.concatenate([tone(2.0), tone(2.0, 700), tone(0.9, 150)])
    parts = model.hear([question[i : i + window] for i in range(0, len(question), window)])
    assert model.windows(len(question)) == len(parts) == 3
    assert_close(model.hear([question])[0], torch.cat(parts))
    assert len(torch.cat(parts)) == pytest.approx(len(question) / 1600, abs=1)  # ten embeddings a second


def test_the_shortest_question_still_gives_one_embedding() -> None:
    assert [len(heard) for heard in tiny_model().hear([np.zeros(1, np.float32) + 0.1, tone(0.05)])] == [1, 1]


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16"])
def test_a_saved_model_is_read_back(tmp_path: Path, dtype: str) -> None:
    model = tiny_model()
    save_model(model, tmp_path / "model", set(PARTS), dtype, {"tokens_per_step": 2})
    save_model(model, tmp_path / "model", set(PARTS), dtype)  # a second save replaces the first as a whole
    again = load_model(tmp_path / "model")
    assert json.loads((tmp_path / "model" / "config.json").read_text())["generation"] == {}
    loose = {"fp32": 0.0, "fp16": 1e-3, "bf16": 8e-3}[dtype]
    for (name, old), (_, new) in zip(model.state_dict().items(), again.state_dict().items(), strict=True):
        assert_close(new, old, atol=loose, rtol=loose, msg=name)
    assert again.tokenizer.get_vocab() == model.tokenizer.get_vocab()


def test_half_precision_keeps_rotary_frequencies_exact(tmp_path: Path) -> None:
    save_model(tiny_model(), tmp_path / "model", set(PARTS))
    half = load_model(tmp_path / "model", dtype=torch.bfloat16)
    frequencies = half.thinker.model.rotary_emb.inv_freq
    assert frequencies.dtype == torch.float32
    assert_close(frequencies, tiny_model().thinker.model.rotary_emb.inv_freq, atol=0, rtol=0)


def damaged(folder: Path, how: str) -> None:
    part = folder / "talker.safetensors"
    if how == "missing":
        part.unlink()
    elif how == "cut":
        part.write_bytes(part.read_bytes()[:1000])
    elif how == "text":
        part.write_text("not weights")
    elif how == "other":
        part.write_bytes((folder / "adaptor.safetensors").read_bytes())
    elif how == "config":
        (folder / "config.json").write_text('{"format": "vocalnet-1", "model": {"compat": 3}}')
    else:
        (folder / "config.json").write_text("{")


@pytest.mark.parametrize("how", ["missing", "cut", "text", "other", "config", "json"])
def test_a_damaged_folder_is_told_in_two_lines(tmp_path: Path, how: str) -> None:
    save_model(tiny_model(), tmp_path / "model", set(PARTS))
    damaged(tmp_path / "model", how)
    with pytest.raises(VocalnetError) as told:
        load_model(tmp_path / "model")
    assert str(tmp_path / "model") in told.value.problem and "\n" not in told.value.problem + told.value.hint
    assert isinstance(told.value, MissingWeights) == (how == "missing")
