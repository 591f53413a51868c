"""The flow in training: whole utterances in padded batches, under the masks that speaking in chunks has (arXiv 2412.10117, section 2.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vocalnet_cli.core.model.vocoder.cosyvoice2.attention import Attending, Blocks
from vocalnet_cli.core.model.vocoder.cosyvoice2.encoder import EncoderPass, Places, key_features
from vocalnet_cli.core.model.vocoder.cosyvoice2.estimator import EstimatorPass
from vocalnet_cli.core.model.vocoder.cosyvoice2.flow import Flow
from vocalnet_cli.core.model.vocoder.cosyvoice2.stream import Memory
from vocalnet_cli.core.units import FRAMES_PER_TOKEN


@dataclass
class FlowMasks:
    """What each position of a padded batch sees."""

    tokens: Tensor
    """bool [B, 1, T, T], rows look at columns."""
    frames: Tensor
    """bool [B, 1, 2 T, 2 T]."""

    @classmethod
    def of(cls, blocks: Sequence[Blocks]) -> FlowMasks:
        """Those of utterances that start at position 0, each cut into attention blocks of tokens."""
        return cls(_padded(blocks), _padded([one.finer(FRAMES_PER_TOKEN) for one in blocks]))


def _padded(blocks: Sequence[Blocks]) -> Tensor:
    lengths = [sum(one.sizes) for one in blocks]
    longest = max(lengths)
    mask = torch.zeros(len(blocks), 1, longest, longest, dtype=torch.bool)
    for row, one, length in zip(mask, blocks, lengths, strict=True):
        row[..., :length] = True  # padding sees what there is, so that its softmax is a number
        seen = one.mask(torch.arange(length))
        if seen is not None:
            row[0, :length, :length] = seen
    return mask


@dataclass
class FlowBatch:
    """Examples of conditional flow matching. T is the longest one's tokens."""

    tokens: Tensor
    """int64 [B, T]; anything past an example's end."""
    lengths: Tensor
    """Tokens of each example [B]."""
    mel: Tensor
    """Log-mel [B, 80, 2 T]."""
    noise: Tensor
    """Where the ODE starts: standard normal [B, 80, 2 T]."""
    times: Tensor
    """Time in 0..1 of each example [B]."""
    speakers: Tensor
    """Speaker vectors [B, speaker]."""
    known: Tensor
    """Frames at the start that are given, as those of a voice prompt [B]."""
    blind: Tensor
    """bool [B]: the condition is hidden (classifier-free guidance)."""
    lent: Tensor
    """bool [B]: the tokens are those of another voice that says the same."""
    masks: FlowMasks


def condition(flow: Flow, tokens: Tensor, lengths: Tensor, masks: FlowMasks) -> Tensor:
    """Tokens [B, T] to the ODE's condition mu [B, 80, 2 T]: row by row what `Flow.encode` gives for the same blocks."""
    count, device, hidden = tokens.shape[1], tokens.device, flow.settings.hidden

    def places(total: int) -> Places:
        features = key_features(torch.arange(total), hidden, device)
        return Places(features[None], [features])

    x = flow.input_embedding(tokens.clamp_min(0))
    doing = EncoderPass(
        tokens=Attending([masks.tokens]),
        token_places=places(count),
        frames=Attending([masks.frames]),
        frame_places=places(FRAMES_PER_TOKEN * count),
        memory=Memory(),
        valid=_valid(lengths, count)[..., None].to(x.dtype),
    )
    return flow.encoder_proj(flow.encoder(x, 0, doing)).transpose(1, 2)


def velocity(flow: Flow, x: Tensor, mu: Tensor, speaker: Tensor, known: Tensor, times: Tensor, lengths: Tensor, masks: FlowMasks) -> Tensor:
    """dx/dt [B, 80, 2 T] at x and times [B], given mu, projected speakers [B, 80] and known frames [B, 80, 2 T]; 0 past the ends."""
    valid = _valid(FRAMES_PER_TOKEN * lengths, x.shape[-1])[..., None].to(x.dtype)
    doing = EstimatorPass(flow.estimator.times(times), Attending([masks.frames]), Memory(), valid)
    return flow.estimator(x, mu, speaker, known, doing)


def flow_losses(flow: Flow, batch: FlowBatch) -> tuple[Tensor, Tensor]:
    """Mean squared error of the velocity on the straight way from noise to mel, and of mu against the mel (arXiv 2210.02747, eq. 23).

    Both are means over the frames of all examples; what is past an example's end enters neither. mu knows no speaker: it is held to
    the voice whose tokens it reads, and the ODE alone makes other voices of it.
    """
    valid = _valid(FRAMES_PER_TOKEN * batch.lengths, batch.mel.shape[-1])[:, None]
    mel = batch.mel * valid
    mu = condition(flow, batch.tokens, batch.lengths, batch.masks)
    known = mel * _valid(batch.known, mel.shape[-1])[:, None]
    seen = (~batch.blind).to(mel.dtype)[:, None]
    speaker = flow.speaker(batch.speakers) * seen
    t = batch.times[:, None, None]
    x = (1 - t) * batch.noise + t * mel
    found = velocity(flow, x, mu * seen[..., None], speaker, known * seen[..., None], batch.times, batch.lengths, batch.masks)
    return _error(found, mel - batch.noise, valid), _error(mu, mel, valid & ~batch.lent[:, None, None])


def _error(found: Tensor, wanted: Tensor, valid: Tensor) -> Tensor:
    return ((found.float() - wanted) * valid).square().sum() / (valid.sum() * found.shape[1]).clamp_min(1)


def _valid(lengths: Tensor, count: int) -> Tensor:
    return torch.arange(count, device=lengths.device) < lengths[:, None]
