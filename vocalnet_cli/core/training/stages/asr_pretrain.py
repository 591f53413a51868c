"""Stage `asr-pretrain` (arXiv 2504.04060, table 3): the adaptor learns to transcribe, before stage 1."""

from __future__ import annotations

from vocalnet_cli.core.data.record import HistoryTurn, Record
from vocalnet_cli.core.model.prompt import SPEECH
from vocalnet_cli.core.training.stages.align import AlignStage


class AsrPretrainStage(AlignStage):
    """Next-token prediction of what was said: the row's question, whatever its answer is."""

    asks = f"{SPEECH} \n Please transcribe the speech to text."

    def answer(self, record: Record) -> str:
        return record.question.text

    def turns(self, record: Record) -> list[tuple[HistoryTurn, str]]:
        return []  # what is asked for stands alone
