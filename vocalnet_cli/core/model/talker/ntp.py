"""Next-token prediction: projector, decoder and one head, a token a step (arXiv 2504.04060, section 3.2 and its baseline `NTP`)."""

from __future__ import annotations

from vocalnet_cli.core.model.talker.autoregressive import AutoregressiveTalker


class NtpTalker(AutoregressiveTalker):
    """Row r holds token r, and the head there is about token r + 1: nothing is added to the shared talker."""
