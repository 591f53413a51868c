"""Answers that somebody else's model gave, scored as our own are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from vocalnet_cli.core.audio.wav import audio_seconds, read_audio
from vocalnet_cli.core.config.places import cache_folder
from vocalnet_cli.core.data.prep.sounds import file_name
from vocalnet_cli.core.data.record import Record, read_lines
from vocalnet_cli.core.errors import AudioError, UsageError, VocalnetError
from vocalnet_cli.core.evaluation.benchmarks import Benchmark
from vocalnet_cli.core.evaluation.cache import AnswerCache, Row
from vocalnet_cli.core.evaluation.conclude import Told, check_judge
from vocalnet_cli.core.evaluation.judging.case import Judge
from vocalnet_cli.core.evaluation.judging.rule import RuleJudge
from vocalnet_cli.core.evaluation.listening import Ear, WordLoop, listen
from vocalnet_cli.core.evaluation.measure import Watch, conclude
from vocalnet_cli.core.evaluation.results import file_sha256
from vocalnet_cli.core.generation.batch import SOUND_SUFFIXES
from vocalnet_cli.core.units import ANSWER_HZ

_TEXTS, _IDS = ("text", "prediction", "response"), ("id", "question_id", "key")
"""Fields of a JSONL of answers: ours, VocalBench's, VoiceBench's."""


def measure_saved(
    folder: Path,
    benchmarks: Sequence[Benchmark],
    *,
    limit: int | None = None,
    judge: Judge | None = None,
    ear: Ear | None = None,
    output: Path | None = None,
    watch: Watch | None = None,
) -> dict[str, Any]:
    """Score the answers that lie in `folder`, as `measure` scores those of a model; what is heard in them is kept in the cache.

    For each question ID there is ID.txt with what was written and ID.wav (or .flac, .mp3, .ogg) with what was said, in the folder or in
    FOLDER/BENCHMARK; or BENCHMARK.jsonl (else answers.jsonl) with rows {id, text, audio}, as `eval -o` writes. Either may be missing:
    without sound there is no s2s. A question without an answer counts in `failed`.

    Raises UsageError for a folder without a single answer, and what `measure` raises.
    """
    judge, ear, watch = judge or RuleJudge(), ear or WordLoop(), watch or Watch()
    if not folder.is_dir():
        raise UsageError(f"--answers {folder}: no such folder", "Name a folder with ID.txt and ID.wav for each question.")
    check_judge(judge, benchmarks, watch.note)
    told = []
    for benchmark in benchmarks:
        records = benchmark.records[:limit]
        table = _table(folder, benchmark.name)
        rows = [_row(folder, benchmark.name, record, table) for record in records]
        identity = {"answers": str(folder.resolve()), "benchmark": benchmark.name, "manifest_sha256": benchmark.sha256}
        with AnswerCache(cache_folder() / "eval", identity) as answers:
            heard, hearing = listen(benchmark, records, rows, folder, answers, ear, partial(watch.advance, benchmark.name))
        told.append(Told(benchmark, records, rows, heard, hearing, folder))
    if all(row.error is not None for one in told for row in one.rows):
        first = told[0].rows[0]
        raise UsageError(
            f"--answers {folder}: holds no answer to {benchmarks[0].name} (`{first.id}`: {first.error})", "Name ID.txt and ID.wav."
        )
    return conclude(folder.resolve().name, None, {"answers": str(folder)}, told, judge, output, watch)


def _table(folder: Path, benchmark: str) -> dict[str, dict[str, Any]]:
    """Rows of a JSONL of answers by the id of their question; none if there is no such file."""
    path = next((path for name in (benchmark, "answers") if (path := folder / f"{name}.jsonl").is_file()), None)
    found: dict[str, dict[str, Any]] = {}
    for number, line in read_lines(path) if path else ():
        try:
            row = json.loads(line)
            found[str(next(row[name] for name in _IDS if name in row))] = row
        except (ValueError, RecursionError, StopIteration, TypeError) as error:
            raise VocalnetError(f"{path}:{number}: not an answer", "A row is {id, text, audio}.") from error
    return found


def _row(folder: Path, benchmark: str, record: Record, table: dict[str, dict[str, Any]]) -> Row:
    """What the folder holds for one question; of a published set its number in the set will do for its id."""
    names = dict.fromkeys((record.id, file_name(record.id), record.id.removeprefix(f"{benchmark}-")))
    listed = next((table[name] for name in names if name in table), None)
    places = [place for place in (folder / benchmark, folder / benchmark / "answers", folder) if place.is_dir()]
    text: str | None = next((str(listed[name]) for name in _TEXTS if listed and isinstance(listed.get(name), str)), None)
    sound: Path | None = folder / str(listed["audio"]) if listed and listed.get("audio") else None
    for path in (place / f"{name}.txt" for place in places for name in names):
        if text is None and path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace").strip()
    for path in (place / f"{name}{suffix}" for place in places for name in names for suffix in sorted(SOUND_SUFFIXES)):
        if sound is None and path.is_file():
            sound = path
    if text is None and sound is None:
        return Row(record.id, error="no answer in the folder")
    if sound is None:
        return Row(record.id, text or "", spoken=False)
    try:
        if not sound.resolve().is_relative_to(folder.resolve()):
            return Row(record.id, error=f"{sound}: outside the folder")
        read_audio(sound, ANSWER_HZ)
        return Row(record.id, text or "", str(sound.relative_to(folder)), file_sha256(sound), round(audio_seconds(sound), 3))
    except AudioError as error:
        return Row(record.id, error=f"{error.problem}. {error.hint}")
