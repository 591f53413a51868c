"""Results of a measurement as `vocalnet eval -o` leaves them, written without a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vocalnet_cli.core.audio.wav import write_wav
from vocalnet_cli.core.evaluation.results import Judging, QuestionResult, RunReport, Verdict, file_sha256, write_run
from vocalnet_cli.core.units import ANSWER_HZ, QUESTION_HZ

RULE = Judging(judge="rule", rule="the reference is said")


def hum(seconds: float, rate: int) -> np.ndarray:
    """A quiet tone, mono float32."""
    return (0.3 * np.sin(2 * np.pi * 300 * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def question(folder: Path, number: int, right: Sequence[float] = (1, 0), seconds: float = 0.5, **more: Any) -> QuestionResult:
    """A question with its recorded question and answer below the folder."""
    audio, asked = f"audio/a{number}.wav", f"audio/q{number}.wav"
    (folder / "audio").mkdir(parents=True, exist_ok=True)
    write_wav(folder / audio, hum(seconds, ANSWER_HZ), ANSWER_HZ)
    write_wav(folder / asked, hum(0.3, QUESTION_HZ), QUESTION_HZ)
    told = dict(
        id=f"q{number}",
        question=f"What is {number} plus one?",
        references=[str(number + 1)],
        text=f"{number} plus one is {number + 1}.",
        heard=f"{number} plus one is",
        question_audio=asked,
        audio=audio,
        audio_s=seconds,
        verdicts={"s2t": Verdict(value=right[0]), "s2s": Verdict(value=right[1])},
        hashes={"audio": file_sha256(folder / audio), "question_audio": file_sha256(folder / asked)},
    )
    return QuestionResult(**{**told, **more})


def write_results(
    folder: Path, benchmarks: Mapping[str, Mapping[str, Any]], questions: Mapping[str, Sequence[QuestionResult]] | None = None, **more: Any
) -> Path:
    """A folder of results with the scores given; each set is judged by the rule unless `judging` says otherwise."""
    told = dict(
        model="nano",
        weights_sha256="ab" * 32,
        benchmarks={name: dict(scores) for name, scores in benchmarks.items()},
        manifests={name: "cd" * 32 for name in benchmarks},
        judge="rule",
        judging={name: RULE for name in benchmarks},
        recogniser="pocketsphinx 5.1.1",
        normaliser="lower case",
        versions={"vocalnet": "0.1.0"},
        date="2026-01-02T03:04:05+00:00",
    )
    report = RunReport(**{**told, **more})
    write_run(folder, report, {name: list((questions or {}).get(name, [])) for name in benchmarks})
    return folder
