"""Checkpoints of the released layout: what is read, from where, and how each misfit is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.parity.numbers import FOLDER, read_json
from tests.parity.released_folder import write_folder
from vocalnet_cli.core.errors import MissingWeights, VocalnetError
from vocalnet_cli.core.model import hub
from vocalnet_cli.core.model.folder import read_config
from vocalnet_cli.core.model.official_weights import our_name
from vocalnet_cli.core.model.weights import load_model

pytestmark = pytest.mark.skipif(not (FOLDER / "full_llama.json").is_file(), reason=f"{FOLDER} lacks full_llama.json")
FAMILIES = ("llama", "qwen")


def meta(family: str) -> dict:
    return read_json(f"full_{family}.json")


def change(folder: Path, **values: object) -> Path:
    """Sets keys of a folder's config.json; None takes a key away."""
    path = folder / "config.json"
    config = json.loads(path.read_text()) | values
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    return folder


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shards, dtype", [(1, torch.float32), (4, torch.float32), (2, torch.bfloat16)])
def test_every_tensor_arrives(tmp_path, family, shards, dtype):
    folder = write_folder(meta(family), tmp_path / "model", shards, dtype=torch.bfloat16 if dtype is torch.bfloat16 else None)
    model = load_model(folder, dtype=dtype)
    own = model.state_dict()
    state = load_file(FOLDER / f"full_{family}_state.safetensors")
    for name, tensor in state.items():
        assert torch.equal(own[our_name(name)], tensor.to(dtype)), name
    assert not any(tensor.is_meta for tensor in [*model.parameters(), *model.buffers()])
    assert {p.dtype for p in model.parameters()} == {dtype}
    rotary = model.thinker.model.rotary_emb.inv_freq
    assert rotary.dtype == torch.float32 and float(rotary[0]) == 1.0
    assert model.settings.compat == "released" and not any(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("told, stored", [(True, False), (True, True), (False, False)])
def test_tied_embeddings_either_way(tmp_path, told, stored):
    folder = write_folder(meta("llama"), tmp_path / "model", drop=("lm_head.",))
    if stored:
        state = load_file(folder / "model.safetensors")
        save_file(state | {"lm_head.weight": state["model.embed_tokens.weight"].clone()}, folder / "model.safetensors")
    thinker = load_model(change(folder, tie_word_embeddings=told)).thinker
    assert thinker.lm_head.weight.data_ptr() == thinker.model.embed_tokens.weight.data_ptr()


@pytest.mark.parametrize(
    "lost, added, words",
    [
        ("speech_generator.mtp_layers.1.norm_final.weight", None, "missing speech_generator.mtp_layers.1.norm_final.weight"),
        ("model.speech_encoder.layers.1.fc2.bias", None, "missing model.speech_encoder.layers.1.fc2.bias"),
        (None, "speech_generator.bridge.weight", "unexpected speech_generator.bridge.weight"),
        (None, "model.layers.7.mlp.up_proj.weight", "unexpected model.layers.7.mlp.up_proj.weight"),
        ("model.norm.weight", "model.norm.weight", "model.norm.weight is \\(3,\\), not \\(64,\\)"),
    ],
)
def test_misfits_are_named(tmp_path, lost, added, words):
    folder = write_folder(meta("llama"), tmp_path / "model", drop=(lost,) if lost else ())
    if added:
        save_file(load_file(folder / "model.safetensors") | {added: torch.zeros(3)}, folder / "model.safetensors")
    with pytest.raises(VocalnetError, match=words):
        load_model(folder)


def test_rotary_buffers_of_old_checkpoints_are_no_misfit(tmp_path):
    folder = write_folder(meta("llama"), tmp_path / "model")
    extra = {"model.rotary_emb.inv_freq": torch.ones(8), "speech_generator.decode_layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}
    save_file(load_file(folder / "model.safetensors") | extra, folder / "model.safetensors")
    load_model(folder)


@pytest.mark.parametrize(
    "values, words",
    [
        ({"model_type": "omni_speech2s_mistral"}, "model_type is 'omni_speech2s_mistral'"),
        ({"speech_generator_type": None}, "no speech_generator_type"),
        ({"speech_generator_type": "ar_ntp"}, "speech_generator_type is 'ar_ntp'"),
        ({"speech_encoder_type": "glm4voice"}, "speech_encoder_type is 'glm4voice'"),
        ({"use_duplex": True}, "use_duplex is True"),
        ({"decoder_window": 7}, "unknown setting decoder_window"),
        ({"speech_eos_token_id": 3}, "speech_eos_token_id is 3, not 62"),
        ({"llm_hidden_size": 32}, "llm_hidden_size is 32"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "rope_type is 'yarn'"),
        ({"mtp_num": None}, "mtp_num"),
        ({"num_key_value_heads": None}, "num_key_value_heads"),
    ],
)
def test_what_cannot_be_built_is_refused_by_name(tmp_path, values, words):
    folder = change(write_folder(meta("llama"), tmp_path / "model"), **values)
    with pytest.raises(VocalnetError, match=words):
        read_config(folder)


def test_the_encoder_may_lie_elsewhere(tmp_path, monkeypatch):
    """In the folder the config names, or as Whisper itself in the hub cache; if nowhere, the error says what to pull."""
    encoder = "model.speech_encoder."
    whole = load_file(FOLDER / "full_llama_state.safetensors")
    whisper = {f"model.encoder.{name.removeprefix(encoder)}": tensor for name, tensor in whole.items() if name.startswith(encoder)}
    whisper["model.decoder.layer_norm.weight"] = torch.zeros(1)
    folder = write_folder(meta("llama"), tmp_path / "model", drop=(encoder,))
    save_file(whisper, folder / "speech_encoder" / "model.safetensors")
    expected = {name.removeprefix("model.encoder."): tensor for name, tensor in whisper.items() if name.startswith("model.encoder.")}

    def same(model) -> bool:
        return all(torch.equal(tensor, expected[name]) for name, tensor in model.encoder.state_dict().items())

    assert same(load_model(folder))
    (folder / "speech_encoder").rename(tmp_path / "whisper")
    monkeypatch.setattr(hub, "cached", lambda name: tmp_path / "whisper" if name == hub.WHISPER else None)
    assert same(load_model(folder))
    monkeypatch.setattr(hub, "cached", lambda name: None)
    with pytest.raises(MissingWeights, match="vocalnet models pull openai/whisper-large-v3"):
        load_model(folder)


def truncate(folder: Path) -> None:
    path = sorted(folder.glob("*.safetensors"))[0]
    path.write_bytes(path.read_bytes()[:1000])


def lose(folder: Path) -> None:
    sorted(folder.glob("*.safetensors"))[0].unlink()


def point_elsewhere(folder: Path) -> None:
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"] = dict.fromkeys(index["weight_map"], "../../secret.safetensors")
    path.write_text(json.dumps(index))


@pytest.mark.parametrize(
    "damage, words",
    [
        (truncate, "cannot be read"),
        (lose, "no such file, but the index names it"),
        (point_elsewhere, "is not a file of this folder"),
        (lambda folder: (folder / "model.safetensors.index.json").write_text("{"), "not an index of weights"),
        (lambda folder: (folder / "config.json").write_text("{"), "not a model description"),
    ],
)
def test_damaged_checkpoints_are_told(tmp_path, damage, words):
    folder = write_folder(meta("llama"), tmp_path / "model", shards=3)
    damage(folder)
    with pytest.raises(VocalnetError, match=words):
        load_model(folder)
