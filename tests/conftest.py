"""Settings every test shares: no network, few threads, where the fixtures lie."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)  # toy tensors: on a busy machine a second thread only means waiting for it


@pytest.fixture(scope="session")
def fixtures_dir() -> Path:
    """Folder of the numeric fixtures: VOCALNET_FIXTURES, or the reduced set kept with the tests."""
    own = Path(__file__).parent / "assets" / "fixtures"
    return Path(os.environ.get("VOCALNET_FIXTURES", own))


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny random model whose answers are a few tokens long; read only."""
    from tests.tiny import save_tiny

    return save_tiny(tmp_path_factory.mktemp("models") / "tiny", max_text_tokens=7, max_speech_tokens=20, tokens_per_step=2)


@dataclass(frozen=True)
class CommandResult:
    """What one command left behind."""

    code: int
    out: str
    err: str


@pytest.fixture
def vocalnet(capsys: pytest.CaptureFixture[str]) -> Callable[..., CommandResult]:
    """Runs the whole `vocalnet` command in this process, error lines and exit code included."""
    from vocalnet_cli.cli.app import run_cli

    def run(*args: object) -> CommandResult:
        capsys.readouterr()
        code = run_cli([str(arg) for arg in args])
        out, err = capsys.readouterr()
        return CommandResult(code, out, err)

    return run
