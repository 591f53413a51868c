"""The speech tokenizer of CosyVoice 2 (S3 tokenizer v2): Whisper's log-mel to 25 tokens a second out of 6561."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from vocalnet_cli.core.units import ENCODER_HOP, QUESTION_HZ, SPEECH_TOKEN_HZ

HEAD = 64
"""Width of an attention head."""

LEVELS = 3
"""Values a dimension of the code can take; a token is a number of 8 digits to this base."""

_SHRINK = 0.9990000128746033
"""Keeps tanh below 1; the exact float32 number of the released file."""

_FRAME_HZ = QUESTION_HZ // ENCODER_HOP
_WINDOW = 30 * _FRAME_HZ
_OVERLAP_S = 4
_STRIDE = _WINDOW - _OVERLAP_S * _FRAME_HZ
_HALF_OVERLAP = _OVERLAP_S * SPEECH_TOKEN_HZ // 2


def token_count(frames: int | Tensor) -> int | Tensor:
    """Tokens of `frames` log-mel frames (100 a second): both convolutions halve, rounding up."""
    return ((frames + 1) // 2 + 1) // 2


def rotary(x_BTHD: Tensor) -> Tensor:
    """Rotary positions (arXiv 2104.09864) on [B, T, heads, 64]: base 10000, the two halves of a head are the rotated pairs."""
    time, half = x_BTHD.shape[1], x_BTHD.shape[-1] // 2
    speed = 10000.0 ** (-torch.arange(half, device=x_BTHD.device, dtype=torch.float32) / half)
    angle = torch.arange(time, device=x_BTHD.device)[:, None] * speed
    cos, sin = angle.cos()[:, None].to(x_BTHD.dtype), angle.sin()[:, None].to(x_BTHD.dtype)
    low, high = x_BTHD.chunk(2, dim=-1)
    return torch.cat([low * cos - high * sin, high * cos + low * sin], dim=-1)


class MemoryAttention(nn.Module):
    """Self-attention plus an FSMN memory: a depthwise convolution over half a second around, of the values (arXiv 1803.05030)."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.fsmn_block = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width, bias=False)

    def forward(self, x_BTW: Tensor, valid_BT: Tensor) -> Tensor:
        """[B, T, width] to the same; padding neither is attended to nor enters the memory."""
        heads = (*x_BTW.shape[:2], -1, HEAD)
        query, key = (rotary(proj(x_BTW).reshape(heads)).transpose(1, 2) for proj in (self.query, self.key))
        value = self.value(x_BTW)
        attended = F.scaled_dot_product_attention(query, key, value.reshape(heads).transpose(1, 2), attn_mask=valid_BT[:, None, None])
        kept = value * valid_BT[..., None]
        memory = self.fsmn_block(kept.transpose(1, 2)).transpose(1, 2) + kept
        return self.out(attended.transpose(1, 2).flatten(2)) + memory * valid_BT[..., None]


class MemoryBlock(nn.Module):
    """Pre-norm transformer block with memory attention."""

    def __init__(self, width: int, ffn: int, kernel: int) -> None:
        super().__init__()
        self.attn = MemoryAttention(width, kernel)
        self.attn_ln = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, ffn), nn.GELU(), nn.Linear(ffn, width))
        self.mlp_ln = nn.LayerNorm(width)

    def forward(self, x_BTW: Tensor, valid_BT: Tensor) -> Tensor:
        """[B, T, width] to the same."""
        x_BTW = x_BTW + self.attn(self.attn_ln(x_BTW), valid_BT)
        return x_BTW + self.mlp(self.mlp_ln(x_BTW))


class S3Encoder(nn.Module):
    """Two strided convolutions and a stack of blocks; no positions but the rotary ones, no final norm."""

    def __init__(self, bins: int, width: int, layers: int, ffn: int, kernel: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(bins, width, 3, stride=2, padding=1)
        self.conv2 = nn.Conv1d(width, width, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList([MemoryBlock(width, ffn, kernel) for _ in range(layers)])

    def forward(self, mel_BMF: Tensor, frames_B: Tensor) -> Tensor:
        """Log-mel [B, bins, F] of `frames_B` real frames to states [B, ceil(ceil(F / 2) / 2), width]; rows past the end are meaningless."""
        x = mel_BMF
        for conv in (self.conv1, self.conv2):
            x = F.gelu(conv(x * _valid(frames_B, x.shape[2])[:, None]))
            frames_B = (frames_B + 1) // 2
        x = x.transpose(1, 2)
        valid_BT = _valid(frames_B, x.shape[1])
        for block in self.blocks:
            x = block(x, valid_BT)
        return x


def _valid(lengths_B: Tensor, size: int) -> Tensor:
    return torch.arange(size, device=lengths_B.device) < lengths_B[:, None]


class FiniteScalarCode(nn.Module):
    """Finite scalar quantisation (arXiv 2309.15505): 8 numbers, each rounded to one of three."""

    def __init__(self, width: int, digits: int) -> None:
        super().__init__()
        self.project_down = nn.Linear(width, digits)

    def levels(self, x: Tensor) -> Tensor:
        """States [..., width] to unrounded levels [..., 8] within (-1, 1)."""
        return self.project_down(x).tanh() * _SHRINK


def code_index(levels: Tensor) -> Tensor:
    """Unrounded levels [..., 8] within (-1, 1) to int64 tokens [...]; the first level is the least significant digit."""
    digits = levels.round().long() + 1
    return (digits * LEVELS ** torch.arange(levels.shape[-1], device=levels.device)).sum(-1)


class S3Tokenizer(nn.Module):
    """Log-mel to speech tokens. Parameters have the names of the `s3tokenizer` package, whose checkpoints load unchanged.

    Source: CosyVoice 2 (arXiv 2412.10117), section 2.2. Not causal: a token depends on the whole recording.
    """

    def __init__(self, bins: int = 128, width: int = 1280, layers: int = 6, ffn: int = 5120, kernel: int = 31, digits: int = 8) -> None:
        super().__init__()
        self.encoder = S3Encoder(bins, width, layers, ffn, kernel)
        self.quantizer = nn.ModuleDict({"_codebook": FiniteScalarCode(width, digits)})

    @classmethod
    def sizes_of(cls, tensors: Mapping[str, Tensor]) -> dict[str, int]:
        """Arguments of the constructor for these weights. Raises KeyError if they are no S3 tokenizer's."""
        width, bins, _ = tensors["encoder.conv1.weight"].shape
        blocks = [int(match[1]) for name in tensors if (match := re.match(r"encoder\.blocks\.(\d+)\.", name))]
        return {
            "bins": bins,
            "width": width,
            "layers": max(blocks, default=-1) + 1,
            "ffn": len(tensors["encoder.blocks.0.mlp.0.bias"]),
            "kernel": tensors["encoder.blocks.0.attn.fsmn_block.weight"].shape[-1],
            "digits": len(tensors["quantizer._codebook.project_down.bias"]),
        }

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.encoder.conv1.weight.device

    @torch.no_grad()
    def forward(self, mel_BMF: Tensor, frames_B: Tensor) -> tuple[Tensor, Tensor]:
        """Log-mel [B, 128, F] of `frames_B` real frames to int64 tokens [B, T] and how many of each row are real [B]."""
        codebook = self.quantizer["_codebook"]
        assert isinstance(codebook, FiniteScalarCode)
        # On a GPU convolutions are in TF32 unless told otherwise: too coarse for levels that lie near a rounding border.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            tokens = code_index(codebook.levels(self.encoder(mel_BMF, frames_B)))
        lengths = token_count(frames_B)
        assert isinstance(lengths, Tensor)
        return tokens, lengths


TokenizeBatch = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Log-mel [B, 128, F], real frames [B] -> tokens [B, T], real tokens [B]."""


def windows(frames: int) -> list[tuple[int, int]]:
    """Where a recording of `frames` frames is cut: windows of 30 s that overlap by 4 s; the last ends with the recording."""
    cuts = [(0, min(frames, _WINDOW))]
    while cuts[-1][1] < frames:
        start = cuts[-1][0] + _STRIDE
        cuts.append((start, min(frames, start + _WINDOW)))
    return cuts


@torch.no_grad()
def speech_tokens(tokenize: TokenizeBatch, mels: Sequence[Tensor], device: torch.device | str = "cpu", batch: int = 8) -> list[Tensor]:
    """Log-mels [128, F_i] of any lengths to int64 tokens [T_i] on the CPU, at most `batch` windows at once.

    Recordings of more than 30 s are tokenised in windows that overlap by 4 s; at each joint either side gives up its outer 2 s, so
    that every token has heard at least 2 s around it. The released code cuts without overlap (VocalNet) or refuses (CosyVoice);
    the windows are those of the `s3tokenizer` package, save that no window follows one that reaches the end.
    """
    cuts = [(row, start, end) for row, mel in enumerate(mels) for start, end in windows(mel.shape[1])]
    parts: list[list[Tensor]] = [[] for _ in mels]
    for first in range(0, len(cuts), batch):
        some = cuts[first : first + batch]
        frames = torch.tensor([end - start for _, start, end in some], device=device)
        padded = pad_sequence([mels[row][:, start:end].T for row, start, end in some], batch_first=True).transpose(1, 2)
        tokens, lengths = tokenize(padded.to(device), frames)
        for (row, _, _), found, length in zip(some, tokens.cpu(), lengths.tolist(), strict=True):
            parts[row].append(found[:length])
    return [_joined(part) for part in parts]


def _joined(parts: list[Tensor]) -> Tensor:
    last = len(parts) - 1
    return torch.cat([part[_HALF_OVERLAP * (i > 0) : len(part) - _HALF_OVERLAP * (i < last)] for i, part in enumerate(parts)]).long()
