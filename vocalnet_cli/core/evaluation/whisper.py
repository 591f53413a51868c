"""Whisper of any size as the recogniser of answers, fresh or saved (the papers: whisper-large-v3), and word errors of what it hears."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vocalnet_cli.core.audio.wav import read_audio, resample
from vocalnet_cli.core.errors import MissingWeights, VocalnetError
from vocalnet_cli.core.evaluation.benchmarks import Benchmark
from vocalnet_cli.core.evaluation.listening import Listener
from vocalnet_cli.core.evaluation.normaliser import english, english_name
from vocalnet_cli.core.evaluation.results import QuestionResult, Run, write_run
from vocalnet_cli.core.evaluation.score import interval, percent
from vocalnet_cli.core.evaluation.wer import Hearing, differences
from vocalnet_cli.core.model import hub
from vocalnet_cli.core.model.folder import sha256_of
from vocalnet_cli.core.units import ANSWER_HZ, QUESTION_HZ

OWNER = "openai"
"""Whose Whisper a name without an owner means."""

_WINDOW_S = 30.0
_HASH = 12


class WhisperEar:
    """A Whisper that listens to all benchmarks, loaded when the first answer is there (`listening.Ear`)."""

    def __init__(self, name: str, device: torch.device, dtype: torch.dtype) -> None:
        """As `Whisper`; what is missing is told here, before any question is asked."""
        english()
        self._folder, self._told = find_whisper(name), (name, device, dtype)
        self._loaded: Whisper | None = None

    def identity(self, benchmark: Benchmark) -> dict[str, Any]:
        _, _, dtype = self._told
        return {
            "whisper_sha256": _weights(self._folder),
            "dtype": str(dtype).removeprefix("torch."),
            "transformers": version("transformers"),
        }

    def recogniser(self, benchmark: Benchmark) -> Whisper:
        if self._loaded is None:
            self._loaded = Whisper(*self._told)
        return self._loaded


class Whisper:
    """A Whisper checkpoint by transformers: English, greedy, windows of 30 s."""

    def __init__(self, name: str, device: torch.device, dtype: torch.dtype) -> None:
        """`name` is a folder, a hub id, or the name of one of OpenAI's (`whisper-small`).

        Raises MissingWeights if it cannot be had, VocalnetError if the folder holds no Whisper or the normaliser is not installed.
        """
        folder = find_whisper(name)
        from transformers import WhisperForConditionalGeneration, WhisperProcessor

        try:
            self._processor: Any = WhisperProcessor.from_pretrained(folder)
            model: Any = WhisperForConditionalGeneration.from_pretrained(folder, dtype=dtype)
            self._model = model.to(device).eval()
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise VocalnetError(
                f"--asr {name}: no Whisper that can be loaded ({reason})", "Name a Whisper of the hub or its folder."
            ) from error
        shown = name if hub.is_hub_id(name) or Path(name).is_dir() else f"{OWNER}/{name}"
        told = f"{shown} ({_weights(folder)[:_HASH]}), greedy, {str(dtype).removeprefix('torch.')}"
        self.hearing = Hearing(told, normaliser=english_name())

    @torch.inference_mode()
    def hear(self, samples: np.ndarray, rate: int) -> str:
        """The text of mono sound [n] at `rate`; empty for no sound."""
        sound = resample(samples, rate, QUESTION_HZ)
        if len(sound) == 0:
            return ""
        long = len(sound) > _WINDOW_S * QUESTION_HZ
        padding = {"truncation": False, "padding": "longest"} if long else {}
        told = self._processor(sound, sampling_rate=QUESTION_HZ, return_tensors="pt", return_attention_mask=True, **padding)
        features = told.input_features.to(self._model.device, self._model.dtype)
        english = {"language": "en", "task": "transcribe"} if getattr(self._model.generation_config, "is_multilingual", False) else {}
        ids = self._model.generate(
            features,
            attention_mask=told.attention_mask.to(self._model.device),
            do_sample=False,
            num_beams=1,
            return_timestamps=long,
            **english,
        )
        return str(self._processor.batch_decode(ids, skip_special_tokens=True)[0]).strip()


@cache
def _weights(folder: Path) -> str:
    """SHA-256 of a checkpoint's weights."""
    return sha256_of(sorted(folder.glob("*.safetensors")))


def find_whisper(name: str) -> Path:
    """Folder of a Whisper: a folder, else of the hub cache, else fetched. Raises MissingWeights."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    known = name if hub.is_hub_id(name) else f"{OWNER}/{name}"
    if not hub.is_hub_id(known):
        raise MissingWeights(f"--asr {name}: no such folder, and no name of the hub", "Name a folder, or a Whisper: whisper-large-v3.")
    return hub.cached(known) or hub.pull(known)


def hear_again(run: Run, recogniser: Listener, advance: Callable[[str, int, int], None] = lambda name, done, total: None) -> Run:
    """The run with every answer heard by another recogniser and its word errors counted anew, written back to its folder.

    What an earlier recogniser led to goes: verdicts on speech (s2s) and on recorded answers, and their rates. `vocalnet eval rescore`
    judges anew. Raises AudioError for sound that cannot be read.
    """
    questions: dict[str, list[QuestionResult]] = {}
    scores: dict[str, dict[str, Any]] = {}
    for name, rows in run.questions.items():
        heard = []
        for row in rows:
            heard.append(_heard_again(run, row, recogniser))
            advance(name, len(heard), len(rows))
        questions[name] = heard
        scores[name] = {**_without_speech(run.report.benchmarks[name]), **word_rates(heard, recogniser, run.report.benchmarks[name])}
    told = {"benchmarks": scores, "recogniser": recogniser.hearing.name, "normaliser": recogniser.hearing.normaliser}
    report = run.report.model_copy(update=told)
    write_run(run.folder, report, questions)
    return Run(run.folder, report, questions)


def _heard_again(run: Run, row: QuestionResult, recogniser: Listener) -> QuestionResult:
    if row.audio is None:
        return row
    heard = recogniser.hear(read_audio(run.sound(row.audio), ANSWER_HZ), ANSWER_HZ)
    verdicts = {side: verdict for side, verdict in row.verdicts.items() if side not in ("s2s", "recorded")}
    return row.model_copy(update={"heard": heard, "recorded": None, "verdicts": verdicts})


def _without_speech(scores: dict[str, Any]) -> dict[str, Any]:
    """Scores without those of what was heard."""
    left = {name: value for name, value in scores.items() if name not in ("wer", "wer_kinds", "recorded_wer", "kinds")}
    for group in ("accuracy", "score", "unjudged", "ci"):
        if group in left:
            left[group] = {name: value for name, value in left[group].items() if name not in ("s2s", "wer")}
    if "baselines" in left:
        left["baselines"] = {name: value for name, value in left["baselines"].items() if name != "recorded"}
    return left


def word_rates(rows: Sequence[QuestionResult], recogniser: Listener, before: dict[str, Any]) -> dict[str, Any]:
    """`wer`, `wer_kinds` (percent, table 10 of arXiv 2504.04060) and its interval, of answers with text and sound.

    Errors and words are summed over the answers of a set.
    """
    words = recogniser.hearing.words
    meant = [(words(row.text), words(row.heard)) for row in rows if row.heard is not None and row.error is None]
    found = [differences(text, heard) for text, heard in meant if text]
    if not found:
        return {}
    counted = [errors.words for errors in found]
    kinds = {"sub": [errors.sub for errors in found], "ins": [errors.ins for errors in found], "del": [errors.dele for errors in found]}
    totals = [errors.total for errors in found]
    intervals = {name: value for name, value in before.get("ci", {}).items() if name not in ("s2s", "wer")}
    return {
        "wer": percent(totals, counted),
        "wer_kinds": {name: percent(counts, counted) for name, counts in kinds.items()},
        "ci": {**intervals, "wer": interval(totals, counted)},
    }
