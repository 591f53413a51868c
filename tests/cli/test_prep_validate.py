"""`vocalnet prep validate` on a good manifest, and on one with every kind of damage."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from vocalnet_cli.core.audio.wav import audio_seconds

SOUND = Path(__file__).parents[1] / "assets" / "corpora" / "sound" / "llama_questions_42.wav"
TEXT = "What is the capital of China?"


def good_row(own: str) -> dict[str, Any]:
    tokens = [number * 37 % 6561 for number in range(round(25 * audio_seconds(SOUND)))]
    said = {"text": TEXT, "audio": "good.wav"}
    tokenizer = {"name": "speech_tokenizer_v2", "sha256": "a" * 64}
    return {"id": own, "source": "t", "split": "train", "question": said, "answer": said, "speech_tokens": tokens, "tokenizer": tokenizer}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "good.wav").write_bytes(SOUND.read_bytes())
    (tmp_path / "cut.wav").write_bytes(SOUND.read_bytes()[:5000])
    samples, rate = soundfile.read(SOUND)
    soundfile.write(tmp_path / "silent.wav", 0 * samples, rate)
    soundfile.write(tmp_path / "clipped.wav", np.clip(30 * samples, -1, 1), rate)
    np.save(tmp_path / "pickled.npy", np.array({"tokens": [1]}, dtype=object), allow_pickle=True)
    np.save(tmp_path / "plain.npy", np.array(good_row("x")["speech_tokens"]))
    return tmp_path


DAMAGE: dict[str, tuple[dict[str, Any] | str, str, str]] = {
    "not JSON": ("{oops", "", "not JSON"),
    "field": ({"spech": 1}, "spech", "Extra inputs"),
    "id": ({"id": "good"}, "id", "already on line 1"),
    "missing": ({"question": {"text": TEXT, "audio": "none.wav"}}, "question.audio", "no such file"),
    "cut": ({"question": {"text": TEXT, "audio": "cut.wav"}}, "question.audio", "cut off"),
    "outside": ({"question": {"text": TEXT, "audio": "../good.wav"}}, "question.audio", "outside the data root"),
    "silent": ({"question": {"text": TEXT, "audio": "silent.wav"}}, "question.audio", "silence"),
    "clipped": ({"question": {"text": TEXT, "audio": "clipped.wav"}}, "question.audio", "clipped"),
    "range": ({"speech_tokens": [6561, *good_row("x")["speech_tokens"][1:]]}, "speech_tokens", "token 6561 is not in 0..6560"),
    "count": ({"speech_tokens": [1, 2, 3]}, "speech_tokens", "3 tokens for"),
    "pickled": ({"speech_tokens": "pickled.npy"}, "speech_tokens", "pickled"),
    "tokenizer": ({"tokenizer": {"name": "nano", "sha256": "b" * 64}}, "tokenizer", "two speech tokenizers"),
    "collapsed": ({"collapsed": True, "speech_tokens": [5] * len(good_row("x")["speech_tokens"])}, "collapsed", "runs of equal tokens"),
    "text": ({"answer": {"text": TEXT * 20, "audio": "good.wav"}}, "answer.text", "too fast"),
    "history": ({"history": [{"role": "assistant", "text": "Hi."}]}, "history", "roles do not alternate"),
}


def write(folder: Path, rows: list[dict[str, Any] | str]) -> None:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / "manifest.jsonl").write_text("\n".join(lines), encoding="utf-8")


def test_each_kind_of_damage_is_named_and_nothing_else(vocalnet: Callable, folder: Path) -> None:
    rows: list[dict[str, Any] | str] = [good_row("good"), {**good_row("plain"), "speech_tokens": "plain.npy"}]
    rows += [change if isinstance(change, str) else {**good_row(name), **change} for name, (change, _, _) in DAMAGE.items()]
    write(folder, rows)
    result = vocalnet("prep", "validate", folder, "--json")
    report = json.loads(result.out)
    assert result.code == 1 and report["rows"] == len(rows) and report["bad"] == len(DAMAGE) >= 12
    for line, (problem, (_, field, reason)) in enumerate(zip(report["problems"], DAMAGE.values(), strict=True), 3):
        assert (problem["line"], problem["field"]) == (line, field) and reason in problem["reason"] and problem["todo"]
    assert vocalnet("prep", "validate", folder, "--max-bad", len(DAMAGE)).code == 0
    assert vocalnet("prep", "validate", folder, "--max-bad", len(DAMAGE) - 1).code == 1


def test_processes_find_what_one_finds(vocalnet: Callable, folder: Path) -> None:
    """Ids that come twice and tokenizers that differ are told across the parts that processes check."""
    rows: list[dict[str, Any] | str] = [good_row(str(n % 405)) for n in range(410)]
    changed = DAMAGE["tokenizer"][0]
    assert isinstance(changed, dict)
    rows += ["{oops", {**good_row("other"), **changed}]
    write(folder, rows)
    one, two = (vocalnet("prep", "validate", folder, "--headers", "--workers", workers, "--json") for workers in (1, 2))
    assert one.code == 1 and one.out == two.out
    assert [problem["line"] for problem in json.loads(two.out)["problems"]] == [406, 407, 408, 409, 410, 411, 412]


def test_a_whole_manifest_with_statistics_and_plots(vocalnet: Callable, folder: Path) -> None:
    write(folder, [good_row("a"), good_row("b")])
    result = vocalnet("prep", "validate", folder, "--plots", folder / "plots", "--json")
    assert result.code == 0, result.out
    table = {row["what"]: row for row in json.loads(result.out)["statistics"]}
    assert table["answer seconds"]["sum"] == pytest.approx(2 * audio_seconds(SOUND), abs=0.01)
    assert table["speech tokens"]["p50"] == len(good_row("a")["speech_tokens"]) and table["answer words"]["max"] == 6
    assert {path.read_bytes()[:4] for path in (folder / "plots").iterdir()} == {b"\x89PNG"} and len(table) == 5


def test_a_root_above_the_manifest_is_allowed_when_named(vocalnet: Callable, folder: Path) -> None:
    below = folder / "below"
    below.mkdir()
    row = good_row("a")
    row["question"] = row["answer"] = {"text": TEXT, "audio": "../good.wav"}
    write(below, [row])
    assert "outside the data root" in vocalnet("prep", "validate", below).out
    row["question"] = row["answer"] = {"text": TEXT, "audio": "good.wav"}
    write(below, [row])
    assert vocalnet("prep", "validate", below, "--root", folder).code == 0
