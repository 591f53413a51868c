"""What `vocalnet eval` does: measure a model, saved answers, or both, and show what came of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from vocalnet_cli.cli.console import err, progress, show_table
from vocalnet_cli.cli.eval.judges import NO_VERDICT, tell_spent
from vocalnet_cli.core.errors import UsageError, VocalnetError

if TYPE_CHECKING:
    from vocalnet_cli.core.evaluation.benchmarks import Benchmark
    from vocalnet_cli.core.evaluation.gather import Manner
    from vocalnet_cli.core.evaluation.judging.case import Judge
    from vocalnet_cli.core.evaluation.listening import Ear
    from vocalnet_cli.core.evaluation.measure import Watch


@dataclass(frozen=True)
class Said:
    """Where results go, and what is told."""

    output: Path | None
    limit: int | None
    prices: tuple[float, float] | None
    as_json: bool
    quiet: bool

    def note(self, text: str) -> None:
        if not self.quiet:
            err().print(text, markup=False, soft_wrap=True)


def manner_of(batch_size: int, shard: str | None, engine: str, workers: int, fresh: bool) -> Manner:
    """How answers are asked for. Raises UsageError."""
    from vocalnet_cli.core.data.prep.run import parse_part
    from vocalnet_cli.core.evaluation.gather import Manner

    return Manner(batch_size, parse_part(shard) if shard else (1, 1), engine, workers, fresh)


def ear_of(asr: str | None, device: str, dtype: str) -> Ear:
    """Who listens to the answers: a Whisper, else pocketsphinx. Raises MissingWeights, VocalnetError."""
    from vocalnet_cli.core.evaluation.listening import WordLoop

    if asr is None:
        return WordLoop()
    from vocalnet_cli.core.evaluation.whisper import WhisperEar
    from vocalnet_cli.core.model.device import pick_device, pick_dtype

    where = pick_device(device)
    return WhisperEar(asr, where, pick_dtype(dtype, where))


def measure_all(
    said: Said, model: str | None, recipe: str | None, answers: list[Path], names: list[str] | None, split: str | None,
    steps: str | None, judge: Judge, ear: Ear, manner: Manner, asked: dict[str, Any],
) -> None:  # fmt: skip
    """Measure the model (unless only answers are given), with each number of steps, and each folder of answers."""
    from vocalnet_cli.core.evaluation.benchmarks import load_benchmarks
    from vocalnet_cli.core.evaluation.curve import draw_curve, steps_of

    runs: list[tuple[str, Callable[..., dict[str, Any]]]] = []  # name of its folder, and what it does
    passes = steps_of(steps) if steps else [None]
    if not answers or model or recipe:
        runs += [(f"steps-{one}" if one else "", _model_run(model, recipe, one, manner, asked)) for one in passes]
    elif steps or manner.part != (1, 1):
        raise UsageError(
            "--answers: no model is asked, so there are no steps and no shards", "Add --model, or leave --steps and --shard out."
        )
    runs += [(folder.resolve().name, _saved_run(folder)) for folder in answers]
    twice = [name for name, _ in runs if [other for other, _ in runs].count(name) > 1]
    if twice:
        raise UsageError(f"two folders of answers are called {twice[0]}", "Score them in two runs.")
    chosen, results = load_benchmarks(names, split, note=said.note), []
    for name, run in runs:
        output = said.output and (said.output / name if name and (steps or len(runs) > 1) else said.output)
        result = _watched(said, name, chosen, lambda watch, run=run, output=output: run(chosen, said.limit, judge, ear, output, watch))  # type: ignore[misc]
        results.append(result)
        if not said.as_json:
            _show(result, name)
    if said.as_json:
        typer.echo(json.dumps(results if steps or len(results) > 1 else results[0], ensure_ascii=False))
    if steps and said.output:
        draw_curve([one for one in results if "steps" in one], said.output / "steps.png")
    tell_spent(judge, said.prices, said.quiet)
    _refuse_failures(results)


def _model_run(
    model: str | None, recipe: str | None, passes: str | None, manner: Manner, asked: dict[str, Any]
) -> Callable[..., dict[str, Any]]:
    from vocalnet_cli.core.evaluation.measure import measure
    from vocalnet_cli.core.generation.load import find_model

    folder = find_model(model, recipe)
    own = {**asked, "overrides": [*asked["overrides"], *([f"generation.steps={passes}"] if passes else [])]}

    def run(chosen: list[Benchmark], limit: int | None, judge: Judge, ear: Ear, output: Path | None, watch: Watch) -> dict[str, Any]:
        result = measure(folder, chosen, limit=limit, manner=manner, judge=judge, ear=ear, output=output, watch=watch, **own)
        return {"steps": passes if passes == "auto" else int(passes), **result} if passes else result

    return run


def _saved_run(folder: Path) -> Callable[..., dict[str, Any]]:
    from vocalnet_cli.core.evaluation.saved import measure_saved

    def run(chosen: list[Benchmark], limit: int | None, judge: Judge, ear: Ear, output: Path | None, watch: Watch) -> dict[str, Any]:
        return measure_saved(folder, chosen, limit=limit, judge=judge, ear=ear, output=output, watch=watch)

    return run


def _watched(said: Said, name: str, chosen: list[Benchmark], run: Callable[[Watch], dict[str, Any]]) -> dict[str, Any]:
    """One measurement under progress bars."""
    from vocalnet_cli.core.evaluation.measure import Watch

    with progress(said.quiet) as bars:
        tasks = {one.name: bars.add_task(f"{one.name} {name}".strip(), total=None) for one in chosen}

        def tell(text: str) -> None:
            bars.console.print(text, markup=False, soft_wrap=True)

        def advance(benchmark: str, done: int, total: int) -> None:
            bars.update(tasks[benchmark], completed=done, total=total)

        return run(Watch((lambda text: None) if said.quiet else tell, tell, advance))


def _refuse_failures(results: list[dict[str, Any]]) -> None:
    scores = [one for result in results for one in result.get("benchmarks", {}).values()]
    again = "The reasons are above; the same command asks only those again."
    if failed := sum(one["failed"] for one in scores):
        raise VocalnetError(f"{failed} questions could not be answered", again)
    if unjudged := sum(sum(one.get("unjudged", {}).values()) for one in scores):
        raise VocalnetError(f"{unjudged} answers have no verdict", NO_VERDICT)


def _show(result: dict[str, Any], name: str) -> None:
    """The tables of one measurement."""
    from vocalnet_cli.core.evaluation import report

    if "unfinished" in result:
        for benchmark, left in result["unfinished"].items():
            typer.echo(f"{benchmark}: {left} questions are still to be asked, by other parts")
        return
    label = f", {result['steps']} steps" if "steps" in result else ""
    title = f"{result['model']}{label}: {result['recogniser']}; judge: {result['judge']}; right in percent, 95 % intervals"
    show_table(report.COLUMNS, report.table(result["benchmarks"]), title=title)
    if kinds := report.kinds_table(result["benchmarks"]):
        show_table(report.KIND_COLUMNS, kinds)
