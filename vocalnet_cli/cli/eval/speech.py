"""`vocalnet eval speech`: how saved answers sound."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from vocalnet_cli.cli.console import progress, show_table
from vocalnet_cli.cli.eval.run import AsrOpt
from vocalnet_cli.cli.options import DeviceOpt, DtypeOpt, JsonOpt, QuietOpt

RunArg = Annotated[Path, typer.Argument(metavar="DIR", help="Results of `vocalnet eval -o DIR`; the numbers are added to them.")]
DnsmosOpt = Annotated[Path | None, typer.Option("--dnsmos", metavar="DIR", help="DNSMOS, by DIR/sig_bak_ovr.onnx.")]
UtmosOpt = Annotated[
    Path | None, typer.Option("--utmos", metavar="DIR", help="UTMOS, by a clone of tarepan/SpeechMOS whose code is run (extra: utmos).")
]
SpeakerOpt = Annotated[Path | None, typer.Option("--speaker", metavar="DIR", help="With --voice: likeness by DIR/campplus.onnx (CAM++).")]
VoiceOpt = Annotated[Path | None, typer.Option("--voice", metavar="FILE", help="Recording of the voice the answers should have.")]


def speech(
    folder: RunArg,
    asr: AsrOpt = None,
    dnsmos: DnsmosOpt = None,
    utmos: UtmosOpt = None,
    speaker: SpeakerOpt = None,
    voice: VoiceOpt = None,
    device: DeviceOpt = "auto",
    dtype: DtypeOpt = "auto",
    as_json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Loudness (LUFS) and words a second of saved answers; if asked for, DNSMOS, UTMOS and likeness to a voice.

    With --asr also what a Whisper hears in them: word errors against the model's own text, by kind. Verdicts on what was heard
    before go with it; `vocalnet eval rescore` judges anew.

    \b
    Examples:
      vocalnet eval speech scores --asr whisper-large-v3 --dnsmos models/dnsmos
      vocalnet eval speech scores --speaker models/CosyVoice2-0.5B --voice me.wav --json
    """
    from vocalnet_cli.core.evaluation.results import read_run
    from vocalnet_cli.core.evaluation.speech import ears, measure_run, table

    run = read_run(folder)
    listeners = ears(dnsmos, utmos, speaker, voice)
    recogniser = None
    if asr is not None:
        from vocalnet_cli.core.evaluation.whisper import Whisper, hear_again
        from vocalnet_cli.core.model.device import pick_device, pick_dtype

        where = pick_device(device)
        recogniser = Whisper(asr, where, pick_dtype(dtype, where))
    with progress(quiet) as bars:
        tasks = {name: bars.add_task(name, total=None) for name in run.questions}
        if recogniser is not None:
            run = hear_again(run, recogniser, lambda name, done, total: bars.update(tasks[name], completed=done, total=total))
        measured = measure_run(run, listeners, lambda name, done, total: bars.update(tasks[name], completed=done, total=total))
    if as_json:
        typer.echo(json.dumps(measured.report.model_dump(mode="json"), ensure_ascii=False))
    else:
        show_table(*table(measured.report.benchmarks), title=f"{folder}: means and 95 % intervals")
