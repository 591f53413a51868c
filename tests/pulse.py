"""A private PulseAudio server with no hardware: a virtual microphone and a virtual loudspeaker, both on one tape.

Both are channels of one sink, so what was said and what was answered are recorded sample by sample beside each other: times between
them are counted on the tape, and a machine that is busy with something else cannot blur them.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from ctypes.util import find_library
from pathlib import Path
from shutil import rmtree, which
from typing import Any

import numpy as np

from vocalnet_cli.core.units import ANSWER_HZ

_PLUGIN = "alsa-lib/libasound_module_pcm_pulse.so"
PACKAGES = {
    "libportaudio2": lambda: find_library("portaudio"),
    "libasound2-plugins": lambda: any(any(Path("/usr").glob(f"{place}/{_PLUGIN}")) for place in ("lib*", "lib*/*")),
    "pulseaudio": lambda: which("pulseaudio"),
    "pulseaudio-utils": lambda: which("pactl") and which("pacat") and which("paplay"),
    "util-linux": lambda: which("setpriv"),
}
"""Debian's packages that are needed, and how to see that they are there."""
MICROPHONE, LOUDSPEAKER = 0, 1
"""Channels of the tape."""
LOUD = 0.005
"""Amplitude from which a sample of the tape is sound."""
_NOWHERE = subprocess.DEVNULL
Program = subprocess.Popen[bytes]
_MODULES = (
    "module-native-protocol-unix",
    f"module-null-sink sink_name=room rate={ANSWER_HZ} channels=2 channel_map=front-left,front-right",
    "module-remap-sink sink_name=voice master=room channels=1 channel_map=mono master_channel_map=front-left remix=no",
    "module-remap-sink sink_name=loud master=room channels=1 channel_map=mono master_channel_map=front-right remix=no",
    "module-remap-source source_name=mic master=room.monitor channels=1 channel_map=mono master_channel_map=front-left remix=no",
    f"module-null-sink sink_name=nowhere rate={ANSWER_HZ} channels=1",
)
_ALSA = """
pcm.!default {type pulse}
ctl.!default {type pulse}
pcm.booth {type pulse device mic}
pcm.horn {type pulse device loud}
"""


def missing() -> list[str]:
    """Debian's packages that are not installed."""
    return [package for package, found in PACKAGES.items() if not found()]


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 120) -> None:
    """Returns when `condition` holds; fails with `what` when it does not within `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        time.sleep(0.005)


class Tape:
    """All that the microphone and the loudspeaker carry, from the start on (24 kHz)."""

    def __init__(self, pulse: Pulse) -> None:
        self._pieces: list[np.ndarray] = []
        options = ["--raw", "--device=room.monitor", "--format=s16le", f"--rate={ANSWER_HZ}", "--channels=2", "--latency-msec=20"]
        self._program = pulse.run("pacat", "--record", *options, stdout=subprocess.PIPE)
        threading.Thread(target=self._roll, daemon=True).start()
        wait_until(lambda: self.position > 0, "something on the tape")

    @property
    def position(self) -> int:
        """Samples so far."""
        return sum(map(len, list(self._pieces)))

    @property
    def both(self) -> np.ndarray:
        """What was said and what was answered, [n, 2]."""
        return np.concatenate(list(self._pieces))

    def sounding(self, channel: int, since: int = 0) -> np.ndarray:
        """Positions from `since` on at which a channel is not silent."""
        return since + np.flatnonzero(np.abs(self.both[since:, channel]) > LOUD)

    def wait_for_sound(self, channel: int, since: int, seconds: float = 0.0) -> None:
        """Waits until more than so many seconds of a channel, counted from `since`, are sound."""
        wait_until(lambda: len(self.sounding(channel, since)) > seconds * ANSWER_HZ, f"sound of channel {channel}", 300)

    def silent_for(self, seconds: float, channel: int) -> bool:
        """No sound in the last seconds."""
        return not len(self.sounding(channel, max(0, self.position - round(seconds * ANSWER_HZ))))

    def _roll(self) -> None:
        assert self._program.stdout is not None
        rest = b""
        while data := os.read(self._program.stdout.fileno(), 1 << 16):
            data = rest + data
            whole = len(data) // 4 * 4
            rest = data[whole:]
            self._pieces.append(np.frombuffer(data[:whole], "<i2").reshape(-1, 2) / np.float32(1 << 15))


class Pulse:
    """The server, and the programs that run beside it; all end with the `with` block, and with this process however it ends.

    The default devices are the microphone and the loudspeaker, or with `deaf` ones where nothing is said or heard; `booth` and `horn`
    are other names of the true ones.
    """

    def __init__(self, deaf: bool = False) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="pulse"))  # short: the name of a socket has at most 107 letters
        own = {name: value for name, value in os.environ.items() if not name.startswith(("PULSE_", "DBUS_", "DISPLAY"))}
        places = dict.fromkeys(("HOME", "XDG_RUNTIME_DIR", "PULSE_RUNTIME_PATH"), str(self.folder))
        sink, source = ("nowhere", "nowhere.monitor") if deaf else ("loud", "mic")
        client = self.folder / "client.conf"
        self.env = own | places | {"PULSE_SINK": sink, "PULSE_SOURCE": source, "PULSE_CLIENTCONFIG": str(client)}
        client.write_text("autospawn = no\n")  # a server that was killed stays away
        (self.folder / ".asoundrc").write_text(_ALSA)
        self._programs: list[Program] = []

    def __enter__(self) -> Pulse:
        options = ["-n", "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no", "--disable-shm=yes", "--log-level=error"]
        log = self.folder / "pulse.log"
        with log.open("w") as errors:
            self.server = self.run("pulseaudio", *options, *(part for module in _MODULES for part in ("-L", module)), stderr=errors)
        try:
            wait_until(lambda: self.server.poll() is not None or self._serves(), "a PulseAudio server")
            assert self.server.poll() is None, f"pulseaudio cannot be brought up: {log.read_text()}"
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for program in reversed(self._programs):
            if program.poll() is None:
                program.kill()
            program.wait()
        rmtree(self.folder, ignore_errors=True)

    def run(self, program: str, *args: object, stdin: Any = _NOWHERE, stdout: Any = _NOWHERE, stderr: Any = _NOWHERE) -> Program:
        """Starts a program that uses this server."""
        command = ["setpriv", "--pdeathsig", "KILL", program, *map(str, args)]
        running = subprocess.Popen(command, env=self.env, stdin=stdin, stdout=stdout, stderr=stderr)
        self._programs.append(running)
        return running

    def say(self, wav: Path) -> None:
        """Speaks a sound file into the microphone; comes back at once."""
        self.run("paplay", "--device=voice", "--latency-msec=40", wav)

    def _serves(self) -> bool:
        asked = subprocess.run(["pactl", "list", "short", "sources"], env=self.env, capture_output=True, text=True)
        return asked.returncode == 0 and "\tmic\t" in asked.stdout
