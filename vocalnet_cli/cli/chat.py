"""`vocalnet chat`: a spoken conversation, from files."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vocalnet_cli.cli.options import DeviceOpt, DtypeOpt, JsonOpt, ModelOpt, QuantizeOpt, QuietOpt, SeedOpt, SetOpt, VocoderOpt, VoiceOpt
from vocalnet_cli.core.errors import VocalnetError

if TYPE_CHECKING:
    from vocalnet_cli.core.conversation.conversation import Conversation
    from vocalnet_cli.core.conversation.turns import TurnResult
    from vocalnet_cli.core.generation.events import Event

app = typer.Typer(no_args_is_help=True, help="Talk with a model: several turns, each knowing those before it.")

HistoryOpt = Annotated[
    int | None, typer.Option("--history", metavar="N", min=0, help="Earlier turns an answer takes into account; none asks the model.")
]
SystemOpt = Annotated[str | None, typer.Option("--system", metavar="TEXT", help="System prompt instead of the model's own; '' for none.")]
RecordOpt = Annotated[
    Path | None, typer.Option("--record", metavar="DIR", help="Keep the conversation: sound files, a line of JSON a turn.")
]
FilesArg = Annotated[
    list[Path], typer.Argument(metavar="QUESTION...", help="Sound files, or folders of them: one question each, in order.")
]


@app.command("file")
def chat_file(
    questions: FilesArg,
    history: HistoryOpt = None,
    system: SystemOpt = None,
    record: RecordOpt = None,
    realtime: Annotated[bool, typer.Option("--realtime", help="Take the time of the questions and answers, as in life.")] = False,
    model: ModelOpt = None,
    vocoder: VocoderOpt = None,
    voice: VoiceOpt = None,
    device: DeviceOpt = "auto",
    dtype: DtypeOpt = "auto",
    seed: SeedOpt = None,
    overrides: SetOpt = None,
    quantize: QuantizeOpt = None,
    as_json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Hold a conversation whose questions are recordings: as fast as possible, or in real time.

    \b
    Examples:
      vocalnet chat file first.wav second.wav --record talk
      vocalnet chat file questions/ --realtime --json --model VocalNet/VocalNet-1B --history 4
    """
    from vocalnet_cli.core.conversation.files import converse
    from vocalnet_cli.core.conversation.record import Recorder
    from vocalnet_cli.core.generation.batch import find_questions

    files = find_questions(questions)
    talk = new_conversation(
        model, device, dtype, quantize, [*(overrides or []), *history_override(history)], system, seed, quiet, vocoder, voice
    )
    recorder = Recorder(record) if record is not None else None
    live = sys.stdout.isatty() and not as_json
    bad = 0
    for result in converse(
        talk,
        files,
        recorder=recorder,
        realtime=realtime,
        start=lambda file: typer.echo(f"{file}: ", nl=False) if live else None,
        hear=lambda event: live_text(event) if live else None,
    ):
        bad += result.error is not None
        show_turn(result, as_json, quiet, live)
    if bad:
        raise VocalnetError(f"{bad} of {len(files)} questions could not be used", "The reasons are above.")


def history_override(history: int | None) -> list[str]:
    """`--history` as a `--set`."""
    return [] if history is None else [f"generation.history={history}"]


def new_conversation(
    model: str | None,
    device: str,
    dtype: str,
    quantize: str | None,
    overrides: list[str],
    system: str | None,
    seed: int | None,
    quiet: bool,
    vocoder: str | None = None,
    voice: Path | None = None,
) -> Conversation:
    """A conversation with the model the options name, loaded."""
    from vocalnet_cli.core.conversation.conversation import Conversation
    from vocalnet_cli.core.generation import load
    from vocalnet_cli.core.generation.vocoder import find_voice
    from vocalnet_cli.core.model.device import pick_device, pick_dtype
    from vocalnet_cli.core.model.quantize import check_quantize

    def note(line: str) -> None:
        if not quiet:
            typer.echo(line, err=True)

    check_quantize(quantize)
    folder = load.find_model(model)
    plan = load.plan_answers(folder, overrides, vocoder)
    settings = plan.generation
    if settings.history and not load.generation_settings(folder).history:
        note("note: this model was trained on questions that stand alone; with earlier turns in view its answers get worse")
    where = pick_device(device)
    speaker = find_voice(plan, voice, where)
    answerer = load.load_answerer(plan, where, pick_dtype(dtype, where), quantize)
    if answerer.vocoder is None:
        note("note: this model has no vocoder, so its answers are text only")
    return Conversation(answerer, settings, system, seed, speaker, note)


def live_text(event: Event) -> None:
    """Shows the text of an answer while it is being written."""
    from vocalnet_cli.core.generation.events import TextDelta

    if isinstance(event, TextDelta):
        typer.echo(event.text, nl=False)


def show_turn(result: TurnResult, as_json: bool, quiet: bool, live: bool) -> None:
    """A turn that is over: its answer on stdout (unless it stood there live), its times on stderr."""
    if as_json:
        typer.echo(json.dumps(result.as_json(), ensure_ascii=False))
    if result.error is not None:
        typer.echo(f"{result.error.problem}\n{result.error.hint}", err=True)
        return
    if not as_json:
        typer.echo("" if live else f"{result.file}: {' '.join(result.text.split())}")
    if quiet:
        return
    if "first_audio" in result.timings_ms:
        stalled = f", stalled {result.stalled_ms:.0f} ms" if result.stalled_ms else ""
        waited = f" (the question's end was clear {result.wait_ms:.0f} ms after the last word)" if result.wait_ms else ""
        typer.echo(f"  first sound after {result.timings_ms['first_audio']:.0f} ms{waited}, {result.audio_s:.1f} s said{stalled}", err=True)
    if result.heard is not None:
        typer.echo(f"  interrupted after: {result.heard or '(nothing)'}", err=True)
    if result.truncated:
        typer.echo("  note: cut off at its longest (generation.max_text_tokens or max_speech_tokens)", err=True)
    elif result.cut and result.audio_s:
        typer.echo("  note: too little was said for the text", err=True)
