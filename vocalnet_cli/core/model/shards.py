"""The tensors of a folder's safetensors files, read one at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vocalnet_cli.core.errors import MissingWeights, VocalnetError

WHOLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


class Shards:
    """Names, shapes and tensors of `model.safetensors`, or of the files `model.safetensors.index.json` lists.

    Nothing is read before it is asked for, and no file stays mapped after a tensor was copied out of it, so memory holds the tensors
    that were asked for and nothing else. Raises MissingWeights for files that are not there, VocalnetError for damaged ones.
    """

    def __init__(self, folder: Path) -> None:
        self.files: list[Path] = [folder / name for name in _file_names(folder)]
        self._where: dict[str, Path] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, str] = {}
        for path in self.files:
            if not path.is_file():
                raise MissingWeights(f"{path}: no such file, but the index names it", "The download is not complete: pull the model again.")
            with opened(path) as file:
                names = file.keys()
                for name in names:
                    piece = file.get_slice(name)
                    self._where[name] = path
                    self.shapes[name] = tuple(piece.get_shape())
                    self.dtypes[name] = str(piece.get_dtype())

    def read(self, names: list[str], device: torch.device, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
        """The named tensors on `device`, floating point as `dtype`.

        Where nothing has to be changed the tensor stays a view of the file, read when it is first used.
        """
        for name in names:
            with opened(self._where[name]) as file:
                tensor = file.get_tensor(name)
            yield name, tensor.to(device, dtype if tensor.is_floating_point() else tensor.dtype)


def opened(path: Path) -> safe_open:
    """A safetensors file, to read from piece by piece. Raises VocalnetError for a damaged one."""
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise VocalnetError(f"{path}: cannot be read ({error})", "The file is damaged: pull or copy the model again.") from error


def _file_names(folder: Path) -> list[str]:
    if (folder / WHOLE).is_file():
        return [WHOLE]
    index = folder / INDEX
    if not index.is_file():
        raise MissingWeights(f"{folder}: no {WHOLE} and no {INDEX}", "Pull or copy the model again; other weight formats are not read.")
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise VocalnetError(f"{index}: not an index of weights ({error})", "The file is damaged: pull or copy the model again.") from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise VocalnetError(f"{index}: {name!r} is not a file of this folder", "Do not use this model: its index points elsewhere.")
    return names
