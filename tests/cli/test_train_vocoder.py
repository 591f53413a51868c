"""Nano's vocoder through `vocalnet train`: from a speech tokenizer to a flow and a HiFT that speak, stopped runs that go on, samples."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file

from tests.vocoder_runs import make_corpus, write_recipe
from vocalnet_cli.core.audio.wav import read_audio
from vocalnet_cli.core.errors import MissingWeights, UsageError
from vocalnet_cli.core.model.part_weights import load_own_vocoder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus, and the runs of all three stages beside it; read only."""
    from vocalnet_cli.cli.app import run_cli

    here = tmp_path_factory.mktemp("vocoder")
    make_corpus(here)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        for stage in ("speech-tokenizer", "hift", "flow"):
            recipe = write_recipe(here, stage)
            assert run_cli(["train", "--recipe", str(recipe), "-o", f"runs/nano/{stage}/", "--device", "cpu", "--quiet"]) == 0
    return here


@pytest.fixture
def corpus(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    return folder


def lines(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_the_last_stage_makes_a_vocoder_that_speaks(corpus: Path) -> None:
    vocoder = load_own_vocoder(corpus / "runs/nano/flow/model")
    tokens = vocoder.tokenizer.encode(read_audio(corpus / "1.wav", 24_000))
    assert len(tokens) > 5 and int(tokens.max()) < 16
    sound = vocoder.push(vocoder.begin(), tokens, True)
    assert len(sound) == 960 * len(tokens) and np.abs(sound).max() > 1e-4
    first = load_file(corpus / "runs/nano/speech-tokenizer/model/vocoder.safetensors")
    for name, tensor in vocoder.tokenizer.state_dict().items():
        assert tensor.equal(first[f"tokenizer.{name}"]), name  # the tokens a talker learned are the same


def test_its_tokenizer_makes_a_manifests_tokens(corpus: Path, vocalnet: Callable) -> None:
    model = corpus / "runs/nano/flow/model"
    result = vocalnet(
        "prep",
        "tokens",
        corpus / "manifest.jsonl",
        "-o",
        corpus / "tokens",
        "--tokenizer",
        model,
        "--workers",
        1,
        "--device",
        "cpu",
        "--quiet",
    )
    assert result.code == 0, result.err
    rows = {row["id"]: row["speech_tokens"] for row in map(json.loads, (corpus / "tokens/manifest.jsonl").read_text().splitlines())}
    assert rows["one"] == load_own_vocoder(model).tokenizer.encode(read_audio(corpus / "1.wav", 24_000)).tolist()


def test_voices_go_by_name_and_the_first_is_usual(corpus: Path) -> None:
    vocoder = load_own_vocoder(corpus / "runs/nano/flow/model")
    assert vocoder.voices is not None and vocoder.voices.names == ("slt", "rms")  # the most frequent first
    tokens = torch.arange(12) % 16
    said = {name: vocoder.push(vocoder.begin(vocoder.voices[name]), tokens, True) for name in vocoder.voices.names}
    np.testing.assert_array_equal(vocoder.push(vocoder.begin(), tokens, True), said["slt"])
    assert np.abs(said["slt"] - said["rms"]).max() > 1e-4
    with pytest.raises(UsageError) as caught:
        vocoder.voices["rmz"]
    assert "rmz" in caught.value.problem and "Nearest: rms" in caught.value.problem and "slt, rms" in caught.value.hint


def test_an_unfinished_vocoder_is_told(corpus: Path) -> None:
    with pytest.raises(MissingWeights, match="holds no flow"):
        load_own_vocoder(corpus / "runs/nano/hift/model")


@pytest.mark.parametrize("stage", ["flow", "hift"])
def test_samples_are_heard_and_seen(corpus: Path, stage: str) -> None:
    samples = corpus / "runs/nano" / stage / "samples"
    assert {path.name[:6] for path in samples.iterdir()} == {"000002", "000004"}
    for path in samples.glob("*.wav"):
        sound, rate = soundfile.read(path)
        assert rate == 24_000 and len(sound) > 4800 and np.abs(sound).max() > 0
        assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert not list(samples.glob(".*"))


@pytest.mark.parametrize("stage", ["flow", "hift"])
def test_a_run_that_goes_on_ends_like_a_straight_one(corpus: Path, vocalnet: Callable, stage: str) -> None:
    """The run lost everything after step 2, as a kill leaves it; HiFT's judges have begun by then."""
    straight, stopped = corpus / f"runs/nano/{stage}", corpus / f"again-{stage}"
    shutil.copytree(straight, stopped)
    shutil.rmtree(stopped / "checkpoints/checkpoint-4")
    shutil.rmtree(stopped / "model")
    shutil.rmtree(stopped / "samples")
    result = vocalnet("train", "--recipe", corpus / f"{stage}.yaml", "-o", stopped, "--resume", "--device", "cpu", "--quiet")
    assert result.code == 0, result.err
    for name in ("model/vocoder", *(["model/voices"] if stage == "flow" else []), "checkpoints/checkpoint-4/model"):
        ours, theirs = (load_file(run / f"{name}.safetensors") for run in (straight, stopped))
        assert ours.keys() == theirs.keys() and all(ours[key].equal(theirs[key]) for key in ours), name
    told = [
        [(line["step"], line.get("loss"), line.get("dev_loss"), line.get("terms")) for line in lines(run)] for run in (straight, stopped)
    ]
    assert told[0] == told[1]
    if stage == "hift":
        terms = [line["terms"] for line in lines(straight) if "terms" in line]
        assert "judging" not in terms[0] and {"judging", "adversarial", "features"} <= terms[-1].keys()
        assert any(key.startswith("judges.") for key in load_file(straight / "checkpoints/checkpoint-4/model.safetensors"))
    for path in (straight / "samples").glob("*000004*.wav"):
        np.testing.assert_array_equal(read_audio(path), read_audio(stopped / "samples" / path.name))


@pytest.mark.parametrize(("stage", "steps", "most"), [("flow", 50, 0.6), ("hift", 30, 0.75)])
def test_two_recordings_are_learned_by_heart(corpus: Path, vocalnet: Callable, stage: str, steps: int, most: float) -> None:
    rows = (corpus / "manifest.jsonl").read_text().splitlines(keepends=True)
    (corpus / "few.jsonl").write_text(rows[0] + rows[2])
    (corpus / stage).mkdir()
    data = {"manifest": "few.jsonl", "train_splits": ["train"], "dev_splits": ["train"]}
    train = {"steps": steps, "lr": 3e-3, "schedule": "constant", "warmup": 0.0, "save_every": steps, "eval_every": steps}
    path = write_recipe(corpus / stage, stage, train, data)
    losses = []
    for run, more in (("start", ["--set", "train.steps=1", "--set", "train.lr=1e-9", "--set", "train.eval_every=1"]), ("end", [])):
        result = vocalnet("train", "--recipe", path, "-o", corpus / stage / run, "--device", "cpu", "--quiet", *more)
        assert result.code == 0, result.err
        losses += [line["dev_loss"] for line in lines(corpus / stage / run) if "dev_loss" in line]
    assert losses[1] < most * losses[0]


@pytest.mark.parametrize(
    ("stage", "override", "words"),
    [
        ("flow", "init.speech-tokenizer=runs/nano/none/model", ["nano/none", "vocalnet train"]),
        ("flow", "model.vocoder.tokenizer.hidden=24", ["does not fit"]),
        ("flow", "init.hift=runs/nano/speech-tokenizer/model", ["holds no hift", "init.hift"]),
        ("hift", "data.max_answer_s=0.01", ["0.01", "max_answer_s"]),
        ("flow", "data.recordings=nowhere", ["nowhere"]),
        ("speech-tokenizer", "model.vocoder.kind=cosyvoice2", ["cosyvoice2", "no speech-tokenizer"]),
    ],
)
def test_mistakes_end_in_two_lines(corpus: Path, vocalnet: Callable, stage: str, override: str, words: list[str]) -> None:
    write_recipe(corpus, stage)
    result = vocalnet("train", "--recipe", corpus / f"{stage}.yaml", "--set", override, "-o", corpus / "wrong", "--device", "cpu")
    assert result.code == 1
    assert len(result.err.strip().splitlines()) == 2, result.err
    assert all(word in result.err for word in words), result.err


def test_a_dry_run_counts_what_learns(corpus: Path, vocalnet: Callable) -> None:
    told = json.loads(vocalnet("train", "--recipe", "nano/flow", "--dry-run", "--json").out)
    assert told["trainable"] < told["total"] < 16e6  # the whole vocoder in 16 MB of 8 bits, and no LLM beside it
