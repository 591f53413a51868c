"""`vocalnet prep`: corpora into checked manifests, and what is made of them. One file a step."""

from __future__ import annotations

import typer

from vocalnet_cli.cli.prep.benchmark import benchmark
from vocalnet_cli.cli.prep.corpora import ultrachat, voiceassistant
from vocalnet_cli.cli.prep.lookup import lookup
from vocalnet_cli.cli.prep.show import show
from vocalnet_cli.cli.prep.sources import asr, questions, tts
from vocalnet_cli.cli.prep.synth import synth
from vocalnet_cli.cli.prep.tokens import tokens
from vocalnet_cli.cli.prep.validate import validate

app = typer.Typer(no_args_is_help=True, help="Corpora into checked manifests: spoken questions, answers, splits.")
for step in (voiceassistant, ultrachat, asr, tts, questions, synth, tokens, validate, show, benchmark, lookup):
    app.command()(step)
