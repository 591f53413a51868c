"""The embedded model through the real command: it answers its own question and a person, aloud, while it still writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from vocalnet_cli.core.audio.wav import read_question
from vocalnet_cli.core.config.places import embedded_folder, nano_folder
from vocalnet_cli.core.evaluation.wer import Recogniser, known_words, word_errors
from vocalnet_cli.core.generation.events import AudioChunk, TextDelta
from vocalnet_cli.core.generation.load import carried_question, generation_settings, load_speaker
from vocalnet_cli.core.generation.streaming import answer

HUMAN = Path(__file__).parents[1] / "assets" / "human.wav"


def test_without_argument_it_answers_the_question_it_carries(vocalnet: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = vocalnet("infer", "--device", "cpu")
    assert result.code == 0, result.err
    assert "berlin" in result.out.lower()  # it is asked for the capital of Germany
    samples, rate = soundfile.read(tmp_path / "answers" / "question.wav")
    assert rate == 24_000 and samples.ndim == 1
    assert 0.5 < len(samples) / rate < 6 and np.abs(samples).max() > 0.05


def test_a_terminal_shows_the_answer_and_no_warnings(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "vocalnet_cli", "infer", str(HUMAN), "-o", str(tmp_path), "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stdout.startswith("You said ")
    assert "warn" not in done.stderr.lower(), done.stderr


def test_a_person_never_trained_on_is_heard(vocalnet: Callable, tmp_path: Path) -> None:
    result = vocalnet("infer", HUMAN, "-o", tmp_path, "--json", "--device", "cpu")
    told = json.loads(result.out)
    assert result.code == 0 and told["text"].startswith("You said ") and told["audio_s"] > 0.3
    assert set(told["timings_ms"]) == {"encoder", "thinker", "talker", "vocoder", "first_audio", "total"}


def test_it_speaks_before_it_has_written_the_last_word() -> None:
    import torch

    model = load_speaker(nano_folder(), torch.device("cpu"), torch.float32)
    events = list(answer(model, read_question(carried_question(), 60), generation_settings(nano_folder())))
    kinds = [type(event) for event in events]
    assert kinds.index(AudioChunk) < max(i for i, kind in enumerate(kinds) if kind is TextDelta)


@pytest.mark.parametrize("steps", ["1", "4", "auto"])
def test_the_masked_diffusion_talker_says_what_the_thinker_writes(vocalnet: Callable, tmp_path: Path, steps: str) -> None:
    result = vocalnet("infer", "--model", "nano-mdm", "--steps", steps, carried_question(), "-o", tmp_path, "--json", "--device", "cpu")
    assert result.code == 0, result.err
    told = json.loads(result.out)
    assert told["text"] == "The capital of Germany is Berlin." and 1 < told["audio_s"] < 4
    samples, rate = soundfile.read(tmp_path / "question.wav", dtype="float32")
    errors = word_errors(told["text"], Recogniser(known_words()).hear(samples, rate))
    assert errors.total <= 2, errors  # of six words; a talker of the same size that knows nothing gets all wrong


def test_the_weights_stay_small() -> None:
    assert sum(path.stat().st_size for path in embedded_folder("nano-mdm").glob("*.safetensors")) <= 10e6
    assert sum(path.stat().st_size for path in nano_folder().glob("*.safetensors")) <= 40e6
    assert sum(os.path.getsize(path) for path in (nano_folder() / "eval").rglob("*.opus")) <= 6e6
