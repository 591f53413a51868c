"""A voice for the vocoder, from a recording: speech tokens, mel and speaker vector."""

from __future__ import annotations

from vocalnet_cli.core.model.voice.voice import Voice, make_voice

__all__ = ["Voice", "make_voice"]
