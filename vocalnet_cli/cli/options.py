"""Options that mean the same in every command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vocalnet_cli.core.errors import UsageError

RecipeOpt = Annotated[
    str,
    typer.Option("--recipe", metavar="NAME", help="Recipe: a short name (mtp5), family/name (nano/mtp5) or a YAML file."),
]
SetOpt = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one setting, such as train.lr=1e-4. Repeatable."),
]
ModelOpt = Annotated[
    str | None,
    typer.Option("--model", metavar="MODEL", help="Model: an embedded name (nano), a hub id or a folder."),
]
DeviceOpt = Annotated[str, typer.Option("--device", metavar="DEVICE", help="auto, cpu, cuda, cuda:N or mps.")]
DtypeOpt = Annotated[str, typer.Option("--dtype", metavar="TYPE", help="Arithmetic: auto, fp32, bf16 or fp16.")]
SeedOpt = Annotated[int | None, typer.Option("--seed", metavar="N", min=0, help="Seed of everything random.")]
OutputOpt = Annotated[str | None, typer.Option("--output", "-o", metavar="DIR", help="Folder the results go to.")]
JsonOpt = Annotated[bool, typer.Option("--json", help="Print results as JSON.")]
LimitOpt = Annotated[int | None, typer.Option("--limit", metavar="N", min=1, help="Stop after N items.")]
ResumeOpt = Annotated[bool, typer.Option("--resume", help="Continue a run that was stopped.")]
DryRunOpt = Annotated[bool, typer.Option("--dry-run", help="Check everything and report what it would need; change nothing.")]
StepsOpt = Annotated[
    str | None, typer.Option("--steps", metavar="N", help="Passes a masked-diffusion talker makes over a block: 1 to 16, or auto.")
]
QuietOpt = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes, only results and errors.")]
BatchSizeOpt = Annotated[int, typer.Option("--batch-size", metavar="N", min=1, help="Items computed at once.")]
VocoderOpt = Annotated[
    str | None,
    typer.Option("--vocoder", metavar="VOCODER", help="CosyVoice2 folder or hub id the model speaks through, instead of its own vocoder."),
]
VoiceOpt = Annotated[
    Path | None,
    typer.Option(
        "--voice",
        metavar="VOICE",
        help="Voice of the answers: one the model knows by name, or a recording of 0.5 to 30 s (best 3 to 10).",
    ),
]
QuantizeOpt = Annotated[
    str | None, typer.Option("--quantize", metavar="KIND", help="Thinker weights in 8bit or 4bit (needs bitsandbytes).")
]
ShardOpt = Annotated[str | None, typer.Option("--shard", metavar="I/N", help="Only the I-th of N parts, for array jobs (I from 1).")]


def refuse_options_before_command(context: typer.Context) -> None:
    """Raise UsageError if a group that also runs by itself was given options before one of its commands, which would not see them."""
    given = [name for name in context.params if str(context.get_parameter_source(name)).endswith("COMMANDLINE")]
    if given:
        group, command = context.info_name, context.invoked_subcommand
        told = f"{len(given)} option{'s' if len(given) > 1 else ''} before `{command}`"
        raise UsageError(f"vocalnet {group}: {told}", f"Options of a command go behind it: vocalnet {group} {command} …")
