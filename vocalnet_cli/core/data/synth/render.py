"""Makes the nano corpus on disk: says every planned question and answer, writes sound files and manifests. Resumable."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from vocalnet_cli.core.audio.wav import read_audio
from vocalnet_cli.core.data.record import Record, write_manifest, write_text_atomically
from vocalnet_cli.core.data.synth.people import plan_human
from vocalnet_cli.core.data.synth.plan import Job, SynthSettings, plan_synthetic, text_records
from vocalnet_cli.core.data.synth.split import TEST_SPLITS, HeldOut, check_split, draw_held_out, save_held_out
from vocalnet_cli.core.data.synth.talks import plan_follow_ups, text_follow_ups, with_history
from vocalnet_cli.core.data.synth.voices import Manner, VoiceFailed, speak, speak_by_festival, trim, usable_voices
from vocalnet_cli.core.errors import AudioError, VocalnetError
from vocalnet_cli.core.units import ANSWER_HZ, QUESTION_HZ

_QUESTION_EDGE_S = 0.12
_ANSWER_EDGE_S = 0.06
"""Silence left at each end; in an answer every 40 ms cost a speech token."""

_SHORTEST_S = 0.1
_QUESTION_PEAK = 0.6
_WORKERS = 2
_AT_ONCE, _AT_ONCE_BY_FESTIVAL = 8, 40
"""Sounds that a worker makes before it tells."""

Task = tuple[Path, str, Manner, Path | None, int]
"""(file to write, text, manner, human recording, sample rate)."""


def _make(tasks: list[Task]) -> list[str | None]:
    """Write sound files, by festival all or none of them: for each the reason if that failed, None if it is there."""
    if _by_festival(tasks[0]):
        missing = [task for task in tasks if not task[0].exists()]
        sounds = speak_by_festival([(text, manner) for _, text, manner, _, _ in missing], QUESTION_HZ) if missing else []
        said = {path: sound for (path, *_), sound in zip(missing, sounds, strict=True)}
        return [_make_one(task, said.get(task[0])) for task in tasks]
    return [_make_one(task) for task in tasks]


def _make_one(task: Task, samples: np.ndarray | VoiceFailed | None = None) -> str | None:
    """Write one sound file, of `samples` if it was said already."""
    path, text, manner, recording, rate = task
    if path.exists():
        return None
    try:
        if isinstance(samples, VoiceFailed):
            raise samples
        if samples is None:
            samples = read_audio(recording, rate) if recording is not None else speak(text, manner, rate)
        samples = trim(samples, rate, _QUESTION_EDGE_S if rate == QUESTION_HZ else _ANSWER_EDGE_S)
    except VoiceFailed as error:
        return str(error)
    except AudioError as error:
        return error.problem
    return _write(path, samples, rate)


def _write(path: Path, samples: np.ndarray, rate: int) -> str | None:
    """Write a sound, whole or not at all; the reason if that failed."""
    if len(samples) < _SHORTEST_S * rate:
        return f"the sound is shorter than {_SHORTEST_S} s"
    if rate == QUESTION_HZ:
        samples = samples * (_QUESTION_PEAK / np.abs(samples).max())
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp")
    try:
        soundfile.write(temporary, samples, rate, format="FLAC", subtype="PCM_16")
        os.replace(temporary, path)
    except (OSError, soundfile.SoundFileError) as error:
        temporary.unlink(missing_ok=True)
        return f"cannot write the sound: {error}"
    return None


def _by_festival(task: Task) -> bool:
    """Whether festival says it as a question: its voices say no answers."""
    return task[3] is None and task[2].voice.startswith("festival:") and task[4] == QUESTION_HZ


def _tasks(jobs: list[Job], folder: Path) -> dict[str, Task]:
    """The sound files the jobs need, each once, by relative path."""
    tasks: dict[str, Task] = {}
    for job in jobs:
        for said in (*job.history, job):
            for name in said.questions:
                tasks[name] = (folder / name, said.item.question, said.manner, said.recording, QUESTION_HZ)
        for name, voice in job.answers.items():
            tasks[name] = (folder / name, job.item.answer, Manner(voice), None, ANSWER_HZ)
    return tasks


def _make_all(tasks: dict[str, Task], advance: Callable[[int, int], None]) -> dict[str, str]:
    """Run the tasks in worker processes. Returns relative path -> reason for each that failed."""
    failed: dict[str, str] = {}
    done = 0
    groups = []
    for festival, size in ((False, _AT_ONCE), (True, _AT_ONCE_BY_FESTIVAL)):
        names = [name for name, task in tasks.items() if _by_festival(task) is festival]
        groups += [names[start : start + size] for start in range(0, len(names), size)]
    # Ctrl-C stops the parent alone, which lets each worker finish the files it writes.
    with ProcessPoolExecutor(_WORKERS, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN)) as pool:
        try:
            made = pool.map(_make, [[tasks[name] for name in names] for names in groups])
            for names, reasons in zip(groups, made, strict=True):
                failed.update({name: reason for name, reason in zip(names, reasons, strict=True) if reason})
                done += len(names)
                advance(done, len(tasks))
        except KeyboardInterrupt:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return failed


def _plan(settings: SynthSettings, digits: Path | None, limit: int | None, notify: Callable[[str], None]) -> tuple[list[Job], HeldOut]:
    held_out = draw_held_out(settings.seed, settings.held_out_speaker)
    voices, notices = usable_voices()
    for notice in notices:
        notify(notice)
    jobs = plan_synthetic(settings, held_out, voices)
    if digits is not None:
        jobs += plan_human(settings, held_out, digits)
    jobs += plan_follow_ups(settings, held_out, voices, jobs)
    if limit is not None and limit < len(jobs):
        kept = sorted(random.Random(f"{settings.seed} limit").sample(range(len(jobs)), limit))
        jobs = [jobs[place] for place in kept]
    return jobs, held_out


def make_corpus(
    folder: Path,
    settings: SynthSettings | None = None,
    digits: Path | None = None,
    limit: int | None = None,
    advance: Callable[[int, int], None] = lambda done, total: None,
    notify: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Make the corpus in `folder`; files of an earlier run with the same settings are kept.

    `digits` is a folder of human digit recordings (16-bit wav, any rate); `limit` keeps that many rows, drawn over all splits;
    `advance(done, total)` is called after every sound file, `notify` with each notice for the user.
    Writes manifest.jsonl, rejects.jsonl, split.json, text.jsonl, stats.json. Returns the stats:
    `{"rows_in", "rows_out", "rejected": {reason: rows}, "audio_hours", "seconds"}`.
    """
    started = time.monotonic()
    settings = settings or SynthSettings()
    jobs, held_out = _plan(settings, digits, limit, notify)
    for name in ("questions", "answers"):
        _make_folder(folder / "audio" / name)
    tasks = _tasks(jobs, folder)
    failed = _make_all(tasks, advance)
    records: list[Record] = []
    rejects: list[dict[str, str]] = []
    for job in jobs:
        reason = next((failed[name] for name in job.files if name in failed), None)
        if reason:
            rejects.append({"id": job.id, "text": job.item.question, "voice": job.manner.voice, "reason": reason})
        else:
            records.append(job.record())
    records = with_history(settings, records)
    text = text_records(settings, held_out)
    text = [*with_history(settings, text), *text_follow_ups(settings, held_out, text)]
    check_split([record for record in (*records, *text) if record.split not in TEST_SPLITS], held_out)
    save_held_out(folder, held_out)
    write_manifest(folder / "manifest.jsonl", records)
    write_manifest(folder / "text.jsonl", text)
    write_text_atomically(folder / "rejects.jsonl", "".join(json.dumps(row) + "\n" for row in rejects))
    seconds = sum(soundfile.info(tasks[name][0]).duration for name in tasks if name not in failed)
    stats = {
        "rows_in": len(jobs),
        "rows_out": len(records),
        "rejected": dict(Counter(row["reason"] for row in rejects)),
        "audio_hours": round(seconds / 3600, 3),
        "seconds": round(time.monotonic() - started, 1),
    }
    write_text_atomically(folder / "stats.json", json.dumps(stats) + "\n")
    return stats


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise VocalnetError(f"cannot make the folder {path}: {error.strerror}", "choose another folder: -o DIR") from error
