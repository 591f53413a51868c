"""The embedded model's voices through the real command: each is understood, each sounds like itself, and no chunk's border clicks."""

from __future__ import annotations

import contextlib
import io
import json

import numpy as np
import pytest
import torch
from torch import Tensor

from vocalnet_cli.core.audio.pitch import pitch
from vocalnet_cli.core.audio.wav import read_audio
from vocalnet_cli.core.config.places import nano_folder
from vocalnet_cli.core.evaluation.benchmarks import Benchmark, load_benchmark
from vocalnet_cli.core.evaluation.resynthesis import jumps
from vocalnet_cli.core.evaluation.wer import Recogniser, word_errors
from vocalnet_cli.core.generation.load import plan_answers
from vocalnet_cli.core.model.part_weights import load_own_vocoder
from vocalnet_cli.core.model.vocoder import Vocoder
from vocalnet_cli.core.units import ANSWER_HZ

VOICES = ("slt", "rms", "awb")
ASKED = 16
"""Questions each voice answers."""
UNDERSTOOD = 50.0
"""Percent of word errors below which speech is understood; a voice that only mumbles has 80 and more."""
DIFFERENT_HZ = 30.0
"""slt's pitch is about 170 Hz, that of rms 100, of awb 115 (medians of the packaged questions)."""


@pytest.fixture(scope="module")
def benchmark() -> Benchmark:
    return load_benchmark("nano-combination")


@pytest.fixture(scope="module")
def answers(benchmark: Benchmark, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[tuple[str, np.ndarray]]]:
    """What the model writes and says to the first questions, by voice; `usual` is the one nobody asked for."""
    from vocalnet_cli.cli.app import run_cli

    questions = [str(benchmark.sound(str(record.question.audio))) for record in benchmark.records[:ASKED]]
    told: dict[str, list[tuple[str, np.ndarray]]] = {}
    for voice in ("usual", *VOICES):
        more = [] if voice == "usual" else ["--voice", voice]
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            code = run_cli(["infer", *questions, "-o", str(tmp_path_factory.mktemp(voice)), "--device", "cpu", "--json", *more])
        assert code == 0
        rows = [json.loads(line) for line in out.getvalue().splitlines()]
        told[voice] = [(row["text"], read_audio(row["audio"], ANSWER_HZ)) for row in rows]
    return told


def hz(sounds: list[np.ndarray]) -> float:
    """Median pitch of what is voiced."""
    found = torch.cat([pitch(sound) for sound in sounds])
    return float(found[found > 0].median())


def test_the_usual_voice_is_the_first_that_is_known(answers: dict) -> None:
    for (_, usual), (_, slt) in zip(answers["usual"], answers["slt"], strict=True):
        np.testing.assert_array_equal(usual, slt)


@pytest.mark.parametrize("voice", VOICES)
def test_every_voice_is_understood(benchmark: Benchmark, answers: dict, voice: str) -> None:
    pytest.importorskip("pocketsphinx")
    recogniser = Recogniser(benchmark.words)
    errors = [word_errors(text, recogniser.hear(sound, ANSWER_HZ), recogniser.hearing.alike) for text, sound in answers[voice]]
    assert 100 * sum(one.total for one in errors) < UNDERSTOOD * sum(one.words for one in errors)


def test_voices_are_told_apart_by_their_pitch(benchmark: Benchmark, answers: dict) -> None:
    """An answer's pitch is nearest to that of the questions its own voice was recorded with; rms and awb are nearly the same there."""
    recorded = {}
    for voice in ("slt", "rms"):
        paths = [benchmark.sound(str(record.question.audio)) for record in benchmark.records if record.question.voice == f"flite:{voice}"]
        recorded[voice] = hz([read_audio(path, ANSWER_HZ) for path in paths[:ASKED]])
    said = {voice: hz([sound for _, sound in answers[voice]]) for voice in VOICES}
    assert said["slt"] - said["rms"] > DIFFERENT_HZ and said["slt"] - said["awb"] > DIFFERENT_HZ, said
    for voice in ("slt", "rms"):
        assert min(recorded, key=lambda one: abs(np.log(recorded[one] / said[voice]))) == voice, (said, recorded)
    first = zip(answers["rms"], answers["awb"], strict=True)
    assert all(np.abs(rms - awb).max() > 0.01 for (_, rms), (_, awb) in first)


@pytest.fixture(scope="module")
def spoken(benchmark: Benchmark) -> tuple[Vocoder, list[Tensor]]:
    """The embedded vocoder, and the speech tokens of recorded answers."""
    vocoder = load_own_vocoder(nano_folder())
    recorded = [benchmark.sound(str(record.answer.audio)) for record in benchmark.records[:ASKED]]
    return vocoder, [vocoder.tokenizer.encode(read_audio(path, ANSWER_HZ)) for path in recorded]


def test_no_click_where_chunks_meet(spoken: tuple[Vocoder, list[Tensor]]) -> None:
    """Sound steps no further there than where tokens meet within a chunk, and stays near what waiting for every frame gives."""
    vocoder, answers = spoken
    patient = load_own_vocoder(nano_folder(), plan_answers(nano_folder(), ["vocoder.lookahead_frames=null"]).vocoder)
    borders, elsewhere = [], []
    for tokens in answers:
        state, pieces = vocoder.begin(), []
        for at, token in enumerate(tokens):
            pieces.append(vocoder.push(state, token[None], at + 1 == len(tokens)))
        sound = np.concatenate(pieces)
        found = jumps(sound, vocoder.chunks(len(tokens)))
        borders, elsewhere = borders + found["borders"], elsewhere + found["elsewhere"]
        whole = patient.push(patient.begin(), tokens, True)
        assert np.abs(sound - whole).max() < 0.1 * np.abs(whole).max()
    assert len(borders) >= ASKED and np.mean(borders) < 1.25 * np.mean(elsewhere) and max(borders) <= max(elsewhere)
