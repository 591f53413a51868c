"""`vocalnet infer`: answer recorded questions."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vocalnet_cli.cli.options import (
    BatchSizeOpt,
    DeviceOpt,
    DtypeOpt,
    JsonOpt,
    LimitOpt,
    ModelOpt,
    OutputOpt,
    QuantizeOpt,
    QuietOpt,
    SeedOpt,
    SetOpt,
    StepsOpt,
    VocoderOpt,
    VoiceOpt,
)
from vocalnet_cli.core.errors import VocalnetError

if TYPE_CHECKING:
    from vocalnet_cli.core.generation.batch import Answered

QuestionArg = Annotated[
    list[Path] | None,
    typer.Argument(metavar="[QUESTION]...", help="Sound files, or folders of them. None answers a recorded question the package carries."),
]


def infer(
    questions: QuestionArg = None,
    output: OutputOpt = None,
    model: ModelOpt = None,
    vocoder: VocoderOpt = None,
    voice: VoiceOpt = None,
    device: DeviceOpt = "auto",
    dtype: DtypeOpt = "auto",
    seed: SeedOpt = None,
    overrides: SetOpt = None,
    limit: LimitOpt = None,
    batch_size: BatchSizeOpt = 1,
    quantize: QuantizeOpt = None,
    steps: StepsOpt = None,
    as_json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Answer spoken questions: text on stdout, sound in ./answers unless -o names another folder.

    \b
    Examples:
      vocalnet infer
      vocalnet infer questions/ -o spoken --json --set generation.max_text_tokens=64
      vocalnet infer q.wav --model VocalNet/VocalNet-1B --vocoder FunAudioLLM/CosyVoice2-0.5B --voice me.wav
    """
    from vocalnet_cli.core.generation import batch, load
    from vocalnet_cli.core.generation.vocoder import find_voice
    from vocalnet_cli.core.model.device import pick_device, pick_dtype
    from vocalnet_cli.core.model.quantize import check_quantize

    check_quantize(quantize)
    folder = load.find_model(model)
    changes = [*(overrides or []), *([] if steps is None else [f"generation.steps={steps}"])]
    plan = load.plan_answers(folder, changes, vocoder)
    where = pick_device(device)
    kind = pick_dtype(dtype, where)
    files = batch.find_questions(questions or [load.carried_question()], limit)
    speaker = find_voice(plan, voice, where)
    live = sys.stdout.isatty() and not as_json
    answerer = batch.Batch(
        lambda: load.load_answerer(plan, where, kind, quantize),
        plan.generation,
        seed,
        note=lambda line: None if quiet else typer.echo(line, err=True),
        piece=lambda text: typer.echo(text, nl=False) if live else None,
        start=lambda file: typer.echo(f"{file}: ", nl=False) if live and len(files) > 1 else None,
        batch_size=batch_size,
        voice=speaker,
    )
    bad = 0
    for answered in answerer.run(files, Path(output or "answers")):
        if answered.error is not None and len(files) == 1 and not as_json:
            raise answered.error
        bad += answered.error is not None
        _show(answered, as_json, quiet, live, len(files) > 1)
    if bad:
        raise VocalnetError(f"{bad} of {len(files)} questions could not be answered", "The reasons are above.")


def _show(answered: Answered, as_json: bool, quiet: bool, live: bool, several: bool) -> None:
    if as_json:
        typer.echo(json.dumps(answered.as_json(), ensure_ascii=False))
    if answered.error is not None:
        typer.echo(f"{answered.error.problem}\n{answered.error.hint}", err=True)
        return
    if not as_json:
        typer.echo("" if live else f"{answered.file}: {' '.join(answered.text.split())}" if several else answered.text)
    if answered.audio is not None and not quiet:
        typer.echo(f"{answered.audio}  {answered.audio_s:.1f} s", err=True)
    if answered.speech_tokens is not None and not quiet:
        typer.echo(f"{answered.speech_tokens}  {answered.tokens['speech']} speech tokens", err=True)
