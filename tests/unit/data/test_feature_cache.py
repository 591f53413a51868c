"""The cache of frozen outputs: read as it was written, gone on with after a kill, and never trusted when its bytes changed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vocalnet_cli.core.data import feature_cache
from vocalnet_cli.core.data.feature_cache import cached_rows
from vocalnet_cli.core.errors import VocalnetError

COUNT = 11


def row(number: int) -> Tensor:
    return torch.full((1 + number % 3, 2), float(number))


class Computed:
    """Counts what was computed, and dies before row `until`."""

    def __init__(self, until: int = COUNT) -> None:
        self.made: list[int] = []
        self.until = until

    def __call__(self, start: int) -> Iterator[Tensor]:
        for number in range(start, COUNT):
            if number == self.until:
                raise KeyboardInterrupt
            self.made.append(number)
            yield row(number)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_cache, "ROWS_A_SHARD", 4)


def test_rows_are_computed_once_and_a_killed_computation_goes_on(tmp_path: Path) -> None:
    killed, second, third = Computed(until=7), Computed(), Computed()
    with pytest.raises(KeyboardInterrupt):
        cached_rows(tmp_path, "key", COUNT, killed)
    rows = cached_rows(tmp_path, "key", COUNT, second)
    assert second.made == list(range(4, COUNT)) and len(list((tmp_path / "key").iterdir())) == 3
    assert len(rows) == COUNT and all(rows[i].equal(row(i).half()) for i in (10, 0, 7, 3, 4))
    assert [one.tolist() for one in rows[2:5]] == [row(i).tolist() for i in (2, 3, 4)] and rows[-1].equal(row(10).half())
    assert len(list(cached_rows(tmp_path, "key", COUNT, third))) == COUNT and not third.made
    assert len(cached_rows(tmp_path, "none", 0, third)) == 0


def test_a_damaged_shard_is_named_and_a_cut_one_computed_again(tmp_path: Path) -> None:
    cached_rows(tmp_path, "key", COUNT, Computed())
    first, second, last = sorted((tmp_path / "key").iterdir())
    data = bytearray(second.read_bytes())
    at = data.index(row(6).half().numpy().tobytes())
    data[at] ^= 1
    second.write_bytes(data)
    last.write_bytes(last.read_bytes()[:-3])
    again = Computed()
    rows = cached_rows(tmp_path, "key", COUNT, again)
    assert again.made == [8, 9, 10] and rows[9].equal(row(9).half())
    with pytest.raises(VocalnetError) as error:
        rows[6]
    assert second.name in error.value.problem and "Delete" in error.value.hint
