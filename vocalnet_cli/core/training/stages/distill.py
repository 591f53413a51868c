"""Stage `distill`: a masked-diffusion talker learns from several passes of a frozen copy of itself (arXiv 2602.08607)."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from vocalnet_cli.core.data.feature_cache import Kept, cached_rows, fingerprint
from vocalnet_cli.core.errors import RecipeError
from vocalnet_cli.core.model.talker.contract import Lengths
from vocalnet_cli.core.model.talker.mdm import IGNORE, MdmTalker
from vocalnet_cli.core.model.talker.mdm_distill import distillation_loss, keep, reveal
from vocalnet_cli.core.training.stages.speak import SpeakStage
from vocalnet_cli.core.training.stages.stage import DEV_DRAW, batches, pad


class DistillStage(SpeakStage):
    """Reverse KL to the teacher's logits at reveal time, and cross-entropy; the dev loss is the same sum."""

    _kept_now: Tensor | None = None

    @property
    def talker(self) -> MdmTalker:
        talker = self.model.talker
        if not isinstance(talker, MdmTalker):
            raise RecipeError(
                f"model.talker.kind is {self.recipe.model.talker.kind}: stage distill trains masked-diffusion talkers", "Set it to mdm."
            )
        return talker

    def load_examples(self) -> None:
        self.teacher = copy.deepcopy(self.talker).eval().requires_grad_(False)  # the weights it starts from, also when it is resumed
        super().load_examples()
        if self.recipe.distill.cached_masks:
            if not self.states_cached:
                raise RecipeError(
                    "distill.cached_masks is set, but the thinker's states are not kept, from which the targets follow",
                    "Set data.cache to true and leave data.augment out, or set distill.cached_masks to 0.",
                )
            # Numbered, so that a row's masks can be told from those of the others.
            kept = self._keep_targets()
            self.examples = [(*example, number, kept[number]) for number, example in enumerate(self.examples)]

    # --- targets that are computed once ----------------------------------------------------------------------------------

    def _keep_targets(self) -> list[list[Kept]]:
        """What `keep` makes of the teacher's targets of each row under each of its masks."""
        s, masks = self.recipe.distill, self.recipe.distill.cached_masks
        told = [s.passes, s.temperature, s.cached_codes, masks, self.recipe.train.seed, self.recipe.model.talker.model_dump()]
        key = "targets-" + fingerprint(self.teacher, self.model.thinker, self.manifest, self.recipe.data.questions, told, self.ids)
        kept = cached_rows(self.cache, key, len(self.ids) * masks, self._targets).kept()
        return [kept[at : at + masks] for at in range(0, len(kept), masks)]

    @torch.no_grad()
    def _targets(self, start: int) -> Iterator[Tensor]:
        """Those from a number on, row by row and mask by mask, in the same batches whatever the number is."""
        s, size = self.recipe.distill, self.recipe.train.batch_size
        teacher = self.teacher.to(self.device)
        wanted = [divmod(number, s.cached_masks) for number in range(start - start % size, len(self.ids) * s.cached_masks)]
        skipped = start % size
        for group in batches(wanted, size):
            batch = super().collate([(self.examples[number][:3], 0) for number, _ in group])
            batch["draws"] = torch.tensor([self._mask_draw(number, mask) for number, mask in group])
            batch = {name: tensor.to(self.device) for name, tensor in batch.items()}
            lengths = self._lengths(*(batch[name] for name in ("speech", "streaming", "answers", "draws")))
            masked = teacher.hide(batch["speech"], lengths)
            found = keep(reveal(teacher, batch["states"], masked, lengths.text, s.passes), s.temperature, s.cached_codes)
            yield from found.cpu().split((masked.targets != IGNORE).sum(1).tolist())[skipped:]
            skipped = 0

    def _mask_draw(self, number: int, mask: int) -> int:
        return 1 + number * self.recipe.distill.cached_masks + mask + (self.recipe.train.seed << 32)

    def collate(self, draws: list[tuple[Any, int]]) -> dict[str, Tensor]:
        batch = super().collate([(example[:3], draw) for example, draw in draws])
        if draws[0][1] == DEV_DRAW or not self.recipe.distill.cached_masks:
            return batch
        masks = [draw % self.recipe.distill.cached_masks for _, draw in draws]
        batch["draws"] = torch.tensor([self._mask_draw(example[3], mask) for (example, _), mask in zip(draws, masks, strict=True)])
        return {**batch, "kept": pad([example[4][mask].read() for (example, _), mask in zip(draws, masks, strict=True)], -1)}

    # --- loss ------------------------------------------------------------------------------------------------------------

    def forward(self, kept: Tensor | None = None, **batch: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        self._kept_now = None if kept is None else kept[kept[..., 0] >= 0]
        return super().forward(**batch)

    def loss(self, states: Tensor, speech: Tensor, lengths: Lengths) -> Tensor:
        s = self.recipe.distill
        self.teacher.eval()
        return distillation_loss(
            self.talker,
            self.teacher,
            states,
            speech,
            lengths,
            passes=s.passes,
            temperature=s.temperature,
            alpha=s.alpha,
            kept=self._kept_now,
        )
