"""Voices that a vocoder knows by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.tiny import tone
from tests.vocoder_folder import FAST, answer_sound, copied
from tests.vocoder_runs import with_named_voices
from vocalnet_cli.core.model.folder import PARTS
from vocalnet_cli.core.model.vocoder.voices import VoiceTable
from vocalnet_cli.core.model.voice import voice as voice_module
from vocalnet_cli.core.model.weights import save_model

pytestmark = pytest.mark.usefixtures("sounds")


@pytest.fixture(scope="module")
def named(tmp_path_factory) -> Path:
    """A model whose own vocoder knows two voices by name, as those of nano's stages do."""
    model = with_named_voices()
    folder = tmp_path_factory.mktemp("models") / "named"
    save_model(model, folder, set(PARTS), generation={"max_text_tokens": 7, "max_speech_tokens": 20, "tokens_per_step": 2})
    return folder


def test_a_model_s_own_voices_go_by_name(vocalnet, named):
    command = ("infer", "q.wav", "--model", named, "--json")
    for name, more in (("usual", ()), ("slt", ("--voice", "slt")), ("rms", ("--voice", "rms"))):
        result = vocalnet(*command, "-o", name, *more)
        assert result.code == 0 and "no --voice" not in result.err, result.err
    np.testing.assert_array_equal(answer_sound("usual"), answer_sound("slt"))
    assert np.abs(answer_sound("usual") - answer_sound("rms")).max() > 1e-4
    for wrong in ("rmz", "me.wav"):
        result = vocalnet(*command, "--voice", wrong)
        assert result.code == 2 and len(result.err.strip().splitlines()) == 2, result.err
        assert wrong in result.err and "slt, rms" in result.err and ("Nearest: rms" in result.err) == (wrong == "rmz")


def test_a_released_vocoder_can_know_voices_too(vocalnet, model, vocoder):
    """By name, beside recordings; the first speaks where none is asked for, unless the folder has a voice.wav."""
    folder = copied(vocoder)
    mine = voice_module.make_voice("me.wav", vocoder)
    VoiceTable({"linda": mine, "else": replace(mine, speaker=-mine.speaker)}).save(folder)
    command = ("infer", "q.wav", "--model", model, "--vocoder", folder, "--json", *FAST)
    for name, more in (("usual", ()), ("linda", ("--voice", "linda")), ("me", ("--voice", "me.wav")), ("else", ("--voice", "else"))):
        result = vocalnet(*command, "-o", name, *more)
        assert result.code == 0 and "note: no --voice" not in result.err, result.err
    for same in ("linda", "me"):
        np.testing.assert_array_equal(answer_sound("usual"), answer_sound(same))
    assert np.abs(answer_sound("usual") - answer_sound("else")).max() > 1e-3
    assert vocalnet(*command, "--voice", "gone.wav").code == 1  # a file is meant, and told as one
    soundfile.write(folder / "voice.wav", tone(1.0, hz=170.0, rate=24000), 24000)
    assert vocalnet(*command, "-o", "own").code == 0
    assert np.abs(answer_sound("usual") - answer_sound("own")).max() > 1e-3


def test_a_damaged_table_of_voices_is_told(vocalnet, model, vocoder):
    folder = copied(vocoder)
    VoiceTable({"linda": voice_module.make_voice("me.wav", vocoder)}).save(folder)
    path = folder / "voices.safetensors"
    whole = path.read_bytes()
    for damage in (
        b"",
        whole[:20],
        whole[:-50],
        whole.replace(b"vocalnet-voices-1", b"vocalnet-voices-9"),
        whole.replace(b"linda.mel", b"lindo.mel"),
    ):
        path.write_bytes(damage)
        result = vocalnet("infer", "q.wav", "--model", model, "--vocoder", folder, "--voice", "linda", *FAST)
        assert result.code == 1 and len(result.err.strip().splitlines()) == 2, result.err
        assert "voices.safetensors" in result.err
