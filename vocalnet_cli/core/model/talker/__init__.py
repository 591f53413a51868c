"""Talkers by name. A new one is a file, a settings class and a row here."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vocalnet_cli.core.config.talker_schema import TalkerChoice
    from vocalnet_cli.core.model.talker.contract import Talker

TALKERS = {
    "ntp": "vocalnet_cli.core.model.talker.ntp:NtpTalker",
    "mtp-vocalnet": "vocalnet_cli.core.model.talker.mtp_vocalnet:MtpVocalnetTalker",
    "mdm": "vocalnet_cli.core.model.talker.mdm:MdmTalker",
}


def build_talker(settings: TalkerChoice, compat: str = "paper") -> Talker:
    """A talker of these sizes with random weights. `compat` chooses masks and positions (see `masks`)."""
    module, name = TALKERS[settings.kind].split(":")
    return getattr(import_module(module), name)(settings, compat)
