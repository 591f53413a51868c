"""What a vocoder loses: recorded answers to speech tokens and back to sound, heard again and scored beside the recordings."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vocalnet_cli.core.audio.wav import read_audio, write_wav
from vocalnet_cli.core.config.schema import GenerationSettings
from vocalnet_cli.core.data.record import PARALLEL, Record, write_text_atomically
from vocalnet_cli.core.errors import AudioError, MissingWeights, UsageError, VocalnetError
from vocalnet_cli.core.evaluation.benchmarks import Benchmark
from vocalnet_cli.core.evaluation.dnsmos import Dnsmos
from vocalnet_cli.core.evaluation.score import interval, percent
from vocalnet_cli.core.evaluation.wer import NORMALISER, Recogniser, word_errors, words_of
from vocalnet_cli.core.generation.load import Plan, plan_answers
from vocalnet_cli.core.generation.vocoder import NAME_A_VOCODER, find_vocoder, find_voice, load_vocoder
from vocalnet_cli.core.model.device import pick_device
from vocalnet_cli.core.model.part_weights import load_own_vocoder
from vocalnet_cli.core.model.vocoder import Vocoder, Voice
from vocalnet_cli.core.model.vocoder.cosyvoice2.checkpoint import read_settings
from vocalnet_cli.core.model.vocoder.voices import voice_name
from vocalnet_cli.core.model.voice.load import S3_TOKENIZER, load_s3_tokenizer, model_file
from vocalnet_cli.core.model.voice.voice import s3_tokens
from vocalnet_cli.core.units import ANSWER_HZ, QUESTION_HZ, SAMPLES_PER_TOKEN

COLUMNS = ("benchmark", "n", "WER %", "recordings %", "DNSMOS", "recordings", "real-time factor", "jump at borders", "elsewhere")

_NEAR = ANSWER_HZ // 100
"""Samples around a border (10 ms) whose largest step the border's is measured by."""
_QUIET = 1e-3


@dataclass
class Resynthesis:
    """What became of one recorded answer."""

    id: str
    expected: str
    heard: str = ""
    recorded: str = ""
    """What the recogniser hears in the recording."""
    tokens: int = 0
    seconds: float = 0.0
    """Time the vocoder took, the answer pushed as it would come from a talker."""
    dnsmos: dict[str, float] = field(default_factory=dict)
    recorded_dnsmos: dict[str, float] = field(default_factory=dict)
    streamed_minus_whole: float = 0.0
    """Largest difference of a sample from the answer pushed at once."""
    jumps: dict[str, list[float]] = field(default_factory=dict)
    """See `jumps`."""
    error: str | None = None


def jumps(sound: np.ndarray, chunks: Sequence[int]) -> dict[str, list[float]]:
    """Steps of the sound [960 T] where a chunk follows another (`borders`) and where a token follows within one (`elsewhere`).

    Each as the largest step of the three samples there over the largest within 10 ms around: a click is above 1. Silence is left out.
    """
    ends = set(np.cumsum(chunks)[:-1].tolist())
    step = np.abs(np.diff(sound))
    found: dict[str, list[float]] = {"borders": [], "elsewhere": []}
    for token in range(1, sum(chunks)):
        at = token * SAMPLES_PER_TOKEN - 1  # the step into the token's first sample
        around = np.concatenate([step[max(0, at - _NEAR) : at - 1], step[at + 2 : at + _NEAR]])
        if around.max() > _QUIET:
            found["borders" if token in ends else "elsewhere"].append(float(step[at - 1 : at + 2].max() / around.max()))
    return found


class Resynthesiser:
    """One vocoder with what makes its tokens, who listens, and who scores."""

    def __init__(self, plan: Plan, voice: Voice | None, dnsmos: Dnsmos | None, device: torch.device) -> None:
        self._plan, self._voice, self._dnsmos, self._device = plan, voice, dnsmos, device
        assert plan.vocoder is not None
        self.vocoder: Vocoder
        if plan.vocoder_folder is None:
            self.vocoder = load_own_vocoder(plan.folder, plan.vocoder, device)
        else:
            self.vocoder = load_vocoder(plan.vocoder_folder, plan.vocoder, device, torch.float32)  # type: ignore[arg-type]

    @cached_property
    def _s3(self) -> Any:
        assert self._plan.vocoder_folder is not None
        return load_s3_tokenizer(model_file(self._plan.vocoder_folder, S3_TOKENIZER), self._device)

    def tokens(self, path: Path) -> Tensor:
        """Speech tokens [T] of a recording, by the vocoder's own tokenizer or its folder's."""
        if self._plan.vocoder_folder is not None:
            return s3_tokens(self._s3, [read_audio(path, QUESTION_HZ)])[0]
        return self.vocoder.tokenizer.encode(read_audio(path, ANSWER_HZ))

    def speak(self, tokens: Tensor, voice: Voice | None) -> tuple[np.ndarray, float]:
        """Sound of tokens pushed whenever the vocoder can go on, and the seconds that took."""
        started = time.perf_counter()
        state, sound, at = self.vocoder.begin(voice), [np.zeros(0, np.float32)], 0
        while at < len(tokens):
            count = self.vocoder.wanted(state)
            sound.append(self.vocoder.push(state, tokens[at : at + count], at + count >= len(tokens)))
            at += count
        return np.concatenate(sound), time.perf_counter() - started

    def voice_of(self, record: Record) -> Voice | None:
        """The voice asked for, else the row's own where the vocoder knows it by name, else the vocoder's."""
        name, known = voice_name((record.answer.voice or "").rpartition(":")[2]), self.vocoder.voices
        return self._voice if self._voice is not None or known is None or name not in known.names else known[name]

    def run(self, benchmark: Benchmark, record: Record, recogniser: Recogniser) -> tuple[Resynthesis, np.ndarray]:
        """One recorded answer there and back: what came of it, and the sound. A bad recording is told in the result."""
        row = Resynthesis(record.id, record.answer.text)
        recording = benchmark.sound(str(record.answer.audio))
        try:
            recorded = read_audio(recording, ANSWER_HZ)
            tokens = self.tokens(benchmark.sound(str(record.meta[PARALLEL])) if PARALLEL in record.meta else recording)
        except AudioError as error:
            row.error = f"{error.problem}. {error.hint}"
            return row, np.zeros(0, np.float32)
        voice = self.voice_of(record)
        sound, row.seconds = self.speak(tokens, voice)
        whole = self.vocoder.push(self.vocoder.begin(voice), tokens, True)
        row.tokens = len(tokens)
        row.streamed_minus_whole = float(np.abs(sound - whole).max(initial=0.0))
        row.jumps = jumps(sound, self.vocoder.chunks(len(tokens)))
        row.heard, row.recorded = recogniser.hear(sound, ANSWER_HZ), recogniser.hear(recorded, ANSWER_HZ)
        if self._dnsmos is not None:
            row.dnsmos, row.recorded_dnsmos = self._dnsmos.score(sound, ANSWER_HZ), self._dnsmos.score(recorded, ANSWER_HZ)
        return row, sound


def plan_resynthesis(folder: Path, overrides: Sequence[str], vocoder: str | None, alone: bool) -> Plan:
    """What speaks: the model of a folder as `plan_answers` has it, or `alone` a CosyVoice2 folder or hub id without any model."""
    if alone:
        place = find_vocoder(vocoder, {})
        assert place is not None
        if overrides:
            raise UsageError(f"--set {overrides[0]}: a vocoder alone has no settings to change", "Name a model beside it: --model FOLDER.")
        return Plan(place, GenerationSettings(), read_settings(place), place)
    plan = plan_answers(folder, overrides, vocoder)
    if plan.vocoder is None:
        raise MissingWeights(f"{folder}: this model has no vocoder", NAME_A_VOCODER)
    return plan


def resynthesise(
    plan: Plan,
    benchmarks: Sequence[Benchmark],
    *,
    voice: Path | None = None,
    dnsmos: Path | None = None,
    limit: int | None = None,
    device: str = "auto",
    output: Path | None = None,
    fail: Callable[[str], None] = lambda text: None,
    advance: Callable[[str, int, int], None] = lambda benchmark, done, total: None,
) -> dict[str, Any]:
    """Take the recorded answers of `benchmarks` (the first `limit` of each) to speech tokens and back, and score both.

    `dnsmos` is the folder of DNSMOS's file; without it nothing is scored by it. With `output` also writes report.json, NAME.jsonl and
    the sounds as NAME/ID.wav there. Returns `{"model", "recipe", "benchmarks": {NAME: {"n", "failed", "wer", "recorded_wer", "ci",
    "dnsmos", "recorded_dnsmos", "dnsmos_parts", "rtf", "streamed_minus_whole", "jumps": {"borders", "elsewhere", "clicks", "n"}}},
    "recogniser", "normaliser"}`; rates in percent, `jumps` as means and the number of borders above 1. Raises what finding a voice, the
    vocoder, the recogniser and DNSMOS raise.
    """
    where = pick_device(device)
    scorer = Dnsmos(dnsmos) if dnsmos is not None else None
    work = Resynthesiser(plan, find_voice(plan, voice, where), scorer, where)
    scores: dict[str, Any] = {}
    names: dict[str, None] = {}
    for benchmark in benchmarks:
        records = [record for record in benchmark.records if record.answer.audio and words_of(record.answer.text)][:limit]
        if not records:
            raise VocalnetError(f"{benchmark.manifest}: no row has a recorded answer", "Name a benchmark or manifest with answer.audio.")
        recogniser, rows = Recogniser(benchmark.words), []
        for number, record in enumerate(records):
            row, sound = work.run(benchmark, record, recogniser)
            rows.append(row)
            if row.error is not None:
                fail(f"{benchmark.name} {row.id}: {row.error}")
            elif output is not None:
                (output / benchmark.name).mkdir(parents=True, exist_ok=True)
                write_wav(output / benchmark.name / f"{voice_name(row.id)}.wav", sound)
            advance(benchmark.name, number + 1, len(records))
        names[recogniser.hearing.name] = None
        scores[benchmark.name] = score_rows(rows, recogniser.hearing.alike)
        if output is not None:
            write_text_atomically(output / f"{benchmark.name}.jsonl", "".join(json.dumps(asdict(row)) + "\n" for row in rows))
    result = {
        "model": str(plan.vocoder_folder or plan.folder),
        "benchmarks": scores,
        "recogniser": "; ".join(names),
        "normaliser": NORMALISER,
    }
    if output is not None:
        write_text_atomically(output / "report.json", json.dumps(result, indent=1) + "\n")
    return result


def score_rows(rows: Sequence[Resynthesis], alike: dict[str, str]) -> dict[str, Any]:
    """The numbers of one benchmark (see `resynthesise`)."""
    good = [row for row in rows if row.error is None]
    result: dict[str, Any] = {"n": len(good), "failed": len(rows) - len(good)}
    if not good:
        return result
    result["ci"] = {}
    for name, said in (("wer", "heard"), ("recorded_wer", "recorded")):
        errors = [word_errors(row.expected, getattr(row, said), alike) for row in good]
        totals, words = [one.total for one in errors], [one.words for one in errors]
        result[name], result["ci"][name] = percent(totals, words), interval(totals, words)
    if good[0].dnsmos:
        parts = {name: _means([getattr(row, name) for row in good]) for name in ("dnsmos", "recorded_dnsmos")}
        result |= {name: means["ovr"] for name, means in parts.items()} | {"dnsmos_parts": parts}
    result["rtf"] = round(sum(row.seconds for row in good) * ANSWER_HZ / (SAMPLES_PER_TOKEN * max(1, sum(row.tokens for row in good))), 4)
    result["streamed_minus_whole"] = max(row.streamed_minus_whole for row in good)
    joined = {name: [jump for row in good for jump in row.jumps[name]] for name in ("borders", "elsewhere")}
    result["jumps"] = {name: round(float(np.mean(values)), 4) for name, values in joined.items() if values}
    result["jumps"] |= {"clicks": sum(jump > 1 for jump in joined["borders"]), "n": len(joined["borders"])}
    return result


def _means(scores: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: round(float(np.mean([one[name] for one in scores])), 3) for name in scores[0]}


def table(benchmarks: dict[str, dict[str, Any]]) -> list[Sequence[object]]:
    """A row a benchmark, under COLUMNS."""
    rows: list[Sequence[object]] = []
    for name, one in benchmarks.items():
        cells = [one.get(key, "-") for key in ("wer", "recorded_wer", "dnsmos", "recorded_dnsmos", "rtf")]
        rows.append((name, one["n"], *cells, *(one.get("jumps", {}).get(key, "-") for key in ("borders", "elsewhere"))))
    return rows
