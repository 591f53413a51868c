"""Outputs of frozen parts, computed once and kept on disk under a hash of everything they depend on.

A cache is a folder of shards, each written whole or not at all: what was killed goes on behind its last shard, and rows are read when
they are drawn, so that neither has to fit into memory. Each row carries a hash of its bytes, checked the first time it is read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, overload

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from vocalnet_cli.core.errors import VocalnetError
from vocalnet_cli.core.model.tensor_file import write_tensors

ROWS_A_SHARD = 512


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


class CachedRows(Sequence[Tensor]):
    """Tensors [n_i, D] that lie in shards. Reading one raises VocalnetError if its bytes are not those that were written."""

    def __init__(self, shards: Sequence[Path], count: int) -> None:
        self.shards = shards
        self.size = count
        self.opened: dict[int, Any] = {}
        self.places: dict[int, tuple[list[int], list[int]]] = {}
        self.checked = bytearray(count)

    def __len__(self) -> int:
        return self.size

    @overload
    def __getitem__(self, at: int) -> Tensor: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Tensor]: ...
    def __getitem__(self, at: int | slice) -> Tensor | Sequence[Tensor]:
        if isinstance(at, slice):
            return [self._row(i) for i in range(*at.indices(self.size))]
        return self._row(range(self.size)[at])

    def _row(self, at: int) -> Tensor:
        shard, place = divmod(at, ROWS_A_SHARD)
        starts, hashes = self._places(shard)
        row: Tensor = self.opened[shard].get_slice("rows")[starts[place] : starts[place + 1]]
        if not self.checked[at]:
            if _hash(row) != hashes[place]:
                raise VocalnetError(
                    f"{self.shards[shard]}: row {place} is not what was written", "Delete this file: the next run computes it again."
                )
            self.checked[at] = 1
        return row

    def kept(self) -> list[Kept]:
        """All rows, unread."""
        return [Kept(self, at) for at in range(self.size)]

    def length(self, at: int) -> int:
        """That of a row, without reading it."""
        shard, place = divmod(at, ROWS_A_SHARD)
        starts, _ = self._places(shard)
        return starts[place + 1] - starts[place]

    def _places(self, shard: int) -> tuple[list[int], list[int]]:
        """Where the rows of a shard start, the end behind them, and their hashes."""
        if shard not in self.opened:
            file = self.opened[shard] = safe_open(self.shards[shard], "pt")
            starts = [0, *file.get_tensor("lengths").cumsum(0).tolist()]
            self.places[shard] = (starts, file.get_tensor("hashes").tolist())
        return self.places[shard]


class Kept(NamedTuple):
    """A row that stays on disk until it is read."""

    rows: CachedRows
    at: int

    def read(self) -> Tensor:
        """The row [n, D]; raises what `CachedRows` raises."""
        return self.rows[self.at]

    @property
    def length(self) -> int:
        """How many rows of D that are."""
        return self.rows.length(self.at)


def cached_rows(folder: Path, key: str, count: int, compute: Callable[[int], Iterable[Tensor]]) -> CachedRows:
    """`count` tensors [n_i, D], half precision (integers stay integers), below `folder`, where those that are missing are put first.

    `compute` gives the rows from a number on. Raises OSError if the folder cannot be written.
    """
    shards = [folder / key / f"{start:09}.safetensors" for start in range(0, count, ROWS_A_SHARD)]
    missing = [not _whole(path) for path in shards]
    if any(missing):
        (folder / key).mkdir(parents=True, exist_ok=True)
        first = missing.index(True)
        rows = iter(compute(first * ROWS_A_SHARD))
        for path, lacks in zip(shards[first:], missing[first:], strict=True):
            part = [row.half() if row.is_floating_point() else row for row in islice(rows, ROWS_A_SHARD)]
            if lacks:
                lengths, hashes = torch.tensor([len(row) for row in part]), torch.tensor([_hash(row) for row in part])
                write_tensors(path, {"rows": torch.cat(part), "lengths": lengths, "hashes": hashes})
    return CachedRows(shards, count)


def _whole(path: Path) -> bool:
    """Whether a shard is there and as long as it says; a damaged one is removed."""
    if not path.is_file():
        return False
    try:
        with safe_open(path, "pt"):
            return True
    except SafetensorError:
        path.unlink()
        return False


def _hash(row: Tensor) -> int:
    """64 bits of a row's bytes."""
    data = row.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
    return int.from_bytes(hashlib.blake2b(data.tobytes(), digest_size=8).digest(), "little", signed=True)
