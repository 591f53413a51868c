"""`vocalnet eval`: how good the answers of a model are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vocalnet_cli.cli.eval.judges import (
    JudgeKeyOpt,
    JudgeOpt,
    JudgePromptsOpt,
    JudgeTimeoutOpt,
    JudgeUrlOpt,
    JudgeWorkersOpt,
    MaxCallsOpt,
    PriceOpt,
    judge_of,
    prices_of,
)
from vocalnet_cli.cli.eval.measuring import Said, ear_of, manner_of, measure_all
from vocalnet_cli.cli.options import (
    BatchSizeOpt,
    DeviceOpt,
    DtypeOpt,
    JsonOpt,
    LimitOpt,
    ModelOpt,
    OutputOpt,
    QuietOpt,
    SeedOpt,
    SetOpt,
    ShardOpt,
    VocoderOpt,
    VoiceOpt,
    refuse_options_before_command,
)
from vocalnet_cli.cli.resynthesis import resynthesis as resynthesise
from vocalnet_cli.core.errors import UsageError

BenchmarkOpt = Annotated[
    list[str] | None,
    typer.Option(
        "--benchmark",
        metavar="NAME",
        help="nano-combination, nano-voice, nano-human, nano-ablation; a manifest; a folder or table of questions with their recordings "
        "(OpenAudioBench, VoiceBench, VocalBench, or rows {id, question, audio, references}). Repeatable; the first three if none.",
    ),
]
FinishedOpt = Annotated[
    str | None, typer.Option("--recipe", metavar="NAME", help="Measure the finished run of this recipe (runs/NAME) instead of --model.")
]
StepsListOpt = Annotated[
    str | None,
    typer.Option("--steps", metavar="N,N", help="Measure a masked-diffusion talker with each of these passes a block, such as 1,2,4,auto."),
]
SplitOpt = Annotated[str | None, typer.Option("--split", metavar="NAME", help="Rows of this split of the manifests only.")]
ResynthesisOpt = Annotated[
    bool, typer.Option("--resynthesis", help="Measure the vocoder alone: recorded answers to speech tokens and back to sound.")
]
DnsmosOpt = Annotated[
    Path | None, typer.Option("--dnsmos", metavar="DIR", help="With --resynthesis: DNSMOS scores too, by DIR/sig_bak_ovr.onnx.")
]
FreshOpt = Annotated[bool, typer.Option("--fresh", help="Ask again even what is cached.")]
AnswersOpt = Annotated[
    list[Path] | None,
    typer.Option("--answers", metavar="DIR", help="Score these too: ID.txt and ID.wav a question, or what -o wrote. Alone: only them."),
]
AsrOpt = Annotated[
    str | None,
    typer.Option("--asr", metavar="WHISPER", help="Who hears the answers: whisper-large-v3, any Whisper's hub id, or a folder."),
]
EngineOpt = Annotated[str, typer.Option("--engine", metavar="ENGINE", help="local, or ray: models on RAY_ADDRESS or this machine.")]
WorkersOpt = Annotated[int, typer.Option("--workers", metavar="N", min=0, help="Models asked at once with ray; 0: one a GPU, or one.")]


def evaluate(
    ctx: typer.Context,
    model: ModelOpt = None,
    recipe: FinishedOpt = None,
    vocoder: VocoderOpt = None,
    voice: VoiceOpt = None,
    benchmarks: BenchmarkOpt = None,
    output: OutputOpt = None,
    device: DeviceOpt = "auto",
    dtype: DtypeOpt = "auto",
    seed: SeedOpt = None,
    overrides: SetOpt = None,
    limit: LimitOpt = None,
    steps: StepsListOpt = None,
    split: SplitOpt = None,
    resynthesis: ResynthesisOpt = False,
    dnsmos: DnsmosOpt = None,
    fresh: FreshOpt = False,
    answers: AnswersOpt = None,
    asr: AsrOpt = None,
    judge: JudgeOpt = None,
    judge_url: JudgeUrlOpt = None,
    judge_key_env: JudgeKeyOpt = None,
    judge_prompts: JudgePromptsOpt = None,
    judge_workers: JudgeWorkersOpt = 8,
    judge_timeout: JudgeTimeoutOpt = 60.0,
    max_judge_calls: MaxCallsOpt = None,
    judge_price: PriceOpt = None,
    batch_size: BatchSizeOpt = 1,
    shard: ShardOpt = None,
    engine: EngineOpt = "local",
    workers: WorkersOpt = 0,
    as_json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Ask held-out questions: right answers (or marks) in text and in speech, word errors of the speech.

    Answers and a judge's replies are cached ($VOCALNET_CACHE, else ./cache): a run that was stopped goes on, and nothing is asked or
    paid twice. -o DIR writes the report and every answer with its sound, with --steps also a picture.

    \b
    Examples:
      vocalnet eval --recipe nano/mtp5 --benchmark nano-voice --limit 40 -o scores --json
      vocalnet eval --model VocalNet/VocalNet-8B --benchmark OpenAudioBench --asr whisper-large-v3 --judge qwen-max -o table1
      vocalnet eval --recipe nano/mdm --steps 1,2,4,8,16 -o curve
      vocalnet eval --resynthesis --recipe nano/flow --dnsmos DIR
    """
    if ctx.invoked_subcommand is not None:
        refuse_options_before_command(ctx)
        return
    said = Said(Path(output) if output else None, limit, prices_of(judge_price), as_json, quiet)
    if resynthesis:
        resynthesise(model, recipe, vocoder, voice, benchmarks, split, dnsmos, said.output, device, overrides or [], limit, as_json, quiet)
        return
    if dnsmos is not None:
        raise UsageError("--dnsmos scores resynthesised recordings only", "Add --resynthesis, or leave --dnsmos out.")
    found = judge_of(judge, judge_url, judge_key_env, judge_prompts, judge_workers, judge_timeout, max_judge_calls)
    asked = {"device": device, "dtype": dtype, "seed": seed or 0, "vocoder": vocoder, "voice": voice, "overrides": overrides or []}
    manner = manner_of(batch_size, shard, engine, workers, fresh)
    measure_all(said, model, recipe, answers or [], benchmarks, split, steps, found, ear_of(asr, device, dtype), manner, asked)
