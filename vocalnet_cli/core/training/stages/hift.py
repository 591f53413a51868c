"""Stage `hift`: mel to sound, from recordings, with judges as HiFi-GAN has them (arXiv 2010.05646).

HiFT and its judges learn in the same step from the same state, each from its own loss: one optimiser holds both (Adam keeps every
weight's moments apart), so a stopped run goes on as any other. The judges see recordings once a step, where turns would take twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vocalnet_cli.core.audio.mel import vocoder_mel
from vocalnet_cli.core.audio.pitch import pitch
from vocalnet_cli.core.data.feature_cache import cached_rows, fingerprint
from vocalnet_cli.core.model.vocoder.cosyvoice2.hift import Hift
from vocalnet_cli.core.model.vocoder.cosyvoice2.speaking import SoundState, next_sound
from vocalnet_cli.core.model.vocoder.cosyvoice2.stream import Memory
from vocalnet_cli.core.training.samples import write_sample
from vocalnet_cli.core.training.stages.clips import Clip, ClipStage, sound_mel, whole_tokens
from vocalnet_cli.core.training.stages.judges import Judges, adversarial_loss, feature_distance, judging_loss
from vocalnet_cli.core.training.stages.spectral import mel_distance, spectral_distance
from vocalnet_cli.core.training.stages.stage import DEV_DRAW, draws_per_step, share
from vocalnet_cli.core.units import VOCODER_HOP

Example = tuple[Clip, Tensor]
"""A recording, and its pitch [F] in Hz."""

_PITCH_UNIT = 100.0
"""Pitch errors are counted in so many Hz."""
_UNVOICED_HZ = 100.0
"""Pitch of a recording without any voice."""
_EVEN, _FAINT = 0.1, -5.0
"""Weight of each sine in an untrained source, and logarithm of the gain of its noise."""


class HiftStage(ClipStage):
    """A piece of every recording is an example, cut elsewhere each time."""

    part = "hift"

    def load_examples(self) -> None:
        train, dev = self.clips()
        self.examples = list(zip(train, self._pitches(train), strict=True))
        self.dev_examples = list(zip(dev, self._pitches(dev), strict=True)) if dev else []
        self.ids = [clip.path.name for clip in train]
        self.judges = Judges(self.recipe.train.hift)
        if not {"hift", "vocoder"} & self.recipe.init.keys():
            start_pitch(self.vocoder.hift, torch.cat([hz for _, hz in self.examples]).float())
            start_filter(self.vocoder.hift)

    def _pitches(self, clips: Sequence[Clip]) -> Sequence[Tensor]:
        def made(start: int) -> Iterator[Tensor]:
            for clip in clips[start:]:
                yield pitch(whole_tokens(clip.path))

        return cached_rows(self.cache, "pitch-" + fingerprint([clip.stamp for clip in clips]), len(clips), made)

    def length(self, example: Example) -> int:
        return min(len(example[1]), self.recipe.train.hift.segment_frames)

    def collate(self, draws: list[tuple[Example, int]]) -> dict[str, Tensor]:
        pieces = [self._piece(example, draw) for example, draw in draws]
        mel, sound, hz, noise = (torch.stack(part) for part in zip(*pieces, strict=True))
        return {"mel": mel, "sound": sound, "hz": hz, "noise": noise, "judged": torch.tensor(self._judged(draws[0][1]))}

    def _piece(self, example: Example, draw: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Mel [80, n], sound [480 n], pitch [n] and noise of the source [480 n, N] of a piece; one that is too short ends in silence."""
        clip, hz = example
        chance = np.random.default_rng((len(hz), int(hz.sum())) if draw == DEV_DRAW else (self.recipe.train.seed, draw + 1))
        count, samples = self.recipe.train.hift.segment_frames, whole_tokens(clip.path)
        samples = torch.nn.functional.pad(samples, (0, max(0, count * VOCODER_HOP - len(samples))))
        start = int(chance.integers(len(samples) // VOCODER_HOP - count + 1))
        hz = torch.nn.functional.pad(hz.float(), (0, max(0, count - len(hz))))
        if self.vocoder.settings.hift.output == "filter":
            hz = through_pauses(hz)
        channels = self.vocoder.settings.hift.noises
        noise = torch.from_numpy(chance.standard_normal((count * VOCODER_HOP, channels), dtype=np.float32))
        frames, place = slice(start, start + count), slice(start * VOCODER_HOP, (start + count) * VOCODER_HOP)
        return vocoder_mel(samples)[:, frames], samples[place], hz[frames], noise

    def _judged(self, draw: int) -> bool:
        """Whether the judges have begun by the step of this draw."""
        train = self.recipe.train
        return draw >= train.hift.judged_from * train.steps * draws_per_step(train)

    def forward(
        self, mel: Tensor, sound: Tensor, hz: Tensor, noise: Tensor, judged: Tensor, targets: Tensor | None = None
    ) -> dict[str, Any]:
        with torch.autocast(mel.device.type, enabled=False):  # phases and spectra need single precision whatever train.dtype says
            terms = self._terms(mel, sound, hz, noise, bool(judged))
        loss = torch.stack(list(terms.values())).sum() * share(len(mel), targets)
        return {"loss": loss, "tokens": torch.tensor(mel.shape[-1] * len(mel), device=mel.device), "terms": terms}

    def _terms(self, mel: Tensor, sound: Tensor, hz: Tensor, noise: Tensor, judged: bool) -> dict[str, Tensor]:
        """The loss's terms by name; for a dev example the distance of the log-mels alone, at the pitch that is predicted."""
        hift, weights = self.vocoder.hift, self.recipe.train.hift
        found_hz = hift.f0_predictor(mel, Memory()).float()
        # The source follows the recording's own pitch: what is not yet predicted well would teach HiFT to mistrust it.
        made = hift.decode(mel, hift.m_source(hz if self.training else found_hz, noise, Memory()))
        distance = mel_distance(made, sound, weights.mel_windows)
        if not self.training:
            return {"mel": distance}
        terms = {
            "mel": weights.mel * distance,
            "spectral": weights.spectral * spectral_distance(made, sound, weights.resolutions),
            "pitch": weights.pitch * (found_hz - hz).abs().mean() / _PITCH_UNIT,
        }
        return terms | (self._opinions(made, sound) if judged else {})

    def _opinions(self, made: Tensor, sound: Tensor) -> dict[str, Tensor]:
        weights = self.recipe.train.hift
        recorded = self.judges(sound)
        judging = judging_loss(recorded, self.judges(made.detach()))
        with self.judges.fixed():
            opinions = self.judges(made)
        adversarial = weights.adversarial * adversarial_loss(opinions)
        return {"judging": judging, "adversarial": adversarial, "features": weights.features * feature_distance(recorded, opinions)}

    def show(self, folder: Path, step: int) -> None:
        hift = self.vocoder.hift
        for number, (clip, _) in enumerate(self.shown()):
            mel = sound_mel(clip.path)
            frames = mel[None].to(hift.conv_pre.weight.device)
            made = next_sound(hift, SoundState(), frames, True, None, self.vocoder.settings.hold_mel).cpu()
            write_sample(folder, step, f"{number + 1}-{clip.voice}", made.numpy(), {"recorded": mel, "by HiFT": vocoder_mel(made)})


def through_pauses(hz: Tensor) -> Tensor:
    """A pitch [F] that goes on where there is none, straight from the last to the next: a filter itself shuts out the sines there."""
    voiced = hz > 0
    if not voiced.any():
        return torch.full_like(hz, _UNVOICED_HZ)
    frames = np.arange(len(hz))
    return torch.from_numpy(np.interp(frames, frames[voiced.numpy()], hz[voiced].numpy())).to(hz.dtype)


def start_pitch(hift: Hift, hz: Tensor) -> None:
    """Let an untrained pitch predictor begin at the voices' mean pitch, and let its layers move it by their spread.

    Its output is in Hz, so from weights of the usual size it would take thousands of steps to get there.
    """
    voiced = hz[hz > 0]
    if len(voiced):
        last = hift.f0_predictor.classifier
        last.weight.data.mul_(float(voiced.std(unbiased=False).clamp_min(20.0)))
        last.bias.data.fill_(float(voiced.mean()))


def start_filter(hift: Hift) -> None:
    """Let an untrained filter begin with pulses of a voice's loudness and next to no noise."""
    if hift.settings.output == "filter":
        nn.init.constant_(hift.m_source.l_linear.weight, _EVEN)
        nn.init.zeros_(hift.m_source.l_linear.bias)
        bins = hift.settings.istft_fft // 2 + 1
        nn.init.constant_(hift.conv_post.bias[2 * bins :], _FAINT)
