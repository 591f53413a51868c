"""Measure one model on benchmarks: the one way from a model's folder to a report, whoever asks for it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vocalnet_cli import __version__
from vocalnet_cli.core.config.places import cache_folder, nano_folder
from vocalnet_cli.core.data.record import Record, write_text_atomically
from vocalnet_cli.core.evaluation.benchmarks import Benchmark
from vocalnet_cli.core.evaluation.cache import AnswerCache, Row
from vocalnet_cli.core.evaluation.lookup import BankFile, find_bank
from vocalnet_cli.core.evaluation.report import answers, report
from vocalnet_cli.core.evaluation.score import score
from vocalnet_cli.core.evaluation.wer import Hearing, recogniser_identity
from vocalnet_cli.core.generation.load import Plan, load_speaker, plan_answers
from vocalnet_cli.core.generation.vocoder import find_voice, vocoder_hash
from vocalnet_cli.core.model.device import pick_device, pick_dtype
from vocalnet_cli.core.model.folder import read_config, recipe_of, weights_hash

if TYPE_CHECKING:
    from vocalnet_cli.core.evaluation.runner import Runner
    from vocalnet_cli.core.model.vocoder import Voice


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
    fresh: bool = False,
    output: Path | None = None,
    note: Callable[[str], None] = lambda text: None,
    fail: Callable[[str], None] = lambda text: None,
    advance: Callable[[str, int, int], None] = lambda benchmark, done, total: None,
) -> dict[str, Any]:
    """Ask the model of a folder the questions of `benchmarks` (the first `limit` of each) and score its answers.

    Answers are kept in `cache_folder()`/eval by all they depend on, and only those that are not there are asked for, or all with
    `fresh`; a measurement wholly from there loads neither model nor recogniser. `overrides` are `generation.KEY=VALUE` and
    `vocoder.KEY=VALUE`; `device`, `dtype`, `vocoder` and `voice` are as on the command line. With `output` also writes
    `output`/report.json (what is returned) and `output`/NAME.jsonl (for each question what was expected, said and heard).

    `note` hears remarks, `fail` why a question could not be answered (the report counts it in `failed`, and it is asked again next
    time), `advance(benchmark, done, total)` each question. Returns the object `eval --json` prints (`evaluation/report.py`).

    Raises UsageError for a device, type or override that cannot be, MissingWeights and VocalnetError for a model, vocoder, recogniser
    or bank that is not there or cannot be used, AudioError for a voice, OSError for a folder that cannot be written.
    """
    plan = plan_answers(folder, overrides, vocoder)
    where = pick_device(device)
    kind = pick_dtype(dtype, where)
    bank = find_bank(folder)
    speaker = find_voice(plan, voice, where)
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)  # told before the first question, not after the last

    @cache
    def runner() -> Runner:
        from vocalnet_cli.core.evaluation.runner import Runner  # with it comes transformers, which takes seconds

        return Runner(lambda: load_speaker(plan, where, kind), plan.generation, seed, bank, speaker)

    asked = _asked_with(plan, seed, str(kind).removeprefix("torch."), speaker)
    scores: dict[str, Any] = {}
    lines: dict[str, list[dict[str, Any]]] = {}
    recognisers: dict[str, None] = {}
    for benchmark in benchmarks:
        records = benchmark.records[:limit]
        rows, hearing = _asked(benchmark, records, asked, runner, bank, fresh, fail, advance)
        if hearing.missing:
            note(f"note: {hearing.name}: has no pronunciation for {', '.join(hearing.missing)} ({benchmark.name})")
        recognisers[hearing.name] = None
        scores[benchmark.name] = score(records, rows, hearing.alike)
        lines[benchmark.name] = answers(records, rows, hearing.alike)
    result = report(_shown(folder), recipe_of(folder), {**asked, "recogniser": "; ".join(recognisers)}, scores)
    if output is not None:
        _write(output, result, lines)
    return result


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
    return nano_folder().name if folder == nano_folder() else str(folder)


def _asked(
    benchmark: Benchmark,
    records: Sequence[Record],
    asked: dict[str, Any],
    runner: Callable[[], Runner],
    bank: BankFile | None,
    fresh: bool,
    fail: Callable[[str], None],
    advance: Callable[[str, int, int], None],
) -> tuple[list[Row], Hearing]:
    """A row for each of `records`, each on disk as soon as it is there, and who listened. What is on disk already is not asked again."""
    identity = {
        "vocalnet": __version__,
        "benchmark": benchmark.name,
        "manifest_sha256": benchmark.sha256,
        **asked,
        "recogniser": recogniser_identity(benchmark.words),
    }
    rows = []
    with AnswerCache(cache_folder() / "eval", identity) as results:
        for record in records:
            row = None if fresh else results.rows.get(record.id)
            if row is not None and bank is None:
                row = replace(row, lookup=None, bank=None)  # of a bank that is no longer there
            elif row is None or (bank is not None and row.bank != bank.sha256):
                results.begin(results.hearing or runner().recogniser(benchmark).hearing)
                row = runner().ask(benchmark, record) if row is None else runner().look_up(benchmark, record, row)
                results.add(row)
            rows.append(row)
            advance(benchmark.name, len(rows), len(records))
            if row.error is not None:
                fail(f"{benchmark.name} {row.id}: {row.error}")
    assert results.hearing is not None, "a benchmark holds a question, and `begin` came before its answer"
    return rows, results.hearing


def _write(folder: Path, result: dict[str, Any], lines: dict[str, list[dict[str, Any]]]) -> None:
    for name, rows in lines.items():
        write_text_atomically(folder / f"{name}.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    write_text_atomically(folder / "report.json", json.dumps(result, ensure_ascii=False, indent=1) + "\n")
