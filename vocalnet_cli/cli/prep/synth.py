"""`vocalnet prep synth`: a manifest said aloud, or the nano corpus."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from vocalnet_cli.cli.console import err, progress, show_table
from vocalnet_cli.cli.options import JsonOpt, LimitOpt, OutputOpt, QuietOpt, SeedOpt, ShardOpt
from vocalnet_cli.cli.prep.common import EngineOpt, RootOpt, ShardRowsOpt, WorkersOpt, run

DigitsOpt = Annotated[
    Path | None,
    typer.Option("--digits", metavar="DIR", help="Human recordings DIGIT_SPEAKER_TAKE.wav (Free Spoken Digit Dataset)."),
]


def synth(
    inputs: Annotated[list[str] | None, typer.Argument(metavar="[INPUT...]", help="Manifests to say; none: make the nano corpus.")] = None,
    output: OutputOpt = None,
    voice: Annotated[
        list[str] | None,
        typer.Option(
            "--voice",
            metavar="ENGINE:NAME",
            help="flite:slt, espeak:en-us, pico:en-GB, festival:..., rhvoice:bdl, cosyvoice2:...; drawn by row. Repeatable.",
        ),
    ] = None,
    say: Annotated[str, typer.Option("--say", metavar="PART", help="question, answer or both.")] = "both",
    rate: Annotated[float, typer.Option("--rate", metavar="X", min=0.3, max=3.0, help="Duration factor: 1.2 is slower.")] = 1.0,
    pitch: Annotated[float, typer.Option("--pitch", metavar="X", min=0.3, max=3.0, help="Factor on the mean pitch.")] = 1.0,
    command: Annotated[
        str | None, typer.Option("--command", metavar="ARGS", help="A program of your own: arguments with {text_file} and {wav}; no shell.")
    ] = None,
    cosyvoice2: Annotated[
        str | None, typer.Option("--cosyvoice2", metavar="URL|DIR", help="CosyVoice's FastAPI server, or the folder of its checkout.")
    ] = None,
    cosyvoice2_model: Annotated[
        Path | None, typer.Option("--cosyvoice2-model", metavar="DIR", help="The checkout's weights, if not in its pretrained_models.")
    ] = None,
    root: RootOpt = None,
    digits: DigitsOpt = None,
    held_out: Annotated[
        str | None, typer.Option("--held-out", metavar="SPEAKER", help="Whose digits are the test, not training. [default: theo]")
    ] = None,
    seed: SeedOpt = None,
    workers: WorkersOpt = 0,
    engine: EngineOpt = "local",
    shard: ShardOpt = None,
    shard_rows: ShardRowsOpt = 100,
    limit: LimitOpt = None,
    as_json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Say a manifest's text with a speech synthesizer; without INPUT, make the nano corpus. Run again to resume.

    The nano corpus takes flite, and espeak-ng, festival, RHVoice and Pico if installed. Voice, rate, pitch, seed and version are
    recorded in each row. cosyvoice2:SPEAKER is one the model knows; cosyvoice2:FILE.wav imitates a recording, whose words stand in
    FILE.txt.

    \b
    Examples:
      vocalnet prep synth -o data/nano --digits fsdd/recordings
      vocalnet prep synth data/va -o data/va-spoken --say answer --voice flite:slt --json
      vocalnet prep synth data/va -o data/va-spoken --voice cosyvoice2:voice.wav --cosyvoice2 http://127.0.0.1:50000
    """
    if not inputs or held_out is not None:
        _nano(inputs, output, digits, held_out, seed, limit, as_json, quiet)
        return
    from vocalnet_cli.core.data.prep.cosyvoice import CosyVoice
    from vocalnet_cli.core.data.prep.speech import speech_step

    cosy = CosyVoice(cosyvoice2, str(cosyvoice2_model) if cosyvoice2_model else None) if cosyvoice2 else None
    step = speech_step(voice or ["flite:slt"], say, rate, pitch, seed or 0, command, cosy, str(root) if root else None)
    workers = workers or (1 if step.cosyvoice else 0)  # one model, or one server that answers in turn
    told = {"as_json": as_json, "quiet": quiet}
    run(step, inputs, output, workers=workers, engine=engine, shard=shard, shard_rows=shard_rows, limit=limit, **told)


def _nano(
    inputs: list[str] | None,
    output: str | None,
    digits: Path | None,
    held_out: str | None,
    seed: int | None,
    limit: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Make the nano corpus and tell about it."""
    from vocalnet_cli.core.data.synth.plan import SynthSettings
    from vocalnet_cli.core.data.synth.render import make_corpus
    from vocalnet_cli.core.errors import UsageError

    if output is None:
        raise UsageError("no folder for the corpus", "name one: vocalnet prep synth -o DIR")
    if inputs:
        raise UsageError(f"--held-out {held_out}: a speaker of the nano corpus, which takes no INPUT", "Leave INPUT or --held-out out.")
    if held_out is not None and digits is None:
        raise UsageError(f"--held-out {held_out}: no people are in the corpus without --digits", "Name the recordings: --digits DIR")
    settings = SynthSettings(seed=seed or 0)
    if held_out is not None:
        settings = replace(settings, held_out_speaker=held_out)
    with progress(quiet) as bars:
        bar = bars.add_task("sound files", total=None)
        stats = make_corpus(
            Path(output),
            settings,
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
