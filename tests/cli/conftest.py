"""What the tests of several commands share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.train_runs import save_corpus


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a manifest of eight spoken digits, and the working directory of the runs."""
    save_corpus(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path
