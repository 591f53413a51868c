"""Weights out of ONNX files: torch's own exporter writes them, onnxruntime says what they should compute."""

from __future__ import annotations

import random
import struct

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn
from torch.testing import assert_close

from tests.vocoder_folder import export, export_speaker_encoder, export_tokenizer
from vocalnet_cli.core.errors import VocalnetError
from vocalnet_cli.core.model.voice.load import OnnxSpeakerEncoder, OnnxTokenizer, load_s3_tokenizer, load_speaker_encoder
from vocalnet_cli.core.model.voice.onnx_file import read_onnx
from vocalnet_cli.core.model.voice.s3_tokenizer import S3Tokenizer, speech_tokens
from vocalnet_cli.core.model.voice.speaker_encoder import SpeakerEncoder


@pytest.fixture(scope="module")
def own_speaker(fixtures_dir):
    return load_speaker_encoder(fixtures_dir / "cosyvoice2" / "campplus_tiny_weights.safetensors")


@pytest.fixture(scope="module")
def speaker_file(own_speaker, tmp_path_factory):
    return export_speaker_encoder(own_speaker, tmp_path_factory.mktemp("onnx") / "campplus.onnx")


@pytest.fixture(scope="module")
def own_tokenizer(fixtures_dir):
    return load_s3_tokenizer(fixtures_dir / "cosyvoice2" / "s3tokenizer_v2_tiny_weights.safetensors")


@pytest.fixture(scope="module", params=["named", "anonymous"])
def tokenizer_file(own_tokenizer, tmp_path_factory, request):
    path = tmp_path_factory.mktemp("onnx") / "speech_tokenizer_v2.onnx"
    return export_tokenizer(own_tokenizer, path, request.param == "anonymous")


def test_speaker_encoder_from_onnx(own_speaker, speaker_file):
    """Batch norms that the exporter folded into convolutions are there again, as shifts."""
    names = {name for node in read_onnx(speaker_file).nodes if node.op == "Conv" for name in node.inputs}
    assert any(name.startswith("onnx::Conv_") for name in names), "nothing was folded: the test tests nothing"
    loaded = load_speaker_encoder(speaker_file)
    assert isinstance(loaded, SpeakerEncoder)
    features = torch.randn(2, 230, 80)
    by_onnxruntime = OnnxSpeakerEncoder(speaker_file)(features)
    assert by_onnxruntime.std() > 1e-3
    assert_close(loaded(features), by_onnxruntime, atol=1e-5, rtol=1e-5)
    assert_close(loaded(features), own_speaker(features), atol=1e-5, rtol=1e-5)


def test_tokenizer_from_onnx(own_tokenizer, tokenizer_file, fixtures_dir):
    loaded = load_s3_tokenizer(tokenizer_file)
    assert isinstance(loaded, S3Tokenizer)
    for name, tensor in own_tokenizer.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    saved = load_file(fixtures_dir / "cosyvoice2" / "s3tokenizer_v2.safetensors")
    mels = [saved["mel"][0], saved["mel"][1, :, :88], torch.randn(128, 3100)]
    by_onnxruntime = speech_tokens(OnnxTokenizer(tokenizer_file), mels)
    by_torch = speech_tokens(loaded, mels)
    assert by_torch[0].tolist() == by_onnxruntime[0].tolist() == saved["code"][0].tolist()
    assert by_torch[1].tolist() == by_onnxruntime[1].tolist() == saved["code"][1, :22].tolist()
    assert len(by_torch[2]) == len(by_onnxruntime[2]) == 775
    assert (by_torch[2] != by_onnxruntime[2]).float().mean() < 0.01


class OtherTokenizer(nn.Module):
    """A tokenizer of another architecture with the inputs and the token rate of the known one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(128, 11, 4, stride=4)

    def forward(self, mel: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
        valid = torch.arange(mel.shape[2]) < length[:, None]
        return self.conv(F.pad(mel * valid[:, None], (0, 3))).argmax(1).int()


class OtherSpeaker(nn.Module):
    """A speaker encoder of another architecture."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(80, 5)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.layer(features).tanh().mean(1)


def test_a_tokenizer_of_another_layout_runs_in_onnxruntime(tmp_path):
    other = OtherTokenizer().eval()
    inputs = (torch.randn(1, 128, 64), torch.tensor([64], dtype=torch.int32))
    path = export(other, inputs, ["feats", "feats_length"], tmp_path / "speech_tokenizer_v2.onnx", {"feats": {2: "T"}})
    loaded = load_s3_tokenizer(path)
    assert isinstance(loaded, OnnxTokenizer)
    mels = [torch.randn(128, frames) for frames in (1, 40, 41, 42, 43, 300)]
    for mel, tokens in zip(mels, speech_tokens(loaded, mels, batch=4), strict=True):
        with torch.no_grad():
            wanted = other(mel[None], torch.tensor([mel.shape[1]]))[0]
        assert tokens.tolist() == wanted.tolist()


def test_a_speaker_encoder_of_another_layout_runs_in_onnxruntime(tmp_path):
    other = OtherSpeaker().eval()
    path = export(other, (torch.randn(1, 50, 80),), ["input"], tmp_path / "campplus.onnx", {"input": {1: "T"}})
    loaded = load_speaker_encoder(path)
    assert isinstance(loaded, OnnxSpeakerEncoder)
    features = torch.randn(3, 70, 80)
    with torch.no_grad():
        assert_close(loaded(features), other(features), atol=1e-5, rtol=1e-5)


def test_a_model_with_other_inputs_is_refused(tmp_path):
    path = export(OtherSpeaker().eval(), (torch.randn(1, 50, 80),), ["input"], tmp_path / "speech_tokenizer_v2.onnx", {})
    with pytest.raises(VocalnetError, match="takes 1 inputs, not 2"):
        load_s3_tokenizer(path)


def field(number: int, value: bytes | int) -> bytes:
    """One protobuf field: a number below 128, or bytes."""
    if isinstance(value, int):
        return bytes([number << 3, value])
    size = len(value)
    return bytes([number << 3 | 2]) + (bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])) + value


NUMBERS = [0.5, -2.0, 1.5]
TENSORS = {
    "raw float": field(2, 1) + field(9, struct.pack("<3f", *NUMBERS)),
    "listed float": field(2, 1) + field(4, struct.pack("<3f", *NUMBERS)),
    "raw double": field(2, 11) + field(9, struct.pack("<3d", *NUMBERS)),
    "raw half": field(2, 10) + field(9, struct.pack("<3e", *NUMBERS)),
    "raw bfloat16": field(2, 16) + field(9, b"".join(struct.pack("<f", x)[2:] for x in NUMBERS)),
}


@pytest.mark.parametrize("kind", TENSORS)
@pytest.mark.parametrize("packed", [True, False])
def test_kinds_of_tensors(tmp_path, kind, packed):
    shape = field(1, bytes([3, 1])) if packed else field(1, 3) + field(1, 1)
    path = tmp_path / "a.onnx"
    path.write_bytes(field(1, 9) + field(7, field(5, shape + TENSORS[kind] + field(8, b"weight"))))
    tensors = read_onnx(path).tensors
    assert tensors["weight"].dtype == np.float32 and tensors["weight"].tolist() == [[x] for x in NUMBERS]


def test_tensors_that_lie_elsewhere_and_integers_are_left_out(tmp_path):
    path = tmp_path / "a.onnx"
    elsewhere = field(2, 1) + field(8, b"far") + field(14, 1)
    integers = field(2, 7) + field(8, b"count") + field(9, bytes(8))
    path.write_bytes(field(7, field(5, elsewhere) + field(5, integers)))
    assert read_onnx(path).tensors == {}


@pytest.mark.parametrize(
    "content", [b"", b"not an onnx file", b"\x08\x07", b"\xff" * 40, field(7, field(5, field(1, 3) + TENSORS["raw half"] + b"\x0a"))]
)
def test_other_files_are_refused_in_two_lines(tmp_path, content):
    path = tmp_path / "speech_tokenizer_v2.onnx"
    path.write_bytes(content)
    with pytest.raises(VocalnetError) as caught:
        load_s3_tokenizer(path)
    assert str(caught.value).startswith(str(path)) and str(caught.value).count("\n") == 1


def test_whatever_the_bytes_the_reader_ends(tmp_path, speaker_file):
    whole = bytearray(speaker_file.read_bytes())
    rng = random.Random(0)
    path = tmp_path / "a.onnx"
    refused = 0
    for _ in range(40):
        damaged = bytearray(whole[: rng.randrange(1, len(whole))]) if rng.random() < 0.5 else bytearray(whole)
        for _ in range(rng.randrange(30)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        path.write_bytes(damaged)
        try:
            read_onnx(path)
        except VocalnetError:
            refused += 1
    assert refused > 10
