"""Weights stored in 8 bits: what is lost is bounded, what small tensors say is kept, and a folder of them is a model as any other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.tiny import save_tiny, tiny_model
from vocalnet_cli.core.errors import VocalnetError
from vocalnet_cli.core.model.folder import PARTS, weights_hash
from vocalnet_cli.core.model.tensor_file import in_int8, read_tensors, write_tensors
from vocalnet_cli.core.model.weights import load_model, save_model
from vocalnet_cli.core.training.init import load_init


def test_no_weight_is_off_by_more_than_half_a_step(tmp_path: Path) -> None:
    torch.manual_seed(0)
    scales = 10.0 ** torch.arange(-6, 3)[:, None]
    weights = {"wide": torch.randn(9, 64) * scales, "conv": torch.randn(4, 8, 3), "zero": torch.zeros(2, 32), "bias": torch.randn(64)}
    weights["marks"] = torch.arange(40).view(2, 20)
    weights["broken"] = torch.full((2, 32), torch.inf)
    write_tensors(tmp_path / "a.safetensors", in_int8(weights, set(weights)))
    read = read_tensors(tmp_path / "a.safetensors")
    assert read.keys() == weights.keys()
    for name in ("wide", "conv", "zero"):
        rows, found = weights[name].flatten(1), read[name].flatten(1)
        step = rows.abs().amax(1, keepdim=True) / 127
        assert found.dtype == torch.float32 and read[name].shape == weights[name].shape
        assert bool(((found - rows).abs() <= 0.5001 * step).all()), name
        assert torch.allclose(found.abs().amax(1), rows.abs().amax(1))
    assert torch.equal(read["bias"], weights["bias"].half()) and torch.equal(read["marks"], weights["marks"])
    assert bool(read["broken"].isinf().all())
    # What was read is stored again without further loss.
    write_tensors(tmp_path / "b.safetensors", in_int8(read, set(weights)))
    assert all(torch.allclose(tensor, read[name], rtol=1e-6, atol=0) for name, tensor in read_tensors(tmp_path / "b.safetensors").items())


def test_scales_that_do_not_fit_are_told(tmp_path: Path) -> None:
    stored = in_int8({"w": torch.randn(4, 32)}, {"w"})
    save_file(stored | {"w.scale": torch.ones(3)}, tmp_path / "w.safetensors")
    with pytest.raises(VocalnetError, match=r"w and its scales do not fit"):
        read_tensors(tmp_path / "w.safetensors")


@pytest.mark.parametrize("talker", [{"kind": "mtp-vocalnet", "modules": 2}, {"kind": "mdm"}], ids=["mtp", "mdm"])
def test_a_folder_in_8_bits_is_a_model(tmp_path: Path, talker: dict) -> None:
    model = tiny_model(talker=talker)
    save_model(model, tmp_path / "int8", set(PARTS), "int8")
    read = load_model(tmp_path / "int8")
    for (name, before), after in zip(model.state_dict().items(), read.state_dict().values(), strict=True):
        largest = before.abs().max() if before.is_floating_point() else 0
        assert (after - before).abs().max() <= largest / 250, name
    stored = load_file(tmp_path / "int8" / "talker.safetensors")
    kinds = {name: tensor.dtype for name, tensor in stored.items()}
    assert kinds["embedding.weight"] == kinds["head.weight"] == torch.int8 and kinds["embedding.weight.scale"] == torch.float32
    assert all(kind == torch.float16 for name, kind in kinds.items() if "norm" in name)
    fresh = tiny_model(1, talker=talker)  # one part alone, as a recipe's `init` takes it
    load_init(fresh, {"talker": tmp_path / "int8"})
    assert all(torch.equal(fresh.talker.state_dict()[name], tensor) for name, tensor in read.talker.state_dict().items())


def test_models_store_writes_parts_in_another_type(vocalnet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = save_tiny(tmp_path / "model", max_text_tokens=7)
    before = vocalnet("models", "show", folder, "--json")
    result = vocalnet("models", "store", folder, "talker", "-o", "smaller", "--json")
    assert result.code == 0, result.err
    sizes = json.loads(result.out)["bytes"]
    kept, smaller = load_file(folder / "talker.safetensors"), load_file(Path("smaller/talker.safetensors"))
    assert kept["head.weight"].dtype == torch.float32 and smaller["head.weight"].dtype == torch.int8
    assert sizes["talker"] < 0.5 * (folder / "talker.safetensors").stat().st_size
    assert sizes["encoder"] == (folder / "encoder.safetensors").stat().st_size
    assert json.loads(Path("smaller/config.json").read_text()) == json.loads((folder / "config.json").read_text())
    assert weights_hash(folder) != weights_hash(Path("smaller"))
    told = json.loads(vocalnet("models", "show", "smaller", "--json").out)
    assert told["stored_bytes"]["I8"] > 0 and told["parameters"] == json.loads(before.out)["parameters"]
    assert vocalnet("models", "export", "smaller", "-o", "released", "--dtype", "fp32").code == 0
    assert torch.equal(load_model(Path("released")).talker.head.weight, load_model(Path("smaller")).talker.head.weight)
    assert vocalnet("models", "store", folder, "-o", "smaller").code == 1  # not empty
    for wrong in (["ears"], ["--dtype", "int4"]):
        refused = vocalnet("models", "store", folder, *wrong, "-o", "other")
        assert refused.code == 2 and len(refused.err.strip().splitlines()) == 2
