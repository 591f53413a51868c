"""A voice from a recording: aligned, kept, and refused in two lines when the recording cannot be one."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from vocalnet_cli.core.audio.fbank import kaldi_fbank
from vocalnet_cli.core.audio.mel import encoder_mel
from vocalnet_cli.core.audio.wav import read_audio
from vocalnet_cli.core.errors import AudioError, MissingWeights, VocalnetError
from vocalnet_cli.core.model.voice import Voice, make_voice
from vocalnet_cli.core.model.voice import voice as voice_module
from vocalnet_cli.core.model.voice.load import load_s3_tokenizer, load_speaker_encoder
from vocalnet_cli.core.model.voice.s3_tokenizer import speech_tokens
from vocalnet_cli.core.model.voice.voice import load_voice, read_voice


@pytest.fixture(scope="module")
def folder(fixtures_dir, tmp_path_factory):
    """Tiny models under the names of CosyVoice2-0.5B's."""
    new = tmp_path_factory.mktemp("cosyvoice2")
    for name, ours in (("s3tokenizer_v2", "speech_tokenizer_v2"), ("campplus", "campplus")):
        shutil.copy(fixtures_dir / "cosyvoice2" / f"{name}_tiny_weights.safetensors", new / f"{ours}.safetensors")
    return new


@pytest.fixture(scope="module")
def spoken(fixtures_dir) -> np.ndarray:
    """1.8 s of speech at 24 kHz."""
    return load_file(fixtures_dir / "cosyvoice2" / "features.safetensors")["prompt.wav24k"].numpy()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VOCALNET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "voices"


@pytest.fixture
def recording(tmp_path, spoken):
    path = tmp_path / "me.wav"
    soundfile.write(path, spoken, 24000, subtype="FLOAT")
    return path


def test_a_voice_is_its_three_parts(recording, folder):
    voice = make_voice(recording, folder)
    sound = read_voice(recording)
    tokenizer, encoder = (
        load_s3_tokenizer(folder / "speech_tokenizer_v2.safetensors"),
        load_speaker_encoder(folder / "campplus.safetensors"),
    )
    (tokens,) = speech_tokens(tokenizer, [encoder_mel(sound, 128)])
    assert voice.tokens.dtype == torch.int64 and voice.tokens.tolist() == tokens[:47].tolist()
    assert voice.mel.shape == (94, 80) and voice.mel.is_contiguous()
    features = kaldi_fbank(sound)
    assert_close(voice.speaker, encoder((features - features.mean(0))[None])[0])
    assert voice.speaker.shape == (12,)


@pytest.mark.parametrize("samples", [20000, 20160, 20479, 20640, 20799, 21120, 43200])
def test_two_frames_a_token_whatever_the_length(tmp_path, folder, spoken, samples):
    soundfile.write(tmp_path / "a.wav", spoken[4950 : 4950 + samples], 24000)
    voice = make_voice(tmp_path / "a.wav", folder)
    assert voice.mel.shape == (2 * len(voice.tokens), 80)
    heard = len(read_voice(tmp_path / "a.wav"))
    assert len(voice.tokens) == heard // 640, "whole tokens only: 640 samples of the prepared recording each"


def test_a_voice_is_made_once(recording, folder, cache, monkeypatch):
    first = make_voice(recording, folder)
    (kept,) = cache.iterdir()
    copy = recording.with_name("copy.flac")
    soundfile.write(copy, *soundfile.read(recording), subtype="PCM_24")

    def never(*args):
        raise AssertionError("made again")

    monkeypatch.setattr(voice_module, "load_s3_tokenizer", never)
    again = make_voice(recording, folder)
    for name in ("tokens", "mel", "speaker"):
        assert torch.equal(getattr(first, name), getattr(again, name))
    assert list(cache.iterdir()) == [kept]
    with pytest.raises(AssertionError, match="made again"):
        make_voice(copy, folder)  # 24 bits are not the same samples


def test_other_models_make_another_voice(recording, folder, cache, tmp_path):
    make_voice(recording, folder)
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    whole = (other / "campplus.safetensors").read_bytes()
    (other / "campplus.safetensors").write_bytes(whole[:-4] + bytes(4))
    make_voice(recording, other)
    assert len(list(cache.iterdir())) == 2


def test_the_models_are_read_once_to_know_them(recording, folder, tmp_path, monkeypatch):
    other = shutil.copytree(folder, tmp_path / "other")
    read = []
    monkeypatch.setattr(voice_module, "sha256_of", lambda paths, sha256_of=voice_module.sha256_of: read.append(paths) or sha256_of(paths))
    for _ in range(3):
        make_voice(recording, other)
    assert len(read) == 1
    os.utime(other / "campplus.safetensors", ns=(1, 1))
    make_voice(recording, other)
    assert len(read) == 2
    for kept in (tmp_path / "cache" / "hashes").iterdir():
        kept.write_text("half")
    make_voice(recording, other)
    assert len(read) == 3


def test_a_damaged_kept_voice_is_made_again(recording, folder, cache):
    first = make_voice(recording, folder)
    (kept,) = cache.iterdir()
    kept.write_bytes(kept.read_bytes()[:200])
    assert load_voice(kept) is None
    assert torch.equal(make_voice(recording, folder).mel, first.mel)
    assert load_voice(kept) is not None and list(cache.iterdir()) == [kept]


def sound(seconds: float, rate: int = 16000, level: float = 0.3) -> np.ndarray:
    return (level * np.sin(np.arange(int(seconds * rate)) * 0.1)).astype(np.float32)


UNUSABLE = {
    "silence": (np.zeros(32000, np.float32), 16000, "silence", "microphone"),
    "almost silence": (sound(2, level=5e-5), 16000, "silence", "microphone"),
    "short": (sound(0.4), 16000, "0.40 s of speech, a voice needs at least 0.5 s", "3 to 10 s"),
    "a short word in silence": (np.pad(sound(0.3), 30000), 16000, "s of speech, a voice needs at least 0.5 s", "3 to 10 s"),
    "long": (sound(30.5), 16000, "30.5 s long, the limit is 30 s", "ffmpeg"),
    "telephone": (sound(2, 8000), 8000, "recorded at 8000 Hz, at least 16000 Hz", "higher rate"),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_unusable_recordings(tmp_path, folder, cache, case):
    samples, rate, problem, hint = UNUSABLE[case]
    path = tmp_path / "a.wav"
    soundfile.write(path, samples, rate, subtype="FLOAT")
    with pytest.raises(AudioError) as caught:
        make_voice(path, folder)
    assert caught.value.problem.startswith(str(path)) and problem in caught.value.problem
    assert hint in caught.value.hint and str(caught.value).count("\n") == 1
    assert not cache.exists()


def test_half_a_minute_and_half_a_second_are_usable(tmp_path):
    for seconds in (0.5, 30.0):
        soundfile.write(tmp_path / "a.wav", sound(seconds), 16000)
        assert len(read_voice(tmp_path / "a.wav")) == pytest.approx(16000 * seconds + 4800, abs=440)
        assert len(read_audio(tmp_path / "a.wav")) == 16000 * seconds


def test_missing_models(recording, tmp_path, folder):
    with pytest.raises(MissingWeights, match="holds no speech_tokenizer_v2.onnx\nName the folder"):
        make_voice(recording, tmp_path)
    shutil.copy(folder / "speech_tokenizer_v2.safetensors", tmp_path)
    with pytest.raises(MissingWeights, match="holds no campplus.onnx"):
        make_voice(recording, tmp_path)


def test_weights_of_something_else(recording, tmp_path, folder):
    for name in ("speech_tokenizer_v2", "campplus"):
        shutil.copy(folder / "campplus.safetensors", tmp_path / f"{name}.safetensors")
    with pytest.raises(VocalnetError, match="not the weights expected"):
        make_voice(recording, tmp_path)


def test_tokens_and_mel_that_do_not_go_together_are_no_voice():
    with pytest.raises(ValueError, match="3 tokens do not go with a mel"):
        Voice(torch.zeros(3, dtype=torch.long), torch.zeros(5, 80), torch.zeros(192))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_same_voice_on_a_gpu(recording, folder, monkeypatch, tmp_path):
    on_cpu = make_voice(recording, folder)
    monkeypatch.setenv("VOCALNET_CACHE", str(tmp_path / "second"))
    on_gpu = make_voice(recording, folder, "cuda")
    assert on_gpu.tokens.tolist() == on_cpu.tokens.tolist()
    assert_close(on_gpu.speaker, on_cpu.speaker, atol=1e-3, rtol=0)
