"""Speech tokens to sound. One file a vocoder, one contract (`contract.py`)."""

from __future__ import annotations

from vocalnet_cli.core.config.schema import VocoderSettings
from vocalnet_cli.core.model.vocoder.contract import Vocoder
from vocalnet_cli.core.model.vocoder.griffin_lim import GriffinLimVocoder

__all__ = ["GriffinLimVocoder", "Vocoder", "build_vocoder"]


def build_vocoder(settings: VocoderSettings) -> GriffinLimVocoder:
    """The vocoder a recipe names, with random (or, under `torch.device("meta")`, no) weights."""
    return GriffinLimVocoder(settings)
