"""A released flow learns a speaker from a folder of recordings, at tiny size: no text, and a released folder again at the end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.vocoder_folder import write_vocoder
from vocalnet_cli.core.model.vocoder.cosyvoice2.checkpoint import read_settings
from vocalnet_cli.core.model.vocoder.cosyvoice2.vocoder import CosyVoice2Vocoder
from vocalnet_cli.core.model.vocoder.voices import VoiceTable
from vocalnet_cli.core.model.voice import make_voice

RECORDINGS = Path(__file__).parents[1] / "assets" / "ljspeech"


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A released folder of tiny models with random weights, for CosyVoice 2's 6561 tokens."""
    return write_vocoder(tmp_path_factory.mktemp("hub") / "CosyVoice2")


@pytest.fixture
def recipe(released: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The recipe at the folder's sizes."""
    monkeypatch.chdir(tmp_path)
    sizes = read_settings(released).model_dump(mode="json")
    train = {"steps": 12, "batch_size": 2, "lr": 5e-3, "warmup": 0.0, "log_every": 1, "save_every": 12, "eval_every": 12, "dtype": "fp32"}
    start = {part: str(released) for part in ("speech-tokenizer", "flow", "hift")}
    text = {"extends": "vocoder/finetune-voice", "model": {"vocoder": sizes}, "init": start, "train": train}
    path = tmp_path / "finetune.yaml"
    path.write_text(json.dumps(text | {"data": {"recordings": str(RECORDINGS)}}))
    return path


def test_a_folder_of_recordings_becomes_a_voice(released: Path, recipe: Path, vocalnet: Callable) -> None:
    result = vocalnet("train", "--recipe", recipe, "-o", "run", "--device", "cpu", "--json", "--quiet")
    assert result.code == 0, result.err
    folder = Path(json.loads(result.out)["model"])
    lines = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert np.mean(losses[-4:]) < 0.9 * np.mean(losses[:4])
    others = {path.name for path in released.iterdir()} - {"flow.pt"}
    assert {path.name for path in folder.iterdir()} == others | {"flow.safetensors", "voices.safetensors", "README.md", "curve.png"}
    assert all((released / name).read_bytes() == (folder / name).read_bytes() for name in others)
    assert any(Path("run/samples").glob("*.wav")) and any(Path("run/samples").glob("*.png"))

    vocoder = CosyVoice2Vocoder.released(folder)
    vocoder.know(VoiceTable.of(folder))
    assert vocoder.voices is not None
    voice = vocoder.voices["ljspeech"]
    prompt = make_voice(RECORDINGS / "LJ001-0013.wav", released)  # the longest: none has 3 s
    assert voice.tokens.equal(prompt.tokens) and voice.mel.equal(prompt.mel)
    sound = vocoder.push(vocoder.begin(voice), voice.tokens[:20], True)
    assert len(sound) == 960 * 20 and np.isfinite(sound).all()


def test_the_name_of_the_voice_can_be_said(recipe: Path, vocalnet: Callable) -> None:
    result = vocalnet("train", "--recipe", recipe, "-o", "run", "--set", "data.voice=linda", "--set", "train.steps=1", "--device", "cpu")
    assert result.code == 0, result.err
    table = VoiceTable.of(Path("run/model"))
    assert table is not None and table.names == ("linda",)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("data.recordings=none", ["none", "recordings"]),
        ("init.speech-tokenizer=nano", ["speech-tokenizer", "CosyVoice2-0.5B"]),
        ("init.flow=FunAudioLLM/CosyVoice2-0.5B", ["models pull FunAudioLLM/CosyVoice2-0.5B"]),
        ("data.voice=a.b", ["a.b", "data.voice"]),
    ],
)
def test_mistakes_end_in_two_lines(recipe: Path, vocalnet: Callable, override: str, words: list[str]) -> None:
    result = vocalnet("train", "--recipe", recipe, "--set", override, "-o", "wrong", "--device", "cpu")
    assert result.code == 1
    assert len(result.err.strip().splitlines()) == 2, result.err
    assert all(word in result.err for word in words), result.err
