"""What the commands of `vocalnet latency` share: options, progress, the end of a run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vocalnet_cli.cli.console import out, progress
from vocalnet_cli.core.errors import Interrupted

if TYPE_CHECKING:
    from vocalnet_cli.core.config.schema import LatencySettings

BenchmarkOpt = Annotated[
    list[str] | None,
    typer.Option("--benchmark", metavar="NAME", help="Questions: a set the package carries (nano-combination if none) or a manifest."),
]
MeasuredOpt = Annotated[
    str | None,
    typer.Option("--recipe", metavar="NAME", help="Measure what this recipe's `latency` says, or its finished run (runs/NAME)."),
]
SizeOpt = Annotated[str, typer.Option("--size", metavar="SIZE", help="Sizes of VocalNet: nano, 1b or 8b. Weights are random.")]


@contextmanager
def watch(what: str, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar for `advance(done, total)`; Ctrl-C with nothing measured yet ends in two lines of its own."""
    with progress(quiet) as bars:
        task = bars.add_task(what, total=None)
        try:
            yield lambda done, total: bars.update(task, completed=done, total=total)
        except KeyboardInterrupt:
            hint = "Run it again, or ask for less: --limit 5, --set latency.repeats=1, --set latency.answer_s=2."
            raise Interrupted("interrupted: nothing was measured yet", hint) from None


def questions(latency: LatencySettings, named: Sequence[str] | None, limit: int | None) -> list[tuple[str, Path]]:
    """Name and sound file of the questions to ask: the first `limit` of each set; what is not given is as the settings say."""
    from vocalnet_cli.core.evaluation.benchmarks import load_benchmarks

    return [
        (f"{benchmark.name}/{record.id}", benchmark.sound(str(record.question.audio)))
        for benchmark in load_benchmarks(named or latency.benchmarks)
        for record in benchmark.records[: limit or latency.limit]
    ]


def changes(overrides: Sequence[str] | None, steps: str | None) -> tuple[str, ...]:
    """`--set` and `--steps` as overrides."""
    return (*(overrides or ()), *(() if steps is None else (f"generation.steps={steps}",)))


def check_output(output: str | None) -> Path | None:
    """The folder of the results, made now: what is wrong with it is told before anything is measured."""
    if output is None:
        return None
    from vocalnet_cli.core.latency.chart import check_chart

    check_chart()
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def finish(result: Mapping[str, Any], as_json: bool, show: Callable[[], None], notes: Sequence[str] = ()) -> None:
    """Print the result for programs or people; a run that was cut short then ends as one."""
    if as_json:
        typer.echo(json.dumps(result, ensure_ascii=False))
    else:
        from vocalnet_cli.core.latency.report import busy

        show()
        for note in [*notes, busy(result.get("a", result))]:
            if note is not None:
                out().print(note, markup=False, soft_wrap=True)
    if result.get("interrupted"):
        raise Interrupted("interrupted: what was measured until then is above", "Run the same command again for all of it.")
