"""`vocalnet prep asr`, `tts` and `questions`: transcribed recordings and benchmarks into records."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vocalnet_cli.cli.options import JsonOpt, LimitOpt, OutputOpt, QuietOpt, ShardOpt
from vocalnet_cli.cli.prep.common import EngineOpt, InputArg, RootOpt, ShardRowsOpt, SplitOpt, WorkersOpt, no_folder, run

FolderArg = Annotated[Path, typer.Argument(metavar="DIR", help="Folder in the layout of LibriSpeech, LibriTTS or LJ Speech.")]


def asr(
    folder: FolderArg,
    output: OutputOpt = None,
    split: SplitOpt = "train",
    workers: WorkersOpt = 0,
    engine: EngineOpt = "local",
    shard: ShardOpt = None,
    shard_rows: ShardRowsOpt = 500,
    limit: LimitOpt = None,
    as_json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Transcribed recordings into records that ask for the transcript (table 3's ASR pre-training).

    \b
    Examples:
      vocalnet prep asr LibriSpeech/train-clean-360 -o data/asr
      vocalnet prep asr LJSpeech-1.1 -o data/asr-lj --json
    """
    _pretraining("asr", folder, output, split, workers, engine, shard, shard_rows, limit, as_json, quiet)


def tts(
    folder: FolderArg,
    output: OutputOpt = None,
    split: SplitOpt = "train",
    workers: WorkersOpt = 0,
    engine: EngineOpt = "local",
    shard: ShardOpt = None,
    shard_rows: ShardRowsOpt = 500,
    limit: LimitOpt = None,
    as_json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Transcribed recordings into records that ask to repeat the text (table 3's TTS pre-training); then `vocalnet prep tokens`.

    \b
    Examples:
      vocalnet prep tts LibriTTS/train-clean-360 -o data/tts
      vocalnet prep tts LJSpeech-1.1 -o data/tts-lj --json
    """
    _pretraining("tts", folder, output, split, workers, engine, shard, shard_rows, limit, as_json, quiet)


def _pretraining(
    name: str,
    folder: Path,
    output: str | None,
    split: str,
    workers: int,
    engine: str,
    shard: str | None,
    shard_rows: int,
    limit: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    from vocalnet_cli.core.data.prep.pretrain import Pretraining, write_index

    if output is None:
        raise no_folder(name, str(folder))
    index, layout = write_index(folder, Path(output))
    step = Pretraining(name, str(folder), layout, split)
    run(
        step,
        [str(index)],
        output,
        workers=workers,
        engine=engine,
        shard=shard,
        shard_rows=shard_rows,
        limit=limit,
        as_json=as_json,
        quiet=quiet,
    )


def questions(
    inputs: InputArg,
    output: OutputOpt = None,
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="Name of the set; by default that of the first input.")] = None,
    root: RootOpt = None,
    workers: WorkersOpt = 1,
    shard_rows: ShardRowsOpt = 500,
    limit: LimitOpt = None,
    as_json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """A published benchmark into a set for `vocalnet eval --benchmark DIR`: OpenAudioBench, VoiceBench or VocalBench.

    \b
    Examples:
      vocalnet prep questions OpenAudioBench/eval_datas/llama_questions/llama_questions.csv -o sets/llama_questions
      vocalnet prep questions VocalBench/json/knowledge.json --root VocalBench/audio -o sets/knowledge --json
    """
    from vocalnet_cli.core.data.prep.questions import Questions

    step = Questions(name or Path(inputs[0]).stem, str(root) if root else None)
    run(step, inputs, output, workers=workers, shard_rows=shard_rows, limit=limit, as_json=as_json, quiet=quiet)
