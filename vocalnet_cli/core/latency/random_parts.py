"""Parts of a model at any size with random weights: how long they take does not depend on what they have learned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import nn

from vocalnet_cli.core.config.load import load_recipe
from vocalnet_cli.core.config.schema import Recipe
from vocalnet_cli.core.errors import UsageError, VocalnetError
from vocalnet_cli.core.model.inventory import devices_gb
from vocalnet_cli.core.model.released import fill_buffers
from vocalnet_cli.core.model.vocoder.cosyvoice2.stream import StreamConvTranspose1d
from vocalnet_cli.core.model.vocoder.cosyvoice2.vocoder import CosyVoice2Vocoder

Part = TypeVar("Part", bound=nn.Module)

SIZES = {"nano": "nano/base", "1b": "vocalnet/base-1b", "8b": "vocalnet/base-8b"}
"""What `--size` takes, and the recipe that holds its sizes."""

_STD = 0.02
_BLOCK = 1 << 20
"""Random numbers that are drawn; larger weights repeat them."""

_SHIFT = 7919

_KEEP, _ADD = 3**0.5, 0.3
"""Factors of weights drawn from +-1 / sqrt(inputs): of a layer that keeps its input's size, and beside that of one that is added."""

_PITCH_HZ, _VIBRATO_HZ = 150.0, 30.0


def sized(size: str, overrides: Sequence[str] = ()) -> Recipe:
    """Sizes and settings of `--size`, changed by `model.x=y`, `generation.x=y` and `latency.x=y`. Raises UsageError or RecipeError."""
    if size not in SIZES:
        raise UsageError(f"--size is {size!r}: not a size", f"Use {', '.join(SIZES)}.")
    return load_recipe(SIZES[size], overrides).recipe


def random_part(build: Callable[[], Part], device: torch.device, dtype: torch.dtype, seed: int = 0) -> Part:
    """A part that can run: matrices N(0, 0.02), norms one, biases zero. Raises VocalnetError if the device is too small for it."""
    with torch.device("meta"):
        part = build()
    _check_room(part, device, dtype)
    generator = torch.Generator(device).manual_seed(seed)
    block = torch.randn(_BLOCK, generator=generator, device=device).mul_(_STD).to(dtype)
    made: dict[int, nn.Parameter] = {}
    for module in part.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if id(parameter) not in made:  # tied weights stay one
                block = block.roll(_SHIFT)  # no two weights are the same: a head like the embedding would say one token for ever
                made[id(parameter)] = nn.Parameter(_filled(name, parameter.shape, block), requires_grad=False)
            setattr(module, name, made[id(parameter)])
    fill_buffers(part, device)
    return part.eval()


def speak_loudly(vocoder: CosyVoice2Vocoder) -> None:
    """Make fresh random weights answer to their input: as they are drawn, every mel sounds alike, and no error of a mel is heard.

    Layers keep the size of what they are given, residual ones and the last add a little, and the pitch is a voice's.
    """
    with torch.no_grad():  # in place, so that what was made of the weights before is made anew
        for name, weight in vocoder.named_parameters():
            if weight.ndim > 1 and "embedding" not in name:
                weight.mul_(_KEEP * (_ADD if ".convs2." in name or "conv_post" in name else 1.0))
        for module in vocoder.hift.modules():
            if isinstance(module, StreamConvTranspose1d):
                module.weight.mul_(module.rate**0.5)  # so many of its inputs miss each output
        vocoder.hift.f0_predictor.classifier.weight.mul_(_VIBRATO_HZ)
        vocoder.hift.f0_predictor.classifier.bias.fill_(_PITCH_HZ)


def _filled(name: str, shape: torch.Size, block: torch.Tensor) -> torch.Tensor:
    if len(shape) < 2:
        return block.new_full(shape, 0.0 if name == "bias" else 1.0)
    weights = block.new_empty(shape)
    flat = weights.view(-1)
    for start in range(0, len(flat), _BLOCK):
        piece = flat[start : start + _BLOCK]
        piece.copy_(block[: len(piece)])
    return weights


def _check_room(part: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    need = sum(parameter.numel() for parameter in part.parameters()) * dtype.itemsize / 1e9
    index = device.index or 0
    room = devices_gb().get(f"cuda:{index}" if device.type == "cuda" else device.type)
    if room is not None and need > room:
        raise VocalnetError(
            f"{type(part).__name__} needs {need:.1f} GB for its weights: {device} has {room:g} GB",
            "Measure a smaller --size, or a smaller type: --dtype bf16.",
        )
