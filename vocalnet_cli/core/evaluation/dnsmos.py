"""How natural speech sounds by DNSMOS P.835 (arXiv 2110.01763), from Microsoft's ONNX file; it needs no reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vocalnet_cli.core.audio.wav import resample
from vocalnet_cli.core.errors import MissingWeights
from vocalnet_cli.core.model.voice.load import onnx_session
from vocalnet_cli.core.units import QUESTION_HZ

FILE = "sig_bak_ovr.onnx"

_WINDOW = 144_160
"""Samples the network hears at once: 9.01 s at 16 kHz. Shorter speech is repeated until it fills them."""
_STEP = QUESTION_HZ
_FITS = {
    "sig": (-0.08397278, 1.22083953, 0.0052439),
    "bak": (-0.13166888, 1.60915514, -0.39604546),
    "ovr": (-0.06766283, 1.11546468, 0.04602535),
}
"""From what the network says to the scale of listeners: polynomials of the published dnsmos_local.py, highest power first; in the order
of its outputs."""


class Dnsmos:
    """Scores speech, background and the whole, each about 1 (bad) to 5."""

    def __init__(self, folder: Path) -> None:
        """Reads `folder`/sig_bak_ovr.onnx. Raises MissingWeights if it is not there, VocalnetError if it cannot be run."""
        path = folder / FILE
        if not path.is_file():
            raise MissingWeights(
                f"--dnsmos {folder}: holds no {FILE}",
                "It is in DNSMOS/DNSMOS of github.com/microsoft/DNS-Challenge (CC BY 4.0).",
            )
        self._session = onnx_session(path, inputs=1)
        self._input = self._session.get_inputs()[0].name

    def score(self, samples: np.ndarray, rate: int) -> dict[str, float]:
        """`sig`, `bak` and `ovr` of mono speech [n] at `rate`: means over windows one second apart. Silence scores too."""
        sound = resample(samples, rate, QUESTION_HZ)
        sound = np.tile(sound, -(-_WINDOW // max(len(sound), 1))) if len(sound) < _WINDOW else sound
        if len(sound) == 0:
            sound = np.zeros(_WINDOW, np.float32)
        starts = range(0, len(sound) - _WINDOW + 1, _STEP)
        said = np.array([self._session.run(None, {self._input: sound[None, at : at + _WINDOW]})[0][0] for at in starts], np.float64)
        return {name: float(np.mean(np.polyval(fit, said[:, column]))) for column, (name, fit) in enumerate(_FITS.items())}
