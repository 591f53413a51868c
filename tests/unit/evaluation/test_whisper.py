"""Saved answers heard anew: by any recogniser, with the word errors it leads to; and a Whisper checkpoint as one."""

from __future__ import annotations

import pytest
import torch

from tests.runs import hum, question, write_results
from tests.tiny import save_tiny_whisper
from vocalnet_cli.core.errors import MissingWeights, VocalnetError
from vocalnet_cli.core.evaluation.results import Verdict, read_run
from vocalnet_cli.core.evaluation.wer import NORMALISER, Hearing
from vocalnet_cli.core.evaluation.whisper import Whisper, hear_again
from vocalnet_cli.core.units import ANSWER_HZ

pytest.importorskip("whisper_normalizer")


class Length:
    """Hears what was prepared for a sound of its length."""

    hearing = Hearing("by length")

    def __init__(self, heard: dict[float, str]) -> None:
        self.heard = heard

    def hear(self, samples, rate):
        return self.heard[round(len(samples) / rate, 1)]


def test_word_errors_are_those_of_what_is_heard_now(tmp_path):
    """Answers are `N plus one is M.`, five words each; errors and words are summed over the set."""
    rows = [question(tmp_path / "run", number, seconds=0.5 + number / 10) for number in range(3)]
    rows.append(question(tmp_path / "run", 3, audio=None, heard=None))
    rows[0] = rows[0].model_copy(update={"recorded": "one", "verdicts": {**rows[0].verdicts, "recorded": Verdict(value=1)}})
    scores = {"n": 4, "accuracy": {"s2t": 75.0, "s2s": 50.0}, "wer": 90.0, "recorded_wer": 5.0, "ci": {"s2t": [1, 2], "s2s": [1, 2]}}
    folder = write_results(tmp_path / "run", {"digits": scores}, {"digits": rows})
    heard = {0.5: "0 plus one is 1", 0.6: "1 plus won is", 0.7: "so 2 plus one is 3"}
    run = hear_again(read_run(folder), Length(heard))
    assert run == read_run(folder) and [row.heard for row in run.questions["digits"]] == [*heard.values(), None]
    found = run.report.benchmarks["digits"]
    assert (found["wer"], found["wer_kinds"]) == (20.0, {"sub": 6.67, "ins": 6.67, "del": 6.67})
    low, high = found["ci"]["wer"]
    assert low < 20 < high and found["ci"]["s2t"] == [1, 2] and "s2s" not in found["ci"]
    assert found["accuracy"] == {"s2t": 75.0} and "recorded_wer" not in found, "what the other recogniser led to is gone"
    assert set(run.questions["digits"][0].verdicts) == {"s2t"} and run.questions["digits"][0].recorded is None
    assert (run.report.recogniser, run.report.normaliser) == ("by length", NORMALISER)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return save_tiny_whisper(tmp_path_factory.mktemp("whisper-tiny"))


def test_a_whisper_folder_hears_the_same_twice(tiny):
    whisper = Whisper(str(tiny), torch.device("cpu"), torch.float32)
    heard = whisper.hear(hum(1.0, ANSWER_HZ), ANSWER_HZ)
    assert heard == whisper.hear(hum(1.0, ANSWER_HZ), ANSWER_HZ) and isinstance(heard, str)
    assert whisper.hear(hum(0.0, ANSWER_HZ), ANSWER_HZ) == ""
    assert whisper.hearing.name.startswith(str(tiny)) and "float32" in whisper.hearing.name
    assert "whisper-normalizer" in whisper.hearing.normaliser
    assert whisper.hearing.words("It's twenty-one, you know!") == ["it", "is", "21", "you", "know"]


def test_what_is_no_whisper_is_told(tmp_path):
    with pytest.raises(VocalnetError, match="no Whisper that can be loaded"):
        Whisper(str(tmp_path), torch.device("cpu"), torch.float32)
    with pytest.raises(MissingWeights, match="openai/whisper-none"):
        Whisper("whisper-none", torch.device("cpu"), torch.float32)
