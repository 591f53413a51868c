"""`vocalnet prep tokens` gives what the tokenizer itself gives for each recording, however rows are batched, cut and spread."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from vocalnet_cli.core.audio.mel import encoder_mel
from vocalnet_cli.core.audio.wav import read_audio
from vocalnet_cli.core.config.places import nano_folder
from vocalnet_cli.core.data.manifest import read_manifest
from vocalnet_cli.core.data.record import HistoryTurn, Record, Utterance, write_manifest
from vocalnet_cli.core.model.voice.load import load_s3_tokenizer
from vocalnet_cli.core.model.voice.s3_tokenizer import speech_tokens
from vocalnet_cli.core.model.weights import load_model

SOUND = Path(__file__).parents[1] / "assets" / "corpora" / "sound"


@pytest.fixture
def spoken(tmp_path: Path) -> Path:
    """A manifest of real recordings: short ones, one of 35 s, a silent one, a damaged one, one that is not there, one outside."""
    folder = tmp_path / "spoken"
    (folder / "audio").mkdir(parents=True)
    names = sorted(path.name for path in SOUND.iterdir())
    for name in names:
        (folder / "audio" / name).write_bytes((SOUND / name).read_bytes())
    joined = np.concatenate([read_audio(SOUND / name) for name in names])
    soundfile.write(folder / "audio" / "long.flac", np.resize(joined, 35 * 16_000), 16_000)
    soundfile.write(folder / "audio" / "silent.wav", np.zeros(16_000), 16_000)
    (folder / "audio" / "damaged.wav").write_bytes((SOUND / "llama_questions_42.wav").read_bytes()[:3000])
    rows = [
        Record(
            id=Path(name).stem,
            source="test",
            split="train",
            question=Utterance(text="Say it.", audio=f"audio/{names[0]}"),
            history=[HistoryTurn(role="user", text="Hello.", audio=f"audio/{names[-1]}"), HistoryTurn(role="assistant", text="Hi.")],
            answer=Utterance(text="It.", audio=name if name.startswith("..") else f"audio/{name}"),
        )
        for name in [*names, "long.flac", "silent.wav", "damaged.wav", "none.wav", "../outside.wav"]
    ]
    write_manifest(folder / "manifest.jsonl", rows)
    return folder


@pytest.fixture
def tiny(fixtures_dir: Path) -> Path:
    return fixtures_dir / "cosyvoice2" / "s3tokenizer_v2_tiny_weights.safetensors"


def made(vocalnet: Callable, *args: object, output: Path) -> tuple[dict[str, Record], dict[str, str], dict[str, Any]]:
    result = vocalnet("prep", "tokens", *args, "-o", output, "--device", "cpu", "--json")
    assert result.code == 0, result.err
    rejects = [json.loads(line) for line in (output / "rejects.jsonl").read_text().splitlines()]
    rows = {row.id: row for row in read_manifest(output / "manifest.jsonl")}
    return rows, {reject["id"]: reject["reason"] for reject in rejects}, json.loads(result.out)


def test_cosyvoice2_tokens(vocalnet: Callable, spoken: Path, tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    rows, rejects, stats = made(vocalnet, spoken, "--tokenizer", tiny, "--workers", 1, "--batch-size", 3, output=out)
    assert rejects == {
        "silent": "sound is silent",
        "damaged": "sound cannot be read",
        "none": "sound cannot be read",
        "outside": "path outside the data root",
    }
    model = load_s3_tokenizer(tiny)
    seconds = 0.0
    for own, row in rows.items():
        (source,) = [path for path in (spoken / "audio").iterdir() if path.stem == own]
        samples = read_audio(source)
        (alone,) = speech_tokens(model, [encoder_mel(samples, 128)])
        assert row.speech_tokens == alone.tolist() and abs(len(alone) - 25 * len(samples) / 16_000) <= 2
        assert row.tokenizer is not None and row.tokenizer.name == "speech_tokenizer_v2" and len(row.tokenizer.sha256) == 64
        assert row.answer.audio is not None and (out / row.answer.audio).read_bytes() == source.read_bytes()
        seconds += len(samples) / 16_000
    assert len(rows) == 5 and len(rows["long"].speech_tokens or ()) == 875
    assert stats["audio_hours"] == pytest.approx(seconds / 3600, abs=1e-3)
    assert vocalnet("prep", "validate", out).code == 0


def test_two_processes_write_the_same(vocalnet: Callable, spoken: Path, tiny: Path, tmp_path: Path) -> None:
    made(vocalnet, spoken, "--tokenizer", tiny, "--workers", 1, "--shard-rows", 2, output=tmp_path / "one")
    _, _, stats = made(vocalnet, spoken, "--tokenizer", tiny, "--workers", 2, "--shard-rows", 2, output=tmp_path / "two")
    assert min(stats["rows_by_worker"].values()) > 0 and len(stats["rows_by_worker"]) == 2
    for name in ("manifest.jsonl", "rejects.jsonl"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_recording_that_is_replaced_is_heard_again_and_no_other(vocalnet: Callable, spoken: Path, tmp_path: Path) -> None:
    options = (spoken, "--tokenizer", "nano", "--workers", 1, "--shard-rows", 2)
    first, rejects, _ = made(vocalnet, *options, output=tmp_path / "out")
    assert rejects.pop("silent") == "sound is silent"
    names = sorted(path.name for path in SOUND.iterdir())
    for changed in (names[2], "silent.wav"):
        path = spoken / "audio" / changed
        path.unlink()  # a recording below the output may be the same file under another name
        path.write_bytes((SOUND / names[1]).read_bytes())
    again, left, stats = made(vocalnet, *options, output=tmp_path / "out")
    wanted = first[Path(names[1]).stem].speech_tokens
    assert left == rejects and again["silent"].speech_tokens == again[Path(names[2]).stem].speech_tokens == wanted
    assert stats["rows_kept"] > 0
    assert made(vocalnet, *options, output=tmp_path / "fresh")[0] == again


def test_nanos_tokens_collapsed_and_not(vocalnet: Callable, spoken: Path, tmp_path: Path) -> None:
    whole, _, _ = made(vocalnet, spoken, "--tokenizer", "nano", "--workers", 1, output=tmp_path / "whole")
    short, _, _ = made(vocalnet, spoken, "--tokenizer", "nano", "--workers", 1, "--collapse-repeats", output=tmp_path / "short")
    book = load_model(nano_folder()).vocoder.tokenizer
    for own, row in whole.items():
        (source,) = [path for path in (spoken / "audio").iterdir() if path.stem == own]
        assert row.speech_tokens == book.encode(read_audio(source, 24_000)).tolist() and not row.collapsed
        earlier = tmp_path / "whole" / str(row.history[0].audio)
        assert earlier.read_bytes() == max(SOUND.iterdir()).read_bytes(), "the sound of an earlier question goes along"
        assert short[own].speech_tokens == [token for token, _ in groupby(row.speech_tokens)] and short[own].collapsed
    assert any(len(short[own].speech_tokens or ()) < len(whole[own].speech_tokens or ()) for own in whole)


def test_tokens_of_two_tokenizers_never_mix_silently(vocalnet: Callable, spoken: Path, tiny: Path, tmp_path: Path) -> None:
    first, _, _ = made(vocalnet, spoken, "--tokenizer", tiny, "--workers", 1, output=tmp_path / "a")
    rows, rejects, _ = made(vocalnet, tmp_path / "a", "--tokenizer", "nano", "--workers", 1, output=tmp_path / "b")
    assert rows == {} and set(rejects.values()) == {"has tokens of another tokenizer"}
    rows, rejects, _ = made(vocalnet, tmp_path / "a", "--tokenizer", "nano", "--replace", "--workers", 1, output=tmp_path / "c")
    assert rows.keys() == first.keys() and {row.tokenizer.name for row in rows.values() if row.tokenizer} == {"nano"}


def test_a_tokenizer_that_is_not_there_is_two_lines(vocalnet: Callable, spoken: Path, tmp_path: Path) -> None:
    result = vocalnet("prep", "tokens", spoken, "-o", tmp_path / "out")
    assert result.code == 1 and "CosyVoice2-0.5B: no speech tokenizer there" in result.err and "hf download" in result.err
