"""`vocalnet prep show`: rows of a manifest."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vocalnet_cli.cli.options import JsonOpt
from vocalnet_cli.cli.prep.common import RootOpt

if TYPE_CHECKING:
    from vocalnet_cli.core.data.record import Record

_DEFAULT = 3


def show(
    manifest: Annotated[
        Path,
        typer.Argument(metavar="INPUT", help="A manifest, or the folder that holds manifest.jsonl; VocalNet's and SLAM-Omni's sets too."),
    ],
    ids: Annotated[list[str] | None, typer.Option("--id", metavar="ID", help="Show this row. Repeatable.")] = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="Show the first N rows.")] = _DEFAULT,
    play: Annotated[bool, typer.Option("--play", help="Play question and answer of each row (extra: stream).")] = False,
    speaker: Annotated[
        str | None, typer.Option("--speaker", metavar="NAME", help="Loudspeaker to play on: number or part of its name.")
    ] = None,
    root: RootOpt = None,
    as_json: JsonOpt = False,
) -> None:
    """Print rows of a manifest: who says what, and where its sound lies; with --play, let them be heard.

    \b
    Examples:
      vocalnet prep show data/ultrachat
      vocalnet prep show data/ultrachat --id 2-3 --play
    """
    from vocalnet_cli.core.data.manifest import find_rows, sounds_of

    manifest_file = manifest / "manifest.jsonl" if manifest.is_dir() else manifest
    root = root or manifest_file.parent
    hear = _player(speaker) if play else None
    for record in find_rows(manifest_file, root, ids, limit):
        if as_json:
            typer.echo(json.dumps(record.model_dump(exclude_defaults=True)))
        else:
            _print(record, root)
        if hear is not None:
            for path in sounds_of(record, root):
                hear(path)


def _player(speaker: str | None) -> Callable[[Path], None]:
    from vocalnet_cli.core.conversation.devices import pick, play_file

    loudspeaker = pick(speaker, "output")
    return lambda path: play_file(path, loudspeaker)


def _print(record: Record, root: Path) -> None:
    typer.echo(f"{record.id}  {record.source}, {record.split}, round {record.round}")
    for turn in record.history:
        typer.echo(f"  ({turn.role}) {turn.text}")
    for role, said in (("user", record.question), ("assistant", record.answer)):
        sound = f"  [{said.voice or 'voice not told'}: {root / said.audio}]" if said.audio else ""
        typer.echo(f"  {role}: {said.text}{sound}")
    if record.speech_tokens is not None and record.tokenizer is not None:
        count = len(record.speech_tokens) if isinstance(record.speech_tokens, list) else record.speech_tokens
        typer.echo(f"  {count} speech tokens of {record.tokenizer.name}{', repeats merged' if record.collapsed else ''}")
