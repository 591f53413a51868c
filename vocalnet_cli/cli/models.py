"""`vocalnet models`: what models there are, getting them, looking into them, writing them smaller or for other tools."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vocalnet_cli.cli.options import DtypeOpt, JsonOpt, OutputOpt

if TYPE_CHECKING:
    from vocalnet_cli.core.model.inventory import Description

app = typer.Typer(help="Models: list, pull, show, store, export.", invoke_without_command=True)

NameArg = Annotated[str, typer.Argument(metavar="MODEL", help="An embedded name (nano), a hub id or a folder.")]
HubArg = Annotated[str, typer.Argument(metavar="NAME", help="A hub id, OWNER/NAME.")]

PartsArg = Annotated[list[str] | None, typer.Argument(metavar="[PART]...", help="Parts whose type changes; none = all it carries.")]
BesideOpt = Annotated[
    str | None, typer.Option("--beside", metavar="MODEL", help="Write these parts alone; every other is that of this model.")
]
StoredOpt = Annotated[str, typer.Option("--dtype", metavar="TYPE", help="Type on disk: fp32, bf16, fp16 or int8.")]


@app.callback()
def models(context: typer.Context, as_json: JsonOpt = False) -> None:
    """List the embedded and the published models, with what is on this machine.

    \b
    Examples:
      vocalnet models
      vocalnet models pull VocalNet/VocalNet-1B
      vocalnet models show nano
      vocalnet models store nano talker -o smaller --dtype int8
      vocalnet models export runs/nano/mtp5/model -o exported
    """
    if context.invoked_subcommand is not None:
        return
    from vocalnet_cli.cli.console import show_table
    from vocalnet_cli.core.model.inventory import known_models

    rows = known_models()
    if as_json:
        typer.echo(json.dumps([{"name": r.name, "what": r.what, "folder": str(r.folder) if r.folder else None} for r in rows]))
        return
    show_table(["model", "what it is", "on this machine"], [(r.name, r.what, "yes" if r.folder else "no") for r in rows])


@app.command()
def pull(name: HubArg) -> None:
    """Fetch a model from the hub into its cache; what is there is not fetched again, a broken download goes on.

    \b
    Examples:
      vocalnet models pull VocalNet/VocalNet-1B
      HF_ENDPOINT=https://hf-mirror.com vocalnet models pull openai/whisper-large-v3
    """
    from vocalnet_cli.core.model import hub

    typer.echo(hub.pull(name))


@app.command()
def show(name: NameArg, as_json: JsonOpt = False) -> None:
    """Parts, parameters and types of a model, and the memory it takes. Nothing is fetched, no weight is read.

    \b
    Examples:
      vocalnet models show nano
      vocalnet models show VocalNet/VocalNet-1B --json
    """
    from vocalnet_cli.core.generation.load import find_model
    from vocalnet_cli.core.model.inventory import describe

    described = describe(find_model(name, fetch=False))
    if as_json:
        typer.echo(json.dumps(described.as_json()))
    else:
        _print(described)


def _print(described: Description) -> None:
    from vocalnet_cli.cli.console import show_table
    from vocalnet_cli.core.model.inventory import devices_gb

    stored = ", ".join(f"{size / 1e9:.3f} GB {kind}" for kind, size in described.dtypes.items())
    typer.echo(f"thinker {described.family}, talker {described.talker}, compat {described.compat}; on disk {stored}")
    total = sum(described.parameters.values())
    rows = [(part, f"{count / 1e6:.2f}") for part, count in [*described.parameters.items(), ("total", total)]]
    show_table(["part", "million weights"], rows)
    devices = devices_gb()
    needs = described.memory_gb()
    fits = [[kind, f"{size:.3f}", *("yes" if size < room else "no" for room in devices.values())] for kind, size in needs.items()]
    show_table(["dtype", "GB of weights", *(f"fits {device} ({room} GB)" for device, room in devices.items())], fits)


@app.command()
def store(
    name: NameArg,
    parts: PartsArg = None,
    output: OutputOpt = None,
    dtype: StoredOpt = "int8",
    beside: BesideOpt = None,
    as_json: JsonOpt = False,
) -> None:
    """Write a model again in our layout with its weights in another type, all or some parts. int8 takes half of fp16's room.

    \b
    Examples:
      vocalnet models store nano talker -o smaller --dtype int8
      vocalnet models store runs/nano/mdm-distill/model talker vocoder --beside nano -o nano-mdm
    """
    from vocalnet_cli.cli.console import show_table
    from vocalnet_cli.core.errors import UsageError
    from vocalnet_cli.core.generation.load import find_model
    from vocalnet_cli.core.model.device import STORED
    from vocalnet_cli.core.model.folder import PARTS
    from vocalnet_cli.core.model.store import store as store_model

    if output is None:
        raise UsageError("no folder for the model", "name one: vocalnet models store MODEL -o DIR")
    if dtype not in STORED:
        raise UsageError(f"--dtype is {dtype!r}: not a type weights are stored in", f"Use {', '.join(STORED)}.")
    if beside is not None and not parts:
        raise UsageError("--beside without parts: nothing would be shared", f"Name those to write: {', '.join(PARTS)}.")
    for part in parts or []:
        if part not in PARTS:
            raise UsageError(f"{part!r} is no part of a model", f"Parts are {', '.join(PARTS)}.")
    other = find_model(beside, fetch=False) if beside is not None else None
    sizes = store_model(find_model(name, fetch=False), Path(output), dtype, parts or (), other)
    if as_json:
        typer.echo(json.dumps({"folder": output, "bytes": sizes}))
        return
    typer.echo(output)
    rows = [*sizes.items(), ("total", sum(sizes.values()))]
    show_table(["part", "megabytes"], [(part, f"{size / 1e6:.2f}") for part, size in rows])


@app.command()
def export(name: NameArg, output: OutputOpt = None, dtype: DtypeOpt = "bf16", as_json: JsonOpt = False) -> None:
    """Write a model in the layout of the released checkpoints, for tools that read those. It reads back here as the same model.

    \b
    Examples:
      vocalnet models export runs/vocalnet/mtp5/model -o VocalNet-mine
      vocalnet models export nano -o exported --dtype fp32
    """
    from vocalnet_cli.core.errors import UsageError
    from vocalnet_cli.core.generation.load import find_model
    from vocalnet_cli.core.model.device import DTYPES
    from vocalnet_cli.core.model.export import export_released

    if output is None:
        raise UsageError("no folder for the export", "name one: vocalnet models export MODEL -o DIR")
    if dtype not in DTYPES:
        raise UsageError(f"--dtype is {dtype!r}: not a type weights are stored in", f"Use {', '.join(DTYPES)}.")
    files = export_released(find_model(name, fetch=False), Path(output), dtype)
    typer.echo(json.dumps({"folder": output, "files": files}) if as_json else output)
