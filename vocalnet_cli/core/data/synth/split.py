"""What the nano corpus keeps for testing, and the check that no training row touches it.

Held out are combinations (numbers never added or subtracted together, words never side by side, a value never asked in a wording),
a synthetic speaker and a human one. Every single value is trained on, in other combinations.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vocalnet_cli.core.data.record import Record, write_text_atomically
from vocalnet_cli.core.data.synth.domain import MAX_WRITTEN, number_words
from vocalnet_cli.core.data.synth.follow_ups import listed_follow_ups
from vocalnet_cli.core.data.synth.questions import RELATION_KINDS, Item, listed_by_question, listed_items, phrase_pairs, spoken_words
from vocalnet_cli.core.errors import VocalnetError

SYNTH, HUMAN = "synth", "fsdd"
SOURCES = (SYNTH, HUMAN)
"""Where the rows of the nano corpus come from: synthetic voices, the Free Spoken Digit Dataset."""

VOICES_TEST = "test-voices"
"""Answers that no training row holds, in the other voices that answer."""

FOLLOW_UPS_TEST = "test-follow-ups"
"""Questions about the answer before them, of which training holds others."""

TEST_SPLITS = ("test-combination", "test-voice", "test-human", VOICES_TEST, FOLLOW_UPS_TEST)

TEST_VOICE = "flite:kal16"
HELD_OUT_VOICES = (TEST_VOICE, "flite:kal", "festival:kal_diphone")
"""One speaker under three names."""

HELD_OUT_SPEAKER = "theo"
SPLIT_FILE = "split.json"
_SHARE = 0.12
_NUMBERS = {number_words(number): number for number in range(MAX_WRITTEN + 1)}


@dataclass(frozen=True)
class HeldOut:
    """The combinations, voices and speakers no training row may hold."""

    seed: int
    plus: frozenset[tuple[int, int]]
    """Number pairs never added, smaller first; both orders are held out."""
    minus: frozenset[tuple[int, int]]
    """(a, b) of a minus b."""
    pairs: frozenset[tuple[str, str]]
    """Words never side by side in a phrase to repeat."""
    wordings: dict[str, int]
    """`KIND VALUE` to the wording that value is never asked in."""
    follow_ups: frozenset[tuple[str, str]] = frozenset()
    """Questions about the turn before, each with an answer it never has, as spoken words."""
    voices: tuple[str, ...] = HELD_OUT_VOICES
    speakers: tuple[str, ...] = (HELD_OUT_SPEAKER,)

    def broken_by(self, question: str, answer: str) -> str | None:
        """The held-out combination these texts hold, or None. Judged from the words alone."""
        listed = listed_by_question().get(" ".join(spoken_words(question)))
        if listed and self.wordings.get(f"{listed.kind} {listed.values[0]}") == listed.wording:
            return f"`{listed.values[0]}` in the held-out wording `{listed.question}`"
        if (pair := spoken_pair(question, answer)) in self.follow_ups:
            return f"`{pair[1]}` as the answer to `{pair[0]}`"
        for text in (question, answer):
            words = spoken_words(text)
            for kind, first, second in _sums(words):
                held = tuple(sorted((first, second))) in self.plus if kind == "plus" else (first, second) in self.minus
                if held:
                    return f"`{number_words(first)} {kind} {number_words(second)}`"
            for pair in zip(words, words[1:], strict=False):
                if pair in self.pairs:
                    return f"`{pair[0]} {pair[1]}`"
        return None

    def holds(self, item: Item) -> bool:
        """Whether the item belongs to the test of unseen combinations, wholly: in a phrase every pair of words is unseen."""
        if item.kind == "repeat":
            return all(pair in self.pairs for pair in zip(item.values, item.values[1:], strict=False))
        return self.broken_by(item.question, item.answer) is not None

    def broken_by_voice(self, record: Record) -> str | None:
        """The held-out voice or speaker of a row, from the voice, the row's notes or the file's name; or None."""
        voice = record.question.voice or ""
        held = {*self.speakers, *(name.partition(":")[2] for name in self.voices)}
        files = [record.question.audio, *(turn.audio for turn in record.history)]
        parts = {part for file in files for part in Path(file or "").stem.split("-")}
        names = {voice.partition(":")[2], str(record.meta.get("speaker", "")), *parts}
        return next(iter(sorted(held & names)), None)


def spoken_pair(question: str, answer: str) -> tuple[str, str]:
    """A question and its answer as spoken words."""
    return " ".join(spoken_words(question)), " ".join(spoken_words(answer))


def _sums(words: list[str]) -> list[tuple[str, int, int]]:
    """Each `A plus B` and `A minus B` in a list of words, with the longest numbers on either side."""
    found = []
    for place, word in enumerate(words):
        if word in ("plus", "minus"):
            left = next((_NUMBERS[name] for n in (2, 1) if (name := " ".join(words[max(place - n, 0) : place])) in _NUMBERS), None)
            right = next((_NUMBERS[name] for n in (2, 1) if (name := " ".join(words[place + 1 : place + 1 + n])) in _NUMBERS), None)
            if left is not None and right is not None:
                found.append((word, left, right))
    return found


def draw_held_out(seed: int = 0, speaker: str = HELD_OUT_SPEAKER) -> HeldOut:
    """Choose what is held out, from the seed alone; of the people one speaker."""
    chance = random.Random(f"{seed} held out")
    sums = [(a, b) for a in range(13) for b in range(a, 13)]
    differences = [(a, b) for a in range(21) for b in range(13) if b <= a]
    plus = chance.sample(sums, round(_SHARE * len(sums)))
    minus = chance.sample(differences, round(_SHARE * len(differences)))
    pairs = chance.sample(phrase_pairs(), round(_SHARE * len(phrase_pairs())))
    counts: dict[str, int] = {}
    for item in listed_items():
        if item.kind in RELATION_KINDS:
            counts[f"{item.kind} {item.values[0]}"] = item.wording + 1
    wordings = {name: chance.randrange(count) for name, count in counts.items()}
    drawn = frozenset(plus), frozenset(minus), frozenset(pairs), wordings, _held_out_follow_ups(seed)
    return HeldOut(seed, *drawn, speakers=(speaker,))


def _held_out_follow_ups(seed: int) -> frozenset[tuple[str, str]]:
    chance = random.Random(f"{seed} held out follow-ups")
    kinds: dict[str, list[tuple[str, str]]] = {}
    for (question, answer), item in listed_follow_ups().items():
        kinds.setdefault(item.kind, []).append(spoken_pair(question, answer))
    return frozenset(pair for pairs in kinds.values() for pair in chance.sample(pairs, round(_SHARE * len(pairs))))


def save_held_out(folder: Path, held_out: HeldOut) -> None:
    """Write DIR/split.json."""
    row: dict[str, Any] = {
        "seed": held_out.seed,
        "plus": sorted(held_out.plus),
        "minus": sorted(held_out.minus),
        "pairs": sorted(held_out.pairs),
        "wordings": held_out.wordings,
        "follow_ups": sorted(held_out.follow_ups),
        "voices": held_out.voices,
        "speakers": held_out.speakers,
    }
    write_text_atomically(folder / SPLIT_FILE, json.dumps(row) + "\n")


def load_held_out(folder: Path | str) -> HeldOut:
    """Read DIR/split.json."""
    path = Path(folder) / SPLIT_FILE
    hint = f"make the corpus anew: vocalnet prep synth -o {folder}"
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
        return HeldOut(
            seed=int(row["seed"]),
            plus=frozenset((int(a), int(b)) for a, b in row["plus"]),
            minus=frozenset((int(a), int(b)) for a, b in row["minus"]),
            pairs=frozenset((str(a), str(b)) for a, b in row["pairs"]),
            wordings={str(name): int(wording) for name, wording in row["wordings"].items()},
            follow_ups=frozenset((str(a), str(b)) for a, b in row.get("follow_ups", ())),  # older corpora have none
            voices=tuple(row["voices"]),
            speakers=tuple(row["speakers"]),
        )
    except OSError as error:
        raise VocalnetError(f"cannot read {path}: {error.strerror}", hint) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise VocalnetError(f"{path} is not a split file: {error}", hint) from error


def check_split(records: Sequence[Record], held_out: HeldOut | Path) -> None:
    """Refuse training rows that hold a held-out voice, speaker or combination, whatever their own notes say.

    `records` are the rows about to be trained or validated on; `held_out` is what to keep away from, or the folder of the manifest.
    A folder without split.json holds nothing out, unless rows in it come from this corpus. Raises VocalnetError at the first
    offending row.
    """
    if isinstance(held_out, Path):
        if not (held_out / SPLIT_FILE).exists() and not any(record.source in SOURCES for record in records):
            return
        held_out = load_held_out(held_out)
    for record in records:
        if record.split in TEST_SPLITS:
            raise VocalnetError(
                f"row `{record.id}` belongs to the test split `{record.split}`",
                "use the split `train` only: --set data.train_splits=[train] in training, --split train elsewhere",
            )
        voice = held_out.broken_by_voice(record)
        if voice:
            raise VocalnetError(
                f"training row `{record.id}` (split `{record.split}`) is spoken by the held-out voice `{voice}`",
                "the test on new voices would mean nothing: take the row out of the training split",
            )
        asked = [(one.text, other.text) for one, other in zip(record.history[::2], record.history[1::2], strict=False)]
        broken = (held_out.broken_by(*pair) for pair in (*asked, (record.question.text, record.answer.text)))
        if combination := next(filter(None, broken), None):
            raise VocalnetError(
                f"training row `{record.id}` (split `{record.split}`) holds the held-out combination {combination}",
                "the test on new combinations would mean nothing: take the row out of the training split",
            )
