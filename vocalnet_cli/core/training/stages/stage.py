"""What every training stage offers the loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from vocalnet_cli.core.config.schema import Recipe, TrainSettings
from vocalnet_cli.core.data.manifest import read_manifest
from vocalnet_cli.core.data.record import Record
from vocalnet_cli.core.data.synth.split import SPLIT_FILE, check_split, load_held_out
from vocalnet_cli.core.errors import VocalnetError
from vocalnet_cli.core.model.folder import VOCODER_PARTS
from vocalnet_cli.core.model.speech_llm import SpeechLLM, part_of
from vocalnet_cli.core.model.weights import save_model
from vocalnet_cli.core.training.init import vocoder_elsewhere
from vocalnet_cli.core.training.processes import world

IGNORE = -100
"""Label that no loss looks at."""
DEV_DRAW = -1
"""Draw number of dev examples: nothing random is done to them."""


class Stage(nn.Module, ABC):
    """Examples, collation and loss of one stage; the optimisation itself is the loop's.

    `forward` takes what `collate` made and returns {"loss", "tokens"}: the mean loss and the number of targets it is a mean of. Where
    gradients of several batches are summed it also gets `targets`, the sum of their `counts`, which its means are then over: so the
    sum is the loss of one large batch. Of a loss that is a sum, `forward` may return the "terms" by name too.
    """

    examples: Sequence[Any]
    dev_examples: Sequence[Any]
    ids: Sequence[str] = ()
    """Ids of the manifest's rows that the examples are made of."""
    kinds: Sequence[str] | None = None
    device = "cpu"
    """Where parts that only prepare examples may compute."""

    def __init__(self, recipe: Recipe, model: SpeechLLM, cache: Path, parts: tuple[str, ...]) -> None:
        super().__init__()
        self.recipe = recipe
        self.model = model
        self.cache = cache
        self.parts = parts
        self.left_out = 0
        self.model.requires_grad_(False)
        self.freeze_except(parts)

    def freeze_except(self, parts: tuple[str, ...]) -> None:
        """Let the named parts learn, all but the encoder's positions, which are sinusoids."""
        for part in parts:
            part_of(self.model, part).requires_grad_(True)
        if self.model.encoder is not None:
            self.model.encoder.embed_positions.requires_grad_(False)

    @abstractmethod
    def load_examples(self) -> None:
        """Fill `examples` and `dev_examples` from the recipe's manifest, computing what frozen parts say once."""

    @abstractmethod
    def length(self, example: Any) -> int:
        """Size of an example, for batches of similar length."""

    @abstractmethod
    def collate(self, draws: list[tuple[Any, int]]) -> dict[str, Tensor]:
        """Batch of (example, draw number)."""

    def counts(self, **batch: Tensor) -> Tensor:
        """How many targets each mean of the loss is over, [terms]; here rows, for losses that are means over rows."""
        return torch.tensor([len(next(iter(batch.values())))], device=next(iter(batch.values())).device)

    def show(self, folder: Path, step: int) -> None:
        """Write samples of what was learned so far into `folder`: sound, pictures. Draws from no generator that training draws from."""

    def finish(self) -> None:
        """Turn what was trained into plain weights of the model."""

    def write(self, folder: Path, recipe_name: str) -> None:
        """Write the finished model into `folder`, whole or not at all."""
        generation = self.recipe.generation.model_dump(mode="json")
        learned_here = {"vocoder", *VOCODER_PARTS} & set(self.trained())
        elsewhere = None if learned_here else vocoder_elsewhere(self.recipe)
        save_model(self.model, folder, self.save_parts(), self.recipe.train.save_dtype, generation, recipe_name, elsewhere)

    def save_parts(self) -> set[str]:
        """Parts the finished model folder holds: those it started from and those trained here."""
        return set(self.recipe.init) | set(self.trained())

    def trained(self) -> tuple[str, ...]:
        """Parts of the model this stage writes."""
        return tuple("thinker" if part == "lora" else part for part in self.parts)

    # --- shared by the stages that read a manifest ---------------------------------------------------------------------

    def rows(self) -> tuple[list[Record], list[Record]]:
        """Training and dev rows of the manifest. Refuses held-out material (data split check)."""
        data = self.recipe.data
        if not data.manifest:
            raise VocalnetError("data.manifest is empty", "Give the manifest `vocalnet prep` wrote: --set data.manifest=DIR/manifest.jsonl")
        records = read_manifest(data.manifest, self.root)
        train = [record for record in records if record.split in data.train_splits]
        dev = [record for record in records if record.split in data.dev_splits]
        if not train:
            raise VocalnetError(
                f"{data.manifest}: no row of split {', '.join(data.train_splits)}", "Check data.train_splits against the manifest."
            )
        if (self.manifest.parent / SPLIT_FILE).is_file():
            check_split(train, load_held_out(self.manifest.parent))
        return train, dev

    @property
    def manifest(self) -> Path:
        return Path(self.recipe.data.manifest)

    @property
    def root(self) -> Path:
        """What the manifest's paths are relative to."""
        return Path(self.recipe.data.root) if self.recipe.data.root else self.manifest.parent


def kinds_of(records: Sequence[Record], balance: bool | dict[str, int]) -> list[str] | None:
    """`meta.kind` of each row, for draws in which every kind is equally frequent; None: draw as the rows are.

    A kind that `balance` wants n times as often counts as n kinds, its rows dealt out among them.
    """
    if balance is False:
        return None
    shares = balance if isinstance(balance, dict) else {}
    names = [str(record.meta.get("kind", "")) for record in records]
    return [f"{name}#{i % shares[name]}" if name in shares else name for i, name in enumerate(names)]


def pad(rows: Sequence[Tensor], value: float = 0.0) -> Tensor:
    """Rows [n_i, ...] as one batch [B, max n, ...]."""
    return pad_sequence(list(rows), batch_first=True, padding_value=value)


def lengths_of(rows: Sequence[Tensor]) -> Tensor:
    return torch.tensor([len(row) for row in rows])


def draws_per_step(settings: TrainSettings) -> int:
    """Examples (with `tokens_per_batch`: batches) drawn for one optimiser step, on all devices together."""
    return settings.accumulate * world() * (1 if settings.tokens_per_batch else settings.batch_size)


def batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def text_loss(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> dict[str, Tensor]:
    """Next-token cross-entropy: logits [B, L, V] against labels [B, L] (IGNORE = no target), both unshifted.

    A mean over the batch's targets, or over as many as `targets` says.
    """
    wanted = labels[:, 1:]
    tokens = (wanted != IGNORE).sum()
    loss = nn.functional.cross_entropy(logits[:, :-1].float().flatten(0, 1), wanted.flatten(), ignore_index=IGNORE, reduction="sum")
    return {"loss": loss / (tokens if targets is None else targets).clamp(min=1), "tokens": tokens}


def share(rows: int, targets: Tensor | None) -> Tensor | float:
    """The part that a batch's mean over rows has in a mean over `targets` [1] rows."""
    return 1.0 if targets is None else rows / targets[0]
