"""`vocalnet chat mic`: talk with a model."""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from vocalnet_cli.cli.chat import HistoryOpt, RecordOpt, SystemOpt, history_override, live_text, new_conversation, show_turn
from vocalnet_cli.cli.options import DeviceOpt, DtypeOpt, JsonOpt, ModelOpt, QuantizeOpt, QuietOpt, SeedOpt, SetOpt, VocoderOpt, VoiceOpt

if TYPE_CHECKING:
    import numpy as np

    from vocalnet_cli.core.conversation.ears import KeyEars

InputOpt = Annotated[str | None, typer.Option("--input", metavar="DEVICE", help="Microphone: a number or part of a name of --list.")]
OutOpt = Annotated[str | None, typer.Option("--speaker", metavar="DEVICE", help="Loudspeaker: a number or part of a name of --list.")]
_WIDTH = 20


def chat_mic(
    microphone: InputOpt = None,
    loudspeaker: OutOpt = None,
    list_them: Annotated[bool, typer.Option("--list", help="List the sound devices and end.")] = False,
    ptt: Annotated[bool, typer.Option("--ptt", help="Push to talk: Enter starts a question and ends it.")] = False,
    half_duplex: Annotated[
        bool, typer.Option("--half-duplex", help="Do not listen during answers: for loudspeakers the mic hears.")
    ] = False,
    history: HistoryOpt = None,
    system: SystemOpt = None,
    record: RecordOpt = None,
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
    """Talk: a pause ends your question, speaking during an answer silences it, Ctrl-C ends the conversation.

    \b
    Examples:
      vocalnet chat mic --half-duplex
      vocalnet chat mic --input 3 --record talk --model VocalNet/VocalNet-1B
    """
    from vocalnet_cli.core.conversation import devices
    from vocalnet_cli.core.conversation.ears import KeyEars, SileroVad, VoiceEars
    from vocalnet_cli.core.conversation.live import Live, Player
    from vocalnet_cli.core.conversation.record import Recorder

    if list_them:
        for number, name, ins, outs in devices.list_devices():
            typer.echo(f"{number}\t{name}\t{ins} in, {outs} out")
        return
    places = devices.pick(microphone, "input"), devices.pick(loudspeaker, "output")
    keys = KeyEars() if ptt else None
    ears = keys or VoiceEars(SileroVad())
    recorder = Recorder(record) if record is not None else None
    changes = [*(overrides or []), *history_override(history)]
    talk = new_conversation(model, device, dtype, quantize, changes, system, seed, quiet, vocoder, voice)
    live = sys.stdout.isatty() and not as_json
    player = Player()
    chat = Live(talk, ears, player, recorder=recorder, half_duplex=half_duplex, hear=lambda event: live_text(event) if live else None)
    with suppress(KeyboardInterrupt), devices.opened(player, *places) as frames:
        if not quiet:
            typer.echo("Enter starts a question and ends it; Ctrl-C ends the conversation." if ptt else "Speak; Ctrl-C ends it.", err=True)
        if keys is not None:
            threading.Thread(target=_toggled, args=(keys,), daemon=True).start()
        for result in chat.run(_metered(frames) if sys.stderr.isatty() and not quiet else frames):
            show_turn(result, as_json, quiet, live)


def _toggled(keys: KeyEars) -> None:
    for _ in sys.stdin:
        keys.toggle()


def _metered(frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The same frames, with their level drawn on stderr: 60 dB in 20 marks."""
    for frame in frames:
        level = math.sqrt(float((frame**2).mean())) if len(frame) else 0.0
        marks = max(0, min(_WIDTH, round(_WIDTH + _WIDTH * math.log10(max(level, 1e-9)) / 3)))
        sys.stderr.write(f"\r[{'#' * marks}{' ' * (_WIDTH - marks)}] ")
        sys.stderr.flush()
        yield frame
