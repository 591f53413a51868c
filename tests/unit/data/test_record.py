"""The manifest format: what is written is read back, and each mistake is named with its line."""

import json
from pathlib import Path
from typing import Any

import pytest

from vocalnet_cli.core.data.manifest import check_one_tokenizer, read_manifest
from vocalnet_cli.core.data.prep.validate import validate_manifest
from vocalnet_cli.core.data.record import Record, Utterance, write_manifest
from vocalnet_cli.core.errors import VocalnetError


def record(name: str = "a", **more: Any) -> Record:
    return Record(id=name, source="test", split="train", question=Utterance(text="hello"), answer=Utterance(text="Hello."), **more)


def test_a_manifest_reads_back_as_written(tmp_path: Path) -> None:
    rows = [
        record("a", speech_tokens=[1, 2, 2], tokenizer={"name": "nano", "sha256": "0"}, collapsed=True, meta={"kind": "x"}),
        record("b", round=2, history=[{"role": "user", "text": "naïve  question\u2028"}], speech_tokens="tokens/b.npy"),
    ]
    write_manifest(tmp_path / "manifest.jsonl", rows)
    assert read_manifest(tmp_path / "manifest.jsonl") == rows
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.jsonl"]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{oops", "not JSON"),
        ("[1]", "not a JSON object"),
        ('{"id": "a"}', "field `source`"),
        (json.dumps({**json.loads(record().model_dump_json()), "spech_tokens": []}), "field `spech_tokens`"),
        (json.dumps({**json.loads(record().model_dump_json()), "question": {"text": ""}}), "field `question.text`"),
        (record().model_dump_json(), "id `a` is already on line 1"),
    ],
)
def test_a_bad_row_is_named_with_file_and_line(tmp_path: Path, line: str, told: str) -> None:
    path = tmp_path / "manifest.jsonl"
    path.write_text(record().model_dump_json() + "\n\n" + line + "\n", encoding="utf-8")
    with pytest.raises(VocalnetError) as caught:
        read_manifest(path)
    assert f"{path}:3" in caught.value.problem and told in caught.value.problem


def test_a_missing_manifest_is_two_lines(tmp_path: Path) -> None:
    with pytest.raises(VocalnetError, match="No such file"):
        read_manifest(tmp_path / "none.jsonl")


def test_validate_lists_every_problem(tmp_path: Path) -> None:
    (tmp_path / "empty.flac").touch()
    path = tmp_path / "manifest.jsonl"
    both = record("b", speech_tokens="gone.npy")
    both.question.audio = "empty.flac"
    lines = [record("a").model_dump_json(), both.model_dump_json(), record("a").model_dump_json(), "{}"]
    path.write_text("\n".join(lines), encoding="utf-8")
    report = validate_manifest(path)
    assert (report["rows"], report["bad"]) == (4, 3)
    assert [(problem["line"], problem["field"]) for problem in report["problems"]] == [
        (2, "question.audio"),
        (2, "speech_tokens"),
        (3, "id"),
        (4, "id"),
    ]


def test_tokens_of_two_tokenizers_are_not_trained_on_together(tmp_path: Path) -> None:
    rows = [record(name, speech_tokens=[1], tokenizer={"name": name, "sha256": name * 64}) for name in "ab"]
    check_one_tokenizer(tmp_path, [rows[0], rows[0], record("c")])
    with pytest.raises(VocalnetError, match="more than one speech tokenizer: a aaaa.* .row a., b bbbb"):
        check_one_tokenizer(tmp_path, rows)
