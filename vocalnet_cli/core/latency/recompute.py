"""What the CosyVoice2 vocoder's caches are measured against: computing everything spoken so far again, as upstream does.

The same modules with the same weights, threads and arithmetic run here, so that the difference is the method's.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vocalnet_cli.core.latency.timers import Stopwatch
from vocalnet_cli.core.model.vocoder.contract import Voice
from vocalnet_cli.core.model.vocoder.cosyvoice2.vocoder import CosyVoice2Vocoder
from vocalnet_cli.core.units import FRAMES_PER_TOKEN, VOCODER_HOP, VOCODER_MEL_BINS

_MEL_KEPT = 8
"""Mel frames before a chunk that upstream gives to HiFT once more (cosyvoice2.md section 3.2)."""


class Recomputed:
    """An answer of which every chunk runs the flow over the voice and all tokens so far, and HiFT over the chunk and 8 frames.

    Every other chunk and the last are run; the time of one between is the mean of its neighbours': it grows steadily, and takes long.
    """

    def __init__(self, vocoder: CosyVoice2Vocoder, voice: Voice, tokens: Tensor, chunk: int, clock: Stopwatch) -> None:
        self._times: list[float | None] = []
        self._vocoder, self._voice, self._chunk, self._clock = vocoder, voice, chunk, clock
        self._device = vocoder.hift.conv_pre.weight.device
        self._count = len(tokens)
        self._ids = torch.cat([voice.tokens, tokens]).to(self._device)[None]

    @staticmethod
    def runs(chunks: int) -> int:
        """How many of so many chunks are run."""
        return chunks // 2 + 1

    @property
    def chunks_s(self) -> list[float]:
        """Seconds of each chunk, when all are done."""
        known = {number: seconds for number, seconds in enumerate(self._times) if seconds is not None}
        return [known[number] if number in known else (known[number - 1] + known[number + 1]) / 2 for number in range(len(self._times))]

    def step(self) -> None:
        """The next chunk, timed."""
        start = self._chunk * len(self._times)
        end = min(start + self._chunk, self._count)
        run = len(self._times) % 2 == 0 or end == self._count
        self._times.append(self._clock(lambda: self._spoken(start, end, _MEL_KEPT if start else 0)) if run else None)

    def first(self) -> float:
        """Seconds of the first chunk, once more."""
        return self._clock(lambda: self._spoken(0, min(self._chunk, self._count), 0))

    def whole(self) -> float:
        """Seconds of one pass over everything."""
        return self._clock(lambda: self._spoken(0, self._count, 0))

    def _spoken(self, start: int, end: int, kept: int) -> Tensor:
        """Frames of tokens start..end, with everything before them; then their sound, with `kept` frames before them."""
        settings, flow, hift = self._vocoder.settings, self._vocoder.flow, self._vocoder.hift
        prompt = len(self._voice.tokens)
        known = torch.zeros(1, VOCODER_MEL_BINS, FRAMES_PER_TOKEN * (prompt + end), device=self._device)
        known[:, :, : FRAMES_PER_TOKEN * prompt] = self._voice.mel.T.to(self._device)
        seen = self._ids[:, : prompt + min(self._count, end + settings.flow.lookahead_tokens)]
        blocks = [*_blocks(prompt, settings.trained_block), *_blocks(end, self._chunk)]
        state = flow.begin(self._voice.speaker.to(self._device), settings.steps, settings.guidance)
        state.last = True  # keeps nothing
        mel = flow.extend([state], seen, blocks, known)
        mel = mel[:, :, FRAMES_PER_TOKEN * (prompt + start) - kept :]
        noise = torch.randn(1, VOCODER_HOP * mel.shape[-1], settings.hift.noises, device=self._device)
        return hift(mel, noise).cpu()


def _blocks(total: int, size: int) -> list[int]:
    return [min(size, total - at) for at in range(0, total, size)]
