"""Microphone and loudspeaker through sounddevice (PortAudio): two streams, each with a rate of its own."""

from __future__ import annotations

import ctypes
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vocalnet_cli.core.audio.wav import read_audio
from vocalnet_cli.core.conversation.ears import FRAME
from vocalnet_cli.core.errors import UsageError, VocalnetError
from vocalnet_cli.core.units import ANSWER_HZ, QUESTION_HZ

if TYPE_CHECKING:  # it brings torch, which nobody waits for to be told that there is no microphone
    from vocalnet_cli.core.conversation.live import Player

LOST_S = 2.0
"""A microphone that gives nothing for so long is gone."""
_IGNORED = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p)(lambda *_: None)


class DeviceError(VocalnetError):
    """A microphone or loudspeaker that is not there, may not be used, or went away."""


def sound() -> Any:
    """The sounddevice module. Raises DeviceError if it, or the PortAudio it needs, is not installed."""
    with suppress(OSError, AttributeError):  # ALSA tells stderr of every device it tries and every late sample
        ctypes.CDLL("libasound.so.2").snd_lib_error_set_handler(_IGNORED)
    try:
        import sounddevice
    except ModuleNotFoundError as error:
        raise DeviceError("sounddevice is not installed", "To talk live: pip install 'vocalnet-cli[stream]'") from error
    except OSError as error:
        raise DeviceError(f"sounddevice cannot be used ({error})", "On Debian: apt-get install libportaudio2") from error
    return sounddevice


def list_devices() -> list[tuple[int, str, int, int]]:
    """Number, name, microphone channels and loudspeaker channels of each device."""
    return [(d["index"], d["name"], d["max_input_channels"], d["max_output_channels"]) for d in sound().query_devices()]


def pick(wanted: str | None, kind: str) -> int | str | None:
    """A device as sounddevice wants it: a number, part of a name, or none for the default. `kind` is `input` or `output`.

    Raises DeviceError if there is none at all, UsageError if there is none of that name.
    """
    what, option = ("microphone", "--input") if kind == "input" else ("loudspeaker", "--speaker")
    module = sound()
    device: int | str | None = int(wanted) if wanted is not None and wanted.isdigit() else wanted
    try:
        module.query_devices(device, kind)
    except (ValueError, module.PortAudioError) as error:
        if wanted is None:
            hint = "Plug one in, start the sound server, allow this program to use it, or use recordings: vocalnet chat file Q.wav"
            raise DeviceError(f"there is no {what}", hint) from error
        raise UsageError(f"{option} {wanted}: no such {what}", "List them: vocalnet chat mic --list") from error
    return device


@contextmanager
def opened(player: Player, microphone: int | str | None, loudspeaker: int | str | None) -> Iterator[Iterator[np.ndarray]]:
    """Both streams, open: yields the microphone's frames [512] at 16 kHz as they come, while the loudspeaker pulls from the player.

    The frames end with DeviceError when the microphone gives nothing any more or the loudspeaker stops.
    """
    module = sound()
    heard: queue.SimpleQueue[np.ndarray] = queue.SimpleQueue()
    stopped = threading.Event()

    def listen(data: np.ndarray, *_: Any) -> None:
        heard.put(data[:, 0].copy())

    def play(data: np.ndarray, count: int, *_: Any) -> None:
        data[:, 0] = np.clip(player.pull(count), -1, 1)

    ends: Callable[[], None] = stopped.set
    # A device is about two blocks late; short ones from the microphone let an answer that is spoken into fall silent sooner.
    with ExitStack() as stack:
        for kind, name, options in (
            (
                module.OutputStream,
                "loudspeaker",
                {"device": loudspeaker, "samplerate": ANSWER_HZ, "callback": play, "blocksize": ANSWER_HZ // 50},
            ),
            (
                module.InputStream,
                "microphone",
                {"device": microphone, "samplerate": QUESTION_HZ, "callback": listen, "blocksize": QUESTION_HZ // 100},
            ),
        ):
            try:
                stack.enter_context(kind(channels=1, dtype="float32", latency="low", finished_callback=ends, **options))
            except module.PortAudioError as error:
                reason = str(error.args[0]) if error.args else "no reason given"
                hint = "Check that it is plugged in, free and that this program may use it; --list shows the others."
                raise DeviceError(f"the {name} cannot be opened ({reason})", hint) from error
        yield _frames(heard, stopped)


def _frames(heard: queue.SimpleQueue[np.ndarray], stopped: threading.Event) -> Iterator[np.ndarray]:
    hint = "With --record DIR all turns are on disk, this one as far as it was heard; plug it in and start again."
    waiting = np.zeros(0, np.float32)
    while True:
        while len(waiting) < FRAME:
            try:
                waiting = np.concatenate([waiting, heard.get(timeout=LOST_S)])
            except queue.Empty:
                raise DeviceError(f"the microphone is gone: nothing came from it for {LOST_S:g} s", hint) from None
            if stopped.is_set():
                raise DeviceError("the microphone or the loudspeaker is gone", hint)
        yield waiting[:FRAME]
        waiting = waiting[FRAME:]


def play_file(path: Path, loudspeaker: int | str | None = None) -> None:
    """Play a sound file to its end. Raises AudioError for one that cannot be read, DeviceError for a loudspeaker that cannot be used."""
    module = sound()
    samples = read_audio(path, ANSWER_HZ)
    try:
        module.play(samples, ANSWER_HZ, blocking=True, device=loudspeaker)
    except module.PortAudioError as error:
        reason = str(error.args[0]) if error.args else "no reason given"
        raise DeviceError(
            f"the loudspeaker cannot be opened ({reason})", "Check that it is plugged in and free, or name another."
        ) from error
