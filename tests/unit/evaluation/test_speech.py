"""What is told of the sound of answers, and that it goes back to where the answers lie."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import soundfile
from safetensors.torch import load_file

from tests.runs import question, write_results
from vocalnet_cli.core.audio.wav import write_wav
from vocalnet_cli.core.errors import AudioError, MissingWeights, VocalnetError
from vocalnet_cli.core.evaluation.results import read_run
from vocalnet_cli.core.evaluation.speech import ears, measure_run, table
from vocalnet_cli.core.units import ANSWER_HZ

HUBCONF = """
import torch

def utmos22_strong():
    return lambda sound, rate: 1 + sound.shape[1] / rate + torch.zeros(len(sound))
"""
"""A clone whose model gives 1 and the seconds."""


@pytest.fixture
def results(tmp_path):
    folder = tmp_path / "results"
    rows = [question(folder, number, seconds=0.5 * (number + 1)) for number in range(3)]
    rows.append(question(folder, 3, audio=None, text="", heard=None))
    return write_results(folder, {"digits": {"n": 4, "wer": 25.0, "ci": {"wer": [20.0, 30.0]}}}, {"digits": rows})


@pytest.fixture
def clone(tmp_path):
    folder = tmp_path / "SpeechMOS"
    folder.mkdir()
    (folder / "hubconf.py").write_text(HUBCONF)
    return folder


def test_measures_are_told_an_answer_and_a_set(results, clone):
    run = measure_run(read_run(results), ears(utmos=clone))
    again = read_run(results)
    assert again == run
    first, *_, mute = again.questions["digits"]
    assert first.measures["words_per_s"] == pytest.approx(5 / 0.5) and mute.measures == {}
    assert first.measures["utmos"] == pytest.approx(1.5) and -25 < first.measures["lufs"] < -5
    scores = again.report.benchmarks["digits"]
    assert scores["utmos"] == pytest.approx(1 + (0.5 + 1.0 + 1.5) / 3, abs=1e-3)
    low, high = scores["ci"]["utmos"]
    assert 1.5 <= low < scores["utmos"] < high <= 2.5 and scores["ci"]["wer"] == [20.0, 30.0] and scores["wer"] == 25.0
    assert again.report.model_extra["measured_by"]["utmos"] == "utmos22_strong of SpeechMOS"
    columns, rows = table(again.report.benchmarks)
    assert columns == ["benchmark", "n", "WER %", "UTMOS", "LUFS", "words/s"]
    assert rows[0][2] == "25.00 (20.00 to 30.00)"
    assert rows[0][3].startswith("2.00 (")


def test_what_was_measured_before_stays(results, clone):
    measure_run(read_run(results), ears(utmos=clone))
    measure_run(read_run(results), ears())
    assert "utmos" in read_run(results).report.benchmarks["digits"]


def test_a_voice_is_likest_itself(results, fixtures_dir, tmp_path):
    models = tmp_path / "cosyvoice2"
    models.mkdir()
    shutil.copy(fixtures_dir / "cosyvoice2" / "campplus_tiny_weights.safetensors", models / "campplus.safetensors")
    spoken = load_file(fixtures_dir / "cosyvoice2" / "features.safetensors")["prompt.wav24k"].numpy()
    voice = tmp_path / "voice.wav"
    soundfile.write(voice, spoken, ANSWER_HZ, subtype="FLOAT")
    write_wav(results / "audio/a0.wav", spoken, ANSWER_HZ)
    run = read_run(results)
    rows = [row.model_copy(update={"hashes": {}}) for row in run.questions["digits"]]
    run.questions["digits"][:] = rows
    found = [row.measures.get("similarity") for row in measure_run(run, ears(speaker=models, voice=voice)).questions["digits"]]
    assert found[0] > 0.9 and found[0] > max(found[1:3]) and found[3] is None


@pytest.mark.parametrize(
    "listeners, told",
    [
        (lambda folder: ears(dnsmos=folder), "holds no sig_bak_ovr.onnx"),
        (lambda folder: ears(utmos=folder), "holds no hubconf.py"),
        (lambda folder: ears(speaker=folder), "needs a speaker model and a recording"),
        (lambda folder: ears(speaker=folder, voice=folder / "v.wav"), "holds no campplus.onnx"),
    ],
)
def test_what_cannot_listen_is_told_first(tmp_path, listeners, told):
    with pytest.raises((MissingWeights, VocalnetError, AudioError), match=told):
        listeners(tmp_path)


def test_a_clone_that_fails_is_told_with_what_it_needs(clone):
    (clone / "hubconf.py").write_text('dependencies = ["no_such_package"]\n')
    with pytest.raises(VocalnetError, match="no_such_package") as caught:
        ears(utmos=clone)
    assert "vocalnet-cli[utmos]" in caught.value.hint


def test_other_sound_than_was_judged_is_refused(results):
    write_wav(results / "audio/a1.wav", np.zeros(2400, np.float32), ANSWER_HZ)
    with pytest.raises(AudioError, match="a1.wav: not the sound that was judged"):
        measure_run(read_run(results), ears())
