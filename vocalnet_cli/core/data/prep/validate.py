"""Is a manifest whole? Every row, the files it names, and whether text, sound and tokens fit each other."""

from __future__ import annotations

import multiprocessing
import signal
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from vocalnet_cli.core.audio.wav import SILENCE_PEAK, audio_seconds, read_audio
from vocalnet_cli.core.data.manifest import file_of, manifest_shards, read_rows, tokens_of, told
from vocalnet_cli.core.data.picture import new_figure, write_png
from vocalnet_cli.core.data.prep.corpora import BadRow
from vocalnet_cli.core.data.prep.shards import Raw, Shard
from vocalnet_cli.core.data.prep.sounds import LONGEST_S
from vocalnet_cli.core.data.record import Record, TokenizerName
from vocalnet_cli.core.errors import AudioError, VocalnetError
from vocalnet_cli.core.units import COSYVOICE2_CODES, QUESTION_HZ, SPEECH_TOKEN_HZ

CLIPPED = 0.005
"""Share of samples at full scale from which a recording counts as clipped."""

LETTERS_PER_S = (3.0, 40.0)
"""Slowest and fastest plausible speech, judged from `_ENOUGH_LETTERS` on; natural speech has 10 to 20 letters a second."""

_ENOUGH_LETTERS = 20
_TOKEN_SLACK, _TOKEN_SHARE = 3, 0.02
"""Tokens, and part of them, by which a count may differ from the sound's length: edges, resampling, joints of windows."""

_FULL_SCALE = 0.9995

AGAIN = "make the tokens again: vocalnet prep tokens --replace"

SAID = ("question", "answer", "earlier question")
"""Recordings that are measured."""

Problem = tuple[str, str, str]
"""(field, reason, what to do)."""

_TOGETHER = 200
"""Rows that a process checks in one go."""


@dataclass
class Statistics:
    """What a manifest holds."""

    seconds: dict[str, array[float]] = field(default_factory=lambda: {name: array("f") for name in SAID})
    words: array[float] = field(default_factory=lambda: array("f"))
    tokens: array[float] = field(default_factory=lambda: array("f"))
    letters_per_s: array[float] = field(default_factory=lambda: array("f"))
    tokenizers: Counter[str] = field(default_factory=Counter)

    def add(self, other: Statistics) -> None:
        """Take in what further rows hold."""
        for name, values in other.seconds.items():
            self.seconds[name] += values
        self.words += other.words
        self.tokens += other.tokens
        self.letters_per_s += other.letters_per_s
        self.tokenizers += other.tokenizers

    def columns(self) -> dict[str, array[float]]:
        """The measured values by name, those that there are."""
        named = {f"{name} seconds": values for name, values in self.seconds.items()}
        named |= {"answer words": self.words, "speech tokens": self.tokens, "letters a second": self.letters_per_s}
        return {name: values for name, values in named.items() if values}

    def table(self) -> list[dict[str, Any]]:
        """Count, sum, least, median, 95 % and most of each."""
        rows = []
        for name, values in self.columns().items():
            some = np.asarray(values, np.float64)
            told = {"n": len(some), "sum": some.sum(), "min": some.min(), "p50": np.median(some), "p95": np.quantile(some, 0.95)}
            rows.append({"what": name, **{key: round(float(value), 2) for key, value in {**told, "max": some.max()}.items()}})
        return rows

    def plot(self, folder: Path) -> list[Path]:
        """A histogram of each as PNG. Raises VocalnetError without matplotlib."""
        made = []
        for name, values in self.columns().items():
            figure = new_figure(5, 3)
            axes = figure.subplots()
            axes.hist(values, bins=40)
            axes.set(xlabel=name, ylabel="rows")
            made.append(folder / f"{name.replace(' ', '_')}.png")
            write_png(figure, made[-1], dpi=100)
        return made


@dataclass(frozen=True)
class _Checked:
    """What is wrong with a row by itself, and what others must not contradict; without an id it is no row at all."""

    line: int
    problems: list[Problem]
    id: str | None = None
    tokenizer: TokenizerName | None = None


@dataclass
class _Whole:
    """What the rows of a manifest say together."""

    seen: dict[str, int] = field(default_factory=dict)
    tokenizer: tuple[TokenizerName, int] | None = None

    def problems(self, row: _Checked) -> list[Problem]:
        """Everything wrong with the next row."""
        found: list[Problem] = []
        if row.id is not None:
            if row.id in self.seen:
                found.append(("id", f"already on line {self.seen[row.id]}", "give every row an id of its own"))
            self.seen.setdefault(row.id, row.line)
        if row.tokenizer is not None:
            first, where = self.tokenizer = self.tokenizer or (row.tokenizer, row.line)
            if row.tokenizer != first:
                both = f"{row.tokenizer.name} {row.tokenizer.sha256[:8]} here, {first.name} {first.sha256[:8]} on line {where}"
                found.append(("tokenizer", f"two speech tokenizers in one manifest: {both}", AGAIN))
        return [*found, *row.problems]


@dataclass
class _Checker:
    root: Path
    decode: bool
    statistics: Statistics = field(default_factory=Statistics)

    def row(self, raw: Raw, record: Record | BadRow) -> _Checked:
        """Everything wrong with a row by itself."""
        if isinstance(record, BadRow):
            again = "write the row again; `vocalnet prep` writes such rows"
            return _Checked(raw.line, [(record.field, told(record), again)])
        self.tokenizer: TokenizerName | None = None
        return _Checked(raw.line, list(self._problems(record)), record.id, self.tokenizer)

    def _problems(self, record: Record) -> Iterator[Problem]:
        if any(turn.role != ("user", "assistant")[place % 2] for place, turn in enumerate(record.history)):
            yield "history", "roles do not alternate from user to assistant", "prepare the corpus again with `vocalnet prep ultrachat`"
        for place, turn in enumerate(record.history):
            yield from self._sound(f"history.{place}.audio", "earlier question", turn.audio)
        for name, said in (("question", record.question), ("answer", record.answer)):
            yield from self._sound(f"{name}.audio", name, said.audio)
        yield from self._tokens(record)
        yield from self._ratio(record)

    def _sound(self, place: str, name: str, audio: str | None) -> Iterator[Problem]:
        self.answer_s: float | None = None
        if audio is None:
            return
        try:
            path = file_of(self.root, audio, place)
        except BadRow:
            yield place, f"path outside the data root: {audio}", "move the file below the manifest, or name the folder with --root"
            return
        try:
            seconds = audio_seconds(path)
            if seconds > LONGEST_S:
                yield place, f"{seconds:.0f} s long, at most {LONGEST_S:g} s", "cut it, or leave the row out"
                return
            if self.decode:
                yield from self._level(place, read_audio(path, QUESTION_HZ, LONGEST_S))
        except AudioError as error:
            yield place, error.problem.replace(f"{path}: ", f"{audio}: "), "make or copy the file again"
            return
        self.statistics.seconds[name].append(seconds)
        if name == "answer":
            self.answer_s = seconds

    def _level(self, place: str, samples: np.ndarray) -> Iterator[Problem]:
        level = np.abs(samples)
        if float(level.max()) < SILENCE_PEAK:
            yield place, "silence", "record or synthesize it again"
        elif (share := float((level >= _FULL_SCALE).mean())) > CLIPPED:
            yield place, f"clipped: {100 * share:.1f} % of its samples are at full scale", "record it again at a lower level"

    def _tokens(self, record: Record) -> Iterator[Problem]:
        if record.speech_tokens is None:
            return
        tokens = record.speech_tokens
        if isinstance(tokens, str):
            try:
                tokens = tokens_of(record, self.root)
            except BadRow as bad:
                yield "speech_tokens", told(bad), AGAIN
                return
        self.statistics.tokens.append(len(tokens))
        wrong = [token for token in tokens if not 0 <= token < COSYVOICE2_CODES]
        if wrong:
            yield "speech_tokens", f"token {wrong[0]} is not in 0..{COSYVOICE2_CODES - 1}", AGAIN
        if not tokens:
            yield "speech_tokens", "there are none", AGAIN
        if record.collapsed and any(a == b for a, b in pairwise(tokens)):
            yield "collapsed", "says that runs of equal tokens were merged, but there are some", AGAIN
        if self.answer_s is not None:
            wanted = self.answer_s * SPEECH_TOKEN_HZ
            slack = _TOKEN_SLACK + _TOKEN_SHARE * wanted
            if len(tokens) > wanted + slack or (len(tokens) < wanted - slack and not record.collapsed):
                yield "speech_tokens", f"{len(tokens)} tokens for {self.answer_s:.2f} s of sound, about {wanted:.0f} are due", AGAIN
        if record.tokenizer is not None:
            self.statistics.tokenizers[f"{record.tokenizer.name} {record.tokenizer.sha256[:12]}"] += 1
            self.tokenizer = record.tokenizer

    def _ratio(self, record: Record) -> Iterator[Problem]:
        letters = sum(letter.isalnum() for letter in record.answer.text)
        self.statistics.words.append(len(record.answer.text.split()))
        if not self.answer_s or letters < _ENOUGH_LETTERS:
            return
        pace = letters / self.answer_s
        self.statistics.letters_per_s.append(pace)
        if not LETTERS_PER_S[0] <= pace <= LETTERS_PER_S[1]:
            kind = "slow" if pace < LETTERS_PER_S[0] else "fast"
            yield "answer.text", f"{pace:.1f} letters a second: too {kind} to be what is said", "check that text and sound belong together"


def _check_shard(root: Path, decode: bool, shard: Shard) -> tuple[list[_Checked], Statistics]:
    checker = _Checker(root, decode)
    return [checker.row(raw, record) for raw, record in read_rows([shard], root)], checker.statistics


def _checked(shards: Sequence[Shard], root: Path, decode: bool, workers: int) -> Iterator[tuple[list[_Checked], Statistics]]:
    """The rows of each shard in turn, and what they hold. Raises VocalnetError if a process dies."""
    check = partial(_check_shard, root, decode)
    workers = min(workers, len(shards))
    if workers <= 1:
        yield from map(check, shards)
        return
    ignore = (signal.SIGINT, signal.SIG_IGN)  # Ctrl-C stops the parent, and with it its workers
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), signal.signal, ignore)
    try:
        yield from pool.map(check, shards)
    except BrokenProcessPool as error:
        raise VocalnetError("a process that checked rows died", "The machine may be out of memory: fewer --workers need less.") from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def validate_manifest(
    path: Path | str,
    root: Path | None = None,
    decode: bool = True,
    advance: Callable[[int, int], None] = lambda done, total: None,
    workers: int = 1,
) -> dict[str, Any]:
    """Check every row of a manifest, with so many processes; what is found does not depend on them.

    Files lie below `root`, by default the manifest's folder. Without `decode` sound is judged by its header: silence and clipping are
    not seen. Returns `{"rows", "bad", "problems": [{"line", "field", "reason", "todo"}], "statistics", "tokenizers", "values"}`; `bad`
    counts rows, `values` is the Statistics. Raises VocalnetError if there is nothing to read.
    """
    path = Path(path)
    root = root or path.parent
    whole, statistics = _Whole(), Statistics()
    problems: list[dict[str, Any]] = []
    rows, bad = 0, 0
    shards = manifest_shards(path, _TOGETHER)
    total = sum(shard.rows for shard in shards)
    for checked, measured in _checked(shards, root, decode, workers):
        statistics.add(measured)
        for row in checked:
            found = whole.problems(row)
            rows += 1
            bad += bool(found)
            problems += [{"line": row.line, "field": place, "reason": reason, "todo": todo} for place, reason, todo in found]
        advance(rows, total)
    summary = {"statistics": statistics.table(), "tokenizers": dict(statistics.tokenizers), "values": statistics}
    return {"rows": rows, "bad": bad, "problems": problems, **summary}
