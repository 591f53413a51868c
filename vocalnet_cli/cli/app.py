"""The `vocalnet` command: its subcommands, and every failure as two lines and an exit code."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from vocalnet_cli import __version__
from vocalnet_cli.cli import chat, chat_mic, doctor, infer, latency, models, prep, recipes, train
from vocalnet_cli.cli import eval as eval_command
from vocalnet_cli.core.errors import VocalnetError

app = typer.Typer(name="vocalnet", no_args_is_help=True, add_completion=False, rich_markup_mode=None)
app.add_typer(prep.app, name="prep")
app.command()(train.train)
app.command()(train.distill)
app.command()(infer.infer)
chat.app.command("mic")(chat_mic.chat_mic)
app.add_typer(chat.app, name="chat")
app.add_typer(eval_command.app, name="eval")
app.add_typer(latency.app, name="latency")
app.add_typer(recipes.app, name="recipes")
app.add_typer(models.app, name="models")
app.command()(doctor.doctor)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"vocalnet {__version__}")
        raise typer.Exit


@app.callback()
def vocalnet(
    version: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error (or set VOCALNET_DEBUG=1).")] = False,
) -> None:
    """Speech LLMs of the VocalNet family: spoken question in, text and spoken answer out.

    \b
    Start here:
      vocalnet infer                        answer a recorded question with the model the package carries
      vocalnet chat file A.wav B.wav        hold a conversation with recorded questions
      vocalnet recipes                      what can be trained, by paper and table
      vocalnet train --recipe nano/mtp5     train one stage
      vocalnet latency                      how soon it speaks, stage by stage
      vocalnet models                       what can answer, and what of it is on this machine
      vocalnet doctor                       what of this machine works
    """


def main() -> None:
    """Entry point of the console script."""
    sys.exit(run_cli(sys.argv[1:]))


def run_cli(args: Sequence[str]) -> int:
    """Run one command line and return its exit code: 0 done, 1 failed, 2 usage, 130 interrupted. Errors go to stderr."""
    own = list(args)
    debug = os.environ.get("VOCALNET_DEBUG", "") not in ("", "0")
    if "--debug" in own[: own.index("--") if "--" in own else None]:
        own.remove("--debug")
        debug = True
    try:
        code = typer.main.get_command(app).main(args=own, prog_name="vocalnet", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        return _reader_left()
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            traceback.print_exc()
        return _report(error)
    if code == 130:
        return _report(KeyboardInterrupt())
    return code if isinstance(code, int) else 0


def _report(error: BaseException) -> int:
    """Print what is wrong and what to do next; return the exit code."""
    code = 1
    if isinstance(error, VocalnetError):
        problem, hint, code = error.problem, error.hint, error.exit_code
    elif isinstance(error, (KeyboardInterrupt, typer.Abort)):
        problem, hint, code = "interrupted", "What was finished before is kept; run the same command again to do the rest.", 130
    elif hasattr(error, "format_message"):  # a command line that typer refuses
        problem, hint, code = *_usage_error(error), 2
    elif isinstance(error, OSError) and error.strerror:
        problem, hint = _os_error(error)
    else:
        text = " ".join(str(error).split())
        problem = f"unexpected {type(error).__name__}: {text}" if text else f"unexpected {type(error).__name__}"
        hint = "This is a defect of vocalnet: run it again with --debug and report what it prints."
    print(f"{problem}\n{hint}", file=sys.stderr)
    return code


def _usage_error(error: Any) -> tuple[str, str]:
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "vocalnet"
    if type(error).__name__ == "NoArgsIsHelpError":
        # Its message is the whole help, which is what someone wants who typed nothing.
        return error.format_message().rstrip() + "\n", f"No command given. See what one takes: {command} COMMAND --help"
    return f"{command}: {' '.join(error.format_message().split())}", f"See what it takes: {command} --help"


def _os_error(error: OSError) -> tuple[str, str]:
    problem = f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return problem, "Free some disk space, or write elsewhere with -o, and run again."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return problem, "Change its permissions, or write elsewhere with -o."
    return problem, "Check the path and the disk; --debug shows where it happened."


def _reader_left() -> int:
    """`vocalnet … | head`: the reader of stdout went away. Python must not complain again when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1
