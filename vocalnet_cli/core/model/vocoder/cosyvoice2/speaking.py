"""HiFT in a stream: exact pieces as they become final, or earlier ones that end in a guess and are faded into what follows; then held to
their mel where that is wanted."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from vocalnet_cli.core.model.vocoder.cosyvoice2.hift import Hift
from vocalnet_cli.core.model.vocoder.cosyvoice2.stream import Memory
from vocalnet_cli.core.model.vocoder.held_mel import HoldState, hold_mel
from vocalnet_cli.core.units import VOCODER_HOP

_SEED = 0
_FADE = VOCODER_HOP
"""Samples over which a guess is faded into the exact sound, at most."""


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(_SEED)


@dataclass
class SoundState:
    """What HiFT keeps of one utterance."""

    memory: Memory = field(default_factory=Memory)
    noise: torch.Generator = field(default_factory=_generator)
    """Draws the source's noise frame by frame, so that it depends on the frame alone."""
    frames: int = 0
    """Mel frames heard."""
    exact: int = 0
    """Samples that came out of the layers with all their context."""
    spoken: int = 0
    """Samples given away; more than `exact` where a guess was given."""
    guess: Tensor | None = None
    """The guess for the samples after those, to fade from."""
    held: HoldState = field(default_factory=HoldState)


def next_sound(hift: Hift, state: SoundState, mel: Tensor, last: bool, lookahead: int | None, hold: bool = False) -> Tensor:
    """The next frames [1, 80, n] to the samples [m] given away now; `last` gives the rest, 480 a frame in all.

    Each sample of the released sizes depends on frames up to about 20 later (five for the pitch, the others by the convolutions).
    `lookahead` none waits for them: streamed equals whole. With fewer, the newest `lookahead` frames wait and those before are spoken as
    if silence followed, faded over a frame into the exact sound of the next piece; how the tokens arrive still does not matter, where
    chunks end does. With `hold` the sound is then held to the mel, for which it waits four frames more.
    """
    state.frames += mel.shape[-1]
    if not state.frames:
        return mel.new_zeros(0, dtype=torch.float32)
    sound = _made(hift, state, mel, last, lookahead)
    return hold_mel(state.held, sound, mel[0], last) if hold else sound


def _made(hift: Hift, state: SoundState, mel: Tensor, last: bool, lookahead: int | None) -> Tensor:
    """What HiFT makes of the next frames."""
    channels = hift.settings.noises
    noise = [torch.randn(VOCODER_HOP, channels, generator=state.noise) for _ in range(mel.shape[-1])]
    drawn = torch.cat([*noise, torch.zeros(0, channels)])[None].to(mel.device)
    sound = hift(mel, drawn, state.memory, last)[0]
    if lookahead is None:
        return sound
    start = state.exact
    state.exact += len(sound)
    target = max(state.spoken, state.exact, VOCODER_HOP * (state.frames - lookahead))
    if target > state.exact:
        sound = torch.cat([sound, hift(mel[..., :0], drawn[:, :0], state.memory.copy(), True)[0]])
    given = _faded(sound[state.spoken - start : target - start], state.guess)
    if len(given):
        state.guess = sound[target - start : target - start + _FADE] if target > state.exact else None
    state.spoken = target
    return given


def _faded(sound: Tensor, guess: Tensor | None) -> Tensor:
    """Sound [n] that starts as `guess` and turns into itself."""
    count = 0 if guess is None else min(len(guess), len(sound))
    if guess is None or not count:
        return sound
    ramp = torch.arange(1, count + 1, device=sound.device) / (count + 1)
    return torch.cat([sound[:count] * ramp + guess[:count] * (1 - ramp), sound[count:]])
