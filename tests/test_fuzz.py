"""Damaged files of every kind through the public doors: always an answer or two clear lines, never a traceback."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import soundfile
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.tiny import tone
from vocalnet_cli.core.config.schema import GenerationSettings
from vocalnet_cli.core.data.manifest import read_manifest
from vocalnet_cli.core.data.prep.validate import validate_manifest
from vocalnet_cli.core.errors import VocalnetError
from vocalnet_cli.core.generation.batch import Batch

ROOT = Path(__file__).parents[1]


def fuzz(examples: int):
    """Run a test on so many examples, the same ones every time."""
    return settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],  # a failure is shown as found: shrinking would take minutes
        suppress_health_check=list(HealthCheck),
    )


@dataclass(frozen=True)
class Damage:
    """One change to a file: `kind` at a place given as a fraction of its length."""

    kind: str
    place: float
    length: int
    data: bytes

    def __call__(self, whole: bytes) -> bytes:
        at = int(self.place * len(whole))
        before, cut, after = whole[:at], whole[at : at + self.length], whole[at + self.length :]
        if self.kind == "cut":
            return before + after
        if self.kind == "end":
            return before
        if self.kind == "twice":
            return before + cut + cut + after
        if self.kind == "write":
            return before + self.data + whole[at + len(self.data) :]
        return before + self.data + whole[at:]


def damages(data: st.SearchStrategy[bytes], head: float = 1.0) -> st.SearchStrategy[list[Damage]]:
    """One to three changes; places lie in the first part `head` of the file as often as anywhere."""
    place = st.integers(0, 9999).map(lambda n: n / 10_000)
    place = place | place.map(lambda part: head * part)
    kind = st.sampled_from(["write", "write", "insert", "cut", "twice", "end"])
    return st.lists(st.builds(Damage, kind, place, st.integers(1, 32), data), min_size=1, max_size=3)


def apply(whole: bytes, changes: list[Damage]) -> bytes:
    for change in changes:
        whole = change(whole)
    return whole


BYTES = st.binary(min_size=1, max_size=8) | st.sampled_from(
    [b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\xff\xff\xff\x7f", b"\x00\x00\xc0\x7f"]
)


def sound_file(kind: str, subtype: str | None = None) -> bytes:
    whole = io.BytesIO()
    soundfile.write(whole, tone(0.2), 16_000, format=kind, subtype=subtype)
    return whole.getvalue()


SOUNDS = {
    "wav": sound_file("WAV", "PCM_16"),
    "float.wav": sound_file("WAV", "FLOAT"),
    "flac": sound_file("FLAC"),
    "ogg": sound_file("OGG"),
    "mp3": sound_file("MP3"),
}


class Loaded(Exception):
    """The question was good: a model would be loaded now."""


def no_model():
    raise Loaded


def read_as_infer_does(file: Path) -> str:
    """`good`, or the two lines of the refusal."""
    try:
        (result,) = Batch(no_model, GenerationSettings()).run([file], file.parent / "answers")
    except Loaded:
        return "good"
    assert result.error is not None
    two_lines(result.error)
    return result.error.problem


def two_lines(error: VocalnetError) -> None:
    assert error.problem.strip() and error.hint.strip() and "\n" not in error.hint
    assert "Traceback" not in str(error)


@pytest.mark.parametrize("kind", SOUNDS)
def test_damaged_sound_is_read_or_refused(kind, tmp_path):
    file = tmp_path / f"question.{kind}"
    file.write_bytes(SOUNDS[kind])
    assert read_as_infer_does(file) == "good"
    outcomes: list[str] = []

    @fuzz(150)
    @given(damages(BYTES, head=100 / len(SOUNDS[kind])))
    def check(changes):
        file.write_bytes(apply(SOUNDS[kind], changes))
        outcomes.append(read_as_infer_does(file))

    check()
    assert len(outcomes) >= 100
    assert any(outcome != "good" for outcome in outcomes), "the damage never mattered: the test tests nothing"


ROW = {
    "id": "a", "source": "s", "split": "train", "question": {"text": "what is one", "audio": "a.wav", "voice": "flite:slt"},
    "history": [{"role": "user", "text": "hello"}], "answer": {"text": "one – 一"}, "speech_tokens": [1, 2, 3],
    "tokenizer": {"name": "nano", "sha256": "0" * 64}, "meta": {"n": 1},
}  # fmt: skip
MANIFEST = "".join(json.dumps({**ROW, "id": str(i)}, ensure_ascii=False) + "\n" for i in range(3)).encode()
JSON_BITS = [
    b'"',
    b"{",
    b"[" * 3000,
    b"1e999",
    b"9" * 5000,
    b"NaN",
    b"null",
    b"-1",
    b"\\u0000",
    b'\\ud800"',
    b"\n",
    b"\r",
    b"\xe2\x80\xa8",
    b"x" * 300,
]


def test_damaged_manifest_is_read_or_refused(tmp_path):
    file = tmp_path / "manifest.jsonl"
    refused = []

    def check(data):
        file.write_bytes(data)
        for door in (read_manifest, validate_manifest):
            try:
                door(file)
            except VocalnetError as error:
                two_lines(error)
                refused.append(door)

    for bit in JSON_BITS:  # each once as a value of its own: chance may not put it where it hurts
        check(MANIFEST.replace(b"[1, 2, 3]", bit))

    @fuzz(250)
    @given(damages(BYTES | st.sampled_from(JSON_BITS)))
    def damaged(changes):
        check(apply(MANIFEST, changes))

    damaged()
    assert read_manifest in refused


RECIPE = b"""\
# A recipe with a key of every kind.
about: fuzzed
stage: speak
paper: {arxiv: "2504.04060", table: "7", row: "MTP", expect: {wer_percent: 5.6}}
model:
  encoder: {hidden: 32, layers: 1, heads: 2, ffn: 64, mel_bins: 80, window_s: 2.0, padding: fit}
  adaptor:
    hidden: 32
  thinker: {hidden: 32, layers: 2, heads: 2, kv_heads: 1, ffn: 64, vocab: 300, tied: false}
  talker: {kind: mtp-vocalnet, hidden: 32, heads: 2, ffn: 64, codes: 16, modules: 2}
  vocoder: {codes: 16}
data: {manifest: data/manifest.jsonl, train_splits: [train, more]}
train:
  steps: 10
  lr: 5.0e-4
generation: {tokens_per_step: 2, streaming: true}
tried: ["nothing, 0 %"]
"""
YAML_BITS = [
    b"\t", b": ", b"- ", b"{", b"}", b"[" * 2000, b"'", b'"', b"&a [*a]", b"*b", b"<<: *a", b"? ",
    b"!!python/object:os.system {}", b"!!binary x", b"2001-01-01", b"99999-99-99", b"1e999", b".nan", b"-.inf", b"9" * 5000,
    b"~", b"null", b"\x00", b"\xef\xbb\xbf", b"\n---\n", b"extends: .\n", b"%TAG",
]  # fmt: skip


def test_damaged_recipe_is_read_or_refused(tmp_path):
    from vocalnet_cli.core.config.load import load_recipe

    file = tmp_path / "recipe.yaml"
    file.write_bytes(RECIPE)
    load_recipe(str(file), [])
    refused = []

    @fuzz(250)
    @given(damages(BYTES | st.sampled_from(YAML_BITS)))
    def check(changes):
        file.write_bytes(apply(RECIPE, changes))
        try:
            load_recipe(str(file), [])
        except VocalnetError as error:
            two_lines(error)
            refused.append(error)

    check()
    assert len(refused) > 50


def test_whole_command_survives_damage(vocalnet, tiny_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    good = tmp_path / "good.wav"
    good.write_bytes(SOUNDS["wav"])
    codes = []

    @fuzz(30)
    @given(st.sampled_from(sorted(SOUNDS)), damages(BYTES, head=0.1))
    def check(kind, changes):
        bad = tmp_path / f"bad.{kind}"
        bad.write_bytes(apply(SOUNDS[kind], changes))
        result = vocalnet("infer", good, bad, "--model", tiny_folder)
        codes.append(result.code)
        assert result.code in (0, 1) and "Traceback" not in result.err and "defect" not in result.err
        assert result.out.startswith(f"{good}: "), "the good file is answered whatever the other one is"

    check()
    assert {0, 1} == set(codes), codes


def test_whole_command_refuses_damaged_recipes_and_manifests(vocalnet, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe, manifest = tmp_path / "recipe.yaml", tmp_path / "manifest.jsonl"

    @fuzz(30)
    @given(damages(BYTES | st.sampled_from(YAML_BITS)), damages(BYTES | st.sampled_from(JSON_BITS)))
    def check(recipe_changes, manifest_changes):
        recipe.write_bytes(apply(RECIPE, recipe_changes))
        manifest.write_bytes(apply(MANIFEST, manifest_changes))
        for args in (("train", "--recipe", recipe, "--dry-run"), ("prep", "validate", manifest)):
            result = vocalnet(*args)
            assert result.code in (0, 1, 2) and "Traceback" not in result.err and "defect" not in result.err
            assert result.code == 0 or len((result.err + result.out).strip().splitlines()) >= 2

    check()
