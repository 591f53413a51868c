"""`vocalnet eval figure`: the papers' figures for a model of ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from vocalnet_cli.cli.console import progress, show_table
from vocalnet_cli.cli.eval.run import BenchmarkOpt, FinishedOpt
from vocalnet_cli.cli.options import DeviceOpt, DtypeOpt, JsonOpt, ModelOpt, OutputOpt, QuietOpt, SeedOpt, SetOpt
from vocalnet_cli.core.errors import UsageError

NameArg = Annotated[str, typer.Argument(metavar="FIGURE", help="4: how certain the talker is of its next token.")]
TokensOpt = Annotated[int, typer.Option("--tokens", metavar="N", min=1, help="Distributions to look at (the paper: 70000).")]


def figure(
    name: NameArg,
    model: ModelOpt = None,
    recipe: FinishedOpt = None,
    benchmarks: BenchmarkOpt = None,
    tokens: TokensOpt = 10_000,
    output: OutputOpt = None,
    device: DeviceOpt = "auto",
    dtype: DtypeOpt = "auto",
    seed: SeedOpt = None,
    overrides: SetOpt = None,
    as_json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Figure 4: largest probability and entropy of the talker's distributions while it answers; -o DIR: JSON and a picture.

    The curve of a masked-diffusion talker over its passes is drawn by `vocalnet eval --steps 1,2,4 -o DIR`.

    \b
    Examples:
      vocalnet eval figure 4 --tokens 2000 -o figures
      vocalnet eval figure 4 --recipe nano/ntp --benchmark nano-combination --json
    """
    if name != "4":
        raise UsageError(f"figure {name}: no such figure", "There is 4; tables are `vocalnet eval table`.")
    from vocalnet_cli.core.audio.wav import read_question
    from vocalnet_cli.core.evaluation.benchmarks import load_benchmarks
    from vocalnet_cli.core.evaluation.certainty import figure_4, watch_talker, write_figure_4
    from vocalnet_cli.core.generation.load import find_model, load_answerer, plan_answers
    from vocalnet_cli.core.model.device import pick_device, pick_dtype
    from vocalnet_cli.core.model.folder import recipe_of, weights_hash

    folder, sets = find_model(model, recipe), load_benchmarks(benchmarks)
    plan, where = plan_answers(folder, overrides or []), pick_device(device)
    loaded = load_answerer(plan, where, pick_dtype(dtype, where))
    questions = (read_question(one.sound(str(row.question.audio)), plan.generation.max_question_s) for one in sets for row in one.records)
    with progress(quiet) as bars:
        bar = bars.add_task("tokens", total=tokens)
        watched = watch_talker(
            loaded, questions, plan.generation, tokens, seed or 0, lambda done, total: bars.update(bar, completed=done, total=total)
        )
    told = {
        "model": folder.name,
        "recipe": recipe_of(folder),
        "weights_sha256": weights_hash(folder),
        "talker": loaded.settings.talker.kind,
        "questions": {one.name: one.sha256 for one in sets},
        "settings": {**plan.generation.model_dump(mode="json"), "seed": seed or 0},
    }
    found = figure_4(watched, told)
    if output is not None:
        write_figure_4(found, Path(output))
    if as_json:
        typer.echo(json.dumps(found, ensure_ascii=False))
        return
    columns = ("head", "tokens", "largest probability", "below 0.25 %", "entropy, nats", "above 3 %")
    rows = [_row(head, one) for head, one in found["heads"].items()]
    show_table(columns, rows, title=f"figure 4: {folder.name}, {told['talker']}; medians")


def _row(head: str, one: dict[str, Any]) -> list[object]:
    largest, entropy = one["max_probability"], one["entropy"]
    return [head, one["n"], largest["p50"], largest["below_0.25"], entropy["p50"], entropy["above_3"]]
