"""The options that say who judges."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from vocalnet_cli.core.evaluation.judging.case import Judge

JudgeOpt = Annotated[
    str | None, typer.Option("--judge", metavar="JUDGE", help="rule (free), qwen-max, gpt-..., or a model's name with --judge-url.")
]
JudgeUrlOpt = Annotated[
    str | None, typer.Option("--judge-url", metavar="URL", help="OpenAI-compatible endpoint that judges (vLLM, llama.cpp, ...).")
]
JudgeKeyOpt = Annotated[
    str | None, typer.Option("--judge-key-env", metavar="NAME", help="Environment variable with the key of --judge-url.")
]
JudgePromptsOpt = Annotated[
    Path | None, typer.Option("--judge-prompts", metavar="DIR", help="Prompts instead of ours: open.txt, short.txt, references.txt.")
]
JudgeWorkersOpt = Annotated[int, typer.Option("--judge-workers", metavar="N", min=1, help="Judge calls at once.")]
JudgeTimeoutOpt = Annotated[float, typer.Option("--judge-timeout", metavar="S", min=0.01, help="Seconds a judge call may take.")]
MaxCallsOpt = Annotated[
    int | None, typer.Option("--max-judge-calls", metavar="N", min=0, help="Paid judge calls of this run; kept replies are free.")
]
PriceOpt = Annotated[
    str | None, typer.Option("--judge-price", metavar="IN,OUT", help="Price of a million tokens in and out, for the cost that is told.")
]

NO_VERDICT = "The same command asks again where no reply came. Replies nobody can read are kept: try another --judge or --judge-prompts."
"""What to do about answers without a verdict."""


def judge_of(
    judge: str | None, url: str | None, key_env: str | None, prompts: Path | None, workers: int, timeout: float, max_calls: int | None
) -> Judge:
    """The judge that is meant, looked for before anything else is done. Raises UsageError, VocalnetError."""
    from vocalnet_cli.core.config.places import cache_folder
    from vocalnet_cli.core.evaluation.judging.endpoint import Asked, find_judge
    from vocalnet_cli.core.evaluation.judging.model_judge import Limits

    limits = Limits(workers, timeout, max_calls)
    found = find_judge(Asked(judge, url, key_env, prompts, limits), cache_folder() / "judge")
    found.check()
    return found


def prices_of(text: str | None) -> tuple[float, float] | None:
    """`1.6,6.4` as two numbers. Raises UsageError."""
    from vocalnet_cli.core.errors import UsageError

    if text is None:
        return None
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"--judge-price {text}: not two numbers", "Write for example --judge-price 1.6,6.4") from error
    return low, high


def tell_spent(judge: Judge, prices: tuple[float, float] | None, quiet: bool) -> None:
    """A line on stderr about what judging cost."""
    from vocalnet_cli.cli.console import err
    from vocalnet_cli.core.evaluation.judging.model_judge import ModelJudge

    if not isinstance(judge, ModelJudge) or quiet:
        return
    spent = judge.spent
    cost = f", {spent.cost(prices):g} at {prices[0]:g}/{prices[1]:g} a million" if prices else ""
    told = f"judge: {spent.calls} calls, {spent.kept} replies kept from before, {spent.tokens_in} + {spent.tokens_out} tokens{cost}"
    err().print(told, markup=False, soft_wrap=True)
