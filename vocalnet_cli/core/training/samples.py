"""What a vocoder in training sounds and looks like: a wav and a picture of spectrograms, written as training goes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor

from vocalnet_cli.core.audio.wav import write_wav
from vocalnet_cli.core.data.picture import can_draw, new_figure, write_png
from vocalnet_cli.core.units import VOCODER_MEL_HZ


def write_sample(folder: Path, step: int, name: str, sound: np.ndarray, mels: dict[str, Tensor]) -> None:
    """Write STEP-NAME.wav and, where matplotlib is installed, STEP-NAME.png into `folder`.

    sound: float32 [samples] at 24 kHz. mels: titles to log-mels [80, F], one above the other in the picture.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{step:06d}-{name}"
    write_wav(folder / f"{stem}.wav", np.clip(sound, -1, 1))
    _picture(folder / f"{stem}.png", mels)


def _picture(path: Path, mels: dict[str, Tensor]) -> None:
    if not can_draw():
        return  # the sound is there; pictures come with the extra `eval`
    figure = new_figure(8, 2.2 * len(mels))
    low, high = min(float(mel.min()) for mel in mels.values()), max(float(mel.max()) for mel in mels.values())
    for axes, (title, mel) in zip(np.atleast_1d(figure.subplots(len(mels), 1, sharex=True)), mels.items(), strict=True):
        seconds = mel.shape[1] / VOCODER_MEL_HZ
        axes.imshow(mel.cpu().float().numpy(), origin="lower", aspect="auto", vmin=low, vmax=high, extent=(0, seconds, 0, mel.shape[0]))
        axes.set_ylabel("mel bin")
        axes.set_title(title, fontsize="small")
    axes.set_xlabel("seconds")
    write_png(figure, path, dpi=100)
