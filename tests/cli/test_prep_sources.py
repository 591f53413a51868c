"""`vocalnet prep asr`, `tts` and `questions`: layouts on disk as they are published, with real sound and rows."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from vocalnet_cli.core.data.manifest import read_manifest
from vocalnet_cli.core.data.record import Record
from vocalnet_cli.core.evaluation.benchmarks import load_benchmark

CORPORA = Path(__file__).parents[1] / "assets" / "corpora"
WAV = CORPORA / "sound" / "llama_questions_42.wav"
TEXT = "What is the capital of China?"


def copied(path: Path, source: Path = WAV) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(source.read_bytes())


def librispeech(folder: Path) -> str:
    copied(folder / "61" / "70968" / "61-70968-0000.wav")
    (folder / "61" / "70968" / "61-70968.trans.txt").write_text(f"61-70968-0000 {TEXT.upper()}\n61-70968-0001 NO SOUND\n")
    return TEXT.upper()


def libritts(folder: Path) -> str:
    copied(folder / "61" / "7" / "61_7_0.wav")
    (folder / "61" / "7" / "61_7_0.normalized.txt").write_text(TEXT)
    return TEXT


def ljspeech(folder: Path) -> str:
    copied(folder / "wavs" / "LJ001-0001.wav")
    (folder / "metadata.csv").write_text(f"LJ001-0001|Raw text|{TEXT}\n")
    return TEXT


def rows_of(vocalnet: Callable, *args: object, output: Path) -> tuple[list[Record], list[dict[str, Any]]]:
    result = vocalnet("prep", *args, "-o", output, "--json")
    assert result.code == 0, result.err
    rejects = [json.loads(line) for line in (output / "rejects.jsonl").read_text().splitlines()]
    assert vocalnet("prep", "validate", output).code == 0
    return read_manifest(output / "manifest.jsonl"), rejects


@pytest.mark.parametrize("layout", [librispeech, libritts, ljspeech])
def test_transcribed_recordings_become_instructions(vocalnet: Callable, tmp_path: Path, layout: Callable[[Path], str]) -> None:
    text = layout(tmp_path / "corpus")
    (heard,), rejects = rows_of(vocalnet, "asr", tmp_path / "corpus", output=tmp_path / "asr")
    assert heard.question.text == "<speech> \n Please transcribe the speech to text." and heard.answer.text == text
    assert heard.question.audio is not None and (tmp_path / "asr" / heard.question.audio).read_bytes() == WAV.read_bytes()
    (said,), _ = rows_of(vocalnet, "tts", tmp_path / "corpus", output=tmp_path / "tts")
    assert (
        said.question.text == f"Please repeat after me: {text}"
        and said.answer.text == text
        and said.answer.audio
        and not said.question.audio
    )
    assert [reject["id"] for reject in rejects] == (["61-70968-0001"] if layout is librispeech else [])


@pytest.mark.parametrize(
    ("columns", "row", "answer", "aliases"),
    [
        (("Questions", "Answer", "audio_filename"), ("What is the capital of china?", "Beijing", "42.wav"), "Beijing", None),
        (("question", "answers", "audio_filename"), ("who?", "Jazmyn Bieber; Jaxon Bieber", "42.wav"), "Jazmyn Bieber", ["Jaxon Bieber"]),
        (
            ("question", "answer_normalized_value", "answer_normalized_aliases", "audio_filename"),
            ("who?", "mona lisa", "mona lisa, la gioconda", "42.wav"),
            "mona lisa",
            ["mona lisa", "la gioconda"],
        ),
        (("dataset", "instruction", "output", "generator", "audio_filename"), ("d", "Say, why?", "So.", "g", "42.wav"), "So.", None),
    ],
)
def test_openaudiobench(vocalnet: Callable, tmp_path: Path, columns: tuple, row: tuple, answer: str, aliases: list[str] | None) -> None:
    copied(tmp_path / "set" / "audios" / "42.wav")
    with (tmp_path / "set" / "set.csv").open("w", newline="") as file:
        csv.writer(file).writerows([columns, row])
    (record,), _ = rows_of(vocalnet, "questions", tmp_path / "set" / "set.csv", output=tmp_path / "out")
    assert (record.id, record.answer.text, record.meta.get("aliases"), record.split) == ("set-42", answer, aliases, "test")


def test_vocalbench_rows_become_a_set_that_eval_takes(vocalnet: Callable, tmp_path: Path) -> None:
    for name in ("vocalbench_knowledge_6", "vocalbench_multi_round_6"):
        known = json.loads((CORPORA / f"{name}.json").read_text())
        for row in known[:-1]:
            copied(tmp_path / "audio" / row["Audio"])
        rows, rejects = rows_of(vocalnet, "questions", CORPORA / f"{name}.json", "--root", tmp_path / "audio", output=tmp_path / name)
        assert [(row.question.text, row.answer.text) for row in rows] == [(row["Question"], row["Answer"]) for row in known[:-1]]
        assert [[(turn.role, turn.text) for turn in row.history] for row in rows] == [
            [(said["from"], said["value"]) for said in row.get("Context", [])] for row in known[:-1]
        ]
        assert [reject["reason"] for reject in rejects] == ["sound cannot be read"]
        assert len(load_benchmark(str(tmp_path / name)).records) == 5


def test_voicebench(vocalnet: Callable, tmp_path: Path) -> None:
    row = {"audio": {"bytes": WAV.read_bytes(), "path": None}, "prompt": TEXT, "reference": "Beijing", "id": "7"}
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "test-00000.parquet")
    (record,), _ = rows_of(vocalnet, "questions", tmp_path / "test-00000.parquet", "--name", "bbh", output=tmp_path / "out")
    assert (record.question.text, record.answer.text, record.meta["id"], record.source) == (TEXT, "Beijing", "7", "bbh")


def test_a_folder_of_another_layout_is_two_lines(vocalnet: Callable, tmp_path: Path) -> None:
    result = vocalnet("prep", "asr", tmp_path, "-o", tmp_path / "out")
    assert result.code == 2 and "known layout" in result.err and "metadata.csv" in result.err
