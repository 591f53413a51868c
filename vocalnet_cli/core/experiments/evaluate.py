"""A finished model's scores, as `vocalnet eval --json` gives them. The only place that knows how a run is measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vocalnet_cli.core.errors import RecipeError, UsageError
from vocalnet_cli.core.evaluation import report
from vocalnet_cli.core.evaluation.benchmarks import load_benchmarks
from vocalnet_cli.core.evaluation.results import ResultsFile, weights_hash
from vocalnet_cli.core.evaluation.runner import Runner
from vocalnet_cli.core.evaluation.score import score
from vocalnet_cli.core.evaluation.wer import Recogniser
from vocalnet_cli.core.generation import load
from vocalnet_cli.core.model.device import pick_device, pick_dtype

Asked = Callable[[str, int, int], None]
"""Told of each question: benchmark, questions asked, questions in all."""


def check_benchmarks(recipe: str, names: Sequence[str]) -> None:
    """Raise before a model is trained that could not be measured: no such question set, or no recogniser installed."""
    try:
        load_benchmarks(names)
    except UsageError as error:
        raise RecipeError(f"recipe {recipe}, eval.benchmarks: {error.problem.removeprefix('--benchmark ')}", error.hint) from error
    Recogniser()


def measure(
    folder: Path,
    benchmarks: Sequence[str],
    *,
    overrides: Sequence[str] = (),
    limit: int | None = None,
    device: str = "auto",
    dtype: str = "auto",
    seed: int = 0,
    output: Path,
    resume: bool = False,
    asked: Asked = lambda name, done, total: None,
    notify: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """The `eval --json` object of a model folder; answers go to `output`/BENCHMARK.jsonl, and with `resume` are not asked twice."""
    chosen = load_benchmarks(benchmarks)
    settings = load.generation_settings(folder, overrides)
    where = pick_device(device)
    kind = pick_dtype(dtype, where)
    recogniser = Recogniser(record.answer.text for benchmark in chosen for record in benchmark.records)
    runner = Runner(lambda: load.load_speaker(folder, where, kind), settings, recogniser, seed)
    measured = {
        "weights_sha256": weights_hash(folder),
        "settings": {**settings.model_dump(mode="json"), "seed": seed, "dtype": str(kind).removeprefix("torch.")},
        "recogniser": recogniser.name,
    }
    scores = {}
    for benchmark in chosen:
        records = benchmark.records[:limit]
        header = {"benchmark": benchmark.name, "manifest_sha256": benchmark.sha256, **measured}
        asked(benchmark.name, 0, len(records))
        with ResultsFile(output / f"{benchmark.name}.jsonl", header, resume) as results:
            rows = []
            for row in runner.run(benchmark, records, results):
                rows.append(row)
                asked(benchmark.name, len(rows), len(records))
                if row.error is not None:
                    notify(f"{benchmark.name} {row.id}: {row.error}")
        scores[benchmark.name] = score(records, rows, recogniser.alike)
    return report.report(folder.resolve().name, measured, scores)
