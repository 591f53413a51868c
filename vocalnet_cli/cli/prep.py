"""`vocalnet prep`: corpora into checked manifests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from vocalnet_cli.cli.console import err, progress, show_table
from vocalnet_cli.cli.options import JsonOpt, LimitOpt, OutputOpt, QuietOpt, SeedOpt

app = typer.Typer(no_args_is_help=True, help="Corpora into checked manifests: spoken questions, answers, splits.")

DigitsOpt = Annotated[
    Path | None,
    typer.Option("--digits", metavar="DIR", help="Human recordings DIGIT_SPEAKER_TAKE.wav (Free Spoken Digit Dataset)."),
]


@app.command()
def synth(
    output: OutputOpt = None,
    digits: DigitsOpt = None,
    seed: SeedOpt = None,
    limit: LimitOpt = None,
    as_json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Make the nano corpus with free voices (flite; espeak-ng and festival if installed). Run again to resume.

    \b
    Examples:
      vocalnet prep synth -o data/nano --digits fsdd/recordings
      vocalnet prep synth -o data/try --limit 50 --json
    """
    from vocalnet_cli.core.data.synth.plan import SynthSettings
    from vocalnet_cli.core.data.synth.render import make_corpus
    from vocalnet_cli.core.errors import UsageError

    if output is None:
        raise UsageError("no folder for the corpus", "name one: vocalnet prep synth -o DIR")
    with progress(quiet) as bars:
        bar = bars.add_task("sound files", total=None)
        stats = make_corpus(
            Path(output),
            SynthSettings(seed=seed or 0),
            digits,
            limit,
            advance=lambda done, total: bars.update(bar, completed=done, total=total),
            notify=lambda text: None if quiet else err().print(text, markup=False),
        )
    if as_json:
        typer.echo(json.dumps(stats))
    else:
        show_table(
            ("rows", "rejected", "hours", "seconds"),
            [(stats["rows_out"], stats["rows_in"] - stats["rows_out"], stats["audio_hours"], stats["seconds"])],
            title=str(output),
        )
    if stats["rejected"]:
        err().print(f"{stats['rows_in'] - stats['rows_out']} rows were rejected: {Path(output) / 'rejects.jsonl'}", markup=False)
        raise typer.Exit(1)


@app.command()
def validate(
    manifest: Annotated[Path, typer.Argument(metavar="INPUT", help="A manifest (JSONL), or the folder that holds manifest.jsonl.")],
    as_json: JsonOpt = False,
) -> None:
    """Check every row of a manifest and the files it names; exit code 1 if any row is bad.

    \b
    Examples:
      vocalnet prep validate data/nano
      vocalnet prep validate data/nano/text.jsonl --json
    """
    from vocalnet_cli.core.data.record import validate_manifest

    report = validate_manifest(manifest / "manifest.jsonl" if manifest.is_dir() else manifest)
    if as_json:
        typer.echo(json.dumps(report))
    else:
        if report["problems"]:
            show_table(("line", "field", "reason"), [tuple(problem.values()) for problem in report["problems"]])
        typer.echo(f"{report['rows']} rows, {report['bad']} bad")
    if report["bad"]:
        raise typer.Exit(1)


@app.command()
def benchmark(
    manifest: Annotated[
        Path, typer.Argument(metavar="MANIFEST", help="Manifest of a corpus (JSONL), or the folder that holds manifest.jsonl.")
    ],
    split: Annotated[str, typer.Option("--split", metavar="SPLIT", help="Split the rows come from.")],
    output: OutputOpt = None,
    limit: LimitOpt = None,
    seed: SeedOpt = None,
    as_json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Pack rows of one split for `vocalnet eval`: every kind of question, sound as Opus; 120 rows unless --limit says otherwise.

    \b
    Examples:
      vocalnet prep benchmark data/nano --split test-voice -o nano-voice
      vocalnet eval --benchmark nano-voice/manifest.jsonl
    """
    from vocalnet_cli.core.errors import UsageError
    from vocalnet_cli.core.evaluation.pack import ROWS, pack_benchmark

    if output is None:
        raise UsageError("no folder for the benchmark", f"name one: vocalnet prep benchmark {manifest} --split {split} -o DIR")
    source = manifest / "manifest.jsonl" if manifest.is_dir() else manifest
    with progress(quiet) as bars:
        bar = bars.add_task("rows", total=None)
        stats = pack_benchmark(
            source, split, Path(output), limit or ROWS, seed or 0, lambda done, total: bars.update(bar, completed=done, total=total)
        )
    if as_json:
        typer.echo(json.dumps(stats))
    else:
        show_table(("rows", "kinds", "MB"), [(stats["rows_out"], len(stats["kinds"]), stats["megabytes"])], title=output)
