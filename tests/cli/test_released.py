"""A released checkpoint through the commands: it answers in text and speech tokens, alone and with others, and exports read back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.parity.numbers import FOLDER, read_json
from tests.parity.released_folder import write_folder
from tests.tiny import save_tiny, tone
from vocalnet_cli.core.audio.wav import write_wav
from vocalnet_cli.core.model.weights import load_model
from vocalnet_cli.core.units import QUESTION_HZ

pytestmark = pytest.mark.skipif(not (FOLDER / "full_llama.json").is_file(), reason=f"{FOLDER} lacks full_llama.json")
SHORT = ("--set", "generation.max_text_tokens=13", "--set", "generation.max_speech_tokens=40")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return write_folder(read_json("full_llama.json"), tmp_path_factory.mktemp("released") / "model", shards=2)


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def ask(*seconds: float) -> list[Path]:
    files = [Path(f"q{number}.wav") for number in range(len(seconds))]
    for number, (file, length) in enumerate(zip(files, seconds, strict=True)):
        write_wav(file, tone(length, hz=200.0 + 90 * number), QUESTION_HZ)
    return files


def rows(result) -> list[dict]:
    return [json.loads(line) for line in result.out.strip().splitlines()]


@pytest.mark.parametrize("streaming", ["true", "false"])
def test_answers_in_text_and_speech_tokens(vocalnet, checkpoint, streaming):
    [file] = ask(0.7)
    result = vocalnet("infer", file, "--model", checkpoint, "--json", *SHORT, "--set", f"generation.streaming={streaming}")
    assert result.code == 0, result.err
    [row] = rows(result)
    assert row["text"] and row["audio"] is None
    tokens = np.load(row["speech_tokens"], allow_pickle=False)
    assert len(tokens) == row["tokens"]["speech"] > 0 and tokens.dtype.kind == "i" and tokens.min() >= 0 and tokens.max() < 60
    assert result.err.count("no sound can be made") == 1
    assert sorted(path.name for path in Path("answers").iterdir()) == ["q0.npy"]


@pytest.mark.parametrize("streaming", ["true", "false"])
@pytest.mark.parametrize("kind", ["released", "tiny"])
def test_a_batch_gives_the_answers_one_by_one(vocalnet, checkpoint, tiny_folder, kind, streaming):
    files = ask(0.7, 0.3, 1.1)
    Path("q3.wav").write_bytes(b"no sound")
    options = ["--model", checkpoint if kind == "released" else tiny_folder, "--json", *SHORT, "--set", f"generation.streaming={streaming}"]
    alone = vocalnet("infer", *files[:2], "q3.wav", files[2], *options, "-o", "alone")
    both = vocalnet("infer", *files[:2], "q3.wav", files[2], *options, "-o", "both", "--batch-size", 2)
    assert alone.code == both.code == 1, "one question is no sound file"
    assert [row["file"] for row in rows(both)] == [row["file"] for row in rows(alone)]
    assert [row.get("text") for row in rows(both)] == [row.get("text") for row in rows(alone)]
    assert [row.get("tokens") for row in rows(both)] == [row.get("tokens") for row in rows(alone)]
    assert [row.get("together") for row in rows(both)] == [2, 2, None, None]
    for file in sorted(Path("alone").iterdir()):
        if file.suffix == ".npy":
            np.testing.assert_array_equal(np.load(Path("both") / file.name), np.load(file))
        else:
            assert abs((Path("both") / file.name).stat().st_size - file.stat().st_size) == 0


def test_sampled_batches_are_answered_one_by_one(vocalnet, tiny_folder):
    files = ask(0.5, 0.4)
    options = ["--model", tiny_folder, "--json", "--set", "generation.temperature=1.0", "--seed", 3]
    alone, both = vocalnet("infer", *files, *options), vocalnet("infer", *files, *options, "--batch-size", 2)
    assert [row["text"] for row in rows(alone)] == [row["text"] for row in rows(both)]
    assert "one by one" in both.err


def test_exports_read_back_as_the_same_model(vocalnet, tmp_path):
    trained = save_tiny(tmp_path / "trained", max_text_tokens=7, max_speech_tokens=20, tokens_per_step=2)
    result = vocalnet("models", "export", trained, "-o", "exported", "--dtype", "fp32", "--json")
    assert result.code == 0, result.err
    assert {"config.json", "model.safetensors", "vocoder.safetensors", "speech_encoder"} <= set(json.loads(result.out)["files"])
    ours, theirs = load_model(trained), load_model(Path("exported"))
    assert ours.settings == theirs.settings
    for name, tensor in ours.state_dict().items():
        assert torch.equal(tensor, theirs.state_dict()[name]), name
    [file] = ask(0.5)
    first, second = (rows(vocalnet("infer", file, "--model", model, "--json"))[0] for model in (trained, "exported"))
    assert (first["text"], first["tokens"], first["audio_s"]) == (second["text"], second["tokens"], second["audio_s"])
    again = vocalnet("models", "export", trained, "-o", "exported")
    assert again.code == 1 and "not empty" in again.err


def test_a_talker_the_released_code_lacks_is_not_exported(vocalnet, tmp_path):
    trained = save_tiny(tmp_path / "trained", talker={"kind": "mtp-parallel-linear", "modules": 2})
    result = vocalnet("models", "export", trained, "-o", "exported")
    lines = result.err.strip().splitlines()
    assert result.code == 1 and len(lines) == 2 and "mtp-parallel-linear" in lines[0] and not Path("exported").exists()


def test_a_released_checkpoint_exports_to_its_own_names(vocalnet, checkpoint):
    from vocalnet_cli.core.model.shards import Shards

    assert vocalnet("models", "export", checkpoint, "-o", "again", "--dtype", "fp32").code == 0
    before, after = Shards(checkpoint), Shards(Path("again"))
    assert before.shapes.items() - {("lm_head.weight", before.shapes.get("lm_head.weight"))} == after.shapes.items()
    theirs, kept = (json.loads((folder / "config.json").read_text()) for folder in (checkpoint, Path("again")))
    for key in ("model_type", "mtp_num", "decoder_ffn_dim", "speech_eos_token_id", "hidden_size", "rope_theta", "speech_encoder_ds_rate"):
        assert kept[key] == theirs[key], key


def test_models_lists_shows_and_pulls(vocalnet, checkpoint):
    listed = {row["name"]: row for row in rows(vocalnet("models", "--json"))[0]}
    assert listed["nano"]["folder"] and "VocalNet/VocalNet-1B" in listed
    shown = rows(vocalnet("models", "show", checkpoint, "--json"))[0]
    stored = sum(torch.Size(shape).numel() for shape in shapes(checkpoint).values())
    assert sum(shown["parameters"].values()) == stored - tied(checkpoint)
    assert shown["memory_gb"]["fp32"] == pytest.approx(4 * (stored - tied(checkpoint)) / 1e9, abs=1e-3)
    table = vocalnet("models", "show", checkpoint)
    assert table.code == 0 and "thinker" in table.out and "bf16" in table.out
    for arguments in (("models", "pull", "VocalNet/VocalNet-1B"), ("infer", "--model", "VocalNet/NoSuchModel")):
        refused = vocalnet(*arguments)
        assert refused.code == 1 and "HF_HUB_OFFLINE" in refused.err and len(refused.err.strip().splitlines()) == 2


def shapes(folder: Path) -> dict:
    from vocalnet_cli.core.model.shards import Shards

    return Shards(folder).shapes


def tied(folder: Path) -> int:
    """Weights stored twice."""
    return torch.Size(shapes(folder).get("lm_head.weight", (0,))).numel()


def test_quantize_is_refused_helpfully(vocalnet, monkeypatch):
    from vocalnet_cli.core.model import quantize

    monkeypatch.setattr(quantize, "find_spec", lambda name: None)
    [file] = ask(0.5)
    missing = vocalnet("infer", file, "--quantize", "4bit")
    assert missing.code == 1 and "bitsandbytes" in missing.err and len(missing.err.strip().splitlines()) == 2
    assert vocalnet("infer", file, "--quantize", "3bit").code == 2


def test_doctor_tells_what_to_do(vocalnet, monkeypatch):
    from vocalnet_cli.core import doctor

    found = {row["name"]: row for row in rows(vocalnet("doctor", "--json"))[0]}
    assert {"python", "torch", "transformers", "soundfile", "nano", "hub", "disk", "flite", "pocketsphinx"} <= found.keys()
    assert found["torch"]["state"] == "ok" and found["hub"]["state"] == "missing" and "HF_HUB_OFFLINE" in found["hub"]["detail"]
    assert all(row["todo"] for row in found.values() if row["state"] != "ok")

    def broken(name: str):
        if name == "torchaudio":
            raise OSError("libcudart.so.13: cannot open shared object file")
        return real(name)

    real = doctor.importlib.import_module
    monkeypatch.setattr(doctor, "find_spec", lambda name: True)
    monkeypatch.setattr(doctor.importlib, "import_module", broken)
    monkeypatch.setattr(doctor, "BREAKERS", ("torchaudio",))
    result = vocalnet("doctor")
    assert result.code == 1 and "torchaudio" in result.out and "pip uninstall torchaudio" in result.err
