"""Published training sets, as they are, wherever a manifest is read: VocalNet's JSON with .npy, SLAM-Omni's JSONL and parquet."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from vocalnet_cli.core.data.manifest import read_manifest, tokens_of
from vocalnet_cli.core.errors import VocalnetError

CORPORA = Path(__file__).parents[1] / "assets" / "corpora"
SOUND = CORPORA / "sound" / "llama_questions_42.wav"
TOKENS = [5, 5, 6560, 0]


def vocalnet_json(folder: Path, **changes: Any) -> Path:
    """The README's row, its files there, the tokens pickled as the released ones are; `changes` make a second row."""
    (known,) = json.loads((CORPORA / "vocalnet_readme_row.json").read_text())
    for name in (known["speech"], known["units"]):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / known["speech"]).write_bytes(SOUND.read_bytes())
    np.save(folder / known["units"], np.array({"tokens": np.array(TOKENS)}, dtype=object), allow_pickle=True)
    rows = [known, {**known, "id": "second", **changes}] if changes else [known]
    (folder / "index.json").write_text(json.dumps(rows, indent=1))
    return folder / "index.json"


def slam_rows() -> list[dict[str, Any]]:
    return [json.loads(line) for line in (CORPORA / "slam_omni_ultrachat_demo_en.jsonl").read_text().splitlines()]


def slam_jsonl(folder: Path) -> Path:
    rows = slam_rows()
    for row in rows:
        (folder / row["source_wav"]).parent.mkdir(parents=True, exist_ok=True)
        (folder / row["source_wav"]).write_bytes(SOUND.read_bytes())
    (folder / "slam.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "slam.jsonl"


def slam_parquet(folder: Path) -> Path:
    rows = [
        {
            **{name: str(row[name]) for name in ("split_name", "index", "round")},
            "question": row["source_text"],
            "question_audio": {"bytes": SOUND.read_bytes(), "path": "q.wav"},
            "answer": row["target_text"],
            "answer_cosyvoice_speech_token": row["target_token"],
        }
        for row in slam_rows()
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "train-00000-of-00001.parquet")
    return folder / "train-00000-of-00001.parquet"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOCALNET_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("layout", [slam_jsonl, slam_parquet])
def test_slam_omnis_rows_are_read_shown_and_checked(vocalnet: Callable, tmp_path: Path, layout: Callable[[Path], Path]) -> None:
    path = layout(tmp_path)
    rows = read_manifest(path)
    assert [(row.round, row.answer.text) for row in rows] == [(known["round"], known["target_text"]) for known in slam_rows()]
    assert all((tmp_path / str(row.question.audio)).read_bytes() == SOUND.read_bytes() for row in rows)
    assert len({row.id for row in rows}) == 10 and all(row.speech_tokens is None for row in rows), "CosyVoice 1's tokens are left out"
    third = next(row for row in rows if row.round == 3)
    assert [turn.role for turn in third.history] == ["user", "assistant"] * 2 and "USER:" not in third.question.text
    checked = json.loads(vocalnet("prep", "validate", path, "--json").out)
    assert (checked["rows"], checked["bad"]) == (10, 0)
    shown = vocalnet("prep", "show", path, "--id", third.id)
    assert shown.code == 0 and third.question.text in shown.out and shown.out.count("(assistant)") == 2


def test_vocalnets_rows_are_read_shown_and_checked(vocalnet: Callable, tmp_path: Path) -> None:
    path = vocalnet_json(tmp_path, units=TOKENS)
    rows = read_manifest(path)
    assert [row.id for row in rows] == ["19090", "second"]
    for row in rows:
        assert (tmp_path / str(row.question.audio)).read_bytes() == SOUND.read_bytes()
        assert tokens_of(row, tmp_path) == TOKENS
    assert vocalnet("prep", "validate", path).code == 0
    assert "cosyvoice2, as published" in vocalnet("prep", "show", path).out


def test_vocalnets_rows_go_through_prep_tokens_with_their_tokens(vocalnet: Callable, tmp_path: Path, fixtures_dir: Path) -> None:
    path = vocalnet_json(tmp_path)
    tokenizer = fixtures_dir / "cosyvoice2" / "s3tokenizer_v2_tiny_weights.safetensors"
    made = ("prep", "tokens", path, "--device", "cpu", "--workers", 1)
    assert vocalnet(*made, "--tokenizer", tokenizer, "--collapse-repeats", "-o", tmp_path / "out").code == 0
    (row,) = read_manifest(tmp_path / "out" / "manifest.jsonl")
    assert (row.speech_tokens, row.collapsed) == ([5, 6560, 0], True) and row.tokenizer is not None
    assert row.tokenizer.name == "cosyvoice2, as published"
    assert (tmp_path / "out" / str(row.question.audio)).read_bytes() == SOUND.read_bytes()
    result = vocalnet(*made, "--tokenizer", "nano", "-o", tmp_path / "nano", "--json")
    assert json.loads(result.out)["rejected"] == {"no spoken answer": 1}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"units": "../../etc/passwd.npy"}, "path outside the data root"),
        ({"speech": "/etc/passwd"}, "path outside the data root"),
        ({"units": ["a"]}, "speech_tokens"),
        ({"conversations": []}, "not one question and one answer"),
        ({"id": "19090", "units": TOKENS}, "already"),
    ],
)
def test_a_bad_published_row_is_named(vocalnet: Callable, tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    path = vocalnet_json(tmp_path, **changes)
    report = json.loads(vocalnet("prep", "validate", path, "--json").out)
    (problem,) = report["problems"]
    assert problem["line"] == 2 and told in problem["field"] + problem["reason"]
    with pytest.raises(VocalnetError, match=f"index.json:2: .*{told}"):
        read_manifest(path)


def test_a_path_out_of_the_folder_is_refused_in_training_unless_allowed(tmp_path: Path) -> None:
    said = {"text": "It.", "audio": "../x.wav"}
    row = {"id": "a", "source": "t", "split": "train", "question": said, "answer": {"text": "It."}}
    (tmp_path / "manifest.jsonl").write_text(json.dumps(row))
    with pytest.raises(VocalnetError, match=r"manifest.jsonl:1: \.\./x.wav is outside"):
        read_manifest(tmp_path / "manifest.jsonl")


def test_a_row_is_played_or_the_missing_loudspeaker_is_two_lines(
    vocalnet: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from types import SimpleNamespace

    from vocalnet_cli.core.conversation import devices

    class PortAudioError(Exception):
        pass

    def absent(*_: Any) -> None:
        raise PortAudioError("no device")

    played: list[tuple[int, int]] = []
    fake = SimpleNamespace(
        PortAudioError=PortAudioError, query_devices=lambda *_: {}, play=lambda samples, rate, **_: played.append((len(samples), rate))
    )
    monkeypatch.setattr(devices, "sound", lambda: fake)
    path = vocalnet_json(tmp_path)
    assert vocalnet("prep", "show", path, "--play").code == 0
    ((length, rate),) = played
    assert length / rate == pytest.approx(np.round(SOUND.stat().st_size / 32_000, 1), abs=0.2)
    fake.query_devices = absent
    result = vocalnet("prep", "show", path, "--play")
    assert result.code == 1 and "there is no loudspeaker" in result.err and len(result.err.splitlines()) == 2
