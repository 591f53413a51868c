"""Errors a user can cause. Each is two lines: what is wrong with which value, and what to do next."""

from __future__ import annotations


class VocalnetError(Exception):
    """A mistake in the input or the environment, not in the program.

    `problem` names the value that is wrong; `hint` says what to do next. The command line prints both, one a line,
    and exits with `exit_code`.
    """

    exit_code = 1

    def __init__(self, problem: str, hint: str) -> None:
        super().__init__(f"{problem}\n{hint}")
        self.problem = problem
        self.hint = hint

    def __reduce__(self) -> tuple[type[VocalnetError], tuple[str, str]]:
        return type(self), (self.problem, self.hint)  # so that it may come from another process


class UsageError(VocalnetError):
    """The command line itself is wrong (unknown option value, options that exclude each other)."""

    exit_code = 2


class RecipeError(VocalnetError):
    """A recipe that cannot be used. `problem` holds every mistake found, one a line."""


class AudioError(VocalnetError):
    """A sound file that cannot be read, is empty, silent or too long."""


class MissingWeights(VocalnetError):
    """Weights a recipe or model needs are not on this machine."""


class Interrupted(VocalnetError):
    """Stopped by SIGINT or SIGTERM after the state was saved."""

    exit_code = 130
