"""A voice for the vocoder, from a recording: speech tokens, mel and speaker vector."""

from __future__ import annotations

from vocalnet_cli.core.model.vocoder.contract import Voice
from vocalnet_cli.core.model.voice.voice import make_voice, makes_voices

__all__ = ["Voice", "make_voice", "makes_voices"]
