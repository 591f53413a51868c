"""The only training loop: transformers' Trainer, with an order, checkpoints and signals that make a resumed run equal a straight one."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, SequentialSampler
from transformers import Trainer, TrainerCallback, TrainingArguments

from vocalnet_cli.core.config.schema import TrainSettings
from vocalnet_cli.core.data.draws import Draws
from vocalnet_cli.core.errors import VocalnetError
from vocalnet_cli.core.model.tensor_file import write_tensors
from vocalnet_cli.core.training.run_log import RunLog
from vocalnet_cli.core.training.stages.stage import DEV_DRAW, Stage

DONE_MARK = "complete.json"
"""Written into a checkpoint last: a folder without it was cut off by a kill and is not resumed from."""


class StageTrainer(Trainer):
    """Trainer that takes examples in the order of `Draws` and saves only what learns."""

    def __init__(self, *args: Any, run_log: RunLog, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.run_log = run_log
        self.stage: Stage = kwargs["model"]
        self.model_accepts_loss_kwargs = False

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> SequentialSampler:
        return SequentialSampler(train_dataset if train_dataset is not None else self.train_dataset)  # type: ignore[arg-type]

    def compute_loss(self, model: nn.Module, inputs: dict, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        outputs = model(**inputs)
        if model.training:
            self.run_log.count(int(outputs["tokens"]))
        return (outputs["loss"], outputs) if return_outputs else outputs["loss"]

    def prediction_step(self, model: nn.Module, inputs: dict, prediction_loss_only: bool, ignore_keys: Any = None) -> Any:
        with torch.no_grad(), self.compute_loss_context_manager():
            loss = model(**self._prepare_inputs(inputs))["loss"]
        return loss.detach(), None, None

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """Frozen weights are missing from our checkpoints on purpose; anything else does not belong to this run."""
        learned = {name for name, parameter in self.stage.named_parameters() if parameter.requires_grad}
        wrong = [*load_result.unexpected_keys, *(key for key in load_result.missing_keys if key in learned)]
        if wrong:
            raise VocalnetError(
                f"the checkpoint does not fit the recipe: {', '.join(wrong[:3])} ({len(wrong)} tensors)",
                "Continue with the recipe the run was started with, or start again in another folder with -o.",
            )

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        folder = Path(output_dir or str(self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        model = self.accelerator.unwrap_model(self.model)
        learned = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        tensors = state_dict if state_dict is not None else model.state_dict()
        write_tensors(folder / "model.safetensors", {name: tensor.contiguous() for name, tensor in tensors.items() if name in learned})


class Checkpoints(TrainerCallback):
    """Marks whole checkpoints, and turns SIGINT and SIGTERM into one more checkpoint and a clean stop."""

    def __init__(self) -> None:
        self.stopped_by: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Checkpoints:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._stop)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.stopped_by = number

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.stopped_by is not None:
            control.should_save = True
            control.should_training_stop = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        temporary = folder / f".{DONE_MARK}"
        temporary.write_text(json.dumps({"step": state.global_step}) + "\n")
        os.replace(temporary, folder / DONE_MARK)


def latest_checkpoint(folder: Path) -> tuple[Path, int] | None:
    """The newest whole checkpoint of a run and its step; cut-off ones are removed."""
    best: tuple[Path, int] | None = None
    for path in folder.glob("checkpoint-*"):
        if not (path / DONE_MARK).is_file():
            shutil.rmtree(path)
            continue
        step = int(json.loads((path / DONE_MARK).read_text())["step"])
        if best is None or step > best[1]:
            best = (path, step)
    return best


def arguments(settings: TrainSettings, folder: Path, device: str, has_dev: bool) -> TrainingArguments:
    """The Trainer's arguments for a recipe's `train` section."""
    schedule = {"constant": "constant_with_warmup"}.get(settings.schedule, settings.schedule)
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=settings.steps,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.accumulate,
        learning_rate=settings.lr,
        lr_scheduler_type=schedule,
        warmup_steps=round(settings.warmup * settings.steps),
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.clip,
        bf16=settings.dtype == "bf16",
        use_cpu=device == "cpu",
        logging_steps=settings.log_every,
        save_steps=settings.save_every,
        save_total_limit=settings.keep,
        eval_strategy="steps" if has_dev else "no",
        eval_steps=settings.eval_every,
        seed=settings.seed,
        ignore_data_skip=True,
        remove_unused_columns=False,
        disable_tqdm=True,
        report_to=[],
        logging_nan_inf_filter=False,
        dataloader_pin_memory=False,
    )


def train_stage(stage: Stage, folder: Path, device: str, resume: bool, quiet: bool) -> tuple[int, float | None, int | None]:
    """Optimise a prepared stage. Returns the step reached, the last training loss, and the signal that stopped it, if one did.

    Raises VocalnetError when the loss stops being a number.
    """
    settings = stage.recipe.train
    checkpoint = latest_checkpoint(folder / "checkpoints") if resume else None
    step = checkpoint[1] if checkpoint else 0
    world = int(os.environ.get("WORLD_SIZE", "1"))
    per_step = settings.batch_size * settings.accumulate * world
    draws = Draws(
        stage.examples, settings.steps * per_step, settings.batch_size, settings.seed, stage.length, stage.kinds, start=step * per_step
    )
    log = RunLog(folder / "metrics.jsonl", step, per_step, len(stage.examples), quiet)
    dev = [(example, DEV_DRAW) for example in stage.dev_examples]
    with Checkpoints() as checkpoints:
        trainer = StageTrainer(
            model=stage,
            args=arguments(settings, folder / "checkpoints", device, bool(dev)),
            train_dataset=draws,
            eval_dataset=dev or None,
            data_collator=stage.collate,
            callbacks=[log, checkpoints],
            run_log=log,
        )
        trainer.pop_callback(_printer())
        try:
            trainer.train(resume_from_checkpoint=str(checkpoint[0]) if checkpoint else None)
        finally:
            log.close()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    if losses and not math.isfinite(losses[-1]):
        raise VocalnetError(f"the loss is not a number at step {trainer.state.global_step}", "Lower train.lr, or set train.dtype to fp32.")
    return trainer.state.global_step, losses[-1] if losses else None, checkpoints.stopped_by


def _printer() -> Any:
    from transformers.trainer_callback import PrinterCallback

    return PrinterCallback
