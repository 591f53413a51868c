"""Stage `flow`: speech tokens to mel by conditional flow matching, from recordings (arXiv 2412.10117, section 2.3).

Nano's flow learns from the tokens of its own tokenizer and keeps a vector for each voice; a released one goes on with CosyVoice 2's
tokens and the speaker vectors of CAM++.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vocalnet_cli.core.audio.align import at_pace_of
from vocalnet_cli.core.config.vocoder_schema import CosyVoice2Settings
from vocalnet_cli.core.errors import RecipeError, VocalnetError
from vocalnet_cli.core.model.vocoder.cosyvoice2.attention import Blocks
from vocalnet_cli.core.model.vocoder.cosyvoice2.flow import Flow
from vocalnet_cli.core.model.vocoder.cosyvoice2.flow_training import FlowBatch, FlowMasks, flow_losses
from vocalnet_cli.core.model.vocoder.cosyvoice2.speaking import SoundState, next_sound
from vocalnet_cli.core.model.vocoder.cosyvoice2.vocoder import Schedule
from vocalnet_cli.core.model.vocoder.griffin_lim import mel_to_sound
from vocalnet_cli.core.training.init import is_ours, locate
from vocalnet_cli.core.training.samples import write_sample
from vocalnet_cli.core.training.stages.clips import Clip, ClipStage, sound_mel
from vocalnet_cli.core.training.stages.speakers import LearnedSpeakers, ReleasedSpeakers
from vocalnet_cli.core.training.stages.stage import DEV_DRAW, lengths_of, pad
from vocalnet_cli.core.units import FRAMES_PER_TOKEN, VOCODER_MEL_BINS

Example = tuple[Tensor, Tensor, int, bool]
"""Speech tokens [T], log-mel [2 T, 80] in half precision, number of the voice, whether the tokens are another voice's."""


def draw_blocks(count: int, settings: CosyVoice2Settings, streaming_share: float, chance: np.random.Generator) -> Blocks:
    """The attention blocks of an example of `count` tokens, drawn from `chance`.

    Out of streaming examples all see everything. The others are, equally often, cut into single tokens, blocks of the trained size,
    blocks of twice that (arXiv 2412.10117, section 2.3), or the chunks an answer is spoken in, and see no further back than speaking does.
    """
    if chance.random() >= streaming_share:
        return Blocks((count,))
    block = settings.trained_block
    schedules = (
        Schedule(1, 1),
        Schedule(block, block),
        Schedule(2 * block, 2 * block),
        Schedule(settings.first_tokens, settings.block_tokens),
    )
    sizes = schedules[int(chance.integers(len(schedules)))].sizes(count)
    return Blocks(tuple(sizes), window=settings.window_tokens if settings.context == "window" else None)


@torch.no_grad()
def start_tokens(flow: Flow, codebook: Tensor) -> None:
    """Let an untrained flow know which of the tokenizer's tokens [codes, latent] sound alike: its embeddings begin as their entries,
    turned at random. Otherwise each of thousands of tokens is learned by itself."""
    entries = (codebook - codebook.mean(0)) / codebook.std().clamp_min(1e-8)
    weight = flow.input_embedding.weight
    turn = torch.randn(codebook.shape[1], weight.shape[1], generator=torch.Generator().manual_seed(0)).to(weight)
    weight.copy_(entries.to(weight) @ turn / codebook.shape[1] ** 0.5)


class Draw(NamedTuple):
    """What is drawn of an example."""

    blocks: Blocks
    noise: Tensor
    """[2 T, 80]."""
    time: float
    known: int
    """Frames that are given."""
    blind: bool
    """Whether the condition is hidden."""


class FlowStage(ClipStage):
    """Every recording is an example; time, noise, mask and what is hidden of the condition are drawn anew each time."""

    part = "flow"

    def load_examples(self) -> None:
        train, dev = self.clips()
        names = self.voices(train)
        self.speakers = self._speakers(train, names)
        if self.vocoder.settings.tokenizer is not None and not {"flow", "vocoder"} & self.recipe.init.keys():
            start_tokens(self.vocoder.flow, self.vocoder.tokenizer.codebook)
        self.examples, self.ids = self._examples(train), [clip.path.name for clip in train]
        self.dev_examples = self._examples([clip for clip in dev if clip.voice in names])

    def _speakers(self, clips: list[Clip], names: list[str]) -> LearnedSpeakers | ReleasedSpeakers:
        vocoder = self.vocoder
        if vocoder.settings.tokenizer is not None:
            return LearnedSpeakers(names, vocoder.settings.flow.speaker, vocoder.tokenizer, vocoder.voices)
        if "speech-tokenizer" not in self.recipe.init:
            raise RecipeError(
                "init.speech-tokenizer is not set: this vocoder has no speech tokenizer of its own",
                "Name the folder of CosyVoice2-0.5B: --set init.speech-tokenizer=FOLDER",
            )
        folder = locate(self.recipe.init["speech-tokenizer"])
        assert folder is not None and not is_ours(folder), "the run was refused before"
        return ReleasedSpeakers(clips, names, folder, self.cache, self.device)

    def _examples(self, clips: list[Clip]) -> list[Example]:
        numbers = {name: number for number, name in enumerate(self.speakers.names)}
        if not clips:
            return []
        examples = []
        for clip, tokens, mel in zip(clips, self.speakers.tokens(clips, self.cache), self.mels(clips), strict=True):
            count = min(len(tokens), len(mel) // FRAMES_PER_TOKEN)
            examples.append((tokens[:count].long(), mel[: FRAMES_PER_TOKEN * count], numbers[clip.voice], self._lent(clip)))
        highest = max(int(tokens.max()) for tokens, *_ in examples)
        if highest >= self.vocoder.settings.codes:
            raise VocalnetError(
                f"the recordings have speech token {highest}, the vocoder knows {self.vocoder.settings.codes}",
                "Set model.vocoder.codes to the tokenizer's.",
            )
        return examples

    @property
    def mel_kind(self) -> str:
        return "paced-mel" if self.speakers.lend else super().mel_kind

    def mel(self, clip: Clip) -> Tensor:
        """Of a parallel recording at the pace of the one it follows: that one's tokens are what the flow will hear."""
        own = super().mel(clip)
        return at_pace_of(sound_mel(clip.parallel), own) if clip.parallel is not None and self._lent(clip) else own

    def _lent(self, clip: Clip) -> bool:
        """Whether the flow reads the tokens of the recording that this one is parallel to."""
        return self.speakers.lend and clip.parallel is not None

    def length(self, example: Example) -> int:
        return len(example[0])

    def counts(self, **batch: Tensor) -> Tensor:
        """Tokens whose velocity is learned, and those whose frames the encoder must give: the losses are means over them."""
        lengths = batch["lengths"]
        return torch.stack([lengths.sum(), (lengths * ~batch["lent"]).sum()])

    def collate(self, draws: list[tuple[Example, int]]) -> dict[str, Tensor]:
        tokens = [example[0] for example, _ in draws]
        mels = [example[1].float() for example, _ in draws]
        drawn = [self._draw(example, draw) for example, draw in draws]
        masks = FlowMasks.of([one.blocks for one in drawn])
        return {
            "tokens": pad(tokens),
            "lengths": lengths_of(tokens),
            "mel": pad(mels).transpose(1, 2),
            "noise": pad([one.noise for one in drawn]).transpose(1, 2),
            "times": torch.tensor([one.time for one in drawn]),
            "voices": torch.tensor([example[2] for example, _ in draws]),
            "known": torch.tensor([one.known for one in drawn]),
            "lent": torch.tensor([example[3] for example, _ in draws]),
            "blind": torch.tensor([one.blind for one in drawn]),
            "token_masks": masks.tokens,
            "frame_masks": masks.frames,
        }

    def _draw(self, example: Example, draw: int) -> Draw:
        """A dev example always draws the same: the chunks it would be spoken in, nothing hidden or given."""
        training, (tokens, mel, *_) = self.recipe.train.flow, example
        dev = draw == DEV_DRAW
        chance = np.random.default_rng(tokens.tolist() if dev else (self.recipe.train.seed, draw + 1))
        noise = torch.from_numpy(chance.standard_normal((len(mel), VOCODER_MEL_BINS), dtype=np.float32))
        time = float(chance.random())
        if dev:
            return Draw(Blocks(tuple(self.vocoder.chunks(len(tokens)))), noise, time, 0, False)
        blocks = draw_blocks(len(tokens), self.vocoder.settings, self.recipe.train.streaming_share, chance)
        known = int(chance.random() * training.longest_prompt * len(mel)) if chance.random() < training.prompt_share else 0
        return Draw(blocks, noise, time, known, bool(chance.random() < training.drop))

    def forward(
        self,
        tokens: Tensor,
        lengths: Tensor,
        mel: Tensor,
        noise: Tensor,
        times: Tensor,
        voices: Tensor,
        known: Tensor,
        lent: Tensor,
        blind: Tensor,
        token_masks: Tensor,
        frame_masks: Tensor,
        targets: Tensor | None = None,
    ) -> dict[str, Any]:
        masks = FlowMasks(token_masks, frame_masks)
        batch = FlowBatch(tokens, lengths, mel, noise, times, self.speakers.vectors(voices), known, blind, lent, masks)
        matching, prior = flow_losses(self.vocoder.flow, batch)
        weight = self.recipe.train.flow.prior
        parts = (1.0, 1.0) if targets is None else tuple(self.counts(lengths=lengths, lent=lent) / targets.clamp_min(1))
        loss = parts[0] * matching + weight * parts[1] * prior
        terms = {"terms": {"velocity": matching, "prior": prior}} if weight else {}
        return {"loss": loss, "tokens": lengths.sum(), **terms}

    def show(self, folder: Path, step: int) -> None:
        vocoder, settings = self.vocoder, self.vocoder.settings
        for number, (tokens, mel, voice, _) in enumerate(self.shown()):
            device = self.speakers.vectors.weight.device
            state = vocoder.flow.begin(self.speakers.vectors.weight[voice], settings.steps, settings.guidance)
            found = vocoder.flow.extend([state], tokens[None].to(device), vocoder.chunks(len(tokens)))
            if "hift" in self.recipe.init or "vocoder" in self.recipe.init:
                sound = next_sound(vocoder.hift, SoundState(), found, True, None, settings.hold_mel).cpu().numpy()
            else:
                sound = mel_to_sound(found[0])
            name = f"{number + 1}-{self.speakers.names[voice]}"
            write_sample(folder, step, name, sound, {"recorded": mel.T.float(), "by the flow": found[0]})

    def finish(self) -> None:
        self.vocoder.know(self.speakers.table())
