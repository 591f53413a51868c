"""`vocalnet prep voiceassistant` and `ultrachat`: published corpora into records."""

from __future__ import annotations

from typing import Annotated

import typer

from vocalnet_cli.cli.options import JsonOpt, LimitOpt, OutputOpt, QuietOpt, ShardOpt
from vocalnet_cli.cli.prep.common import EngineOpt, InputArg, RootOpt, ShardRowsOpt, SplitOpt, TextOnlyOpt, WorkersOpt, run


def voiceassistant(
    inputs: InputArg,
    output: OutputOpt = None,
    max_answer_words: Annotated[
        int, typer.Option("--max-answer-words", metavar="N", min=1, help="Longer answers are rejected; 140 words take about 56 s.")
    ] = 140,
    split: SplitOpt = "train",
    text_only: TextOnlyOpt = False,
    root: RootOpt = None,
    workers: WorkersOpt = 0,
    engine: EngineOpt = "local",
    shard: ShardOpt = None,
    shard_rows: ShardRowsOpt = 500,
    limit: LimitOpt = None,
    as_json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """VoiceAssistant-400K into records: speakable text, no over-long answers, no row twice. Run again to resume.

    Takes gpt-omni's parquet, SLAM-Omni's parquet and JSONL, and VocalNet's JSON with its audios and tokens.

    \b
    Examples:
      vocalnet prep voiceassistant gpt-omni/VoiceAssistant-400K -o data/va
      vocalnet prep voiceassistant VoiceAssistant-430K.json --root . -o data/va --json
    """
    from vocalnet_cli.core.data.prep.single import SingleTurns

    step = SingleTurns(max_answer_words, str(root) if root else None, text_only, split=split)
    run(
        step,
        inputs,
        output,
        workers=workers,
        engine=engine,
        shard=shard,
        shard_rows=shard_rows,
        limit=limit,
        as_json=as_json,
        quiet=quiet,
    )


def ultrachat(
    inputs: InputArg,
    output: OutputOpt = None,
    keep: Annotated[
        str, typer.Option("--keep", metavar="ROUNDS", help="all: earlier rounds become history; first; standalone: need no history.")
    ] = "all",
    speakable: Annotated[bool, typer.Option("--speakable", help="Take markdown, code, addresses and emoji out of the text.")] = False,
    split: SplitOpt = "train",
    text_only: TextOnlyOpt = False,
    root: RootOpt = None,
    workers: WorkersOpt = 0,
    engine: EngineOpt = "local",
    shard: ShardOpt = None,
    shard_rows: ShardRowsOpt = 500,
    limit: LimitOpt = None,
    as_json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """UltraChat's dialogues into a record a round, the question alone as the question. Run again to resume.

    Takes thunlp's JSONL, dialogues as messages with roles, and SLAM-Omni's version, which is split already.

    \b
    Examples:
      vocalnet prep ultrachat train_0.jsonl train_1.jsonl -o data/ultrachat
      vocalnet prep ultrachat train_0.jsonl --keep standalone --speakable -o data/ultrachat-alone --json
    """
    from vocalnet_cli.core.data.prep.rounds import KEEP, Rounds
    from vocalnet_cli.core.errors import UsageError

    if keep not in KEEP:
        raise UsageError(f"--keep {keep}: no such choice", f"There are: {', '.join(KEEP)}.")
    step = Rounds(keep, speakable, str(root) if root else None, text_only, split=split)
    run(
        step,
        inputs,
        output,
        workers=workers,
        engine=engine,
        shard=shard,
        shard_rows=shard_rows,
        limit=limit,
        as_json=as_json,
        quiet=quiet,
    )
