"""`vocalnet prep voiceassistant` and `ultrachat` on real rows of the corpora, in every layout they are published in."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from vocalnet_cli.core.data.manifest import read_manifest
from vocalnet_cli.core.data.record import Record

CORPORA = Path(__file__).parents[1] / "assets" / "corpora"
SPOKEN = {
    "minimind_o_en_01.mp3": "What do you usually like to eat?",
    "minimind_o_en_02.mp3": "What fields does artificial intelligence include?",
    "llama_questions_42.wav": "What is the capital of China?",
}
COLUMNS = ("split_name", "index", "round", "question", "question_audio", "answer", "answer_snac")


def prepared(vocalnet: Callable, *args: object, output: Path) -> tuple[list[Record], list[dict[str, Any]], dict[str, Any]]:
    """Rows, rejects and stats of one `vocalnet prep`."""
    result = vocalnet("prep", *args, "-o", output, "--json")
    assert result.code == 0, result.err
    rejects = [json.loads(line) for line in (output / "rejects.jsonl").read_text().splitlines()]
    return read_manifest(output / "manifest.jsonl"), rejects, json.loads(result.out)


def known_rounds() -> list[dict[str, Any]]:
    return [json.loads(line) for line in (CORPORA / "slam_omni_ultrachat_demo_en.jsonl").read_text().splitlines()]


def as_slam(record: Record) -> str:
    """A record's conversation as SLAM-Omni writes it into one field."""
    told = "".join(f"{turn.role.upper()}: {turn.text} " for turn in record.history)
    return f"{told}<USER>: {record.question.text}"


def test_ultrachats_dialogues_give_the_known_rounds(vocalnet: Callable, tmp_path: Path) -> None:
    rows, rejects, stats = prepared(vocalnet, "ultrachat", CORPORA / "ultrachat_rebuilt_from_slam.jsonl", output=tmp_path / "out")
    assert [(row.id, as_slam(row), row.answer.text) for row in rows] == [
        (f"{known['index']}-{known['round']}", known["source_text"], known["target_text"]) for known in known_rounds()
    ]
    assert (stats["rows_in"], stats["rows_out"], rejects) == (7, 10, [])


def test_rows_are_shown(vocalnet: Callable, tmp_path: Path) -> None:
    prepared(vocalnet, "ultrachat", CORPORA / "ultrachat_rebuilt_from_slam.jsonl", output=tmp_path / "out")
    result = vocalnet("prep", "show", tmp_path / "out", "--id", "2-2")
    assert result.code == 0 and "round 2" in result.out and result.out.index("(assistant) About 71%") < result.out.index("user: Wow")
    assert "no such row" in vocalnet("prep", "show", tmp_path / "out", "--id", "3-9").err


def test_the_split_version_gives_the_same_rows(vocalnet: Callable, tmp_path: Path) -> None:
    whole, _, _ = prepared(vocalnet, "ultrachat", CORPORA / "ultrachat_rebuilt_from_slam.jsonl", output=tmp_path / "a")
    source = CORPORA / "slam_omni_ultrachat_demo_en.jsonl"
    split, _, _ = prepared(vocalnet, "ultrachat", source, "--text-only", output=tmp_path / "b")
    assert [row.model_copy(update={"meta": {}}) for row in split] == whole


@pytest.mark.parametrize(("keep", "kept"), [("first", {1}), ("standalone", {1})])
def test_rounds_that_are_not_wanted_are_told(vocalnet: Callable, tmp_path: Path, keep: str, kept: set[int]) -> None:
    source = CORPORA / "ultrachat_rebuilt_from_slam.jsonl"
    rows, rejects, stats = prepared(vocalnet, "ultrachat", source, "--keep", keep, output=tmp_path / "out")
    # "Wow, that's a lot of water!", "Absolutely! I love ...", "Interesting! Among these three brands, ..." all lean on what was said.
    assert {row.round for row in rows} == kept and not any(row.history for row in rows)
    assert len(rows) == 7 and {reject["id"] for reject in rejects} == {"2-2", "2-3", "4-2"} and sum(stats["rejected"].values()) == 3


def test_a_later_round_that_stands_alone_is_kept(vocalnet: Callable, tmp_path: Path) -> None:
    said = ["Hi there, how are you?", "Well.", "What is the capital city of France?", "Paris."]
    (tmp_path / "in.jsonl").write_text(json.dumps({"id": "7", "data": said}))
    rows, _, _ = prepared(vocalnet, "ultrachat", tmp_path / "in.jsonl", "--keep", "standalone", output=tmp_path / "out")
    assert [row.id for row in rows] == ["7-1", "7-2"]


def test_broken_rounds_are_rejected_with_reasons(vocalnet: Callable, tmp_path: Path) -> None:
    lines = [
        {"id": "a", "data": ["Q1", "", "Q2", "A2"]},
        {"id": "b", "data": ["Q1", "A1", "Q2"]},
        {"id": "c", "data": ["Q1", 7]},
        {"id": "d", "data": []},
        {"data": ["Q1", "A1"]},
        {"id": "e", "messages": [{"role": "user", "content": "Q"}, {"role": "user", "content": "A"}]},
        {"id": "f", "messages": [{"role": "user", "content": " Q"}, {"role": "assistant", "content": "A "}]},
        {"id": "g", "source_text": "hello USER: x <USER>: y", "target_text": "z", "index": 1},
    ]
    (tmp_path / "in.jsonl").write_text("\n".join([*map(json.dumps, lines), "{oops", "[1]"]))
    rows, rejects, _ = prepared(vocalnet, "ultrachat", tmp_path / "in.jsonl", output=tmp_path / "out")
    assert [(row.id, row.question.text, row.answer.text) for row in rows] == [("b-1", "Q1", "A1"), ("f-1", "Q", "A")]
    assert [(reject["line"], reject["reason"]) for reject in rejects] == [
        (1, "empty answer"),
        (1, "an earlier round is empty"),
        (2, "question without an answer"),
        (3, "field of the wrong kind"),
        (4, "no rounds"),
        (5, "field missing"),
        (6, "roles do not alternate"),
        (8, "history does not begin with a speaker"),
        (9, "not a JSON row"),
        (10, "not a JSON row"),
    ]


def voiceassistant_rows() -> list[dict[str, Any]]:
    """Rows in the columns of VoiceAssistant-400K: real questions and answers, three with their recordings."""
    answers = [row["Answer"] for row in json.loads((CORPORA / "vocalbench_single_round_60.json").read_text())]
    rows = []
    for number, (name, text) in enumerate(SPOKEN.items()):
        sound = {"bytes": (CORPORA / "sound" / name).read_bytes(), "path": name}
        rows.append(("identity", str(number), "1", text, sound, answers[number], "# 1 2"))
    for number, line in enumerate((CORPORA / "vicuna_bench_reference_gpt4.jsonl").read_text().splitlines()):
        rows.append(("code", str(number), "1", f"Coding question {number}?", None, json.loads(line)["choices"][0]["turns"][0], ""))
    rows.append(("qa", "0", "1", "WHAT is the capital of China?", None, "**" + answers[2] + "**", ""))  # the third row again
    rows.append(("qa", "1", "1", "Draw me a smile.", None, "\U0001f600", ""))
    rows.append(("qa", "2", "1", "What does this say?", {"bytes": b"RIFF no sound", "path": "x.wav"}, "Nothing.", ""))
    return [dict(zip(COLUMNS, row, strict=True)) for row in rows]


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    path = tmp_path / "data" / "train-00000-of-00001.parquet"
    path.parent.mkdir()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(voiceassistant_rows()), path, row_group_size=4)
    return path


def test_voiceassistant_parquet(vocalnet: Callable, parquet: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    rows, rejects, stats = prepared(vocalnet, "voiceassistant", parquet.parent, "--max-answer-words", "80", output=out)
    for row, (name, text) in zip(rows, SPOKEN.items(), strict=False):
        assert row.question.text == text and row.question.audio is not None
        assert (out / row.question.audio).read_bytes() == (CORPORA / "sound" / name).read_bytes()
    reasons = {reject["id"]: reject["reason"] for reject in rejects}
    assert {reasons[own] for own in ("qa-0", "qa-1", "qa-2")} == {"duplicate", "nothing to say", "sound cannot be read"}
    assert stats["rejected"]["answer too long"] == sum(reason == "answer too long" for reason in reasons.values()) > 0
    assert stats["rows_in"] == len(voiceassistant_rows()) == len(rows) + len(rejects)
    for row in rows:
        assert not any(mark in row.answer.text for mark in ("```", "**", "`", "\n"))
        assert len(row.answer.text.split()) <= 80
    assert vocalnet("prep", "validate", out).code == 0


def test_a_recording_put_in_place_later_is_taken_in(vocalnet: Callable, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text(json.dumps(known_rounds()[0]))
    rows, rejects, _ = prepared(vocalnet, "ultrachat", source, output=tmp_path / "out")
    assert rows == [] and rejects[0]["reason"] == "sound cannot be read"
    (tmp_path / "audio_0.wav").write_bytes((CORPORA / "sound" / "llama_questions_42.wav").read_bytes())
    rows, rejects, _ = prepared(vocalnet, "ultrachat", source, output=tmp_path / "out")
    assert len(rows) == 1 and rejects == []


class Sly:
    """Unpickled, it would make a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.target,))


def test_vocalnets_json_with_plain_and_pickled_tokens(vocalnet: Callable, tmp_path: Path) -> None:
    (known,) = json.loads((CORPORA / "vocalnet_readme_row.json").read_text())
    touched = tmp_path / "touched"
    tokens = np.array([5, 5, 6560, 0])
    arrays: dict[str, Any] = {
        "19090": tokens,
        "object": np.array(tokens.tolist(), dtype=object),
        "dict": np.array({"tokens": tokens}, dtype=object),
        "sly": np.array(Sly(touched), dtype=object),
        "range": np.array([6561]),
        "float": np.array([0.5]),
    }
    rows = []
    for name, array in arrays.items():
        units, speech = (str(known[field]).replace("19090", name) for field in ("units", "speech"))
        for path in (units, speech):
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / units, array, allow_pickle=True)
        (tmp_path / speech).write_bytes((CORPORA / "sound" / "llama_questions_42.wav").read_bytes())
        rows.append({**known, "id": name, "units": units, "speech": speech})
    rows.append({**known, "id": "list", "units": tokens.tolist()})
    rows.append({**known, "id": "outside", "units": "../../etc/passwd.npy"})
    (tmp_path / "index.json").write_text(json.dumps(rows, indent=1))
    out, rejects, _ = prepared(vocalnet, "voiceassistant", tmp_path / "index.json", output=tmp_path / "out")
    assert [row.id for row in out] == ["19090", "object", "dict", "list"]
    assert all(row.speech_tokens == tokens.tolist() and row.question.audio for row in out)
    assert out[0].answer.text == known["conversations"][1]["value"]
    assert {reject["id"]: reject["reason"] for reject in rejects} == {
        "sly": "speech tokens cannot be read",
        "range": "speech token out of range",
        "float": "speech tokens are no integers",
        "outside": "path outside the data root",
    }
    assert not touched.exists()
    pickle.loads(pickle.dumps(Sly(touched)))
    assert touched.exists(), "the sly array is harmless: the test tests nothing"
