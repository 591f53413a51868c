"""A model that carries its talker alone and takes all else from another one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from tests.tiny import tiny_model, tone
from vocalnet_cli.core.audio.wav import write_wav
from vocalnet_cli.core.errors import MissingWeights, VocalnetError
from vocalnet_cli.core.model.folder import PARTS, encoder_hash, read_config, weights_hash
from vocalnet_cli.core.model.weights import load_model, save_model
from vocalnet_cli.core.training.init import load_init
from vocalnet_cli.core.units import QUESTION_HZ

SHORT = {"max_text_tokens": 7, "max_speech_tokens": 40}


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A model with an MTP talker, and one with the same parts but a masked-diffusion talker."""
    first = tiny_model()
    second = tiny_model(talker={"kind": "mdm"})
    for part in ("encoder", "adaptor", "thinker", "vocoder"):
        getattr(second, part).load_state_dict(getattr(first, part).state_dict())
    save_model(first, tmp_path / "first", set(PARTS), "fp16", generation={**SHORT, "tokens_per_step": 2})
    save_model(second, tmp_path / "second", set(PARTS), generation={**SHORT, "steps": 2})
    return tmp_path / "first", tmp_path / "second"


def test_it_answers_as_the_whole_model_does(vocalnet, pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first, second = pair
    written = vocalnet("models", "store", second, "talker", "--beside", first, "--dtype", "fp32", "-o", "small", "--json")
    assert written.code == 0, written.err
    assert sorted(path.name for path in Path("small").iterdir()) == ["config.json", "talker.safetensors"]
    said = json.loads(Path("small/config.json").read_text())
    assert list(said["model"]) == ["talker"] and said["generation"] == {"steps": 2}
    read = read_config(Path("small"))
    assert read["model"].talker.kind == "mdm" and read["model"].thinker == read_config(first)["model"].thinker
    assert read["generation"]["max_text_tokens"] == 7 and read["generation"]["steps"] == 2
    whole = load_model(first)
    whole.talker = load_model(second).talker
    small = load_model(Path("small"))
    assert small.settings == load_model(second).settings
    assert all(torch.equal(tensor, whole.state_dict()[name]) for name, tensor in small.state_dict().items())
    write_wav(Path("q.wav"), tone(0.5), QUESTION_HZ)
    for steps in ("1", "4", "auto"):
        told = vocalnet("infer", "q.wav", "--model", "small", "--steps", steps, "--json")
        assert told.code == 0, told.err
        row = json.loads(told.out)
        assert row["text"] and row["tokens"]["speech"] > 0 and Path(row["audio"]).is_file()
    parameters = [json.loads(vocalnet("models", "show", model, "--json").out)["parameters"] for model in ("small", second)]
    assert parameters[0] == parameters[1]


def test_hashes_follow_both_folders(vocalnet, pair, tmp_path: Path) -> None:
    first, second = pair
    small = tmp_path / "small"
    assert vocalnet("models", "store", second, "talker", "--beside", first, "-o", small).code == 0
    before = weights_hash(small)
    assert encoder_hash(small) == encoder_hash(first) and before != weights_hash(first)
    shutil.copyfile(second / "vocoder.safetensors", first / "vocoder.safetensors")  # fp32 instead of fp16
    assert weights_hash(small) != before
    shutil.copyfile(second / "talker.safetensors", first / "talker.safetensors")  # nobody reads it here
    changed = weights_hash(small)
    (first / "talker.safetensors").unlink()
    assert weights_hash(small) == changed


def test_one_part_alone_starts_a_training(vocalnet, pair, tmp_path: Path) -> None:
    first, second = pair
    small = tmp_path / "small"
    assert vocalnet("models", "store", second, "talker", "--beside", first, "--dtype", "fp32", "-o", small).code == 0
    fresh = tiny_model(3, talker={"kind": "mdm"})
    load_init(fresh, {part: small for part in ("tokenizer", "thinker", "talker")})
    assert torch.equal(fresh.talker.head.weight, load_model(second).talker.head.weight)
    assert torch.equal(fresh.thinker.lm_head.weight, load_model(first).thinker.lm_head.weight)


def test_what_is_not_the_same_is_not_shared(vocalnet, pair, tmp_path: Path) -> None:
    first, _ = pair
    save_model(tiny_model(5, talker={"kind": "mdm"}), tmp_path / "other", set(PARTS))
    refused = vocalnet("models", "store", tmp_path / "other", "talker", "--beside", first, "-o", tmp_path / "small")
    lines = refused.err.strip().splitlines()
    assert refused.code == 1 and len(lines) == 2 and "its encoder is not that of" in lines[0] and not (tmp_path / "small").exists()


def test_another_thinker_is_noticed(vocalnet, pair, tmp_path: Path) -> None:
    first, second = pair
    small = tmp_path / "small"
    assert vocalnet("models", "store", second, "talker", "--beside", first, "-o", small).code == 0
    shutil.copyfile(second / "thinker.safetensors", first / "thinker.safetensors")
    with pytest.raises(VocalnetError, match="reads another thinker"):
        load_model(small)
    (first / "config.json").unlink()
    with pytest.raises(MissingWeights, match="takes parts from"):
        load_model(small)
