"""The only training loop: transformers' Trainer, with an order, checkpoints and signals that make a resumed run equal a straight one."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, Dataset, Sampler, SequentialSampler
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.modeling_layers import GradientCheckpointingLayer

from vocalnet_cli.core.data.draws import Draws
from vocalnet_cli.core.errors import VocalnetError
from vocalnet_cli.core.model.tensor_file import write_tensors
from vocalnet_cli.core.training.health import Health
from vocalnet_cli.core.training.processes import is_main, trainer_arguments
from vocalnet_cli.core.training.run_log import RunLog
from vocalnet_cli.core.training.stages.stage import DEV_DRAW, Stage, draws_per_step

DRAWN = "drawn"
"""Key of a batch under which the loop, not the stage, finds the numbers of its draws."""
OPTIMIZERS = {"adamw": "adamw_torch_fused", "adamw-8bit": "adamw_bnb_8bit"}
DONE_MARK = "complete.json"
"""Written into a checkpoint last: a folder without it was cut off by a kill and is not resumed from."""


class StageTrainer(Trainer):
    """Trainer that takes examples in the order of `Draws`, weighs every target alike, and saves only what learns."""

    def __init__(self, *args: Any, run_log: RunLog, health: Health, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.run_log = run_log
        self.health = health
        self.stage: Stage = kwargs["model"]
        self.model_accepts_loss_kwargs = False
        self.loss_is_scaled_for_ga = True  # means are over the targets of all batches of a step: see `get_batch_samples`

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> SequentialSampler:
        return SequentialSampler(train_dataset if train_dataset is not None else self.train_dataset)  # type: ignore[arg-type]

    def get_train_dataloader(self) -> DataLoader:
        draws = self.train_dataset
        if not isinstance(draws, Draws) or draws.batches is None:
            return super().get_train_dataloader()
        return self.accelerator.prepare(DataLoader(draws, batch_sampler=Listed(draws.batches), collate_fn=self.data_collator))

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> tuple[list, None]:
        """The batches of a step, each told how many targets all of them have together, on all devices."""
        samples, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        if len(samples) > 1 or self.accelerator.num_processes > 1:
            counts = [self.stage.counts(**{name: value for name, value in batch.items() if name != DRAWN}) for batch in samples]
            targets = self.accelerator.reduce(torch.stack(counts).sum(0), reduction="sum")
            for batch in samples:
                batch["targets"] = targets
        return samples, None

    def compute_loss(self, model: nn.Module, inputs: dict, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        drawn = inputs.pop(DRAWN)
        outputs = model(**inputs)
        # Gradients are averaged over the processes, and `targets` are those of all of them.
        loss = outputs["loss"] * (self.accelerator.num_processes if "targets" in inputs else 1)
        self.run_log.count(outputs["tokens"], outputs.get("terms", {}))
        self.health.note(loss, drawn)
        return (loss, outputs) if return_outputs else loss

    def prediction_step(self, model: nn.Module, inputs: dict, prediction_loss_only: bool, ignore_keys: Any = None) -> Any:
        with torch.no_grad(), self.compute_loss_context_manager():
            inputs = self._prepare_inputs(inputs)
            inputs.pop(DRAWN)
            loss = model(**inputs)["loss"]
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


class Listed(Sampler):
    """Batches as they are listed."""

    def __init__(self, batches: list[list[int]]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


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
        if not is_main():
            return
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        temporary = folder / f".{DONE_MARK}"
        temporary.write_text(json.dumps({"step": state.global_step}) + "\n")
        os.replace(temporary, folder / DONE_MARK)


class Shows(TrainerCallback):
    """Lets the stage write samples into the run's folder as often as the dev loss is measured, and at the end."""

    def __init__(self, stage: Stage, folder: Path) -> None:
        self.stage, self.folder = stage, folder

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero and (state.global_step % args.eval_steps == 0 or state.global_step == state.max_steps):
            self.stage.eval()
            with torch.no_grad():
                self.stage.show(self.folder, state.global_step)
            self.stage.train()


def latest_checkpoint(folder: Path) -> tuple[Path, int] | None:
    """The newest whole checkpoint of a run and its step; cut-off ones are removed."""
    best: tuple[Path, int] | None = None
    for path in folder.glob("checkpoint-*"):
        if not (path / DONE_MARK).is_file():
            if is_main():
                shutil.rmtree(path)
            continue
        step = int(json.loads((path / DONE_MARK).read_text())["step"])
        if best is None or step > best[1]:
            best = (path, step)
    return best


def arguments(stage: Stage, folder: Path, device: str, log_to: str | None) -> TrainingArguments:
    """The Trainer's arguments for a recipe's `train` and `distributed` sections."""
    settings, has_dev = stage.recipe.train, bool(stage.dev_examples)
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
        adam_beta1=settings.betas[0],
        adam_beta2=settings.betas[1],
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
        report_to=[log_to] if log_to else [],
        run_name=stage.recipe.about or None,
        optim=OPTIMIZERS[settings.optimizer],
        accelerator_config={"even_batches": False} if settings.tokens_per_batch else None,
        **trainer_arguments(stage.recipe.distributed, stage),
        logging_nan_inf_filter=False,
        dataloader_pin_memory=False,
    )


def train_stage(
    stage: Stage, folder: Path, device: str, resume: bool, quiet: bool, log_to: str | None = None
) -> tuple[int, float | None, int | None]:
    """Optimise a prepared stage. Returns the step reached, the last training loss, and the signal that stopped it, if one did.

    Raises VocalnetError when the loss stops being a number: nothing of that is saved.
    """
    settings = stage.recipe.train
    kept = latest_checkpoint(folder / "checkpoints") if resume else None
    step = kept[1] if kept else 0
    per_step = draws_per_step(settings)
    draws = Draws(
        stage.examples,
        settings.steps * per_step,
        settings.batch_size,
        settings.seed,
        stage.length,
        stage.kinds,
        start=step * per_step,
        budget=settings.tokens_per_batch,
    )
    log = RunLog(folder / "metrics.jsonl", step, len(draws.order) / settings.steps, len(stage.examples), quiet or not is_main(), is_main())
    dev = [(example, DEV_DRAW) for example in stage.dev_examples]
    health = Health(lambda drawn: [stage.ids[draws.order[number]] for number in drawn], lambda: latest_checkpoint(folder / "checkpoints"))
    if settings.gradient_checkpointing:
        checkpoint_layers(stage)
    with Checkpoints() as checkpoints:
        trainer = StageTrainer(
            model=stage,
            args=arguments(stage, folder / "checkpoints", device, log_to),
            train_dataset=draws,
            eval_dataset=dev or None,
            data_collator=lambda drawn: {**stage.collate(drawn), DRAWN: torch.tensor([number for _, number in drawn])},
            callbacks=[log, health, checkpoints, Shows(stage, folder / "samples")],
            run_log=log,
            health=health,
        )
        trainer.pop_callback(_printer())
        try:
            trainer.train(resume_from_checkpoint=str(kept[0]) if kept else None)
        finally:
            log.close()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return trainer.state.global_step, losses[-1] if losses else None, checkpoints.stopped_by


def checkpoint_layers(stage: Stage) -> None:
    """Let every transformer layer keep only its input, and compute the rest again in the backward pass."""
    for module in stage.modules():
        if isinstance(module, GradientCheckpointingLayer):
            module.gradient_checkpointing = True
            module._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)  # type: ignore[assignment]


def _printer() -> Any:
    from transformers.trainer_callback import PrinterCallback

    return PrinterCallback
