"""Talkers by name. A new one is a file, a settings class and a row here."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vocalnet_cli.core.config.talker_schema import TalkerChoice
    from vocalnet_cli.core.model.talker.contract import Talker

TALKERS = {
    "ntp": "ntp:NtpTalker",
    "group-linear": "group_linear:GroupLinearTalker",
    "group-trans": "group_trans:GroupTransTalker",
    "mtp-parallel-linear": "mtp_parallel_linear:MtpParallelLinearTalker",
    "mtp-deepseek": "mtp_deepseek:MtpDeepseekTalker",
    "mtp-vocalnet": "mtp_vocalnet:MtpVocalnetTalker",
    "mdm": "mdm:MdmTalker",
}
"""File of this folder and class of each kind that `config.talker_schema` has settings for."""


def build_talker(settings: TalkerChoice, compat: str = "paper") -> Talker:
    """A talker of these sizes with random weights. `compat` chooses masks and positions (see `masks`)."""
    module, name = TALKERS[settings.kind].split(":")
    return getattr(import_module(f"{__name__}.{module}"), name)(settings, compat)
