"""From answers to results: what was heard is judged, counted, and written down; the same whoever answered."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vocalnet_cli.core.data.prep.sounds import file_name
from vocalnet_cli.core.data.prep.step import take_in
from vocalnet_cli.core.data.record import Record
from vocalnet_cli.core.errors import UsageError
from vocalnet_cli.core.evaluation.benchmarks import Benchmark
from vocalnet_cli.core.evaluation.cache import Heard, Row
from vocalnet_cli.core.evaluation.judging.case import Case, Judge, case_style
from vocalnet_cli.core.evaluation.results import Judging, QuestionResult, Run, Verdict, file_sha256, write_run
from vocalnet_cli.core.evaluation.wer import Hearing

NO_ANSWER = "(open)"
"""Answer of a question that has no reference (`prep questions` writes it)."""


@dataclass(frozen=True)
class Told:
    """All there is to one benchmark before it is judged: its rows in order, and who listened."""

    benchmark: Benchmark
    records: Sequence[Record]
    rows: Sequence[Row]
    heard: Sequence[Heard]
    hearing: Hearing
    folder: Path
    """Where the sound of the answers lies."""


def references(record: Record) -> list[str]:
    """The answers that count as right."""
    given = [record.answer.text, *map(str, record.meta.get("aliases", []))]
    return [one for one in dict.fromkeys(given) if one and one != NO_ANSWER]


def style_of(benchmark: Benchmark) -> str:
    """How a benchmark is judged. Raises UsageError for one that would need two ways."""
    styles = {case_style(record.meta.get("judge"), references(record)): record.id for record in benchmark.records}
    if len(styles) > 1:
        told = ", ".join(f"`{own}` {style}" for style, own in sorted(styles.items()))
        raise UsageError(
            f"benchmark {benchmark.name}: its questions are judged in different ways ({told})",
            "Make two of it: one of questions with references, one of open questions.",
        )
    return next(iter(styles))


def check_judge(judge: Judge, benchmarks: Sequence[Benchmark], note: Callable[[str], None]) -> None:
    """See before the first question that the judge can judge them all. Raises UsageError where a model's prompt is missing."""
    for benchmark in benchmarks:
        style = style_of(benchmark)
        if not judge.can(style):
            if judge.paid:
                raise UsageError(f"--judge-prompts: no prompt `{style}`, which {benchmark.name} needs", f"Add {style}.txt to the folder.")
            note(f"note: {benchmark.name}: open questions, which only a model can judge (--judge qwen-max): right and wrong stay out")


def judged(told: Told, judge: Judge, advance: Callable[[int, int], None]) -> tuple[list[QuestionResult], Judging | None]:
    """A result for each question, with its verdicts, and who judged; None if this judge cannot."""
    style = style_of(told.benchmark)
    results = [_result(told, record, row, heard) for record, row, heard in zip(told.records, told.rows, told.heard, strict=True)]
    if not judge.can(style):
        return results, None
    cases: list[Case] = []
    places: list[tuple[QuestionResult, str]] = []
    for record, result in zip(told.records, results, strict=True):
        said = {"s2t": result.text, "s2s": result.heard}
        if not judge.paid:
            said |= {"recorded": result.recorded, "lookup": result.lookup}
        for name, text in said.items():
            if text is not None and result.error is None:
                cases.append(Case(record.question.text, result.references, text, style, record, told.hearing.alike))
                places.append((result, name))
    for (result, name), verdict in zip(places, judge.verdicts(cases, advance), strict=True):
        result.verdicts[name] = verdict
    return results, judge.judging(style)


def _result(told: Told, record: Record, row: Row, heard: Heard) -> QuestionResult:
    asked = told.benchmark.sound(str(record.question.audio)).resolve()
    spoken = (told.folder / row.audio).resolve() if row.audio else None
    return QuestionResult(
        id=record.id,
        question=record.question.text,
        references=references(record),
        kind=str(record.meta.get("kind", "")),
        text=row.text,
        heard=heard.heard,
        recorded=heard.recorded,
        lookup=row.lookup,
        question_audio=str(asked),
        audio=str(spoken) if spoken else None,
        audio_s=row.audio_s,
        truncated=row.truncated,
        verdicts={},
        hashes={"audio": row.audio_sha256} if row.audio_sha256 else {},
        error=row.error,
    )


def unread(results: Sequence[QuestionResult]) -> list[tuple[str, str, Verdict]]:
    """The verdicts that could not be had: question, which answer, and the verdict."""
    return [(one.id, name, verdict) for one in results for name, verdict in one.verdicts.items() if verdict.value is None]


def write_results(run: Run) -> None:
    """Write a run with its sound: the answers, and the questions, as links where the file system has them. Paths become relative."""
    placed: dict[str, list[QuestionResult]] = {}
    for name, results in run.questions.items():
        placed[name] = []
        for result in results:
            change: dict[str, object] = {}
            hashes = dict(result.hashes)
            for field, kind in (("audio", "answers"), ("question_audio", "questions")):
                if source := getattr(result, field):
                    change[field] = _beside(Path(source), run.folder, f"{name}/{kind}/{file_name(result.id)}{Path(source).suffix}")
                    hashes.setdefault(field, file_sha256(Path(source)))
            placed[name].append(result.model_copy(update={**change, "hashes": hashes}))
    write_run(run.folder, run.report, placed)


def _beside(source: Path, folder: Path, name: str) -> str:
    """A file as `folder`/`name`, a link or a copy; its path there."""
    target = folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    take_in(target, source, target.with_name(f".{target.name}.{os.getpid()}.tmp"))
    return name
