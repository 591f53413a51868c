"""`vocalnet prep synth` of a manifest, and the whole way from UltraChat's dialogues to checked tokens."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import soundfile

from vocalnet_cli.core.data.manifest import read_manifest
from vocalnet_cli.core.data.record import Record, Utterance, write_manifest
from vocalnet_cli.core.data.synth import voices

CORPORA = Path(__file__).parents[1] / "assets" / "corpora"


def rows(folder: Path, *texts: str) -> Path:
    made = [
        Record(id=str(number), source="t", split="train", question=Utterance(text=text), answer=Utterance(text=text))
        for number, text in enumerate(texts)
    ]
    folder.mkdir()
    write_manifest(folder / "manifest.jsonl", made)
    return folder


def test_from_dialogues_to_checked_tokens(vocalnet: Callable, tmp_path: Path) -> None:
    source = CORPORA / "ultrachat_rebuilt_from_slam.jsonl"
    assert vocalnet("prep", "ultrachat", source, "--keep", "first", "--speakable", "-o", tmp_path / "text").code == 0
    voices = ("--voice", "flite:slt", "--voice", "flite:rms")
    result = vocalnet("prep", "synth", tmp_path / "text", "-o", tmp_path / "spoken", *voices, "--workers", 1, "--json")
    assert result.code == 0, result.err
    args = ("--tokenizer", "nano", "--device", "cpu", "--workers", 1)
    assert vocalnet("prep", "tokens", tmp_path / "spoken", "-o", tmp_path / "train", *args).code == 0
    checked = vocalnet("prep", "validate", tmp_path / "train", "--json")
    assert checked.code == 0 and json.loads(checked.out)["rows"] == 7, checked.out
    spoken = read_manifest(tmp_path / "train" / "manifest.jsonl")
    assert {row.question.voice for row in spoken} == {"flite:slt", "flite:rms"}
    for row in spoken:
        heard, said = (soundfile.info(tmp_path / "train" / str(one.audio)) for one in (row.question, row.answer))
        assert (heard.samplerate, said.samplerate) == (16_000, 24_000)
        assert row.meta["synth"]["answer"]["version"] and row.meta["synth"]["seed"] == 0
    assert json.loads(result.out)["audio_hours"] > 0.03


def test_pico_speaks_slower_and_smaller_and_is_refused_where_it_is_not(vocalnet: Callable, tmp_path: Path, monkeypatch) -> None:
    source = rows(tmp_path / "in", "Tell me nine minus seven.")
    seconds = {}
    for name, more in (("plain", ()), ("slow", ("--rate", 1.5))):
        out = tmp_path / name
        args = ("--voice", "pico:en-US", "--say", "question", "--workers", 1, *more)
        assert vocalnet("prep", "synth", source, "-o", out, *args).code == 0
        (row,) = read_manifest(out / "manifest.jsonl")
        assert row.question.voice == "pico:en-US" and row.meta["synth"]["question"]["version"]
        sound, rate = soundfile.read(out / str(row.question.audio))
        assert rate == 16_000 and abs(sound).max() > 0.1
        seconds[name] = len(sound) / rate
    assert 1.3 < seconds["slow"] / seconds["plain"] < 1.7
    unknown = vocalnet("prep", "synth", source, "-o", tmp_path / "unknown", "--voice", "pico:xx-XX", "--say", "question", "--workers", 1)
    assert "voice failed" in unknown.out and "Unsupported voice" in (tmp_path / "unknown" / "rejects.jsonl").read_text()
    unread = vocalnet(
        "prep", "synth", rows(tmp_path / "zh", "\u4f60\u597d"), "-o", tmp_path / "unread", "--voice", "pico:en-US", "--workers", 1
    )
    assert "voice failed" in unread.out and "silent" in (tmp_path / "unread" / "rejects.jsonl").read_text()
    high = vocalnet("prep", "synth", source, "-o", tmp_path / "high", "--voice", "pico:en-US", "--pitch", 2.5)
    assert high.code == 2 and high.err.startswith("--pitch 2.5: pico goes from 0.5 to 2") and len(high.err.splitlines()) == 2
    monkeypatch.setattr(voices, "find_spec", lambda name: None)
    absent = vocalnet("prep", "synth", source, "-o", tmp_path / "absent", "--voice", "pico:en-US")
    assert absent.code == 2 and absent.err.startswith("the package `py_nanotts` is not installed") and len(absent.err.splitlines()) == 2


RHVOICE = """#!/bin/sh
echo "$@" >> "$0.log"
exec flite -voice slt -f "$8" -o "${10}"
"""
"""Says all in slt's voice, as RHVoice does in its first where it lacks the one that is wanted."""


def test_rhvoice_is_asked_for_manner_and_refused_where_it_lacks_the_voice(vocalnet: Callable, tmp_path: Path, monkeypatch) -> None:
    program = tmp_path / "bin" / "RHVoice-test"
    (tmp_path / "voices" / "bdl").mkdir(parents=True)
    program.parent.mkdir()
    program.write_text(RHVOICE)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setitem(voices._VOICE_FOLDERS, "rhvoice", (str(tmp_path / "voices"),))
    source = rows(tmp_path / "in", "Tell me nine minus seven.")
    args = ("--say", "question", "--workers", 1, "--voice")
    more = ("--rate", 1.25, "--pitch", 0.9)
    assert vocalnet("prep", "synth", source, "-o", tmp_path / "out", *more, *args, "rhvoice:bdl").code == 0
    (row,) = read_manifest(tmp_path / "out" / "manifest.jsonl")
    assert row.question.voice == "rhvoice:bdl" and soundfile.info(tmp_path / "out" / str(row.question.audio)).duration > 0.5
    assert program.with_name("RHVoice-test.log").read_text().startswith("-p bdl -r 80 -t 90 -i ")
    for wrong, told in (
        (("rhvoice:clb",), "--voice rhvoice:clb: no such voice"),
        (("rhvoice:*",), "--voice rhvoice:*: no such voice"),
        (("rhvoice",), "--voice rhvoice: no such voice"),
        (("rhvoice:bdl", "--rate", 2.5), "--rate 2.5: rhvoice goes from 0.5 to 2"),
        (("rhvoice:bdl", "--pitch", 0.4), "--pitch 0.4: rhvoice goes from 0.5 to 2"),
    ):
        refused = vocalnet("prep", "synth", source, "-o", tmp_path / "refused", *args, *wrong)
        assert refused.code == 2 and refused.err.startswith(told) and len(refused.err.splitlines()) == 2, refused.err


def test_a_program_of_ones_own_gets_the_text_unread_by_any_shell(vocalnet: Callable, tmp_path: Path) -> None:
    source = rows(tmp_path / "in", "Hello; touch $(echo pwned)", "...")
    command = "flite -voice {voice} -t {text} -o {wav}"
    args = ("--command", command, "--voice", "slt", "--say", "answer", "--workers", 1)
    assert vocalnet("prep", "synth", source, "-o", tmp_path / "out", *args).code == 0
    (row,) = read_manifest(tmp_path / "out" / "manifest.jsonl")
    assert row.answer.voice == "command:slt" and row.question.audio is None
    assert soundfile.info(tmp_path / "out" / str(row.answer.audio)).duration > 0.5
    assert '"nothing to say"' in (tmp_path / "out" / "rejects.jsonl").read_text()


def test_wrong_use_is_two_lines(vocalnet: Callable, tmp_path: Path) -> None:
    source = rows(tmp_path / "in", "Hello.")
    for args, told in (
        (("--voice", "siri:x"), "no such engine"),
        (("--say", "all"), "no such choice"),
        (("--command", "flite -o x.wav"), "names no {wav}"),
        (("--command", "no-such-program {text} {wav}"), "no program"),
        (("--held-out", "george"), "--held-out george"),
    ):
        result = vocalnet("prep", "synth", source, "-o", tmp_path / "out", *args)
        assert result.code == 2 and told in result.err and len(result.err.splitlines()) == 2
    result = vocalnet("prep", "synth", "-o", tmp_path / "out", "--held-out", "george")
    assert result.code == 2 and "--digits" in result.err and len(result.err.splitlines()) == 2
