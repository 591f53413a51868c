"""Whatever the bytes, reading gives sound or a two-line AudioError."""

from __future__ import annotations

import io
import os
import random
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from vocalnet_cli.core.audio.wav import audio_seconds, read_audio, read_question, resample, write_wav
from vocalnet_cli.core.errors import AudioError


def tone(seconds: float, rate: int, hz: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def wav_bytes(samples: np.ndarray, rate: int = 16000, subtype: str = "PCM_16", container: str = "WAV") -> bytes:
    whole = io.BytesIO()
    soundfile.write(whole, samples, rate, format=container, subtype=subtype)
    return whole.getvalue()


def refusal(call, *args) -> str:
    with pytest.raises(AudioError) as caught:
        call(*args)
    message = str(caught.value)
    assert message.startswith(str(args[0])) and message.count("\n") == 1
    return message


@pytest.mark.parametrize(("name", "rate"), [("a.wav", 44100), ("a.flac", 22050), ("a.ogg", 48000), ("a.mp3", 24000), ("a.wav", 8000)])
def test_formats_and_rates_arrive_at_16k(tmp_path, name, rate):
    soundfile.write(tmp_path / name, tone(1.0, rate), rate)
    heard = read_audio(tmp_path / name)
    assert heard.dtype == np.float32 and abs(len(heard) - 16000) < 1500
    spectrum = np.abs(np.fft.rfft(heard[2000:14000]))
    assert np.argmax(spectrum) * 16000 / 12000 == pytest.approx(440, abs=2)
    assert audio_seconds(tmp_path / name) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"])
@pytest.mark.parametrize("container", ["WAV", "WAVEX", "RF64"])
def test_wav_kinds(tmp_path, subtype, container):
    path = tmp_path / "a.wav"
    path.write_bytes(wav_bytes(tone(0.2, 16000)[:3201], subtype=subtype, container=container))
    np.testing.assert_allclose(read_audio(path), tone(0.2, 16000)[:3201], atol=0.03)


def test_channels_are_averaged(tmp_path):
    left = tone(0.1, 16000)
    soundfile.write(tmp_path / "a.wav", np.stack([left, np.zeros_like(left)], 1), 16000, subtype="FLOAT")
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav"), left / 2, atol=1e-6)


def test_written_sound_comes_back(tmp_path):
    sound = np.concatenate([tone(0.1, 24000), [1.7, -1.7]]).astype(np.float32)
    write_wav(tmp_path / "a.wav", sound)
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav", 24000), np.clip(sound, -1, 1), atol=1e-4)
    assert os.listdir(tmp_path) == ["a.wav"]


def test_writing_into_no_folder_leaves_nothing(tmp_path):
    assert "cannot be written" in refusal(write_wav, tmp_path / "none" / "a.wav", tone(0.1, 24000))


def test_resample_keeps_length_and_level():
    down = resample(tone(1.0, 24000), 24000, 16000)
    assert len(down) == 16000
    np.testing.assert_allclose(down[1000:-1000], tone(1.0, 16000)[1000:-1000], atol=1e-3)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty (0 bytes)"),
        (b"this is text, not sound\n" * 10, "not a sound file"),
        (wav_bytes(np.zeros(0, np.float32)), "no samples"),
        (wav_bytes(np.array([0.1, np.nan, 0.2], np.float32), subtype="FLOAT"), "not numbers"),
        (wav_bytes(tone(0.1, 16000) * 32768, subtype="FLOAT"), "full scale is 1"),
        (wav_bytes(tone(1.0, 16000))[:9000], "cut off: its header promises 32000 bytes of sound, 8956 are there"),
        (wav_bytes(tone(1.0, 16000), container="FLAC")[:9000], "cut off"),
        (wav_bytes(tone(0.1, 16000), rate=900), "sample rate 900 Hz"),
    ],
    ids=["empty", "text", "no samples", "not numbers", "loud", "cut wav", "cut flac", "slow"],  # the bytes hold the time they were made
)
def test_unusable_files_say_why(tmp_path, content, says):
    path = tmp_path / "q.wav"
    path.write_bytes(content)
    assert says in refusal(read_audio, path)


def headerless(mp3: bytes) -> bytes:
    """An MP3 without its first frame, which tells the length."""
    rest = mp3.index(mp3[:2], 100)
    assert b"Info" in mp3[:rest] or b"Xing" in mp3[:rest]
    return mp3[rest:]


@pytest.mark.parametrize("kind", ["vorbis", "opus", "mp3", "mp3 headerless"])
def test_ogg_and_mp3_that_end_too_early_are_noticed(tmp_path, kind):
    sound = np.random.default_rng(0).normal(scale=0.1, size=48_000)
    how = {"vorbis": {"format": "OGG"}, "opus": {"format": "OGG", "subtype": "OPUS"}}.get(
        kind, {"format": "MP3", "bitrate_mode": "CONSTANT"}
    )
    soundfile.write(tmp_path / "a", sound, 24_000, **how)
    whole = (tmp_path / "a").read_bytes()
    whole = headerless(whole) if kind == "mp3 headerless" else whole
    (tmp_path / "a").write_bytes(whole)
    if kind == "mp3 headerless":  # its bit rate varies: less would be read than is there
        assert "no header tells its length: 2.0" in refusal(read_audio, tmp_path / "a")
    else:
        assert len(read_audio(tmp_path / "a", 24_000)) >= 48_000
    for part in (0.3, 0.5, 0.7, 0.9):
        (tmp_path / "a").write_bytes(whole[: int(part * len(whole))])
        assert "cut off" in (told := refusal(audio_seconds, tmp_path / "a")) or "decoded" in told


def test_an_mp3_with_tags_around_it_is_whole(tmp_path):
    soundfile.write(tmp_path / "a.mp3", tone(1.0, 24000), 24_000)
    plain = (tmp_path / "a.mp3").read_bytes()
    for before, after in ((b"ID3\x04\0\0\0\0\0\x05title", b""), (b"", b"TAG" + b" " * 125), (b"", b"APETAGEX" + b"\0" * 24)):
        (tmp_path / "b.mp3").write_bytes(before + plain + after)
        assert len(read_audio(tmp_path / "b.mp3", 24_000)) == len(read_audio(tmp_path / "a.mp3", 24_000))


def test_sound_is_decoded_no_further_than_allowed(tmp_path):
    soundfile.write(tmp_path / "long.flac", np.zeros(900 * 8000, np.float32), 8000)
    assert (tmp_path / "long.flac").stat().st_size < 100_000
    assert "900.0 s long, the limit is 600 s" in refusal(lambda path: read_audio(path, 16_000, 600.0), tmp_path / "long.flac")


def test_missing_file_and_folder(tmp_path):
    assert "no such file" in refusal(read_audio, tmp_path / "none.wav")
    assert "not a file" in refusal(read_audio, tmp_path)
    (tmp_path / "a.raw").write_bytes(b"\0" * 100)
    assert "not a sound file" in refusal(read_audio, tmp_path / "a.raw")


@pytest.mark.parametrize(("riff", "size"), [(0, 0), (8, 0), (36, 0), (0xFFFFFFFF, 0xFFFFFFFF), (0x7FFFF024, 0x7FFFF000)])
def test_piped_wavs_are_not_cut_off(tmp_path, riff, size):
    whole = bytearray(wav_bytes(tone(0.5, 16000)))
    assert whole[36:40] == b"data"
    whole[4:8], whole[40:44] = struct.pack("<I", riff), struct.pack("<I", size)
    (tmp_path / "a.wav").write_bytes(whole)
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav"), tone(0.5, 16000), atol=1e-4)


def test_an_empty_wav_with_notes_behind_is_empty(tmp_path):
    notes = b"LIST" + struct.pack("<I", 6) + b"abcdef"
    whole = wav_bytes(np.zeros(0, np.float32)) + notes
    (tmp_path / "a.wav").write_bytes(whole[:4] + struct.pack("<I", len(whole) - 8) + whole[8:])
    assert "no samples" in refusal(read_audio, tmp_path / "a.wav")


def test_chunks_of_odd_length_before_the_sound(tmp_path):
    whole = wav_bytes(tone(0.5, 16000))
    (tmp_path / "a.wav").write_bytes(whole[:36] + b"LIST" + struct.pack("<I", 5) + b"abcde\0" + whole[36:])
    assert len(read_audio(tmp_path / "a.wav")) == 8000


def test_questions_refuse_silence_and_length(tmp_path):
    path = tmp_path / "q.wav"
    write_wav(path, np.full(16000, 5e-5, np.float32), 16000)
    assert "silence" in refusal(read_question, path, 30)
    write_wav(path, tone(2.0, 16000), 16000)
    assert "2.0 s long, the limit is 1.5 s" in refusal(read_question, path, 1.5)
    assert len(read_question(path, 2.0)) == 32000


def test_a_long_question_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    path = tmp_path / "long.flac"
    soundfile.write(path, np.zeros(50 * 60 * 1000, np.int16), 1000)
    monkeypatch.setattr(soundfile.SoundFile, "read", None)
    assert "3000.0 s long, the limit is 30 s" in refusal(read_question, path, 30)


def test_mutated_wavs_never_surprise(tmp_path: Path):
    draw = random.Random(0)
    sources = [wav_bytes(tone(0.05, 16000), subtype=s, container=c) for s in ("PCM_16", "FLOAT") for c in ("WAV", "WAVEX")]
    path, read, refused = tmp_path / "m.wav", 0, 0
    for _ in range(1000):
        whole = bytearray(draw.choice(sources))
        for _ in range(draw.randint(1, 8)):
            whole[draw.randrange(min(len(whole), draw.choice([80, 4000])))] = draw.choice([0, 1, 127, 128, 255, draw.randrange(256)])
        if draw.random() < 0.2:
            del whole[draw.randrange(1, len(whole)) :]
        path.write_bytes(whole)
        try:
            sound = read_audio(path)
        except AudioError as error:
            refused += 1
            assert str(error).startswith(str(path)) and str(error).count("\n") == 1
        else:
            read += 1
            assert sound.ndim == 1 and len(sound) and np.isfinite(sound).all() and np.abs(sound).max() <= 1
    assert read > 50 and refused > 50
