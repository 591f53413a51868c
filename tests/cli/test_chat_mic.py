"""`vocalnet chat mic` on a sound system: spoken to, listened to, interrupted, unplugged. PulseAudio without hardware stands for one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest

from tests.pulse import LOUDSPEAKER, MICROPHONE, Pulse, Tape, missing, wait_until
from tests.tiny import CODES, tiny_model
from vocalnet_cli.core.audio.wav import read_audio, write_wav
from vocalnet_cli.core.config.places import nano_folder
from vocalnet_cli.core.evaluation.wer import Recogniser, known_words, word_errors
from vocalnet_cli.core.model.folder import PARTS
from vocalnet_cli.core.model.weights import save_model
from vocalnet_cli.core.units import ANSWER_HZ, QUESTION_HZ, SPEECH_TOKEN_HZ

pytestmark = pytest.mark.skipif(bool(missing()), reason=f"not installed: {' '.join(missing())} (Debian's packages)")

QUESTION, ANSWER = "q025.opus", "The opposite of weak is strong."
"""Name the opposite of weak."""
QUIET_WITHIN_S = 0.2
INTERRUPTIONS = 3


@pytest.fixture
def pulse() -> Iterator[Pulse]:
    with Pulse() as server:
        yield server


class Talk:
    """A running `vocalnet chat mic --record`, with `--json` or in a terminal of its own."""

    def __init__(self, pulse: Pulse, *args: object, terminal: bool = False) -> None:
        self.folder = pulse.folder / "talk"
        self._out, self._err = pulse.folder / "out", pulse.folder / "err"
        command = ["-m", "vocalnet_cli", "chat", "mic", "--record", self.folder, *args]
        with self._out.open("w") as out, self._err.open("w") as err:
            if terminal:
                self.keys, theirs = os.openpty()
                self.program = pulse.run(sys.executable, *command, stdin=theirs, stdout=theirs, stderr=theirs)
                os.close(theirs)
                threading.Thread(target=self._copy, args=(self._err.open("wb", 0),), daemon=True).start()
            else:
                self.program = pulse.run(sys.executable, *command, "--json", stdout=out, stderr=err)

    def shows(self, text: str) -> None:
        """Waits until this was printed, on stderr or in the terminal."""
        wait_until(lambda: text in self.err or self.program.poll() is not None, text, 300)
        assert text in self.err, self.err

    def listens(self) -> None:
        """Waits until it does."""
        self.shows("Speak")

    def ended(self, turns: int) -> dict[str, Any]:
        """Waits until so many turns are over; the last of them."""
        wait_until(lambda: len(self.turns) >= turns or self.program.poll() is not None, f"{turns} turns", 300)
        assert len(self.turns) >= turns, self.err
        return self.turns[turns - 1]

    @property
    def turns(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._out.read_text().splitlines(keepends=True) if line.endswith("\n")]

    @property
    def kept(self) -> list[dict[str, Any]]:
        """The turns on disk."""
        return [json.loads(line) for line in (self.folder / "conversation.jsonl").read_text().splitlines()]

    @property
    def err(self) -> str:
        return self._err.read_bytes().decode(errors="replace")

    @property
    def screen(self) -> list[str]:
        """What stands on the lines of the terminal."""
        lines = []
        for line in self.err.replace("\r\n", "\n").split("\n"):
            shown: list[str] = []
            for part in line.split("\r"):
                shown[: len(part)] = part
            lines.append("".join(shown).rstrip())
        return lines

    def _copy(self, file: BinaryIO) -> None:
        with file, suppress(OSError):  # the terminal has no other end any more
            while data := os.read(self.keys, 1 << 12):
                file.write(data)


def question(folder: Path, name: str) -> Path:
    """A recording of a benchmark as a wav file."""
    path = folder / f"{Path(name).stem}.wav"
    write_wav(path, read_audio(nano_folder() / "eval" / "nano-combination" / "audio" / name, ANSWER_HZ))
    return path


def test_a_question_is_spoken_and_the_answer_is_understood(pulse):
    """The recogniser knows the words of the domain and no sentence; it hears what the loudspeaker played."""
    tape, talk = Tape(pulse), Talk(pulse)
    talk.listens()
    begin = tape.position
    pulse.say(question(pulse.folder, QUESTION))
    row = talk.ended(1)
    wait_until(lambda: tape.silent_for(0.3, LOUDSPEAKER), "the end of the answer")
    said, answered = tape.sounding(MICROPHONE, begin), tape.sounding(LOUDSPEAKER, begin)
    assert said[-1] < answered[0], "it waited for the end of the question"
    recogniser = Recogniser(known_words())
    alike = recogniser.hearing.alike
    heard = recogniser.hear(without_gaps(tape.both[answered[0] : answered[-1], LOUDSPEAKER]), ANSWER_HZ)
    assert row["text"] == ANSWER
    assert word_errors(row["text"], heard, alike).total <= 1, heard
    assert row["timings_ms"]["first_audio"] > 0 and 500 < row["wait_ms"] < 800
    talk.program.send_signal(signal.SIGINT)
    assert talk.program.wait(60) == 0
    assert talk.kept == [row] and "ALSA" not in talk.err


def without_gaps(sound: np.ndarray) -> np.ndarray:
    """Leaves out where nothing was played at all for 10 ms: a machine that is busy with something else makes sound too late."""
    frame = ANSWER_HZ // 100
    pieces = [sound[at : at + frame] for at in range(0, len(sound), frame)]
    return np.concatenate([piece for piece in pieces if np.any(piece)])


def babbler(folder: Path, seconds: float) -> Path:
    """A model whose every answer is babble of this length, and takes little work."""
    model = tiny_model()
    for head in (model.talker.head, *(module.head for module in model.talker.extra)):
        head.bias[CODES:] = -100.0  # no end
    tokens = {"max_text_tokens": 20, "max_speech_tokens": round(seconds * SPEECH_TOKEN_HZ), "tokens_per_step": 3}
    save_model(model, folder, set(PARTS), generation=tokens)
    return folder


def test_speaking_silences_the_answer_and_a_lost_sound_system_is_told(pulse, tmp_path):
    tape, talk = Tape(pulse), Talk(pulse, "--model", babbler(tmp_path / "tiny", 20))
    talk.listens()
    wav = question(pulse.folder, QUESTION)
    start = tape.position
    pulse.say(wav)
    delays = []
    for turn in range(1, INTERRUPTIONS + 1):
        tape.wait_for_sound(LOUDSPEAKER, start, seconds=0.5)
        start = tape.position
        pulse.say(wav)
        row = talk.ended(turn)
        tape.wait_for_sound(MICROPHONE, start)
        wait_until(lambda: tape.silent_for(0.4, MICROPHONE), "the end of the question")
        spoken, sounded = tape.sounding(MICROPHONE, start), tape.sounding(LOUDSPEAKER, start)
        delays.append((sounded[sounded < spoken[-1]][-1] - spoken[0]) / ANSWER_HZ)
        start = tape.position
        assert row["text"].startswith(row["heard"]) and 0 < row["audio_s"] < 15
    print("silent after", [f"{1000 * delay:.0f} ms" for delay in delays])
    assert sorted(delays)[INTERRUPTIONS // 2] <= QUIET_WITHIN_S, f"silent {delays} s after the voice"
    tape.wait_for_sound(LOUDSPEAKER, start, seconds=0.5)
    pulse.server.kill()
    assert talk.program.wait(120) == 1
    last = talk.err.splitlines()[-2:]
    assert "gone" in last[0] and "--record" in last[1] and "ALSA" not in talk.err
    assert talk.kept == talk.turns and len(talk.kept) == INTERRUPTIONS + 1
    assert "heard" in talk.kept[-1] and talk.kept[-1]["audio_s"] > 0


def test_half_duplex_does_not_hear_who_speaks_during_an_answer(pulse, tmp_path):
    tape, talk = Tape(pulse), Talk(pulse, "--half-duplex", "--model", babbler(tmp_path / "tiny", 3))
    talk.listens()
    wav = question(pulse.folder, QUESTION)
    start = tape.position
    pulse.say(wav)
    tape.wait_for_sound(LOUDSPEAKER, start, seconds=0.3)
    middle = tape.position
    pulse.say(wav)
    row = talk.ended(1)
    assert "heard" not in row and row["audio_s"] == pytest.approx(3, abs=0.05)
    wait_until(lambda: tape.silent_for(0.3, LOUDSPEAKER) and tape.silent_for(0.3, MICROPHONE), "silence")
    spoken, sounded = tape.sounding(MICROPHONE, middle), tape.sounding(LOUDSPEAKER, start)
    assert sounded[0] < spoken[0] < spoken[-1] < sounded[-1], "the answer went on through all of the question"
    assert len(talk.turns) == 1


def test_in_a_terminal_by_key_with_chosen_devices():
    """The default devices are deaf: what is heard came from the chosen ones."""
    with Pulse(deaf=True) as pulse:
        command = [sys.executable, "-m", "vocalnet_cli", "chat", "mic", "--list"]
        listed = subprocess.run(command, env=pulse.env, capture_output=True, text=True, check=True)
        assert {"booth", "horn"} <= {line.split("\t")[1] for line in listed.stdout.splitlines()} and listed.stderr == ""
        tape, talk = Tape(pulse), Talk(pulse, "--ptt", "--input", "booth", "--speaker", "horn", terminal=True)
        talk.shows("Enter starts a question")
        start = tape.position
        os.write(talk.keys, b"\n")
        pulse.say(question(pulse.folder, QUESTION))
        talk.shows("[" + "#" * 10)
        tape.wait_for_sound(MICROPHONE, start)
        wait_until(lambda: tape.silent_for(0.3, MICROPHONE), "the end of the question")
        assert not len(tape.sounding(LOUDSPEAKER, start)), "a pause is no end"
        os.write(talk.keys, b"\n")
        talk.shows("s said")
        assert len(tape.sounding(LOUDSPEAKER, start)) > ANSWER_HZ / 4
        os.write(talk.keys, b"\x04")  # Ctrl-D: no more keys
        assert talk.program.wait(60) == 0
        assert ANSWER in talk.screen and any(line.startswith("  first sound after ") for line in talk.screen)
        (row,) = talk.kept
        sounds = {"question_s": (talk.folder / "001-question.wav", QUESTION_HZ), "audio_s": (Path(row["audio"]), ANSWER_HZ)}
        for name, (path, rate) in sounds.items():
            assert len(read_audio(path, rate)) / rate == pytest.approx(row[name], abs=0.01)
        assert row["text"] == ANSWER


def test_no_sound_system_is_told_in_two_lines(pulse):
    pulse.server.kill()
    pulse.server.wait()
    talk = Talk(pulse)
    assert talk.program.wait(120) == 1
    lines = talk.err.splitlines()
    assert len(lines) == 2 and "microphone" in lines[0] and "vocalnet chat file" in lines[1]
