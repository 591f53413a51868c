"""One run in several processes, as `torchrun` and `accelerate launch` start them: who writes, who waits, what is shared."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Iterator
from typing import Any

from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from vocalnet_cli.core.config.schema import DistributedSettings
from vocalnet_cli.core.errors import VocalnetError


def world() -> int:
    """Processes of this run."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this process is the one that writes files and talks."""
    return os.environ.get("RANK", "0") == "0"


def main_first(device: str) -> Any:
    """A context in which the first process of each machine goes ahead: what it leaves in the cache the others find there."""
    if world() == 1:
        return contextlib.nullcontext()
    from accelerate import PartialState

    return PartialState(cpu=device == "cpu").local_main_process_first()


@contextlib.contextmanager
def parting() -> Iterator[None]:
    """A context at whose end this process closes its connections to the others of its run.

    Left open, their threads may abort a process that ends, and torchrun then calls a finished run failed.
    """
    try:
        yield
    finally:
        if "RANK" in os.environ:  # torchrun makes a group of one process too
            from torch import distributed

            if distributed.is_initialized():
                distributed.destroy_process_group()


def sharded(settings: DistributedSettings) -> bool:
    """Whether each process holds only a part of the weights."""
    return world() > 1 and settings.strategy in ("fsdp", "zero3")


def trainer_arguments(settings: DistributedSettings, model: nn.Module) -> dict[str, Any]:
    """What transformers' TrainingArguments are told about sharing; nothing for one process.

    Raises VocalnetError where DeepSpeed is asked for and not installed.
    """
    if world() == 1:
        return {}
    if settings.strategy == "ddp":
        return {"ddp_find_unused_parameters": False}
    if settings.strategy == "fsdp":
        layers = sorted({type(module).__name__ for module in model.modules() if isinstance(module, GradientCheckpointingLayer)})
        config = {
            "version": 2,
            "transformer_layer_cls_to_wrap": layers,
            "cpu_offload": settings.offload,
            "state_dict_type": "FULL_STATE_DICT",
        }
        return {"fsdp": True, "fsdp_config": config}
    if importlib.util.find_spec("deepspeed") is None:
        raise VocalnetError(
            f"distributed.strategy is {settings.strategy}: deepspeed is not installed", "pip install deepspeed, or say fsdp or ddp."
        )
    zero: dict[str, Any] = {"stage": int(settings.strategy[-1]), "overlap_comm": True, "contiguous_gradients": True}
    if settings.offload:
        zero["offload_optimizer"] = {"device": "cpu"}
    if zero["stage"] == 3:
        zero["stage3_gather_16bit_weights_on_model_save"] = True
    automatic = dict.fromkeys(
        ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping"), "auto"
    )
    return {"deepspeed": {**automatic, "bf16": {"enabled": "auto"}, "zero_optimization": zero}}
