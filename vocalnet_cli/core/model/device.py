"""Where a model runs and in which arithmetic."""

from __future__ import annotations

import torch

from vocalnet_cli.core.errors import UsageError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Arithmetic and stored weights, by the names recipes and `--dtype` use."""
STORED = (*DTYPES, "int8")
"""How weights may lie on disk; `int8` ones are single precision again once they are read (`tensor_file.in_int8`)."""


def pick_device(name: str) -> torch.device:
    """`auto` takes CUDA, then MPS, then the CPU. Raises UsageError for a device that is unknown or not there."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"--device is {name!r}: not a device", "Use auto, cpu, cuda, cuda:N or mps.") from error
    here = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not here.get(device.type, False) or (device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()):
        raise UsageError(f"--device is {name!r}: not on this machine", "Use --device auto or cpu.")
    return device


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """`auto` is bf16 on CUDA, else fp32."""
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if name not in DTYPES:
        raise UsageError(f"--dtype is {name!r}: not a type", f"Use auto, {', '.join(DTYPES)}.")
    return DTYPES[name]


def synchronize(device: torch.device) -> None:
    """Waits until the device has done all it was given, so that a clock read after it is right. A CPU never has to be waited for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
