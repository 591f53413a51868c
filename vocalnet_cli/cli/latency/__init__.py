"""`vocalnet latency`: how long things take. Whole answers here; comparisons, single parts and the machine's limits one file each."""

from __future__ import annotations

import typer

from vocalnet_cli.cli.latency.compare import compare
from vocalnet_cli.cli.latency.roofline import roofline
from vocalnet_cli.cli.latency.talker import talker
from vocalnet_cli.cli.latency.turns import turns
from vocalnet_cli.cli.latency.vocoder import vocoder

app = typer.Typer(invoke_without_command=True, subcommand_metavar="[COMMAND]")
app.callback()(turns)
for part in (compare, talker, vocoder, roofline):
    app.command()(part)
