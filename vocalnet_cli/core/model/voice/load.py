"""The two models a voice needs, from their files: our torch modules where we know the file's layout, onnxruntime where we do not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from vocalnet_cli.core.errors import MissingWeights, VocalnetError
from vocalnet_cli.core.model.hub import COSYVOICE2
from vocalnet_cli.core.model.voice.onnx_file import OnnxGraph, read_onnx
from vocalnet_cli.core.model.voice.onnx_names import campplus_weights, differences, s3_tokenizer_weights
from vocalnet_cli.core.model.voice.s3_tokenizer import S3Tokenizer, token_count
from vocalnet_cli.core.model.voice.speaker_encoder import SpeakerEncoder

S3_TOKENIZER = "speech_tokenizer_v2"
SPEAKER_ENCODER = "campplus"
_SUFFIXES = (".safetensors", ".onnx")

_COUNTER = "num_batches_tracked"
"""Of batch norms: only training reads it, and not every file has it."""

Module = TypeVar("Module", S3Tokenizer, SpeakerEncoder)


class OnnxTokenizer:
    """`speech_tokenizer_v2.onnx` run as it is; takes and gives what `S3Tokenizer` does, one row after the other, on the CPU."""

    device = torch.device("cpu")

    def __init__(self, path: Path) -> None:
        self._session = onnx_session(path, inputs=2)

    def __call__(self, mel_BMF: Tensor, frames_B: Tensor) -> tuple[Tensor, Tensor]:
        """Log-mel [B, 128, F] of `frames_B` real frames (at most 3000) to int64 tokens [B, T] and how many of each row are real [B]."""
        mel, length = self._session.get_inputs()
        kind = np.int64 if length.type == "tensor(int64)" else np.int32
        rows = []
        for row, frames in zip(mel_BMF, frames_B.tolist(), strict=True):
            feed = {mel.name: row[None, :, :frames].float().numpy(), length.name: np.array([frames], kind)}
            tokens = torch.from_numpy(np.asarray(self._session.run(None, feed)[0])).flatten().long()
            rows.append(tokens[: int(token_count(frames))])
        return nn.utils.rnn.pad_sequence(rows, batch_first=True), torch.tensor([len(row) for row in rows])


class OnnxSpeakerEncoder:
    """`campplus.onnx` run as it is; takes and gives what `SpeakerEncoder` does, one row after the other, on the CPU."""

    device = torch.device("cpu")

    def __init__(self, path: Path) -> None:
        self._session = onnx_session(path, inputs=1)

    def __call__(self, features_BTM: Tensor) -> Tensor:
        """Filter banks [B, T, 80], their mean over time taken off, to speaker vectors [B, 192]."""
        (name,) = [one.name for one in self._session.get_inputs()]
        found = [self._session.run(None, {name: row[None].float().numpy()})[0] for row in features_BTM]
        return torch.from_numpy(np.concatenate([np.asarray(one, np.float32).reshape(1, -1) for one in found]))


def onnx_session(path: Path, inputs: int) -> Any:
    """An ONNX file ready to run on the CPU with as many threads as torch has. Raises VocalnetError if it cannot, or takes other inputs."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own errors share no base class
        first = str(error).splitlines()[0]
        raise VocalnetError(f"{path}: onnxruntime cannot run it ({first})", "Download or copy the file again.") from error
    if len(session.get_inputs()) != inputs:
        raise VocalnetError(f"{path}: takes {len(session.get_inputs())} inputs, not {inputs}", "Give the file as it was released.")
    return session


def model_file(folder: Path, name: str) -> Path:
    """`name`.safetensors or, as released, `name`.onnx in `folder`. Raises MissingWeights."""
    for suffix in _SUFFIXES:
        if (folder / f"{name}{suffix}").is_file():
            return folder / f"{name}{suffix}"
    raise MissingWeights(
        f"{folder}: holds no {name}.onnx",
        f"Name the folder of CosyVoice2-0.5B with --vocoder; get it with `vocalnet models pull {COSYVOICE2}`.",
    )


def load_s3_tokenizer(path: Path, device: torch.device | str = "cpu") -> S3Tokenizer | OnnxTokenizer:
    """The speech tokenizer of a `.safetensors` (names of the `s3tokenizer` package) or `.onnx` file. Raises VocalnetError."""
    return _load(S3Tokenizer, OnnxTokenizer, s3_tokenizer_weights, path, device)


def load_speaker_encoder(path: Path, device: torch.device | str = "cpu") -> SpeakerEncoder | OnnxSpeakerEncoder:
    """CAM++ of a `.safetensors` (3D-Speaker's names) or `.onnx` file. Raises VocalnetError."""
    return _load(SpeakerEncoder, OnnxSpeakerEncoder, campplus_weights, path, device)


def _load(
    kind: type[Module],
    runner: Callable[[Path], Any],
    rename: Callable[[OnnxGraph], dict[str, Tensor]],
    path: Path,
    device: torch.device | str,
) -> Any:
    """The torch module with the file's weights; for an ONNX file of another layout onnxruntime on the CPU."""
    if path.suffix == ".onnx":
        module = _built(kind, rename(read_onnx(path)))
        return runner(path) if isinstance(module, str) else module.to(device)
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise VocalnetError(f"{path}: cannot be read ({error})", "The file is damaged: copy or convert it again.") from error
    module = _built(kind, tensors)
    if isinstance(module, str):
        raise VocalnetError(f"{path}: {module}", "Give the released .onnx file, or one with the names of its torch module.")
    return module.to(device)


def _built(kind: type[Module], tensors: Mapping[str, Tensor]) -> Module | str:
    """A module with these weights and the sizes they have, in eval mode; or what is wrong with them."""
    try:
        sizes: dict[str, Any] = kind.sizes_of(tensors)
        with torch.device("meta"):
            module = kind(**sizes)
    except (KeyError, ValueError, ZeroDivisionError) as error:
        return f"not the weights expected ({error})"
    own = module.state_dict()
    problems = differences(own, tensors, ignored=[_COUNTER])
    if problems:
        return f"does not fit: {', '.join(problems[:3])}{f' and {len(problems) - 3} more' if len(problems) > 3 else ''}"
    weights = {name: tensors[name].float() for name in own if not name.endswith(_COUNTER)}
    weights |= {name: torch.tensor(0) for name in own if name.endswith(_COUNTER)}
    module.load_state_dict(weights, assign=True)
    return module.eval().requires_grad_(False)
