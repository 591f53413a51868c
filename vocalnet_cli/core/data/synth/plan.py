"""Which recordings make up the nano corpus: every choice comes from the seed, no sound is made here."""

from __future__ import annotations

import hashlib
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from vocalnet_cli.core.data.record import PARALLEL, HistoryTurn, Record, Utterance
from vocalnet_cli.core.data.synth.domain import MAX_WRITTEN
from vocalnet_cli.core.data.synth.questions import (
    ASK,
    RELATION_KINDS,
    REPEAT,
    Item,
    arithmetic,
    listed_by_question,
    listed_items,
    random_phrase,
    repeat,
    saying,
    spoken_words,
)
from vocalnet_cli.core.data.synth.split import HELD_OUT_SPEAKER, HUMAN, SYNTH, TEST_VOICE, VOICES_TEST, HeldOut
from vocalnet_cli.core.data.synth.voices import ANSWER_VOICE, OTHER_ANSWER_VOICES, Manner

_TIMES = {"plus": 2, "minus": 2, "times": 2, "after": 3, "before": 3, "capital": 6, "opposite": 4, "spelling": 4, "digit": 25}
"""Recordings of each training question, by kind."""

WORDS_SPLIT, ANSWERS_SPLIT, SAYINGS_SPLIT, VOICES_SPLIT = "words", "answers", "sayings", "voices"
"""Splits of recordings that are no questions, of answers to questions that are not recorded, of answers that are words in no order, and
of answers said again by other voices."""

_WRITTEN_ONLY = (ANSWERS_SPLIT, SAYINGS_SPLIT, VOICES_SPLIT, VOICES_TEST)
_WORDS_A_ROW = 4
_SAYING_WORDS = (2, 3, 3, 4, 4, 5)
_COMMAS = 0.12
"""Lengths of the answers that are words in no order, each as likely, and the share of them with a pause after every word."""


@dataclass(frozen=True)
class SynthSettings:
    """How large a corpus to make."""

    seed: int = 0
    phrases: int = 1500
    """Distinct phrases to repeat in training; four in ten are recorded twice."""
    more_phrases: int = 4500
    """Further phrases, each recorded once: what the encoder hears worst is words in new company."""
    more_facts: int = 1200
    """Further recordings of what follows, opposes, belongs to or is spelled."""
    word_rows: int = 7000
    """Recordings of words in no order, for the encoder alone: each word of the questions about equally often."""
    answer_rows: int = 24_000
    """Further answers with written questions only, for the talker's first round."""
    saying_rows: int = 24_000
    """Answers that are words in no order, for the speech tokens: each word of the answers about equally often, in any company."""
    voice_answers: int = 6000
    """Training answers that each of the other answering voices says again, for the vocoder."""
    voice_answers_tested: int = 60
    """Answers of `test-combination` that each of them says again: rows of `test-voices`."""
    dev_share: float = 0.03
    """Share of the training rows set aside for validation."""
    combination_rows: tuple[tuple[str, int], ...] = (("plus", 50), ("minus", 50), ("repeat", 100), ("relation", 100))
    """Rows of `test-combination`, by what is combined."""
    voice_rows: int = 150
    """Rows of `test-voice`."""
    digits_a_speaker: int = 150
    """Human digit recordings of each speaker."""
    held_out_speaker: str = HELD_OUT_SPEAKER
    """Whose recordings are `test-human`."""
    text_phrases: int = 20_000
    """Phrases to repeat in the text-only pairs of the language model."""
    history_share: float = 0.3
    """Share of the training rows before which other rows were asked and answered."""
    follow_up_rows: int = 2000
    """Recorded questions about the answer before them."""
    follow_up_tests: int = 120
    """Rows of `test-follow-ups`."""
    text_follow_ups: int = 8000
    """Text-only questions about the answer before them."""


@dataclass(frozen=True)
class Job:
    """One row to make: a question said in some manner, or a recording of a person, and its answer."""

    id: str
    split: str
    item: Item
    manner: Manner
    recording: Path | None = None
    """A human recording; then `manner` only names the speaker."""
    answer_voice: str = ANSWER_VOICE
    """Another voice's answer goes with the usual one's recording, whose moments are those of its speech tokens."""
    history: tuple[Job, ...] = ()
    """What was asked before."""

    @property
    def stem(self) -> str:
        """The question file's name: kind, voice and a hash of everything that shapes the sound."""
        shape = f"{self.item.question}|{self.manner}" if self.recording is None else self.recording.name
        voice = re.sub(r"[^a-z0-9_]+", "-", self.manner.voice.lower())
        return f"{self.item.kind}-{voice}-{hashlib.sha256(shape.encode()).hexdigest()[:12]}"

    @property
    def question_file(self) -> str:
        """Path of the question, relative to the manifest."""
        return f"audio/questions/{self.stem}.flac"

    @property
    def answer_file(self) -> str:
        """Path of the answer, relative to the manifest; one file for all rows with the same answer in the same voice."""
        return self._spoken(self.answer_voice)

    def _spoken(self, voice: str) -> str:
        name = hashlib.sha256(self.item.answer.encode()).hexdigest()[:16]
        return f"audio/answers/{name}{'' if voice == ANSWER_VOICE else '-' + voice.partition(':')[2]}.flac"

    @property
    def questions(self) -> list[str]:
        """The question's sound, if it has one."""
        return [self.question_file] if self.split not in _WRITTEN_ONLY else []

    @property
    def answers(self) -> dict[str, str]:
        """The answer's sounds to their voices: the row's own first."""
        voices = [] if self.split == WORDS_SPLIT else dict.fromkeys((self.answer_voice, ANSWER_VOICE))
        return {self._spoken(voice): voice for voice in voices}

    @property
    def files(self) -> list[str]:
        """The sounds of the row: question, answer, earlier questions."""
        return [*self.questions, *self.answers, *(name for job in self.history for name in job.questions)]

    def record(self) -> Record:
        """The manifest row."""
        meta = {**meta_of(self.item), "rate": self.manner.rate, "pitch": self.manner.pitch, "warp": self.manner.warp}
        if self.recording is not None:
            meta = {**meta_of(self.item), "speaker": self.manner.voice.partition(":")[2], "file": self.recording.name}
        question, answer = Utterance(text=self.item.question), Utterance(text=self.item.answer)
        if self.questions:
            question = Utterance(text=self.item.question, audio=self.question_file, voice=self.manner.voice)
        if self.answers:
            answer = Utterance(text=self.item.answer, audio=self.answer_file, voice=self.answer_voice)
        if self.answer_voice != ANSWER_VOICE:
            meta = {**meta_of(self.item), PARALLEL: self._spoken(ANSWER_VOICE)}
        return Record(
            id=self.id,
            source=SYNTH if self.recording is None else HUMAN,
            split=self.split,
            round=len(self.history) + 1,
            question=question,
            history=[turn for job in self.history for turn in turns_of(job.record())],
            answer=answer,
            meta=meta,
        )


def turns_of(record: Record) -> list[HistoryTurn]:
    """A row as what was said before another."""
    asked = HistoryTurn(role="user", text=record.question.text, audio=record.question.audio)
    return [asked, HistoryTurn(role="assistant", text=record.answer.text)]


def meta_of(item: Item) -> dict[str, object]:
    return {"kind": item.kind, "values": list(item.values), "wording": item.wording, "aliases": list(item.aliases)}


def _training_phrases(held_out: HeldOut, chance: random.Random) -> Iterator[tuple[str, ...]]:
    """Phrases without a held-out pair, without end."""
    while True:
        words = random_phrase(chance)
        if not any(pair in held_out.pairs for pair in zip(words, words[1:], strict=False)):
            yield words


def _balanced_phrases(held_out: HeldOut, chance: random.Random) -> Iterator[tuple[str, ...]]:
    """Training phrases that use every word about equally often: of eight, the one whose least used word is the rarest."""
    used: Counter[str] = Counter()
    phrases = _training_phrases(held_out, chance)
    while True:
        words = min((next(phrases) for _ in range(8)), key=lambda choice: min(used[word] for word in choice))
        used.update(words)
        yield words


def _distinct(phrases: Iterable[tuple[str, ...]], count: int) -> list[tuple[str, ...]]:
    found: dict[tuple[str, ...], None] = {}
    for words in phrases:
        found.setdefault(words)
        if len(found) == count:
            break
    return list(found)


def _unseen_phrases(held_out: HeldOut, count: int, chance: random.Random) -> list[tuple[str, ...]]:
    """Distinct phrases whose neighbouring words never stand together in training; at least three in ten have three words."""
    phrases: dict[tuple[str, ...], None] = {}
    while len(phrases) < count:
        words = random_phrase(chance)
        short = sum(len(phrase) == 2 for phrase in phrases)
        if all(pair in held_out.pairs for pair in zip(words, words[1:], strict=False)) and (len(words) == 3 or short < 0.7 * count):
            phrases.setdefault(words)
    return list(phrases)


def drawn_manner(voices: dict[str, float], chance: random.Random, wide: bool = False) -> Manner:
    """A voice, and one time in four its own manner, else a changed one; `wide` changes it further than any test does."""
    voice = chance.choices(list(voices), weights=list(voices.values()))[0]
    if wide:
        return Manner(voice, *(round(chance.uniform(*limits), 2) for limits in ((0.75, 1.3), (0.75, 1.3), (0.85, 1.18))))
    if chance.random() < 0.25:
        return Manner(voice)
    rate, pitch, warp = chance.uniform(0.85, 1.25), chance.uniform(0.85, 1.2), chance.uniform(0.9, 1.12)
    return Manner(voice, round(rate, 2), round(pitch, 2), round(warp, 2))


def training_items(settings: SynthSettings, held_out: HeldOut) -> list[Item]:
    """The training questions, each as often as it is to be recorded."""
    chance = random.Random(f"{settings.seed} training")
    items = [item for item in listed_items() if not held_out.holds(item) for _ in range(_TIMES[item.kind])]
    for words in _distinct(_balanced_phrases(held_out, chance), settings.phrases):
        wordings = [0, 1] if chance.random() < 0.4 else [chance.randrange(len(REPEAT))]
        items += [repeat(words, wording) for wording in wordings]
    return items


def combination_items(settings: SynthSettings, held_out: HeldOut) -> list[Item]:
    """The questions of `test-combination`: none of their combinations is trained on."""
    chance = random.Random(f"{settings.seed} combination")
    unseen = [item for item in listed_items() if held_out.holds(item)]
    items: list[Item] = []
    for group, count in settings.combination_rows:
        if group == "repeat":
            items += [repeat(words, chance.randrange(len(REPEAT))) for words in _unseen_phrases(held_out, count, chance)]
            continue
        choices = [item for item in unseen if (item.kind if item.kind in ("plus", "minus") else "relation") == group]
        items += chance.sample(choices, min(count, len(choices)))
    return items


def plan_synthetic(settings: SynthSettings, held_out: HeldOut, voices: dict[str, float]) -> list[Job]:
    """Every row said by synthetic voices alone."""
    jobs = [*plan_questions(settings, held_out, voices), *plan_words(settings, held_out, voices), *plan_answers(settings, held_out)]
    return [*jobs, *plan_sayings(settings, held_out), *plan_voices(settings, jobs)]


def plan_questions(settings: SynthSettings, held_out: HeldOut, voices: dict[str, float]) -> list[Job]:
    """Questions by synthetic voices, with their answers: train, dev, test-combination and test-voice."""
    chance = random.Random(f"{settings.seed} voices")
    training = training_items(settings, held_out)
    jobs = []
    said: set[tuple[str, Manner]] = set()
    for number, item in enumerate(training):
        manner = drawn_manner(voices, chance)
        while (item.question, manner) in said:  # no recording twice, so none is in train and dev
            manner = drawn_manner(voices, chance)
        said.add((item.question, manner))
        split = "dev" if chance.random() < settings.dev_share else "train"
        jobs.append(Job(f"synth-{number:05d}", split, item, manner))
    for number, item in enumerate(combination_items(settings, held_out)):
        jobs.append(Job(f"combination-{number:04d}", "test-combination", item, drawn_manner(voices, chance)))
    distinct = list(dict.fromkeys(training))
    for number, item in enumerate(chance.sample(distinct, min(settings.voice_rows, len(distinct)))):
        manner = Manner(TEST_VOICE, round(chance.uniform(0.9, 1.15), 2))
        jobs.append(Job(f"voice-{number:04d}", "test-voice", item, manner))
    for number, item in enumerate(_more_items(settings, held_out)):
        manner = drawn_manner(voices, chance)
        if (item.question, manner) not in said:
            said.add((item.question, manner))
            jobs.append(Job(f"more-{number:05d}", "train", item, manner))
    return jobs


def _more_items(settings: SynthSettings, held_out: HeldOut) -> list[Item]:
    """Training questions of the second round; they come last, so that the rows before them stay what they are."""
    chance = random.Random(f"{settings.seed} more")
    phrases = _distinct(_balanced_phrases(held_out, chance), settings.more_phrases)
    facts = [item for item in listed_items() if item.kind in (*RELATION_KINDS, "spelling") and not held_out.holds(item)]
    return [repeat(words, chance.randrange(len(REPEAT))) for words in phrases] + chance.choices(facts, k=settings.more_facts)


def plan_words(settings: SynthSettings, held_out: HeldOut, voices: dict[str, float]) -> list[Job]:
    """Words in no order: an encoder that has heard a word a dozen times, always in the same sentences, mistakes it for another."""
    chance = random.Random(f"{settings.seed} words")
    deck = _Deck({word for item in training_items(settings, held_out) for word in spoken_words(item.question)}, chance)
    jobs: list[Job] = []
    while len(jobs) < settings.word_rows:
        drawn = deck.draw(_WORDS_A_ROW)
        text = " ".join(drawn)
        if held_out.broken_by(text, text) is None:
            item = Item("words", drawn, 0, text, text, ())
            jobs.append(Job(f"words-{len(jobs):05d}", WORDS_SPLIT, item, drawn_manner(voices, chance, wide=True)))
    return jobs


def plan_answers(settings: SynthSettings, held_out: HeldOut) -> list[Job]:
    """Phrases that are repeated in no other row, so that a talker meets each word in much company."""
    chance = random.Random(f"{settings.seed} answers")
    known = {item.answer for item in (*training_items(settings, held_out), *_more_items(settings, held_out))}
    phrases = _distinct(_balanced_phrases(held_out, chance), settings.answer_rows)
    items = [item for words in phrases if (item := repeat(words, chance.randrange(len(REPEAT)))).answer not in known]
    return [Job(f"answer-{number:05d}", ANSWERS_SPLIT, item, Manner(ANSWER_VOICE)) for number, item in enumerate(items)]


def plan_sayings(settings: SynthSettings, held_out: HeldOut) -> list[Job]:
    """Words of the answers in no order: a speech tokenizer that has heard the answers alone blurs those it has not heard."""
    chance = random.Random(f"{settings.seed} sayings")
    deck = _Deck({word for item in training_items(settings, held_out) for word in spoken_words(item.answer)}, chance)
    jobs: list[Job] = []
    while len(jobs) < settings.saying_rows:
        words = deck.draw(chance.choice(_SAYING_WORDS))
        item = saying(words, pauses=chance.random() < _COMMAS)
        if held_out.broken_by(item.question, item.answer) is None:
            jobs.append(Job(f"saying-{len(jobs):05d}", SAYINGS_SPLIT, item, Manner(ANSWER_VOICE)))
    return jobs


class _Deck:
    """Words dealt without end, each about equally often."""

    def __init__(self, words: Iterable[str], chance: random.Random) -> None:
        self._words, self._chance = sorted(words), chance
        self._left: list[str] = []

    def draw(self, count: int) -> tuple[str, ...]:
        if len(self._left) < count:
            self._left += self._chance.sample(self._words, len(self._words))
        drawn, self._left = self._left[:count], self._left[count:]
        return tuple(drawn)


def plan_voices(settings: SynthSettings, jobs: Iterable[Job]) -> list[Job]:
    """Answers of the jobs said again by the other answering voices, so that a vocoder can learn to speak as they do."""
    said: dict[str, dict[str, Item]] = {"train": {}, "test-combination": {}}
    for job in jobs:
        split = "train" if job.split == ANSWERS_SPLIT else job.split
        if split in said:
            said[split].setdefault(job.item.answer, job.item)
    rows: list[Job] = []
    for voice in OTHER_ANSWER_VOICES:
        name = voice.partition(":")[2]
        chance = random.Random(f"{settings.seed} answers by {voice}")
        for split, source, count in (
            (VOICES_SPLIT, "train", settings.voice_answers),
            (VOICES_TEST, "test-combination", settings.voice_answers_tested),
        ):
            items = list(said[source].values())
            for number, item in enumerate(chance.sample(items, min(count, len(items)))):
                rows.append(Job(f"{split}-{name}-{number:04d}", split, item, Manner(voice), answer_voice=voice))
    return rows


def lm_pairs(settings: SynthSettings, held_out: HeldOut) -> list[Item]:
    """Every distinct training question with its answer, and what is not recorded: many more phrases to repeat, larger sums."""
    chance = random.Random(f"{settings.seed} text")
    phrases = _distinct(_training_phrases(held_out, chance), settings.text_phrases)
    spoken = training_items(settings, held_out)
    written = [repeat(words, chance.randrange(len(REPEAT))) for words in phrases]
    return list(dict.fromkeys([*spoken, *written, *_larger_sums(held_out)]))


def _larger_sums(held_out: HeldOut) -> list[Item]:
    """Sums and differences up to MAX_WRITTEN, as kinds of their own: without them the held-out sums are guessed, not calculated."""
    numbers, listed = range(MAX_WRITTEN + 1), listed_by_question()
    pairs = [("plus", a, b) for a in numbers for b in numbers if a + b <= MAX_WRITTEN]
    pairs += [("minus", a, b) for a in numbers for b in numbers if b <= a]
    items = [arithmetic(kind, a, b, (a + b) % len(ASK)) for kind, a, b in pairs]
    return [replace(item, kind=f"{item.kind}-written") for item in items if item.question not in listed and not held_out.holds(item)]


def text_records(settings: SynthSettings, held_out: HeldOut) -> list[Record]:
    """The language model's manifest: `lm_pairs` as train and dev, and the unseen combinations."""
    chance = random.Random(f"{settings.seed} text dev")
    rows = [("dev" if chance.random() < settings.dev_share else "train", item) for item in lm_pairs(settings, held_out)]
    rows += [("test-combination", item) for item in combination_items(settings, held_out)]
    return [
        Record(
            id=f"text-{number:05d}",
            source=SYNTH,
            split=split,
            question=Utterance(text=item.question),
            answer=Utterance(text=item.answer),
            meta=meta_of(item),
        )
        for number, (split, item) in enumerate(rows)
    ]
