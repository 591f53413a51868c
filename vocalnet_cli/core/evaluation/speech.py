"""How the answers of a measurement sound: naturalness, loudness, rate and voice of each, from the sound that was kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vocalnet_cli.core.audio.loudness import loudness
from vocalnet_cli.core.audio.wav import read_audio, resample
from vocalnet_cli.core.errors import AudioError, VocalnetError
from vocalnet_cli.core.evaluation.dnsmos import Dnsmos
from vocalnet_cli.core.evaluation.measures import MEASURES, RATES
from vocalnet_cli.core.evaluation.results import QuestionResult, Run, file_sha256, write_run
from vocalnet_cli.core.evaluation.score import interval
from vocalnet_cli.core.evaluation.utmos import MODEL, Utmos
from vocalnet_cli.core.evaluation.wer import words_of
from vocalnet_cli.core.model.voice.load import SPEAKER_ENCODER, load_speaker_encoder, model_file
from vocalnet_cli.core.model.voice.voice import read_voice, speaker_vector
from vocalnet_cli.core.units import ANSWER_HZ, QUESTION_HZ

_SHORTEST_S = 0.1
"""Less sound than this is no speech to score."""
_DIGITS = 3


@dataclass(frozen=True)
class Ears:
    """Who listens; None is not asked."""

    dnsmos: Dnsmos | None = None
    utmos: Utmos | None = None
    voice: Callable[[np.ndarray], float] | None = None
    """Similarity of sound [n] at 24 kHz to a voice, -1 to 1."""
    told: tuple[tuple[str, str], ...] = ()
    """What scored each measure, for the report: (measure, model and hash)."""


def ears(dnsmos: Path | None = None, utmos: Path | None = None, speaker: Path | None = None, voice: Path | None = None) -> Ears:
    """Listeners by their files: DNSMOS folder, SpeechMOS clone, and a folder with CAM++ and a recording of the voice to compare with.

    Raises MissingWeights, AudioError or VocalnetError for what cannot be used, before anything is measured.
    """
    if (speaker is None) != (voice is None):
        raise VocalnetError("voice similarity needs a speaker model and a recording", "Give both: --speaker DIR --voice FILE.")
    told = [("lufs", "ITU-R BS.1770-4"), ("words_per_s", "words of the answer's text over its seconds")]
    if dnsmos is not None:
        told.append(("dnsmos", f"DNSMOS P.835, overall, {_hashes(dnsmos, '*.onnx')}"))
    if utmos is not None:
        told.append(("utmos", f"{MODEL} of SpeechMOS"))
    similar = None
    if speaker is not None and voice is not None:
        similar = _similar(model_file(speaker, SPEAKER_ENCODER), voice)
        told.append(("similarity", f"cosine of CAM++ vectors, voice {file_sha256(voice)[:12]}"))
    by_dnsmos = Dnsmos(dnsmos) if dnsmos is not None else None
    return Ears(by_dnsmos, Utmos(utmos) if utmos is not None else None, similar, tuple(told))


def _hashes(folder: Path, pattern: str) -> str:
    return ", ".join(f"{path.name} {file_sha256(path)[:12]}" for path in sorted(folder.glob(pattern)))


def _similar(file: Path, voice: Path) -> Callable[[np.ndarray], float]:
    encoder = load_speaker_encoder(file)
    wanted = speaker_vector(encoder, read_voice(voice))

    def similarity(sound: np.ndarray) -> float:
        own = speaker_vector(encoder, resample(sound, ANSWER_HZ, QUESTION_HZ))
        return float(torch.nn.functional.cosine_similarity(own, wanted, dim=0))

    return similarity


def measure_answer(row: QuestionResult, sound: np.ndarray, listeners: Ears) -> dict[str, float]:
    """Every number of MEASURES that can be told of one answer, given its sound [n] at 24 kHz."""
    seconds = len(sound) / ANSWER_HZ
    if seconds < _SHORTEST_S:
        return {}
    found = {"words_per_s": len(words_of(row.text)) / seconds}
    loud = loudness(sound, ANSWER_HZ)
    if loud is not None:
        found["lufs"] = loud
    if listeners.dnsmos is not None:
        found["dnsmos"] = listeners.dnsmos.score(sound, ANSWER_HZ)["ovr"]
    if listeners.utmos is not None:
        found["utmos"] = listeners.utmos.score(sound, ANSWER_HZ)
    if listeners.voice is not None:
        found["similarity"] = listeners.voice(sound)
    return {name: round(value, _DIGITS) for name, value in found.items()}


def measure_run(run: Run, listeners: Ears, advance: Callable[[str, int, int], None] = lambda name, done, total: None) -> Run:
    """The run with its answers' sound measured, written back to its folder. What else was measured before stays.

    Raises VocalnetError if no answer has sound, or a sound file is not the one the run was written with.
    """
    questions: dict[str, list[QuestionResult]] = {}
    scores: dict[str, dict[str, Any]] = {}
    for name, rows in run.questions.items():
        measured = []
        for row in rows:
            measured.append(row if row.audio is None else _measured(run, row, listeners))
            advance(name, len(measured), len(rows))
        questions[name] = measured
        scores[name] = {**run.report.benchmarks[name], **_summed_up(measured, run.report.benchmarks[name])}
    if not any(row.audio for rows in questions.values() for row in rows):
        raise VocalnetError(f"{run.folder}: no answer has sound", "Measure again with `vocalnet eval -o DIR`, which keeps it.")
    before = (run.report.model_extra or {}).get("measured_by", {})
    told = {"benchmarks": scores, "measured_by": {**before, **dict(listeners.told)}}
    report = run.report.model_copy(update=told)
    write_run(run.folder, report, questions)
    return Run(run.folder, report, questions)


def _measured(run: Run, row: QuestionResult, listeners: Ears) -> QuestionResult:
    path = run.sound(str(row.audio))
    if "audio" in row.hashes and path.is_file() and file_sha256(path) != row.hashes["audio"]:
        raise AudioError(f"{path}: not the sound that was judged (its hash differs)", "Measure the answers again.")
    found = measure_answer(row, read_audio(path, ANSWER_HZ), listeners)
    return row.model_copy(update={"measures": {**row.measures, **found}})


def _summed_up(rows: Sequence[QuestionResult], before: dict[str, Any]) -> dict[str, Any]:
    """Means of the measures and their 95 % intervals, beside the intervals there are."""
    found: dict[str, Any] = {}
    intervals = dict(before.get("ci", {}))
    for name in MEASURES:
        values = [row.measures[name] for row in rows if name in row.measures]
        if values:
            found[name] = round(float(np.mean(values)), _DIGITS)
            intervals[name] = [round(bound / 100, _DIGITS) for bound in interval(values, [1.0] * len(values))]
    return {**found, "ci": intervals} if found else {}


def table(benchmarks: dict[str, dict[str, Any]]) -> tuple[list[str], list[list[object]]]:
    """Columns and a row a benchmark, for the measures that were taken."""
    known = {**RATES, **MEASURES}
    there = [name for name in known if any(name in one for one in benchmarks.values())]
    rows: list[list[object]] = []
    for name, one in benchmarks.items():
        rows.append([name, one.get("n", "-"), *(_with_interval(one, key) for key in there)])
    return ["benchmark", "n", *(known[name] for name in there)], rows


def _with_interval(scores: dict[str, Any], key: str) -> str:
    bounds = scores.get("ci", {}).get(key)
    told = f" ({bounds[0]:.2f} to {bounds[1]:.2f})" if bounds else ""
    return f"{scores[key]:.2f}{told}" if key in scores else "-"
