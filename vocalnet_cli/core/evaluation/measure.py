"""Measure one model on benchmarks: the one way from a model's folder to a report, whoever asks for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from vocalnet_cli import __version__
from vocalnet_cli.core.config.places import cache_folder, model_name
from vocalnet_cli.core.evaluation.benchmarks import Benchmark
from vocalnet_cli.core.evaluation.cache import AnswerCache
from vocalnet_cli.core.evaluation.conclude import Told, check_judge, judged, unread, write_results
from vocalnet_cli.core.evaluation.gather import Manner, gather
from vocalnet_cli.core.evaluation.judging.case import Judge
from vocalnet_cli.core.evaluation.judging.rule import RuleJudge
from vocalnet_cli.core.evaluation.listening import Ear, WordLoop, listen
from vocalnet_cli.core.evaluation.lookup import BankFile, find_bank
from vocalnet_cli.core.evaluation.report import report
from vocalnet_cli.core.evaluation.results import Run
from vocalnet_cli.core.evaluation.score import score
from vocalnet_cli.core.generation.load import Plan, load_speaker, plan_answers
from vocalnet_cli.core.generation.vocoder import find_voice, vocoder_hash
from vocalnet_cli.core.model.device import pick_device, pick_dtype
from vocalnet_cli.core.model.folder import read_config, recipe_of, weights_hash

if TYPE_CHECKING:
    from vocalnet_cli.core.evaluation.runner import Runner
    from vocalnet_cli.core.model.vocoder import Voice


_LISTENED = {"recogniser": "name", "normaliser": "normaliser"}
"""Of whoever listened, what a report tells."""


@dataclass(frozen=True)
class Watch:
    """Who is told what happens."""

    note: Callable[[str], None] = lambda text: None
    """Remarks."""
    fail: Callable[[str], None] = lambda text: None
    """Why a question could not be answered, or has no verdict."""
    advance: Callable[[str, int, int], None] = lambda benchmark, done, total: None
    """Of each question: benchmark, questions done, questions in all."""


def measure(
    folder: Path,
    benchmarks: Sequence[Benchmark],
    *,
    overrides: Sequence[str] = (),
    limit: int | None = None,
    device: str = "auto",
    dtype: str = "auto",
    seed: int = 0,
    vocoder: str | None = None,
    voice: Path | None = None,
    manner: Manner | None = None,
    judge: Judge | None = None,
    ear: Ear | None = None,
    output: Path | None = None,
    watch: Watch | None = None,
) -> dict[str, Any]:
    """Ask the model of a folder the questions of `benchmarks` (the first `limit` of each) and score its answers.

    Answers, and what was heard in them, are kept in `cache_folder()`/eval by all they depend on, and only what is not there is asked
    for; a measurement wholly from there loads neither model nor recogniser. `overrides` are `generation.KEY=VALUE` and
    `vocoder.KEY=VALUE`; `device`, `dtype`, `vocoder` and `voice` are as on the command line. Without a `judge` the rule judges,
    without an `ear` pocketsphinx listens.
    With `output` also writes a folder of results (`evaluation/results.py`).

    A question that could not be answered counts in `failed`, an answer without a verdict in `unjudged`; both are tried again next time.
    Returns the object `eval --json` prints (`evaluation/report.py`); with a part of a run shared out only `{"model", "unfinished":
    {NAME: n}}` while other parts are missing.

    Raises UsageError for a device, type or override that cannot be, MissingWeights and VocalnetError for a model, vocoder, recogniser
    or bank that is not there or cannot be used, AudioError for a voice, OSError for a folder that cannot be written.
    """
    manner, judge, ear, watch = manner or Manner(), judge or RuleJudge(), ear or WordLoop(), watch or Watch()
    manner.check()
    check_judge(judge, benchmarks, watch.note)
    plan = plan_answers(folder, overrides, vocoder)
    where = pick_device(device)
    kind = pick_dtype(dtype, where)
    bank = find_bank(folder)
    speaker = find_voice(plan, voice, where)
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)  # told before the first question, not after the last
    make = _Maker(plan, where, kind, seed, bank, speaker, manner.batch_size)
    asked = _asked_with(plan, seed, str(kind).removeprefix("torch."), speaker)
    told: list[Told] = []
    unfinished = {}
    for benchmark in benchmarks:
        records = benchmark.records[:limit]
        identity = {"vocalnet": __version__, "benchmark": benchmark.name, "manifest_sha256": benchmark.sha256, **asked}
        with AnswerCache(cache_folder() / "eval", identity, manner.part) as answers:
            rows = gather(benchmark, records, answers, make, bank, manner, partial(watch.advance, benchmark.name))
            whole = [row for row in rows if row is not None]
            if len(whole) < len(rows):
                unfinished[benchmark.name] = len(rows) - len(whole)
                continue
            heard, hearing = listen(benchmark, records, whole, answers.folder, answers, ear, partial(watch.advance, benchmark.name))
            told.append(Told(benchmark, records, whole, heard, hearing, answers.folder))
    if unfinished:
        return {"model": _shown(folder), "unfinished": unfinished}
    return conclude(_shown(folder), recipe_of(folder), asked, told, judge, output, watch)


def conclude(
    model: str, recipe: str | None, facts: dict[str, Any], told: Sequence[Told], judge: Judge, output: Path | None, watch: Watch
) -> dict[str, Any]:
    """Judge and count the answers to some benchmarks; `facts` say where they come from. Returns, and with `output` writes, the report."""
    results, scores, judging = {}, {}, {}
    for one in told:
        name = one.benchmark.name
        if one.hearing.missing:
            watch.note(f"note: {one.hearing.name}: has no pronunciation for {', '.join(one.hearing.missing)} ({name})")
        results[name], judged_by = judged(one, judge, partial(watch.advance, name) if judge.paid else lambda done, total: None)
        if judged_by is not None:
            judging[name] = judged_by
        scores[name] = score(one.records, results[name], one.hearing.words, judged_by.scale if judged_by else "right")
        for failed in (row for row in results[name] if row.error is not None):
            watch.fail(f"{name} {failed.id}: {failed.error}")
        for own, answer, verdict in unread(results[name]):
            watch.fail(f"{name} {own}: no verdict on {answer}: {verdict.failure}")
    listened = {kind: "; ".join(dict.fromkeys(getattr(one.hearing, name) for one in told)) for kind, name in _LISTENED.items()}
    manifests = {one.benchmark.name: one.benchmark.sha256 for one in told}
    found = report(model, recipe, {**facts, **listened}, scores, judging, manifests)
    if output is not None:
        write_results(Run(output, found, results))
    return found.model_dump(mode="json")


@dataclass
class _Maker:
    """Makes who is asked, once in each process that asks."""

    plan: Plan
    device: torch.device
    dtype: torch.dtype
    seed: int
    bank: BankFile | None
    voice: Voice | None
    batch_size: int
    _made: Runner | None = None

    def __call__(self) -> Runner:
        from vocalnet_cli.core.evaluation import runner  # with it comes transformers, which takes seconds

        if self._made is None:
            load = partial(load_speaker, self.plan, self.device, self.dtype)
            self._made = runner.Runner(load, self.plan.generation, self.seed, self.bank, self.voice, self.batch_size)
        return self._made

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_made": None}  # a loaded model does not travel


def _asked_with(plan: Plan, seed: int, dtype: str, voice: Voice | None) -> dict[str, Any]:
    """All that decides an answer; of vocoder and voice nothing, where the model's own vocoder speaks as it always does."""
    told: dict[str, Any] = {
        "weights_sha256": weights_hash(plan.folder),
        "settings": {**plan.generation.model_dump(mode="json"), "seed": seed, "dtype": dtype},
    }
    elsewhere, speaks = plan.vocoder_folder, plan.vocoder
    if speaks is not None and (elsewhere is not None or speaks != read_config(plan.folder)["model"].vocoder):
        told["vocoder"] = {"kind": speaks.kind, **speaks.model_dump(mode="json", include=set(speaks.TUNED))}
    if elsewhere is not None:
        told["vocoder"]["sha256"] = vocoder_hash(elsewhere)
    if voice is not None:
        told["voice_sha256"] = voice.sha256
    return told


def _shown(folder: Path) -> str:
    return model_name(folder)
