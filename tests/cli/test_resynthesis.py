"""`vocalnet eval --resynthesis`: recorded answers to tokens and back, scored beside the recordings, by every kind of vocoder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import nn

from tests.vocoder_folder import export, write_vocoder
from tests.vocoder_runs import make_corpus, with_named_voices
from vocalnet_cli.core.evaluation import resynthesis
from vocalnet_cli.core.evaluation.dnsmos import Dnsmos
from vocalnet_cli.core.evaluation.resynthesis import jumps
from vocalnet_cli.core.evaluation.wer import Hearing
from vocalnet_cli.core.model.weights import save_model


class OneWord:
    """A recogniser that always hears the same word: right once in six digits."""

    hearing = Hearing("one word", {}, [])

    def __init__(self, words) -> None:
        pass

    def hear(self, samples, rate) -> str:
        return "three"


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(resynthesis, "Recogniser", OneWord)
    make_corpus(tmp_path).rename("digits.jsonl")


class Loudness(nn.Module):
    """Stands for DNSMOS: three numbers of the loudness."""

    def forward(self, sound: torch.Tensor) -> torch.Tensor:
        loud = sound.abs().mean(1, keepdim=True)
        return torch.cat([loud, 2 * loud, 3 * loud], dim=1)


@pytest.fixture(scope="module")
def dnsmos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dnsmos")
    export(Loudness(), (torch.randn(1, 144_160),), ["input_1"], folder / "sig_bak_ovr.onnx", {})
    return folder


@pytest.fixture(scope="module")
def named(tmp_path_factory) -> Path:
    """A folder that holds a vocoder alone, of nano's kind, with two voices."""
    model = with_named_voices()
    folder = tmp_path_factory.mktemp("models") / "named"
    save_model(model, folder, {"vocoder"})
    return folder


COMMAND = ("eval", "--resynthesis", "--benchmark", "digits.jsonl", "--device", "cpu")


def test_a_model_s_vocoder_is_measured(vocalnet, tiny_folder, dnsmos):
    result = vocalnet(*COMMAND, "--model", tiny_folder, "--split", "train", "--dnsmos", dnsmos, "--json", "-o", "out")
    assert result.code == 0, result.err
    told = json.loads(result.out)
    scores = told["benchmarks"]["digits"]
    assert scores["n"] == 6 and scores["failed"] == 0
    assert scores["wer"] == scores["recorded_wer"] == pytest.approx(100 * 5 / 6, abs=0.01)
    assert scores["rtf"] > 0 and scores["streamed_minus_whole"] < 1e-5
    assert scores["dnsmos"] != scores["recorded_dnsmos"] and set(scores["dnsmos_parts"]["dnsmos"]) == {"sig", "bak", "ovr"}
    assert scores["jumps"]["clicks"] <= scores["jumps"]["n"]
    assert json.loads(Path("out/report.json").read_text()) == told
    rows = [json.loads(line) for line in Path("out/digits.jsonl").read_text().splitlines()]
    for row in rows:
        sound, rate = soundfile.read(Path("out/digits") / f"{row['id']}.wav")
        assert rate == 24_000 and len(sound) == 960 * row["tokens"]


def test_rows_are_spoken_in_their_own_voice_or_the_one_asked_for(vocalnet, named):
    sounds = {}
    for name, more in (("own", ()), ("slt", ("--voice", "slt")), ("rms", ("--voice", "rms"))):
        result = vocalnet(*COMMAND, "--model", named, "--split", "voices", "--limit", "1", "-o", name, "--quiet", *more)
        assert result.code == 0, result.err
        (path,) = Path(name, "digits").glob("*.wav")
        sounds[name] = soundfile.read(path)[0]
    np.testing.assert_array_equal(sounds["own"], sounds["rms"])  # a row of the deep voice, with the first voice's tokens
    assert len(sounds["slt"]) == len(sounds["rms"]) and np.abs(sounds["slt"] - sounds["rms"]).max() > 0
    row = json.loads(Path("own/digits.jsonl").read_text())
    assert row["tokens"] == -(-len(soundfile.read("0.wav")[0]) // 960)


def test_a_released_vocoder_needs_no_model(vocalnet, tmp_path):
    folder = write_vocoder(tmp_path / "CosyVoice2")
    result = vocalnet(*COMMAND, "--vocoder", folder, "--limit", "2", "--json")
    assert result.code == 0, result.err
    scores = json.loads(result.out)["benchmarks"]["digits"]
    assert scores["n"] == 2 and "dnsmos" not in scores
    table = vocalnet(*COMMAND, "--vocoder", folder, "--limit", "1")
    assert table.code == 0 and "recordings" in table.out


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--dnsmos", "none"), 1, ["none", "sig_bak_ovr.onnx"]),
        (("--split", "trian"), 2, ["trian", "train"]),
        (("--voice", "rms"), 2, ["rms", "griffin-lim"]),
        (("--vocoder", "none"), 1, ["none"]),
    ],
)
def test_mistakes_end_in_two_lines(vocalnet, tiny_folder, arguments, code, words):
    result = vocalnet(*COMMAND, *(() if "--vocoder" in arguments else ("--model", tiny_folder)), *arguments)
    assert result.code == code and len(result.err.strip().splitlines()) == 2, result.err
    assert all(word in result.err for word in words)


def test_dnsmos_goes_with_resynthesis_only(vocalnet, tiny_folder, dnsmos):
    result = vocalnet("eval", "--model", tiny_folder, "--dnsmos", dnsmos)
    assert result.code == 2 and "--resynthesis" in result.err


def test_a_recording_that_is_gone_is_told_and_counted(vocalnet, tiny_folder):
    Path("3.wav").unlink()
    result = vocalnet(*COMMAND, "--model", tiny_folder, "--split", "train", "--json")
    scores = json.loads(result.out)["benchmarks"]["digits"]
    assert result.code == 1 and (scores["n"], scores["failed"]) == (5, 1) and "3.wav" in result.err


def test_dnsmos_hears_whole_windows_and_maps_what_it_says(dnsmos):
    """A tone of amplitude a has a mean loudness of 2 a / pi, however long it is."""
    scorer = Dnsmos(dnsmos)
    for seconds in (0.5, 9.01, 11.3):
        tone = 0.3 * np.sin(np.arange(int(seconds * 16_000)) * 0.3).astype(np.float32)
        loud = 0.6 / np.pi
        found = scorer.score(tone, 16_000)
        assert found["sig"] == pytest.approx(-0.08397278 * loud**2 + 1.22083953 * loud + 0.0052439, abs=2e-3)
        assert found["bak"] == pytest.approx(-0.13166888 * (2 * loud) ** 2 + 1.60915514 * 2 * loud - 0.39604546, abs=2e-3)
        assert found["ovr"] == pytest.approx(-0.06766283 * (3 * loud) ** 2 + 1.11546468 * 3 * loud + 0.04602535, abs=2e-3)
    assert np.isfinite(list(scorer.score(np.zeros(0, np.float32), 24_000).values())).all()


def test_a_click_is_found_where_chunks_meet():
    tone = 0.3 * np.sin(np.arange(960 * 12) * 0.05).astype(np.float32)
    chunks = [3, 4, 5]
    smooth = jumps(tone, chunks)
    assert len(smooth["borders"]) == 2 and len(smooth["elsewhere"]) == 9 and max(smooth["borders"]) < 1.01
    broken = tone.copy()
    broken[960 * 3 :] += 0.1
    found = jumps(broken, chunks)
    assert found["borders"][0] > 3 and found["borders"][1] < 1.01 and max(found["elsewhere"]) < 1.01
    assert jumps(np.zeros(960 * 12, np.float32), chunks) == {"borders": [], "elsewhere": []}
