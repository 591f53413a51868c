"""Microphone and loudspeaker: what is missing or goes away is told in two lines. The sound system is a made-up one."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from vocalnet_cli.core.conversation import devices
from vocalnet_cli.core.conversation.ears import FRAME
from vocalnet_cli.core.conversation.live import Player
from vocalnet_cli.core.errors import UsageError


class PortAudioError(Exception):
    pass


class Stream:
    """A stream that calls back a few times as soon as it is opened; what a loudspeaker was given is in `given`."""

    def __init__(self, calls, fill, *, callback, blocksize, finished_callback, **options):
        self.calls, self.fill, self.callback, self.blocksize, self.finished, self.options = (
            calls,
            fill,
            callback,
            blocksize,
            finished_callback,
            options,
        )
        self.given: list[np.ndarray] = []

    def __enter__(self):
        for _ in range(self.calls):
            data = np.full((self.blocksize, 1), self.fill, np.float32)
            self.callback(data, self.blocksize, None, None)
            self.given.append(data)
        return self

    def __exit__(self, *_):
        self.finished()


@pytest.fixture
def fake(monkeypatch):
    opened: list[Stream] = []

    def stream(calls, fill):
        def build(**options):
            opened.append(Stream(calls, fill, **options))
            return opened[-1]

        return build

    module = SimpleNamespace(PortAudioError=PortAudioError, InputStream=stream(10, 0.25), OutputStream=stream(2, 9.0), opened=opened)
    module.query_devices = lambda *_: {"index": 0}
    monkeypatch.setattr(devices, "sound", lambda: module)
    monkeypatch.setattr(devices, "LOST_S", 0.05)
    return module


def refuse(*_):
    raise PortAudioError("Error querying device -1")


def test_frames_come_in_sound_goes_out_and_a_lost_microphone_is_told(fake):
    player = Player()
    player.begin(1)
    player.push(1, np.full(500, 2.0, np.float32))
    with devices.opened(player, None, 3) as frames:
        got = [next(frames) for _ in range(3)]
        with pytest.raises(devices.DeviceError, match="microphone is gone") as error:
            next(frames)
    assert all(len(frame) == FRAME and (frame == 0.25).all() for frame in got)
    loudspeaker, microphone = fake.opened
    sound = np.concatenate(loudspeaker.given)[:, 0]
    assert (sound[:500] == 1.0).all() and not sound[500:].any(), "clipped to full scale, then silence"
    assert loudspeaker.options["samplerate"] == 24000 and loudspeaker.options["device"] == 3
    assert microphone.options["samplerate"] == 16000
    assert "\n" not in error.value.problem and "\n" not in error.value.hint


def test_a_stream_that_stops_ends_the_frames(fake):
    with devices.opened(Player(), None, None) as frames:
        next(frames)
        fake.opened[0].finished()
        with pytest.raises(devices.DeviceError, match="gone"):
            next(frames)


def test_a_device_that_may_not_be_opened_is_told(fake):
    fake.InputStream = refuse_with("Device unavailable")
    with pytest.raises(devices.DeviceError, match="microphone cannot be opened .Device unavailable"), devices.opened(Player(), None, None):
        pass


@pytest.mark.parametrize(("kind", "name"), [("InputStream", "microphone"), ("OutputStream", "loudspeaker")])
def test_a_device_that_may_not_be_used_ends_the_command_in_two_lines(fake, vocalnet, tiny_folder, tmp_path, kind, name):
    setattr(fake, kind, refuse_with("Permission denied"))
    result = vocalnet("chat", "mic", "--quiet", "--record", tmp_path / "talk", "--model", tiny_folder)
    assert result.code == 1 and result.out == ""
    told, hint = result.err.splitlines()
    assert told == f"the {name} cannot be opened (Permission denied)" and "may use it" in hint


def refuse_with(reason):
    def build(**_):
        raise PortAudioError(reason)

    return build


def test_no_device_and_a_wrong_name_are_told(fake, vocalnet):
    assert devices.pick("2", "input") == 2 and devices.pick("USB", "output") == "USB" and devices.pick(None, "input") is None
    fake.query_devices = refuse
    with pytest.raises(UsageError, match="--input USB"):
        devices.pick("USB", "input")
    result = vocalnet("chat", "mic")
    assert result.code == 1 and result.out == "" and len(result.err.splitlines()) == 2
    assert "no microphone" in result.err and "vocalnet chat file" in result.err
