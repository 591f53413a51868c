"""Live conversations without a device: frames in, sound out, in lockstep; the voice is a recorded one."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest

from tests.tiny import tiny_model, tone
from vocalnet_cli.core.audio.wav import read_audio
from vocalnet_cli.core.config.schema import GenerationSettings
from vocalnet_cli.core.conversation.conversation import Conversation
from vocalnet_cli.core.conversation.ears import FRAME, FRAME_S, KeyEars, Pauses, SileroVad, VoiceEars
from vocalnet_cli.core.conversation.live import Live, Player
from vocalnet_cli.core.conversation.record import Recorder
from vocalnet_cli.core.units import ANSWER_HZ, QUESTION_HZ

SETTINGS = GenerationSettings(max_text_tokens=12, max_speech_tokens=60, tokens_per_step=2)


@pytest.fixture(scope="module")
def speech():
    """A person speaking, 16 kHz."""
    from pathlib import Path

    return read_audio(Path(__file__).parents[2] / "assets" / "human.wav")


def silence(seconds: float) -> np.ndarray:
    return np.random.default_rng(0).normal(scale=1e-4, size=round(seconds * QUESTION_HZ)).astype(np.float32)


def frames(*sounds: np.ndarray) -> list[np.ndarray]:
    whole = np.concatenate(sounds)
    return [whole[at : at + FRAME] for at in range(0, len(whole) - FRAME + 1, FRAME)]


class Room:
    """A microphone and a loudspeaker that move on together, 32 ms a frame."""

    def __init__(self, conversation, ears, **options):
        self.player = Player()
        self.live = Live(conversation, ears, self.player, **options)
        self.played: list[np.ndarray] = []

    def wait(self) -> None:
        """Until the answer that is being made is whole."""
        end = time.monotonic() + 60
        while self.live._turn is not None and self.live._turn.is_alive() and time.monotonic() < end:
            time.sleep(0.005)

    def microphone(self, heard, patient: bool = True):
        for frame in heard:
            if patient:
                self.wait()
            self.played.append(self.player.pull(round(FRAME_S * ANSWER_HZ)))
            yield frame


class Marks:
    """Ears that start and end questions at given frames, and suspect at others that one starts."""

    def __init__(self, suspicious: tuple[int, ...] = (), **at: str) -> None:
        self._suspicious = suspicious
        self.question, self.wait_s = tone(0.5), 0.6
        self._at, self._frame, self.resets = {int(k[1:]): v for k, v in at.items()}, -1, 0

    @property
    def suspects(self):
        return self._frame in self._suspicious

    def push(self, frame):
        self._frame += 1
        return self._at.get(self._frame)

    def reset(self):
        self.resets += 1
        self._frame += 1


def test_a_voice_makes_a_question(speech):
    ears = VoiceEars(SileroVad())
    marks = [(at, mark) for at, frame in enumerate(frames(silence(1.0), speech, silence(1.5))) if (mark := ears.push(frame))]
    assert marks[0][1] == "start" and marks[-1][1] == "end"
    start, end = marks[0][0] * FRAME_S, marks[-1][0] * FRAME_S
    assert 1.0 < start < 1.0 + len(speech) / QUESTION_HZ and end <= 1.0 + len(speech) / QUESTION_HZ + 0.7
    assert 0.55 < ears.wait_s < 0.7
    loudest = np.abs(speech).max()
    assert np.abs(ears.question).max() == pytest.approx(loudest) and len(ears.question) < len(speech) + 0.8 * QUESTION_HZ


@pytest.mark.parametrize("sound", [silence(3.0), tone(2.0, 1000.0)], ids=["silence", "tone"])
def test_what_is_no_voice_makes_none(sound):
    ears = VoiceEars(SileroVad())
    assert not any(ears.push(frame) for frame in frames(sound))


def test_a_question_ends_at_the_longest(speech):
    ears = VoiceEars(SileroVad(), Pauses(longest_s=0.5, silence_s=5.0))
    marks = [mark for frame in frames(speech, silence(1.0)) if (mark := ears.push(frame))]
    assert "end" in marks and len(ears.question) == pytest.approx(0.5 * QUESTION_HZ, abs=FRAME)


def test_a_key_makes_a_question():
    ears = KeyEars()
    got = []
    for at, frame in enumerate(frames(tone(1.0))):
        if at in (5, 15):
            ears.toggle()
        got.append(ears.push(frame))
    assert [(at, mark) for at, mark in enumerate(got) if mark] == [(5, "start"), (15, "end")]
    np.testing.assert_array_equal(ears.question, tone(1.0)[5 * FRAME : 16 * FRAME])


def test_an_answer_is_played_as_it_is_made(tmp_path):
    conversation = Conversation(tiny_model(), SETTINGS)
    room = Room(conversation, Marks(f2="start", f10="end", f30="start", f40="end"), recorder=Recorder(tmp_path / "talk"))
    results = list(room.live.run(room.microphone(frames(silence(2.5)))))
    assert [r.turn for r in results] == [1, 2] and all(r.heard is None and r.wait_ms == 600 for r in results)
    assert [turn.answer for turn in conversation.turns] == [r.text for r in results]
    played = np.concatenate(room.played)
    rows = [json.loads(line) for line in (tmp_path / "talk" / "conversation.jsonl").read_text().splitlines()]
    answers = [read_audio(row["audio"], ANSWER_HZ) for row in rows]
    starts, heard = np.flatnonzero(np.abs(played) > 1e-3)[0], answers[0][np.abs(answers[0]) > 1e-3]
    assert np.count_nonzero(played) == pytest.approx(sum(map(len, answers)), rel=0.02)
    np.testing.assert_allclose(np.clip(played[starts], -1, 1), heard[0], atol=1e-3)


def test_speaking_during_an_answer_silences_it_and_trims_the_history():
    conversation = Conversation(tiny_model(), SETTINGS.model_copy(update={"max_text_tokens": 60}))
    room = Room(conversation, Marks(f2="start", f10="end", f14="start", f20="end"))
    first, second = room.live.run(room.microphone(frames(silence(6.0))))
    assert first.heard is not None and len(first.heard) < len(first.text) and first.text.startswith(first.heard)
    assert conversation.turns[0].answer == first.heard and conversation.turns[1].answer == second.text
    assert 0 < first.audio_s <= 4 * FRAME_S
    during = np.concatenate(room.played[15:21])
    assert not during.any(), "not a sample more of the answer"
    assert second.heard is None and second.audio_s > 0


def test_a_noise_holds_the_answer_and_loses_nothing_of_it(tmp_path):
    room = Room(Conversation(tiny_model(), SETTINGS), Marks((13, 14), f2="start", f10="end"), recorder=Recorder(tmp_path / "talk"))
    (only,) = room.live.run(room.microphone(frames(silence(3.5))))
    whole = read_audio(only.audio, ANSWER_HZ)
    played = [np.clip(part, -1, 1) for part in room.played]
    assert not played[14].any() and not played[15].any() and played[13].any() and played[16].any()
    np.testing.assert_allclose(np.concatenate([*played[11:14], *played[16:]])[: len(whole)], whole, atol=1e-3)
    assert only.heard is None


def test_half_duplex_does_not_listen_while_it_speaks():
    ears = Marks(f2="start", f10="end", f12="start", f13="end")
    room = Room(Conversation(tiny_model(), SETTINGS), ears, half_duplex=True)
    (only,) = room.live.run(room.microphone(frames(silence(2.0))))
    assert only.heard is None and ears.resets > 1


@pytest.mark.parametrize("end", [OSError, KeyboardInterrupt])
def test_a_conversation_that_ends_in_an_answer_is_saved(tmp_path, end):
    """The microphone or the user goes away in the middle of an answer: what was heard is on disk."""

    def broken():
        yield from room.microphone(frames(silence(0.45)), patient=True)
        raise end

    conversation = Conversation(tiny_model(), SETTINGS.model_copy(update={"max_text_tokens": 60}))
    room = Room(conversation, Marks(f2="start", f10="end"), recorder=Recorder(tmp_path / "talk"))
    results = []
    with pytest.raises(end):
        results.extend(room.live.run(broken()))
    (row,) = [json.loads(line) for line in (tmp_path / "talk" / "conversation.jsonl").read_text().splitlines()]
    assert row["heard"] == conversation.turns[0].answer != row["text"]
    assert [result.as_json() for result in results] == [row], "and told before the error"
    assert 0 < row["audio_s"] == pytest.approx(len(read_audio(row["audio"], ANSWER_HZ)) / ANSWER_HZ, abs=1e-3)


def test_a_failed_answer_is_told():
    conversation = Conversation(tiny_model(), SETTINGS)
    room = Room(conversation, Marks(f2="start", f3="end"))
    conversation.memory.listen = None
    with pytest.raises(TypeError):
        list(room.live.run(room.microphone(frames(silence(1.0)))))
