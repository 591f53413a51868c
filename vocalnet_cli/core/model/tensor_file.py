"""Tensors, and folders of them, on disk: whole or not at all."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from vocalnet_cli.core.errors import VocalnetError

SCALE = ".scale"
"""What the scales of a tensor stored in 8 bits are called after it. A module cannot be called as a tensor, so no other name ends so."""
_STEPS = 127
_WORTH = 16
"""Fewest weights a row for which a scale is worth its room."""


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file, whole or not at all, with the permissions every new file gets here.

    safetensors itself leaves its files to their owner alone whatever the umask says, so that nobody else could read a model.
    Raises OSError if the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.touch()
        mode = stat.S_IMODE(temporary.stat().st_mode)
        save_file(dict(tensors), temporary, metadata)
        temporary.chmod(mode)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """An empty folder to write into; when the block ends well it becomes `target`, in the place of what was there before."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as name:
        new = Path(name) / target.name
        new.mkdir()
        yield new
        if target.exists():
            os.replace(target, Path(name) / "before")
        os.replace(new, target)


def in_int8(tensors: Mapping[str, Tensor], matrices: Collection[str]) -> dict[str, Tensor]:
    """Tensors as they are stored in 8 bits: of `matrices` each row (first dimension) as whole numbers times a scale, fp16 otherwise.

    A row [r, ...] becomes round(127 w / max |w|), symmetric, with the step max |w| / 127 in fp32 beside it, so that no weight is off by
    more than half a step. Rows too short to gain by it, and tensors with infinite values, are fp16 too; integers stay as they are.
    """
    stored: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            stored[name] = tensor
        elif name in matrices and tensor.ndim > 1 and tensor[0].numel() >= _WORTH and bool(tensor.isfinite().all()):
            rows = tensor.float().flatten(1)
            step = rows.abs().amax(1) / _STEPS
            stored[name] = (rows / step.clamp(min=torch.finfo(torch.float32).tiny)[:, None]).round().to(torch.int8).view_as(tensor)
            stored[name + SCALE] = step
        else:
            stored[name] = tensor.half()
    return stored


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, those stored in 8 bits as fp32. Raises VocalnetError for a file that is damaged."""
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise VocalnetError(f"{path}: cannot be read ({error})", "The file is damaged: copy or train the model again.") from error
    scales = {name: tensors.pop(name + SCALE) for name in list(tensors) if name + SCALE in tensors}
    for name, scale in scales.items():
        whole = tensors[name]
        if whole.dtype != torch.int8 or scale.shape != whole.shape[:1]:
            raise VocalnetError(f"{path}: {name} and its scales do not fit", "The file is damaged: copy or train the model again.")
        tensors[name] = (whole.flatten(1).float() * scale[:, None]).view_as(whole)
    return tensors
