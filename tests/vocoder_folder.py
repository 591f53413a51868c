"""A CosyVoice2 folder as released, tiny and random: sizes in YAML, flow.pt and hift.pt, and the two ONNX files that make voices."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torch.nn.functional as F
from torch import nn
from torch.onnx._internal.torchscript_exporter import onnx_proto_utils

from tests.cosyvoice2 import FIXTURES, tensors, write_config
from vocalnet_cli.core.model.vocoder.cosyvoice2.checkpoint import read_settings
from vocalnet_cli.core.model.vocoder.cosyvoice2.flow import Flow
from vocalnet_cli.core.model.voice.load import load_s3_tokenizer, load_speaker_encoder
from vocalnet_cli.core.model.voice.s3_tokenizer import S3Tokenizer, code_index

CODES = 6561
FAST = ("--set", "vocoder.steps=1", "--set", "vocoder.first_tokens=4")
"""Settings with which it speaks quickly."""
SPEAKER = 12
"""Length of the tiny CAM++'s vector."""


def export(module, inputs, names, path, dynamic):
    """torch's TorchScript exporter, as the released files were made. It asks for the `onnx` package only to add functions of onnxscript."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setattr(onnx_proto_utils, "_add_onnxscript_fn", lambda model_bytes, custom_opsets: model_bytes)
        torch.onnx.export(
            module,
            inputs,
            path,
            dynamo=False,
            opset_version=17,
            input_names=names,
            output_names=["out"],
            dynamic_axes=dynamic,
            verbose=False,
        )
    return path


class ReleasedLayout(nn.Module):
    """The tokenizer under the module names of the released file: the encoder's parts on top, `quantizer.project_in`."""

    def __init__(self, tokenizer: S3Tokenizer, anonymous: bool) -> None:
        super().__init__()
        self.conv1, self.conv2, self.blocks = tokenizer.encoder.conv1, tokenizer.encoder.conv2, tokenizer.encoder.blocks
        self.quantizer = nn.Module()
        self.quantizer.project_in = tokenizer.quantizer["_codebook"].project_down
        self.anonymous = anonymous

    def forward(self, mel: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
        for conv in (self.conv1, self.conv2):
            valid = torch.arange(mel.shape[2]) < length[:, None]
            if self.anonymous:  # what is computed from a parameter, the exporter stores as a constant with a number for a name
                mel = F.gelu(F.conv1d(mel * valid[:, None], conv.weight * 1.0, conv.bias * 1.0, stride=2, padding=1))
            else:
                mel = F.gelu(conv(mel * valid[:, None]))
            length = (length + 1) // 2
        x = mel.transpose(1, 2)
        valid = torch.arange(x.shape[1]) < length[:, None]
        for block in self.blocks:
            x = block(x, valid)
        return code_index(self.quantizer.project_in(x).tanh() * 0.999)


def export_tokenizer(tokenizer: S3Tokenizer, path: Path, anonymous: bool = False) -> Path:
    inputs = (torch.randn(1, 128, 300), torch.tensor([300], dtype=torch.int32))
    return export(ReleasedLayout(tokenizer, anonymous), inputs, ["feats", "feats_length"], path, {"feats": {2: "T"}})


def export_speaker_encoder(encoder: nn.Module, path: Path) -> Path:
    return export(encoder, (torch.randn(1, 150, 80),), ["input"], path, {"input": {1: "T"}})


def write_vocoder(folder: Path) -> Path:
    """The tiny model of the fixtures with the real codebook and, but for HiFT, random weights, in a new folder."""
    folder.mkdir(parents=True)
    write_config(folder)
    sizes = json.loads((folder / "cosyvoice2.yaml").read_text())
    sizes["flow"] |= {"vocab_size": CODES, "spk_embed_dim": SPEAKER}
    sizes["flow"]["encoder"]["static_chunk_size"] = 25
    (folder / "cosyvoice2.yaml").write_text(json.dumps(sizes))
    torch.manual_seed(0)
    torch.save(Flow(read_settings(folder).flow, CODES).state_dict(), folder / "flow.pt")
    torch.save(tensors("hift_tiny_weights"), folder / "hift.pt")
    export_tokenizer(load_s3_tokenizer(FIXTURES / "s3tokenizer_v2_tiny_weights.safetensors"), folder / "speech_tokenizer_v2.onnx")
    export_speaker_encoder(load_speaker_encoder(FIXTURES / "campplus_tiny_weights.safetensors"), folder / "campplus.onnx")
    return folder


def answer_sound(folder: str, name: str = "q") -> np.ndarray:
    """The samples of an answer that `vocalnet infer -o FOLDER` wrote, at 24 kHz."""
    samples, rate = soundfile.read(Path(folder) / f"{name}.wav")
    assert rate == 24000
    return samples


def copied(vocoder: Path, without: str = "") -> Path:
    """A vocoder's folder to change."""
    return Path(shutil.copytree(vocoder, "copy", ignore=shutil.ignore_patterns(without)))
