"""Files of tensors are for whoever may read any other new file, and never half written."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.tiny import save_tiny
from vocalnet_cli.core.data.feature_cache import cached_rows
from vocalnet_cli.core.model.tensor_file import write_tensors


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_models_and_caches_honour_the_umask(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        model = save_tiny(tmp_path / "model")
        cached_rows(tmp_path / "cache", "key", 1, lambda start: [torch.ones(2, 3)])
    finally:
        os.umask(before)
    files = [*model.iterdir(), *(path for path in (tmp_path / "cache").rglob("*") if path.is_file())]
    assert {path.name for path in files} >= {"encoder.safetensors", "config.json", "000000000.safetensors"}
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in files} == {path.name: mode for path in files}


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    write_tensors(path, {"a": torch.ones(2)}, {"made": "first"})
    with pytest.raises((TypeError, ValueError, AttributeError)):
        write_tensors(path, {"a": "no tensor"})  # type: ignore[dict-item]
    assert load_file(path)["a"].tolist() == [1, 1] and list(tmp_path.iterdir()) == [path]
