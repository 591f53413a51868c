"""Speech tokens to sound. One file or folder a vocoder, one contract (`contract.py`)."""

from __future__ import annotations

from vocalnet_cli.core.config.vocoder_schema import GriffinLimSettings, VocoderSettings
from vocalnet_cli.core.model.vocoder.contract import Vocoder, Voice
from vocalnet_cli.core.model.vocoder.cosyvoice2.vocoder import CosyVoice2Vocoder
from vocalnet_cli.core.model.vocoder.griffin_lim import GriffinLimVocoder

__all__ = ["CosyVoice2Vocoder", "GriffinLimVocoder", "Vocoder", "Voice", "build_vocoder"]


def build_vocoder(settings: VocoderSettings) -> Vocoder:
    """The vocoder a recipe names, with random (or, under `torch.device("meta")`, no) weights."""
    return GriffinLimVocoder(settings) if isinstance(settings, GriffinLimSettings) else CosyVoice2Vocoder(settings)
