"""Outputs of frozen parts, computed once and kept on disk under a hash of everything they depend on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from vocalnet_cli.core.model.tensor_file import write_tensors


def fingerprint(*things: Any) -> str:
    """A hash of modules (their weights), files (their bytes) and plain values."""
    digest = hashlib.sha256()
    for thing in things:
        if isinstance(thing, nn.Module):
            for name, tensor in sorted(thing.state_dict().items()):
                digest.update(name.encode())
                digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        elif isinstance(thing, Path):
            digest.update(thing.read_bytes())
        else:
            digest.update(json.dumps(thing, sort_keys=True, default=str).encode())
    return digest.hexdigest()[:24]


def cached_rows(folder: Path, key: str, count: int, compute: Callable[[], Iterable[Tensor]]) -> Sequence[Tensor]:
    """`count` tensors [n_i, D], half precision (integers stay integers), read from `folder` or computed and written there."""
    path = folder / f"{key}.safetensors"
    stored: dict[str, Tensor] | None = None
    if path.is_file():
        try:
            stored = load_file(path)
        except SafetensorError:
            path.unlink()  # a damaged cache is only computed again
    if stored is None:
        rows = [row.half() if row.is_floating_point() else row for row in compute()]
        assert len(rows) == count
        stored = {"rows": torch.cat(rows), "lengths": torch.tensor([len(row) for row in rows])}
        folder.mkdir(parents=True, exist_ok=True)
        write_tensors(path, stored)
    return stored["rows"].split(stored["lengths"].tolist())
