"""What the tests of several commands share."""

from __future__ import annotations

from pathlib import Path

import pytest
import soundfile

from tests.cosyvoice2 import tensors
from tests.tiny import save_tiny, tone
from tests.train_runs import save_corpus
from tests.vocoder_folder import CODES, write_vocoder
from vocalnet_cli.core.audio.wav import write_wav
from vocalnet_cli.core.units import QUESTION_HZ


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a manifest of eight spoken digits, and the working directory of the runs."""
    save_corpus(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def vocoder(tmp_path_factory) -> Path:
    """A CosyVoice2 folder as released, tiny and random."""
    return write_vocoder(tmp_path_factory.mktemp("hub") / "CosyVoice2")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A model without a vocoder, whose talker speaks CosyVoice2's tokens."""
    folder = tmp_path_factory.mktemp("models") / "mute"
    return save_tiny(folder, codes=CODES, max_text_tokens=11, max_speech_tokens=40, tokens_per_step=2)


@pytest.fixture
def sounds(tmp_path, monkeypatch):
    """An empty working folder with two questions, `q.wav` and `r.wav`, and recordings of two voices, `me.wav` and `you.wav`."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.delenv("VOCALNET_CACHE", raising=False)
    write_wav(Path("q.wav"), tone(0.5), QUESTION_HZ)
    write_wav(Path("r.wav"), tone(0.9, hz=220.0), QUESTION_HZ)
    soundfile.write("me.wav", tensors("features")["prompt.wav24k"].numpy(), 24000)
    soundfile.write("you.wav", tone(1.0, hz=170.0, rate=24000), 24000)
