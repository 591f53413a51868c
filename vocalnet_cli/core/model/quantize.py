"""Thinker weights in 8 or 4 bits, through bitsandbytes."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from torch import nn

from vocalnet_cli.core.errors import UsageError, VocalnetError

if TYPE_CHECKING:
    from vocalnet_cli.core.model.speech_llm import SpeechLLM

KINDS = ("8bit", "4bit")
"""What `--quantize` takes."""


def check_quantize(kind: str | None) -> None:
    """Raises UsageError for an unknown kind, VocalnetError when bitsandbytes is not installed; before anything is loaded."""
    if kind is None:
        return
    if kind not in KINDS:
        raise UsageError(f"--quantize is {kind!r}: not one of {', '.join(KINDS)}", "Leave it out for full precision.")
    if find_spec("bitsandbytes") is None:
        raise VocalnetError(
            f"--quantize {kind} needs bitsandbytes, which is not installed", "pip install 'vocalnet-cli[gpu]', or leave --quantize out."
        )


def quantized(model: SpeechLLM, kind: str) -> SpeechLLM:
    """The model with the linear layers of its thinker's blocks in 8 or 4 bits; embeddings, output layer and all other parts stay.

    Weights are quantised when they reach the device. States keep the model's dtype.
    """
    check_quantize(kind)
    import bitsandbytes

    device = model.device
    for layer in model.thinker.model.layers:
        for owner in list(layer.modules()):
            for name, child in list(owner.named_children()):
                if isinstance(child, nn.Linear):
                    setattr(owner, name, _linear(bitsandbytes.nn, child, kind).to(device))
    return model


def _linear(bnb: Any, old: nn.Linear, kind: str) -> nn.Module:
    sizes = (old.in_features, old.out_features, old.bias is not None)
    weight = old.weight.detach().cpu()
    if kind == "8bit":
        new = bnb.Linear8bitLt(*sizes, has_fp16_weights=False)
        new.weight = bnb.Int8Params(weight, requires_grad=False, has_fp16_weights=False)
    else:
        new = bnb.Linear4bit(*sizes, compute_dtype=old.weight.dtype, quant_type="nf4")
        new.weight = bnb.Params4bit(weight, requires_grad=False, quant_type="nf4")
    if old.bias is not None:
        new.bias = nn.Parameter(old.bias.detach(), requires_grad=False)
    return new
