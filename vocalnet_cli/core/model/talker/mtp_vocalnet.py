"""MTP-VocalNet: chained modules predict the next tokens from the previous module's states alone (arXiv 2504.04060, section 3.2)."""

from __future__ import annotations

from vocalnet_cli.core.config.talker_schema import MtpVocalnetSettings
from vocalnet_cli.core.model.talker.ntp import NtpTalker


class MtpVocalnetTalker(NtpTalker):
    """The next-token talker plus `settings.modules` prediction modules; module k in row r predicts token r + k."""

    def __init__(self, settings: MtpVocalnetSettings, compat: str = "paper") -> None:
        super().__init__(settings, compat)
        self.loss_decay = settings.loss_decay
