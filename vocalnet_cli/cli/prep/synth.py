"""`vocalnet prep synth`: the nano corpus."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from vocalnet_cli.cli.console import err, progress, show_table
from vocalnet_cli.cli.options import JsonOpt, LimitOpt, OutputOpt, QuietOpt, SeedOpt

DigitsOpt = Annotated[
    Path | None,
    typer.Option("--digits", metavar="DIR", help="Human recordings DIGIT_SPEAKER_TAKE.wav (Free Spoken Digit Dataset)."),
]


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
