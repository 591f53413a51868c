"""`vocalnet chat mic`: talk with a model."""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import takewhile
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

    if list_them:
        for number, name, ins, outs in devices.list_devices():
            typer.echo(f"{number}\t{name}\t{ins} in, {outs} out")
        return
    places = devices.pick(microphone, "input"), devices.pick(loudspeaker, "output")
    from vocalnet_cli.core.conversation.ears import KeyEars, SileroVad, VoiceEars
    from vocalnet_cli.core.conversation.live import Live, Player
    from vocalnet_cli.core.conversation.record import Recorder

    keys = KeyEars() if ptt else None
    ears = keys or VoiceEars(SileroVad())
    recorder = Recorder(record) if record is not None else None
    changes = [*(overrides or []), *history_override(history)]
    talk = new_conversation(model, device, dtype, quantize, changes, system, seed, quiet, vocoder, voice)
    live = sys.stdout.isatty() and not as_json
    player, meter, keys_end = Player(), _Meter(sys.stderr.isatty() and not quiet), threading.Event()
    hear = live_text if live else lambda event: None
    chat = Live(talk, ears, player, recorder=recorder, half_duplex=half_duplex, hear=hear, state=meter.state)
    with suppress(KeyboardInterrupt), devices.opened(player, *places) as frames:
        if not quiet:
            typer.echo("Enter starts a question and ends it; Ctrl-C ends the conversation." if ptt else "Speak; Ctrl-C ends it.", err=True)
        if keys is not None:
            threading.Thread(target=_toggled, args=(keys, keys_end), daemon=True).start()
        for result in chat.run(meter.watch(takewhile(lambda _: not keys_end.is_set(), frames))):
            show_turn(result, as_json, quiet, live)


def _toggled(keys: KeyEars, end: threading.Event) -> None:
    for _ in sys.stdin:
        keys.toggle()
    end.set()  # nobody can ask anything any more


class _Meter:
    """How loud it is at the microphone, on stderr: 60 dB in 20 marks. Answers are shown on the same line, and it makes room for them."""

    def __init__(self, on: bool) -> None:
        self._on = on
        self._drawn = False
        self._answering = False

    def state(self, word: str) -> None:
        """What goes on in the conversation."""
        self._answering = word == "answering"
        if self._answering:
            self._wipe()

    def watch(self, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """The same frames, shown as they pass."""
        try:
            for frame in frames:
                if self._on and not self._answering:
                    self._draw(math.sqrt(float((frame**2).mean())))
                yield frame
        finally:
            self._wipe()

    def _draw(self, level: float) -> None:
        marks = max(0, min(_WIDTH, round(_WIDTH + _WIDTH * math.log10(max(level, 1e-9)) / 3)))
        self._write(f"\r[{'#' * marks}{' ' * (_WIDTH - marks)}] ")
        self._drawn = True

    def _wipe(self) -> None:
        if self._drawn:
            self._write(f"\r{' ' * (_WIDTH + 3)}\r")
            self._drawn = False

    def _write(self, text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()
