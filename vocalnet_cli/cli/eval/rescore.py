"""`vocalnet eval rescore`: verdicts on saved answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vocalnet_cli.cli.console import progress, show_table
from vocalnet_cli.cli.eval.judges import (
    NO_VERDICT,
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
    tell_spent,
)
from vocalnet_cli.cli.options import JsonOpt, LimitOpt, QuietOpt


def rescore(
    answers: Annotated[
        Path, typer.Argument(metavar="ANSWERS.jsonl", help="Rows {id, question, references, text, heard}, such as `eval -o` writes.")
    ],
    judge: JudgeOpt = None,
    judge_url: JudgeUrlOpt = None,
    judge_key_env: JudgeKeyOpt = None,
    judge_prompts: JudgePromptsOpt = None,
    style: Annotated[
        str | None,
        typer.Option("--prompt", metavar="STYLE", help="open (0-10), short, references (right or wrong); else by each row's references."),
    ] = None,
    max_judge_calls: MaxCallsOpt = None,
    judge_workers: JudgeWorkersOpt = 8,
    judge_timeout: JudgeTimeoutOpt = 60.0,
    judge_price: PriceOpt = None,
    limit: LimitOpt = None,
    as_json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Judge saved answers, in text (s2t) and as heard (s2s): right or wrong where there are references, else 0 to 10.

    With --json a line {id, s2t, s2s} each. Replies of a model are kept in the cache: what was stopped goes on, nothing is paid twice.

    \b
    Examples:
      vocalnet eval rescore answers.jsonl --judge rule --json
      vocalnet eval rescore answers.jsonl --judge qwen-max --max-judge-calls 500 --judge-price 1.6,6.4
    """
    from vocalnet_cli.core.errors import VocalnetError
    from vocalnet_cli.core.evaluation.rescore import lines, read_answers, summary
    from vocalnet_cli.core.evaluation.rescore import rescore as score

    prices = prices_of(judge_price)
    rows = read_answers(answers, limit)
    found = judge_of(judge, judge_url, judge_key_env, judge_prompts, judge_workers, judge_timeout, max_judge_calls)
    with progress(quiet) as bars:
        bar = bars.add_task("verdicts", total=None)
        results = score(rows, found, style, lambda done, total: bars.update(bar, completed=done, total=total))
    if as_json:
        typer.echo(lines(results), nl=False)
    else:
        told = results[0].judging
        columns = ("scale", "answers", "text", "speech", "no verdict")
        show_table(columns, summary(results), title=f"{answers}: {told.judge}, prompts {told.prompt or '-'}")
    tell_spent(found, prices, quiet)
    missing = [failure for one in results for failure in one.as_json().get("failure", {}).values()]
    if missing:
        raise VocalnetError(f"{len(missing)} answers have no verdict, the first: {missing[0]}", NO_VERDICT)
