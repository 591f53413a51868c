"""`vocalnet prep show`: rows of a manifest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from vocalnet_cli.cli.options import JsonOpt

_DEFAULT = 3


def show(
    manifest: Annotated[Path, typer.Argument(metavar="INPUT", help="A manifest (JSONL), or the folder that holds manifest.jsonl.")],
    ids: Annotated[list[str] | None, typer.Option("--id", metavar="ID", help="Show this row. Repeatable.")] = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="Show the first N rows.")] = _DEFAULT,
    as_json: JsonOpt = False,
) -> None:
    """Print rows of a manifest: who says what, and where its sound lies.

    \b
    Examples:
      vocalnet prep show data/ultrachat
      vocalnet prep show data/ultrachat --id 2-3 --json
    """
    from vocalnet_cli.core.data.record import read_manifest
    from vocalnet_cli.core.errors import UsageError

    path = manifest / "manifest.jsonl" if manifest.is_dir() else manifest
    records = read_manifest(path)
    if ids:
        known = {record.id: record for record in records}
        for own in ids:
            if own not in known:
                raise UsageError(f"--id {own}: {path} has no such row", f"Its first rows: {', '.join(list(known)[:5])}.")
        records = [known[own] for own in ids]
    for record in records if ids else records[:limit]:
        if as_json:
            typer.echo(json.dumps(record.model_dump(exclude_defaults=True)))
            continue
        typer.echo(f"{record.id}  {record.source}, {record.split}, round {record.round}")
        for turn in record.history:
            typer.echo(f"  ({turn.role}) {turn.text}")
        for role, said in (("user", record.question), ("assistant", record.answer)):
            sound = f"  [{said.voice or 'voice not told'}: {path.parent / said.audio}]" if said.audio else ""
            typer.echo(f"  {role}: {said.text}{sound}")
        if record.speech_tokens is not None and record.tokenizer is not None:
            count = len(record.speech_tokens) if isinstance(record.speech_tokens, list) else record.speech_tokens
            typer.echo(f"  {count} speech tokens of {record.tokenizer.name}{', repeats merged' if record.collapsed else ''}")
