"""Inputs made to do harm: files that unpack to many times their size, sounds of absurd length."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import soundfile

from vocalnet_cli.core.audio.wav import audio_seconds
from vocalnet_cli.core.data.prep.run import Manner, run_step
from vocalnet_cli.core.data.prep.shards import LONGEST_ROW, cut, read_shard
from vocalnet_cli.core.data.prep.single import SingleTurns
from vocalnet_cli.core.errors import AudioError, VocalnetError

ALONE = Manner(workers=1)


def test_a_parquet_column_that_swells_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    rows = {"index": ["1"], "question": ["Q" * (100 << 20)], "answer": ["A"]}
    pyarrow.parquet.write_table(pyarrow.table(rows), tmp_path / "in.parquet", compression="zstd", use_dictionary=False)
    assert (tmp_path / "in.parquet").stat().st_size < 1 << 20
    with pytest.raises(VocalnetError, match="`question` of row group 0 unpacks from"):
        run_step(SingleTurns(), [str(tmp_path / "in.parquet")], tmp_path / "out", ALONE)


def test_a_long_text_shared_by_many_parquet_rows_takes_little_memory(tmp_path: Path) -> None:
    answers = pyarrow.DictionaryArray.from_arrays(np.zeros(100, np.int32), ["A" * (LONGEST_ROW + (1 << 20))])
    rows = {"index": [str(number) for number in range(100)], "question": ["Q"] * 100, "answer": answers}
    pyarrow.parquet.write_table(pyarrow.table(rows), tmp_path / "in.parquet", compression="none")
    pool = pyarrow.system_memory_pool()
    pyarrow.set_memory_pool(pool)
    stats = run_step(SingleTurns(), [str(tmp_path / "in.parquet")], tmp_path / "out", ALONE)
    assert stats["rejected"] == {"not a JSON row": 100} and pool.max_memory() < 400 << 20


def test_a_json_array_is_read_row_by_row(tmp_path: Path) -> None:
    rows = [{"id": str(number), "data": ["q\u00e9 ]" * 1000, f"a{number}"]} for number in range(600)]
    source = tmp_path / "in.json"
    source.write_text(json.dumps(rows, ensure_ascii=False, indent=1), encoding="utf-8")
    shards = cut([source], 250)
    assert [(raw.line, raw.row) for shard in shards for raw in read_shard(shard)] == list(enumerate(rows, 1)) and len(shards) == 3
    source.write_text(json.dumps([*rows, {"id": "long", "data": ["q", "a" * (LONGEST_ROW + (2 << 20))]}]))
    with pytest.raises(VocalnetError, match="a row of more than 16 MB"):
        cut([source], 250)


@pytest.mark.parametrize("kind", ["long", "header"])
def test_a_sound_of_absurd_length_is_refused_by_its_header(tmp_path: Path, kind: str) -> None:
    soundfile.write(tmp_path / "q.flac", np.zeros((700 if kind == "long" else 1) * 8000), 8000)
    data = bytearray((tmp_path / "q.flac").read_bytes())
    if kind == "header":  # 36 bits of the stream info hold the number of samples (RFC 9639, section 8.2): a billion
        data[21] = data[21] & 0xF0
        data[22:26] = (10**9).to_bytes(4, "big")
    (tmp_path / "q.flac").write_bytes(data)
    assert len(data) < 100_000 and audio_seconds(tmp_path / "q.flac") >= 700
    (tmp_path / "in.jsonl").write_text(json.dumps({"index": 1, "question": "Q", "answer": "A", "question_audio": "q.flac"}))
    stats = run_step(SingleTurns(), [str(tmp_path / "in.jsonl")], tmp_path / "out", ALONE)
    assert stats["rejected"] == {"sound too long": 1}


def test_a_sound_whose_header_does_not_tell_its_length_is_not_taken(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "q.flac", np.ones(8000) / 2, 8000)
    data = bytearray((tmp_path / "q.flac").read_bytes())
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    (tmp_path / "q.flac").write_bytes(data)
    with pytest.raises(AudioError, match="does not tell its length"):
        audio_seconds(tmp_path / "q.flac")
