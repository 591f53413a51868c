"""What `distributed.strategy` and `train.optimizer` ask of packages that may be missing: two lines, or their settings."""

from __future__ import annotations

import importlib.util
from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

from vocalnet_cli.core.config.schema import DistributedSettings
from vocalnet_cli.core.errors import VocalnetError
from vocalnet_cli.core.training.processes import trainer_arguments
from vocalnet_cli.core.training.run import check_optimizer


def installed(monkeypatch: pytest.MonkeyPatch, name: str, there: bool) -> None:
    find: Any = importlib.util.find_spec
    spec = SimpleNamespace() if there else None
    monkeypatch.setattr(importlib.util, "find_spec", lambda asked, *more: spec if asked == name else find(asked, *more))


@pytest.mark.parametrize("strategy", ["zero2", "zero3"])
def test_zero_without_deepspeed_is_told(monkeypatch: pytest.MonkeyPatch, strategy: Any) -> None:
    asked = DistributedSettings(strategy=strategy, offload=True)
    assert trainer_arguments(asked, nn.Linear(1, 1)) == {}  # one process shares nothing
    monkeypatch.setenv("WORLD_SIZE", "2")
    installed(monkeypatch, "deepspeed", False)
    with pytest.raises(VocalnetError) as error:
        trainer_arguments(asked, nn.Linear(1, 1))
    assert strategy in error.value.problem and "pip install deepspeed" in error.value.hint
    installed(monkeypatch, "deepspeed", True)
    config = trainer_arguments(asked, nn.Linear(1, 1))["deepspeed"]
    assert config["zero_optimization"]["stage"] == int(strategy[-1])
    assert config["zero_optimization"]["offload_optimizer"] == {"device": "cpu"}
    assert ("stage3_gather_16bit_weights_on_model_save" in config["zero_optimization"]) == (strategy == "zero3")


def test_moments_in_8_bits_without_bitsandbytes_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    check_optimizer("adamw")
    installed(monkeypatch, "bitsandbytes", False)
    with pytest.raises(VocalnetError) as error:
        check_optimizer("adamw-8bit")
    assert "bitsandbytes" in error.value.problem and "pip install bitsandbytes" in error.value.hint
    installed(monkeypatch, "bitsandbytes", True)
    check_optimizer("adamw-8bit")
