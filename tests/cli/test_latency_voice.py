"""`vocalnet latency` of a model that speaks through a CosyVoice2 folder, in a voice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import soundfile

from tests.cosyvoice2 import tensors
from tests.tiny import save_tiny
from tests.vocoder_folder import CODES

FEW = ("--limit", "1", "--set", "latency.repeats=1", "--set", "latency.warmup=1", "--set", "vocoder.first_tokens=4")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "mute"
    return save_tiny(folder, codes=CODES, max_text_tokens=7, max_speech_tokens=20, tokens_per_step=2)


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VOCALNET_CACHE", raising=False)
    soundfile.write("me.wav", tensors("features")["prompt.wav24k"].numpy(), 24000)


def test_first_sound_in_a_voice(vocalnet, model, vocoder):
    told = vocalnet("latency", "--model", model, "--vocoder", vocoder, "--voice", "me.wav", *FEW, "--set", "vocoder.steps=1", "--json")
    assert told.code == 0, told.err
    result = json.loads(told.out)
    assert result["first_audio_ms"]["p50"] > result["stages_ms"]["vocoder"]["p50"] > 0
    assert (
        result["vocoder"] | {"kind": "cosyvoice2", "steps": 1, "folder": str(vocoder)} == result["vocoder"] and result["voice"] == "me.wav"
    )


def test_two_vocoder_settings_and_voices_in_turn(vocalnet, model, vocoder):
    command = ("latency", "compare", "vocoder.steps=1", "vocoder.steps=2,voice=me.wav", "--model", model, "--vocoder", vocoder)
    told = vocalnet(*command, *FEW, "--json")
    assert told.code == 0, told.err
    result = json.loads(told.out)
    assert [result[side]["vocoder"]["steps"] for side in "ab"] == [1, 2] and "voice" not in result["a"] and result["b"]["voice"] == "me.wav"
    assert result["ratio"]["b/a"]["vocoder_ms"]["p50"] > 0


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["--model", "nano-mdm", "--voice", "me.wav"], 2, "one voice only"),
        (["--model", "nano", "--voice", "me.wav"], 2, "knows no voice of that name"),
        (["--model", "nano", "--vocoder", "nowhere"], 1, "vocoder nowhere: no such folder"),
        (["--model", "nano", "--set", "vocoder.codes=3"], 2, "fixed by the vocoder's weights"),
        (["compare", "nano", "voices=me.wav"], 2, "Nearest: voice"),
    ],
)
def test_mistakes_are_told(vocalnet, options, code, says):
    told = vocalnet("latency", *options)
    assert told.code == code and says in told.err and len(told.err.strip().splitlines()) == 2
