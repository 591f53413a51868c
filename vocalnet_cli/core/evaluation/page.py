"""Results as a page to listen to: each question with its sound, the answer with its own, what was heard in it, and the verdict.

The folder holds all the page needs: it can be moved, zipped, or opened from a disk without a network.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from difflib import SequenceMatcher
from html import escape
from pathlib import Path
from typing import Any

from vocalnet_cli.core.data.record import write_text_atomically
from vocalnet_cli.core.errors import VocalnetError
from vocalnet_cli.core.evaluation.measures import MEASURES
from vocalnet_cli.core.evaluation.report import COLUMNS, table
from vocalnet_cli.core.evaluation.results import Judging, QuestionResult, Run, Verdict, file_sha256

PAGE = "index.html"

_SIDES = {"s2t": "text", "s2s": "speech"}
_STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; margin: 2em auto; max-width: 75em; padding: 0 1em; color: #222; background: #fff; }
table { border-collapse: collapse; margin: 1em 0; } th, td { text-align: left; vertical-align: top; padding: .35em .8em .35em 0; }
th, tr { border-bottom: 1px solid #ddd; } section table { width: 100%; }
section td { overflow-wrap: anywhere; } section th:nth-child(-n + 2) { width: 25%; min-width: 15em; }
audio { width: 15em; height: 2.2em; display: block; }
code, pre { font-size: 85%; } pre { white-space: pre-wrap; max-width: 30em; }
.good { color: #14692f; } .bad { color: #a11; } .quiet { color: #666; font-size: 85%; }
del { color: #a11; } ins { color: #14692f; text-decoration: underline; } .hidden { display: none; }
@media (prefers-color-scheme: dark) { body { background: #181818; color: #ddd; } .good, ins { color: #7c7; } .bad, del { color: #f88; } }
"""
_SCRIPT = """
document.querySelectorAll("select.show").forEach(select => select.addEventListener("change", () => {
  select.closest("section").querySelectorAll("tbody tr").forEach(row =>
    row.classList.toggle("hidden", select.value !== "all" && !row.dataset.verdicts.split(" ").includes(select.value)));
}));
"""


def write_page(run: Run, folder: Path) -> Path:
    """Write `folder`/index.html and, below `folder`/audio, the sound it plays; returns the page's path.

    Files are called by their hash, so that a sound that several questions share is there once. Raises VocalnetError for a sound file
    that is missing or not the one that was judged, or a folder that cannot be written.
    """
    sections = []
    for name, rows in run.questions.items():
        judging = run.report.judging.get(name)
        body = "\n".join(_row(run, folder, row, judging) for row in rows)
        sections.append(_section(name, len(rows), judging, body))
    title = f"{run.report.model}: answers"
    whole = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>\n'
        f"<h1>{escape(title)}</h1>\n{_about(run)}\n{_scores(run.report.benchmarks)}\n{''.join(sections)}"
        f"<script>{_SCRIPT}</script></body></html>\n"
    )
    write_text_atomically(folder / PAGE, whole)
    return folder / PAGE


def _about(run: Run) -> str:
    """What made the answers and the scores."""
    report = run.report
    told: dict[str, Any] = {
        "recipe": report.recipe,
        "weights": report.weights_sha256,
        "answers": report.answers,
        "judge": report.judge,
        "recogniser": report.recogniser,
        "normaliser": report.normaliser,
        **(report.model_extra or {}).get("measured_by", {}),
        "settings": json.dumps(report.settings) if report.settings else None,
        "versions": " ".join(f"{name} {number}" for name, number in report.versions.items()),
        "date": report.date,
    }
    lines = "".join(f"<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>" for name, value in told.items() if value)
    return f'<details><summary>how this was measured</summary><table class="quiet">{lines}</table></details>'


def _scores(benchmarks: Mapping[str, Mapping[str, Any]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in COLUMNS)
    rows = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in table(benchmarks))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _section(name: str, count: int, judging: Judging | None, body: str) -> str:
    by = f"{judging.judge}, {judging.scale}, {judging.prompt or judging.rule or ''}" if judging else ""
    shown = "".join(f'<option value="{value}">{text}</option>' for value, text in _FILTERS.items())
    head = "".join(f"<th>{text}</th>" for text in ("question", "answer", "heard in it", "verdict"))
    return (
        f'<section><h2>{escape(name)}</h2><p class="quiet">{count} questions; judged by {escape(by)}</p>'
        f'<select class="show" aria-label="which answers to show">{shown}</select>'
        f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></section>\n"
    )


_FILTERS = {
    "all": "all answers",
    "s2t-bad": "text wrong, or below 5",
    "s2s-bad": "speech wrong, or below 5",
    "none": "no verdict, or not answered",
    "cut": "cut off",
}


def _row(run: Run, folder: Path, row: QuestionResult, judging: Judging | None) -> str:
    marks = [f"{side}-bad" for side in _SIDES if (value := _value(row, side)) is not None and not _is_good(value, judging)]
    if row.error is not None or any(verdict.value is None for verdict in row.verdicts.values()):
        marks.append("none")
    if row.truncated:
        marks.append("cut")
    wanted = f'<div class="quiet">expected: {escape("; ".join(row.references))}</div>' if row.references else ""
    question = f"{_audio(run, folder, row, 'question_audio')}{escape(row.question)}{wanted}"
    notes = [f"{row.audio_s:.1f} s"] if row.audio_s else []
    notes += [f"{shown} {row.measures[name]:g}" for name, shown in MEASURES.items() if name in row.measures]
    notes += ["cut off"] if row.truncated else []
    answer = f'{_audio(run, folder, row, "audio")}{escape(row.text)}<div class="quiet">{escape(", ".join(notes))}</div>'
    if row.error is not None:
        answer = f'<span class="bad">{escape(row.error)}</span>'
    verdicts = "".join(_verdict(shown, row.verdicts[side], judging) for side, shown in _SIDES.items() if side in row.verdicts)
    cells = "".join(f"<td>{cell}</td>" for cell in (question, answer, _heard(row), verdicts))
    return f'<tr id="{escape(row.id, quote=True)}" data-verdicts="{" ".join(marks)}">{cells}</tr>'


def _value(row: QuestionResult, side: str) -> float | None:
    return row.verdicts[side].value if side in row.verdicts else None


def _is_good(value: float, judging: Judging | None) -> bool:
    return value >= (5 if judging is not None and judging.scale == "0-10" else 1)


def _heard(row: QuestionResult) -> str:
    """The transcript, words that differ from the answer's text marked: left out struck through, put in underlined."""
    if row.heard is None:
        return ""
    meant, heard = row.text.split(), row.heard.split()
    shown = []
    matcher = SequenceMatcher(None, [_bare(word) for word in meant], [_bare(word) for word in heard], autojunk=False)
    for kind, a, b, c, d in matcher.get_opcodes():
        if kind != "equal" and b > a:
            shown.append(f"<del>{escape(' '.join(meant[a:b]))}</del>")
        if d > c:
            said = escape(" ".join(heard[c:d]))
            shown.append(said if kind == "equal" else f"<ins>{said}</ins>")
    return " ".join(shown)


def _bare(word: str) -> str:
    return "".join(letter for letter in word.lower() if letter.isalnum())


def _verdict(shown: str, verdict: Verdict, judging: Judging | None) -> str:
    if verdict.value is None:
        text, kind = f"no verdict: {verdict.failure or 'no reply'}", "bad"
    elif judging is not None and judging.scale == "0-10":
        text, kind = f"{verdict.value:g} of 10", "good" if _is_good(verdict.value, judging) else "bad"
    else:
        text, kind = ("right", "good") if verdict.value >= 1 else ("wrong", "bad")
    reply = f"<details><summary>reply</summary><pre>{escape(verdict.reply)}</pre></details>" if verdict.reply else ""
    return f'<div>{shown}: <span class="{kind}">{escape(text)}</span>{reply}</div>'


def _audio(run: Run, folder: Path, row: QuestionResult, name: str) -> str:
    """A player of a sound of the row, whose file is copied below the page's folder."""
    sound = getattr(row, name)
    if sound is None:
        return ""
    path = run.sound(sound)
    if not path.is_file():
        raise VocalnetError(f"{path}: the sound of question {row.id} is missing", "Measure the answers again with -o.")
    sha = file_sha256(path)
    if row.hashes.get(name, sha) != sha:
        raise VocalnetError(f"{path}: not the sound that was judged (its hash differs)", "Measure the answers again with -o.")
    copy = folder / "audio" / f"{sha[:24]}{path.suffix}"
    if not copy.is_file():
        try:
            copy.parent.mkdir(parents=True, exist_ok=True)
            temporary = copy.with_name(f".{copy.name}.tmp")
            shutil.copyfile(path, temporary)
            temporary.replace(copy)
        except OSError as error:
            raise VocalnetError(f"cannot write {copy}: {error.strerror}", "choose another folder or free some space") from error
    return f'<audio controls preload="none" src="audio/{copy.name}"></audio>'
