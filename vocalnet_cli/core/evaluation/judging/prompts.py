"""The questions a judge is asked, and how its replies are read: strictly, or not at all.

Content and output format follow the paper's protocol (arXiv 2504.04060, section 4.1: OpenAudioBench's prompts); the words are ours.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from vocalnet_cli.core.errors import UsageError, VocalnetError
from vocalnet_cli.core.evaluation.judging.case import OPEN, REFERENCES, SHORT, STYLES, Case
from vocalnet_cli.core.evaluation.results import Scale

OWN = "vocalnet-1"
"""The set the package carries. Another wording is another number: verdicts under different prompts do not compare."""

SCALES: dict[str, Scale] = {OPEN: "0-10", SHORT: "right", REFERENCES: "right"}

_FILES = {OPEN: ("open", "alpaca_eval"), SHORT: ("short", "llama_questions"), REFERENCES: ("references", "trivia_qa", "web_questions")}
"""Names a prompt's file may have: ours, and the published ones by the benchmark they are for."""

_QUESTION = {"question", "prompt", "instruction"}
_REFERENCES = {"references", "reference", "reference_answer", "gt_answer", "valid_answers", "targets"}
_SAID = {"prediction", "response", "candidate"}
_EITHER = "answer"
"""Published prompts mean the reference by it where they have one of `_SAID`, else the answer."""

_PLACE = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Prompt:
    """One prompt: a text with {question}, {references} and {prediction}."""

    name: str
    text: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    def fill(self, case: Case) -> str:
        """The text with what is judged in its places; what is put in is not looked through again."""
        listed = case.references[0] if len(case.references) == 1 else json.dumps(list(case.references), ensure_ascii=False)
        has_said = any(name in _SAID for name in _PLACE.findall(self.text))

        def value(found: re.Match[str]) -> str:
            name = found[1]
            if name in _QUESTION:
                return case.question
            return listed if name in _REFERENCES or (name == _EITHER and has_said) else case.said

        parts = re.split(r"(\{\{|\}\})", self.text)  # a doubled brace is one that stays
        return "".join(part[0] if part in ("{{", "}}") else _PLACE.sub(value, part) for part in parts)


def load_prompts(folder: Path | None = None) -> Mapping[str, Prompt]:
    """The prompts of each style, ours or those of a folder (`open.txt`, `short.txt`, `references.txt`, or the published names
    `alpaca_eval.txt`, `llama_questions.txt`, `trivia_qa.txt`); styles a folder does not hold cannot be judged.

    Raises UsageError for a folder that holds none, VocalnetError for a prompt that cannot be used.
    """
    if folder is None:
        own = files("vocalnet_cli") / "assets" / "judge" / OWN
        return {style: Prompt(f"{OWN}/{style}", (own / f"{style}.txt").read_text(encoding="utf-8")) for style in STYLES}
    found = {}
    for style, names in _FILES.items():
        paths = [path for name in names for suffix in (".txt", ".md") if (path := folder / f"{name}{suffix}").is_file()]
        if paths:
            found[style] = _read(paths[0], folder.resolve().name)
    if not found:
        listed = ", ".join(f"{names[0]}.txt" for names in _FILES.values())
        raise UsageError(f"--judge-prompts {folder}: holds no prompt", f"A folder of prompts holds {listed}, or some of them.")
    return found


def _read(path: Path, folder: str) -> Prompt:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise VocalnetError(f"{path}: cannot be read as UTF-8 text", "Save the prompt as UTF-8, or name another folder.") from error
    names = set(_PLACE.findall(text.replace("{{", "").replace("}}", "")))
    unknown = sorted(names - _QUESTION - _REFERENCES - _SAID - {_EITHER})
    if unknown:
        raise VocalnetError(f"{path}: nothing is known to put for {{{unknown[0]}}}", "Use {question}, {references} and {prediction}.")
    if not names & (_SAID | {_EITHER}):
        raise VocalnetError(f"{path}: has no place for the answer", "Put {prediction} where the answer is to stand.")
    return Prompt(f"{folder}/{path.stem}", text)


_THOUGHT = re.compile(r"<think>.*?</think>", re.DOTALL)
_RATING = re.compile(r"\[\[\s*(\d+(?:\.\d+)?)\s*\]\]")
_SCORE = re.compile(r"the score is\s*\[?\s*(correct|incorrect)\s*\]", re.IGNORECASE)
_FENCED = re.compile(r"```(?:json)?\s*(.*?)\s*```", re.DOTALL)


def read_reply(style: str, reply: str) -> float | None:
    """The verdict a reply gives: a mark of 0 to 10, or 1 for right and 0 for wrong. None unless there is exactly one."""
    text = _THOUGHT.sub("", reply).strip()
    if style == OPEN:
        marks = {float(mark) for mark in _RATING.findall(text)}
        return marks.pop() if len(marks) == 1 and max(marks) <= 10 else None
    if style == SHORT:
        words = {word.lower() for word in _SCORE.findall(text)}
    else:
        words = _judgments(text)
    return None if len(words) != 1 else {"correct": 1.0, "incorrect": 0.0}.get(words.pop())


def _judgments(text: str) -> set[str]:
    """What stands under `judgment`, if the reply is one JSON object, bare or in a fence."""
    fenced = _FENCED.fullmatch(text)
    try:
        told = json.loads(fenced[1] if fenced else text)
    except (ValueError, RecursionError):
        return set()
    judgment = told.get("judgment") if isinstance(told, dict) else None
    return {judgment.strip().lower()} if isinstance(judgment, str) else set()
