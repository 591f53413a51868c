"""When someone speaks: silero-vad on 32 ms frames, and the rules that make turns of it; or a key that is pressed."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from vocalnet_cli.core.errors import MissingWeights
from vocalnet_cli.core.units import QUESTION_HZ

FRAME = 512
"""Samples of a frame at 16 kHz: what silero-vad hears at once."""
FRAME_S = FRAME / QUESTION_HZ
_CONTEXT = 64
_MODEL = Path("data") / "silero_vad_16k_op15.onnx"

Mark = Literal["start", "end"]


class SileroVad:
    """How likely each frame is speech (silero-vad, MIT; its file comes with the package of that name). One object a microphone."""

    def __init__(self) -> None:
        spec = find_spec("silero_vad")
        folder = Path(spec.origin).parent if spec is not None and spec.origin else None
        if folder is None or not (folder / _MODEL).is_file():
            raise MissingWeights("silero-vad is not installed", "To talk live: pip install 'vocalnet-cli[stream]'")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1  # a frame costs less than waking a second thread
        self._session = onnxruntime.InferenceSession(str(folder / _MODEL), options, providers=["CPUExecutionProvider"])
        self.reset()

    def reset(self) -> None:
        """Forgets what was heard."""
        self._state = np.zeros((2, 1, 128), np.float32)
        self._before = np.zeros(_CONTEXT, np.float32)

    def __call__(self, frame: np.ndarray) -> float:
        """Probability of speech in the next frame (float32 [512], 16 kHz)."""
        heard = np.concatenate([self._before, frame.astype(np.float32, copy=False)])
        self._before = heard[-_CONTEXT:]
        inputs = {"input": heard[None], "state": self._state, "sr": np.array(QUESTION_HZ, np.int64)}
        odds, self._state = self._session.run(None, inputs)
        return float(odds[0, 0])


class Ears(Protocol):
    """Finds the questions in what a microphone hears."""

    question: np.ndarray
    """The question that ended last (16 kHz)."""
    wait_s: float
    """Seconds between its last sound and the mark `end`."""

    @property
    def suspects(self) -> bool:
        """Whether the frame just heard may be the start of a question, before it is sure."""

    def push(self, frame: np.ndarray) -> Mark | None:
        """Hears the next frame [512]; says when a question starts and when it ends."""

    def reset(self) -> None:
        """Forgets what was heard of an unfinished question."""


@dataclass(frozen=True)
class Pauses:
    """What counts as a question."""

    speech_from: float = 0.5
    """Probability from which a frame is speech."""
    silence_below: float = 0.35
    """Probability below which a frame of a question is silence."""
    begin_s: float = 0.09
    """Speech that makes a question start; shorter sounds are none."""
    silence_s: float = 0.6
    """Silence that ends it."""
    before_s: float = 0.3
    """Sound kept from before the start: the first consonant is quiet."""
    after_s: float = 0.2
    """Sound kept after its end."""
    longest_s: float = 60.0
    """A question ends here even in the middle of a word."""


class VoiceEars:
    """Questions start and end with the voice."""

    def __init__(self, vad: SileroVad, pauses: Pauses | None = None) -> None:
        self.question = np.zeros(0, np.float32)
        self.wait_s = 0.0
        self._vad = vad
        self._pauses = pauses or Pauses()
        self._frames: deque[np.ndarray] = deque()
        self._speaking = False
        self._voiced = self._silent = 0
        self._clear()

    def push(self, frame: np.ndarray) -> Mark | None:
        odds, pauses = self._vad(frame), self._pauses
        self._frames.append(frame)
        if not self._speaking:
            self._voiced = self._voiced + 1 if odds >= pauses.speech_from else 0
            if self._voiced * FRAME_S < pauses.begin_s:
                return None
            self._frames = deque(self._frames)  # from here on nothing is dropped
            self._speaking = True
            return "start"
        if odds >= pauses.speech_from:
            self._silent = 0
        elif odds < pauses.silence_below or self._silent:
            self._silent += 1
        if self._silent * FRAME_S < pauses.silence_s and len(self._frames) * FRAME_S < pauses.longest_s:
            return None
        spare = max(0, self._silent - math.ceil(pauses.after_s / FRAME_S))
        self.question = np.concatenate(list(self._frames)[: len(self._frames) - spare])
        self.wait_s = self._silent * FRAME_S
        self._clear()
        return "end"

    @property
    def suspects(self) -> bool:
        return self._voiced > 0 and not self._speaking

    def reset(self) -> None:
        self._vad.reset()
        self._clear()

    def _clear(self) -> None:
        kept = self._pauses.before_s + self._pauses.begin_s
        self._frames = deque(maxlen=math.ceil(kept / FRAME_S))
        self._speaking = False
        self._voiced = self._silent = 0


class KeyEars:
    """Push to talk: `toggle` starts a question and ends it."""

    suspects = False

    def __init__(self) -> None:
        self.question = np.zeros(0, np.float32)
        self.wait_s = 0.0
        self._wanted = self._speaking = False
        self._frames: list[np.ndarray] = []

    def toggle(self) -> None:
        """The key was pressed; any thread may say so."""
        self._wanted = not self._wanted

    def push(self, frame: np.ndarray) -> Mark | None:
        if self._speaking:
            self._frames.append(frame)
        if self._wanted == self._speaking:
            return None
        self._speaking = self._wanted
        if self._speaking:
            self._frames = [frame]
            return "start"
        self.question, self._frames = np.concatenate(self._frames), []
        return "end"

    def reset(self) -> None:
        """A key is pressed on purpose: nothing is forgotten."""
