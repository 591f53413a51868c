"""Stage `tts-pretrain` (arXiv 2504.04060, table 3): the talker and LoRA learn to say a text after the user, between the two stages."""

from __future__ import annotations

from vocalnet_cli.core.data.record import HistoryTurn, Record
from vocalnet_cli.core.training.stages.speak import SpeakStage


class TtsPretrainStage(SpeakStage):
    """The written answer of each row is asked for, written again and spoken; nothing is heard."""

    @property
    def written(self) -> bool:
        return True

    def question(self, record: Record) -> str:
        return f"Please repeat after me: {record.answer.text}"

    def turns(self, record: Record) -> list[tuple[HistoryTurn, str]]:
        return []  # what is asked for stands alone
