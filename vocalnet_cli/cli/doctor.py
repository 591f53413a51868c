"""`vocalnet doctor`: what of this machine works, and what to do about the rest."""

from __future__ import annotations

import json

import typer

from vocalnet_cli.cli.options import JsonOpt


def doctor(as_json: JsonOpt = False) -> None:
    """Check Python, torch, devices, optional packages, the hub and the disk. Exit code 1 if something needed is broken.

    \b
    Examples:
      vocalnet doctor
      vocalnet doctor --json
    """
    from vocalnet_cli.cli.console import show_table
    from vocalnet_cli.core.doctor import examine
    from vocalnet_cli.core.errors import VocalnetError

    findings = examine()
    if as_json:
        typer.echo(json.dumps([finding.as_json() for finding in findings]))
    else:
        show_table(["part", "state", "found", "what to do"], [(f.name, f.state, f.detail, f.todo) for f in findings])
    bad = [finding for finding in findings if finding.needed and finding.state != "ok"]
    if bad:
        raise VocalnetError(f"{', '.join(finding.name for finding in bad)}: needed, and {bad[0].state}", bad[0].todo)
