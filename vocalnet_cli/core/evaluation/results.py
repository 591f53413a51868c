"""What a measurement leaves behind: a folder with `report.json`, a `NAME.jsonl` for each benchmark, and the sound of the answers.

The same schema whoever answered: a model of ours, a released one, or the saved answers of another (`eval --answers`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from vocalnet_cli.core.data.record import write_text_atomically
from vocalnet_cli.core.errors import VocalnetError

SCHEMA = 2
"""Number of this schema. More keys may join under the same number; a change of meaning raises it."""

REPORT = "report.json"

Scale = Literal["right", "0-10"]
"""What a verdict says: `right` is 1 or 0, `0-10` a mark."""


class Judging(BaseModel):
    """Who judged the answers of one benchmark, and how. Two scores compare only where `same_as` holds."""

    model_config = ConfigDict(extra="forbid")

    judge: str
    """`rule`, or the model that was asked for (`qwen-max`)."""
    scale: Scale = "right"
    rule: str | None = None
    """What the rule is, in words; None for a model."""
    prompt: str | None = None
    """Prompt set and prompt (`vocalnet-1/open`); None for the rule."""
    prompt_sha256: str | None = None
    """Of the prompt's text."""
    url: str | None = None
    """Endpoint that was asked."""
    models: list[str] = []
    """What the endpoint calls the models that replied."""
    temperature: float | None = None

    def same_as(self, other: Judging) -> bool:
        """Whether both judged alike: the same judge, prompt, scale and temperature, wherever it ran."""
        told = ("judge", "scale", "rule", "prompt_sha256", "temperature")
        return all(getattr(self, name) == getattr(other, name) for name in told)


class Verdict(BaseModel):
    """What the judge says of one answer."""

    model_config = ConfigDict(extra="forbid")

    value: float | None
    """1 or 0, or a mark of 0 to 10 (`Judging.scale`); None where no reply could be read: such a question is counted apart."""
    reply: str | None = None
    """The judge's raw reply, the last of several; None for the rule."""
    model: str | None = None
    """What the endpoint calls the model that replied."""
    date: str | None = None
    attempts: int = 0
    """Replies it took."""
    failure: str | None = None
    """Why there is no value."""


class QuestionResult(BaseModel):
    """One question of a benchmark and what became of it. With `error` nothing was answered."""

    model_config = ConfigDict(extra="forbid")

    id: str
    question: str
    """Its text; empty where only a recording is known."""
    references: list[str] = []
    """Answers that count as right; empty for an open question."""
    kind: str = ""
    """Kind of question, in sets that tell kinds."""
    text: str = ""
    """What the model wrote."""
    heard: str | None = None
    """What the recogniser hears in its voice; None without sound."""
    recorded: str | None = None
    """What the recogniser hears in the recorded answer, if there is one."""
    lookup: str | None = None
    """The answer of the most similar training question, if the model has a bank of them."""
    question_audio: str | None = None
    """The spoken question: relative to the folder of the results where it lies below it, else absolute."""
    audio: str | None = None
    """The spoken answer, in the same way."""
    audio_s: float = 0.0
    truncated: bool = False
    verdicts: dict[str, Verdict] = {}
    """`s2t` of `text`, `s2s` of `heard`; `recorded` and `lookup` where they were measured."""
    measures: dict[str, float] = {}
    """Further numbers of this answer (`utmos`, `words_per_s` ...); absent is not measured."""
    hashes: dict[str, str] = {}
    """SHA-256 of `question_audio` and of `audio`, under these names."""
    error: str | None = None


class RunReport(BaseModel):
    """`report.json`, and what `eval --json` prints."""

    model_config = ConfigDict(extra="allow")

    schema_version: int = SCHEMA
    model: str
    """Folder or name of the model, or the folder of the answers."""
    recipe: str | None = None
    answers: str | None = None
    """Folder of saved answers, where no model of ours was asked."""
    weights_sha256: str | None = None
    settings: dict[str, Any] = {}
    benchmarks: dict[str, dict[str, Any]]
    """Scores of each benchmark (`evaluation/score.py`)."""
    manifests: dict[str, str] = {}
    """SHA-256 of each benchmark's manifest."""
    judge: str
    """Who judged, in words."""
    judging: dict[str, Judging] = {}
    """Who judged each benchmark, and how."""
    recogniser: str
    normaliser: str
    versions: dict[str, str]
    date: str


@dataclass(frozen=True)
class Run:
    """A measurement read back."""

    folder: Path
    report: RunReport
    questions: dict[str, list[QuestionResult]]
    """The questions of each benchmark, in its order."""

    def sound(self, name: str) -> Path:
        """Where a sound file that a row names lies."""
        return self.folder / name


def file_sha256(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_run(folder: Path, report: RunReport, questions: Mapping[str, Sequence[QuestionResult]]) -> None:
    """Write `report.json` and a `NAME.jsonl` for each benchmark. Raises VocalnetError."""
    for name, rows in questions.items():
        write_text_atomically(folder / f"{name}.jsonl", "".join(row.model_dump_json(exclude_defaults=True) + "\n" for row in rows))
    write_text_atomically(folder / REPORT, json.dumps(report.model_dump(mode="json"), ensure_ascii=False, indent=1) + "\n")


def read_run(folder: Path | str) -> Run:
    """What `write_run` wrote. Raises VocalnetError for a folder that holds no results, or results that cannot be read."""
    folder = Path(folder).expanduser()
    told = folder / REPORT
    try:
        report = RunReport.model_validate_json(told.read_bytes())
        if report.schema_version != SCHEMA:
            raise VocalnetError(f"{told}: results of schema {report.schema_version}, not {SCHEMA}", "Measure again: vocalnet eval -o DIR")
        questions = {}
        for name in report.benchmarks:
            told = folder / f"{name}.jsonl"
            questions[name] = [QuestionResult.model_validate_json(line) for line in told.read_bytes().splitlines()]
    except OSError as error:
        raise VocalnetError(f"{told}: cannot be read ({error.strerror})", "Name a folder that `vocalnet eval -o DIR` wrote.") from error
    except ValidationError as error:
        wrong = error.errors()[0]
        place = ".".join(map(str, wrong["loc"]))
        raise VocalnetError(f"{told}: {place}: {wrong['msg']}", "Name a folder that `vocalnet eval -o DIR` wrote.") from error
    return Run(folder, report, questions)
