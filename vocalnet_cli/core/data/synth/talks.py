"""Rows of the nano corpus with something before them: others that were asked and answered, and questions about the last answer."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

from vocalnet_cli.core.data.record import Record, Utterance
from vocalnet_cli.core.data.synth.follow_ups import balanced, follow_ups
from vocalnet_cli.core.data.synth.plan import Job, SynthSettings, drawn_manner, meta_of, turns_of
from vocalnet_cli.core.data.synth.questions import Item
from vocalnet_cli.core.data.synth.split import FOLLOW_UPS_TEST, SYNTH, HeldOut

Said = TypeVar("Said")
Turns = list[tuple[Said, Item]]
"""Rows, or the jobs that make them, each with an item that belongs to it."""

FOLLOW_UPS_SPLIT = "follow-ups"
"""Questions about the answer before them: a split of their own, since without that answer nothing can be learned from them."""

MOST_TURNS = 3
_PREPARED = ("train", "dev")


def with_history(settings: SynthSettings, records: Sequence[Record]) -> list[Record]:
    """The same rows; before a share of those of train and dev stand one to MOST_TURNS of the training rows, each row drawn by itself."""
    turns = [record for record in records if record.split == "train"]
    out = []
    for record in records:
        chance = random.Random(f"{settings.seed} history {record.id}")
        if record.split in _PREPARED and chance.random() < settings.history_share:
            before = chance.choices(turns, k=chance.randint(1, MOST_TURNS))
            history = [turn for row in before for turn in turns_of(row)]
            record = record.model_copy(update={"history": history, "round": len(before) + 1})
        out.append(record)
    return out


def plan_follow_ups(settings: SynthSettings, held_out: HeldOut, voices: dict[str, float], jobs: Sequence[Job]) -> list[Job]:
    """Recorded questions about the answer to another job, which with up to two more stands before them."""
    chance = random.Random(f"{settings.seed} follow-ups")
    turns = [job for job in jobs if job.split == "train"]
    unseen = [job for job in jobs if job.split == "test-combination"]
    trained, tested = _choices([(job, job.item) for job in turns], [(job, job.item) for job in unseen], held_out)
    rows = []
    for split, choices, count in (
        (FOLLOW_UPS_SPLIT, trained, settings.follow_up_rows),
        (FOLLOW_UPS_TEST, tested, settings.follow_up_tests),
    ):
        for number, (before, item) in enumerate(balanced(choices, count, chance)):
            history = (*chance.choices(turns, k=chance.randrange(MOST_TURNS)), before)
            rows.append(Job(f"{split}-{number:05d}", split, item, drawn_manner(voices, chance), history=history))
    return rows


def text_follow_ups(settings: SynthSettings, held_out: HeldOut, records: Sequence[Record]) -> list[Record]:
    """The same in writing, about the answers of the language model's rows."""
    chance = random.Random(f"{settings.seed} text follow-ups")
    turns = [record for record in records if record.split == "train"]
    unseen = [record for record in records if record.split == "test-combination"]
    trained, tested = _choices([(row, _item(row)) for row in turns], [(row, _item(row)) for row in unseen], held_out)
    rows = []
    for split, choices, count in (
        (FOLLOW_UPS_SPLIT, trained, settings.text_follow_ups),
        (FOLLOW_UPS_TEST, tested, settings.follow_up_tests),
    ):
        for number, (before, item) in enumerate(balanced(choices, count, chance)):
            earlier = [*chance.choices(turns, k=chance.randrange(MOST_TURNS)), before]
            rows.append(
                Record(
                    id=f"text-{split}-{number:05d}",
                    source=SYNTH,
                    split=split,
                    round=len(earlier) + 1,
                    question=Utterance(text=item.question),
                    history=[turn for row in earlier for turn in turns_of(row)],
                    answer=Utterance(text=item.answer),
                    meta=meta_of(item),
                )
            )
    return rows


def _choices(turns: Turns[Said], unseen: Turns[Said], held_out: HeldOut) -> tuple[Turns[Said], Turns[Said]]:
    """(turn before, follow-up) to train on; and to test on: what is held out, or says again what no turn of training answers."""
    answers = {item.answer for _, item in turns}
    held = {asked: held_out.holds(asked) for item in dict.fromkeys(item for _, item in turns) for asked in follow_ups(item)}
    trained: Turns[Said] = []
    tested: Turns[Said] = []
    for before, item in turns:
        for asked in follow_ups(item):
            (tested if held[asked] else trained).append((before, asked))
    for before, item in unseen:
        tested += [(before, asked) for asked in follow_ups(item) if asked.kind == "again" and item.answer not in answers]
    return trained, tested


def _item(record: Record) -> Item:
    meta = record.meta
    values, aliases = tuple(meta["values"]), tuple(meta["aliases"])
    return Item(meta["kind"], values, meta["wording"], record.question.text, record.answer.text, aliases)
