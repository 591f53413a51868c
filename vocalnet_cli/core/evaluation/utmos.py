"""How natural speech sounds by UTMOS (arXiv 2204.02152), run from a clone of SpeechMOS; it needs no reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from vocalnet_cli.core.audio.wav import resample
from vocalnet_cli.core.errors import MissingWeights, VocalnetError
from vocalnet_cli.core.units import QUESTION_HZ

MODEL = "utmos22_strong"
SOURCE = "github.com/tarepan/SpeechMOS"


class Utmos:
    """The strong learner of UTMOS22: about 1 (bad) to 5."""

    def __init__(self, folder: Path) -> None:
        """Loads the model that `folder`/hubconf.py names; torch.hub fetches its weights once (TORCH_HOME).

        The code of that folder is run: it is the caller's choice. Raises MissingWeights if the folder is no such clone, VocalnetError if
        it cannot be loaded (torchaudio missing, weights not to be had).
        """
        if not (folder / "hubconf.py").is_file():
            raise MissingWeights(f"--utmos {folder}: holds no hubconf.py", f"Clone {SOURCE} (tag v1.2.0) and name that folder.")
        try:
            self._model: Any = torch.hub.load(str(folder), MODEL, source="local", trust_repo=True)
        except Exception as error:  # whatever the folder's own code raises
            reason = " ".join(str(error).split()) or type(error).__name__
            hint = "It needs torchaudio where that imports: pip install 'vocalnet-cli[utmos]'; its weights come with the first run."
            raise VocalnetError(f"--utmos {folder}: cannot be loaded ({reason})", hint) from error

    @torch.inference_mode()
    def score(self, samples: np.ndarray, rate: int) -> float:
        """The score of mono speech [n] at `rate`, which must hold a sample."""
        sound = torch.from_numpy(resample(samples, rate, QUESTION_HZ))
        return float(self._model(sound[None], QUESTION_HZ).flatten()[0])
