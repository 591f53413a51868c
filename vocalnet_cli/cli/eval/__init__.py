"""`vocalnet eval`: how good the answers of a model are, and what can be done with saved ones."""

from __future__ import annotations

import typer

from vocalnet_cli.cli.eval.compare import compare
from vocalnet_cli.cli.eval.figure import figure
from vocalnet_cli.cli.eval.report import report
from vocalnet_cli.cli.eval.rescore import rescore
from vocalnet_cli.cli.eval.run import evaluate
from vocalnet_cli.cli.eval.speech import speech
from vocalnet_cli.cli.eval.table import table

app = typer.Typer(invoke_without_command=True, rich_markup_mode=None)
app.callback()(evaluate)
for part in (rescore, compare, speech, report, table, figure):
    app.command()(part)
