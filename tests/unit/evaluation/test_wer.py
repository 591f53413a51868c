"""The recogniser: real speech of the package's benchmarks, every word of the domain, no memory between calls."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError

import numpy as np
import pytest

from vocalnet_cli.core.audio.wav import read_audio, resample
from vocalnet_cli.core.data.synth.questions import domain_vocabulary
from vocalnet_cli.core.errors import VocalnetError
from vocalnet_cli.core.evaluation import wer
from vocalnet_cli.core.evaluation.benchmarks import load_benchmark
from vocalnet_cli.core.evaluation.wer import Recogniser, known_words, recogniser_identity, word_errors
from vocalnet_cli.core.units import ANSWER_HZ, QUESTION_HZ

pytest.importorskip("pocketsphinx")


@pytest.fixture(scope="module")
def recogniser() -> Recogniser:
    return Recogniser(known_words())


@pytest.fixture(scope="module")
def answers() -> list[tuple[str, np.ndarray]]:
    """Recorded answers of a test set: text and sound at 24 kHz."""
    benchmark = load_benchmark("nano-combination")
    return [(r.answer.text, read_audio(benchmark.sound(str(r.answer.audio)), ANSWER_HZ)) for r in benchmark.records[:10]]


def test_knows_every_word_of_the_domain(recogniser):
    assert recogniser.hearing.missing == []
    assert {"b", "seventeen", "copenhagen"} <= {*domain_vocabulary()}
    assert recogniser.hearing.alike == {"you": "u"}


def test_words_without_pronunciation_are_told():
    assert Recogniser(known_words(["Hello brzzkl", "the frqw of 12"])).hearing.missing == ["12", "brzzkl", "frqw"]


def test_understands_recorded_answers(recogniser, answers):
    errors = [word_errors(text, recogniser.hear(sound, ANSWER_HZ), recogniser.hearing.alike) for text, sound in answers]
    assert sum(e.total for e in errors) / sum(e.words for e in errors) < 0.2


def test_same_sound_is_heard_the_same_whatever_came_before(recogniser, answers):
    first = recogniser.hear(answers[0][1], ANSWER_HZ)
    recogniser.hear(np.random.default_rng(0).normal(scale=0.3, size=ANSWER_HZ), ANSWER_HZ)
    assert recogniser.hear(answers[0][1], ANSWER_HZ) == first != ""
    assert recogniser.hear(resample(answers[0][1], ANSWER_HZ, QUESTION_HZ), QUESTION_HZ) == first


def test_nothing_of_what_came_before_is_left(recogniser, answers):
    """Not only the words, the scores of the search too: on them a word may hang."""
    fresh = Recogniser(known_words())
    for _, sound in answers[:3]:
        heard = [(one.hear(sound, ANSWER_HZ), one._decoder.hyp().score) for one in (recogniser, fresh)]
        assert heard[0] == heard[1]
        recogniser.hear(np.random.default_rng(0).normal(scale=0.3, size=ANSWER_HZ), ANSWER_HZ)


def test_nothing_is_heard_in_nothing(recogniser):
    assert recogniser.hear(np.zeros(0, np.float32), ANSWER_HZ) == ""
    assert len(recogniser.hear(np.zeros(ANSWER_HZ, np.float32), ANSWER_HZ).split()) <= 1
    recogniser.hear(np.full(100, 3.0, np.float32), ANSWER_HZ)  # too short, too loud: no words, no crash


def test_another_vocabulary_is_another_recogniser():
    mine = recogniser_identity(known_words(["seven cats"]))
    assert mine == recogniser_identity(known_words(["Cats!", "seven"])) != recogniser_identity(known_words(["seven brzzkl"]))


def test_without_pocketsphinx_the_extra_is_named(monkeypatch):
    def not_there(name):
        raise PackageNotFoundError(name)

    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    monkeypatch.setattr(wer, "version", not_there)
    for tried in (Recogniser, recogniser_identity):
        with pytest.raises(VocalnetError) as error:
            tried(["six"])
        assert "vocalnet-cli[eval]" in error.value.hint
