"""The speaker encoder of CosyVoice (CAM++): filter-bank features to one vector that says who speaks."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SEGMENT = 100
"""Frames (after the first stride: 2 s) that share one local mean in the context masks."""

DILATIONS = (1, 2, 2)
"""Of the three dense blocks."""

_STRIDES = 8
"""The convolutional head halves the frequency bins three times."""


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions over [B, channels, bins, T] with a way around them; `stride` thins the bins."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, stride=(stride, 1), padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Sequential()
        if stride != 1:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, channels, 1, stride=(stride, 1), bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """[B, channels, bins, T] to [B, channels, bins / stride, T]."""
        inner = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return (inner + self.shortcut(x)).relu()


class ConvolutionHead(nn.Module):
    """Filter banks as an image: [B, 80, T] to [B, 10 channels, T]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.layer1 = nn.Sequential(ResidualBlock(channels, 2), ResidualBlock(channels, 1))
        self.layer2 = nn.Sequential(ResidualBlock(channels, 2), ResidualBlock(channels, 1))
        self.conv2 = nn.Conv2d(channels, channels, 3, stride=(2, 1), padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x_BMT: Tensor) -> Tensor:
        """[B, 80, T] to [B, channels x 10, T]."""
        x = self.bn1(self.conv1(x_BMT[:, None])).relu()
        x = self.layer2(self.layer1(x))
        return self.bn2(self.conv2(x)).relu().flatten(1, 2)


def _norm_relu(channels: int) -> nn.Sequential:
    return nn.Sequential(OrderedDict(batchnorm=nn.BatchNorm1d(channels), relu=nn.ReLU()))


class FirstLayer(nn.Module):
    """Convolution over time that halves the frame rate, norm and ReLU."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.linear = nn.Conv1d(inputs, channels, 5, stride=2, padding=2, bias=False)
        self.nonlinear = _norm_relu(channels)

    def forward(self, x_BCT: Tensor) -> Tensor:
        """[B, inputs, T] to [B, channels, ceil(T / 2)]."""
        return self.nonlinear(self.linear(x_BCT))


class ContextMask(nn.Module):
    """A convolution whose channels are scaled by what the recording as a whole, and the segment of 100 frames, are like."""

    def __init__(self, inputs: int, channels: int, dilation: int) -> None:
        super().__init__()
        self.linear_local = nn.Conv1d(inputs, channels, 3, padding=dilation, dilation=dilation, bias=False)
        self.linear1 = nn.Conv1d(inputs, inputs // 2, 1)
        self.linear2 = nn.Conv1d(inputs // 2, channels, 1)

    def forward(self, x_BCT: Tensor) -> Tensor:
        """[B, inputs, T] to [B, channels, T]."""
        time = x_BCT.shape[2]
        segments = F.avg_pool1d(x_BCT, SEGMENT, stride=SEGMENT, ceil_mode=True)
        context = x_BCT.mean(2, keepdim=True) + segments.repeat_interleave(SEGMENT, dim=2)[..., :time]
        return self.linear_local(x_BCT) * self.linear2(self.linear1(context).relu()).sigmoid()


class DenseLayer(nn.Module):
    """Bottleneck and context mask: the channels a layer adds to its block."""

    def __init__(self, inputs: int, growth: int, bottleneck: int, dilation: int) -> None:
        super().__init__()
        self.nonlinear1 = _norm_relu(inputs)
        self.linear1 = nn.Conv1d(inputs, bottleneck, 1, bias=False)
        self.nonlinear2 = _norm_relu(bottleneck)
        self.cam_layer = ContextMask(bottleneck, growth, dilation)

    def forward(self, x_BCT: Tensor) -> Tensor:
        """[B, inputs, T] to the layer's own [B, growth, T]."""
        return self.cam_layer(self.nonlinear2(self.linear1(self.nonlinear1(x_BCT))))


class DenseBlock(nn.Sequential):
    """Layers that each see the outputs of all before."""

    def forward(self, x_BCT: Tensor) -> Tensor:
        """[B, inputs, T] to [B, inputs + layers x growth, T]."""
        for layer in self:
            x_BCT = torch.cat([x_BCT, layer(x_BCT)], dim=1)
        return x_BCT


class Transit(nn.Module):
    """Halves the channels between two blocks."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.nonlinear = _norm_relu(inputs)
        self.linear = nn.Conv1d(inputs, inputs // 2, 1, bias=False)

    def forward(self, x_BCT: Tensor) -> Tensor:
        """[B, inputs, T] to [B, inputs / 2, T]."""
        return self.linear(self.nonlinear(x_BCT))


class Statistics(nn.Module):
    """Mean and standard deviation (with n - 1) over time."""

    def forward(self, x_BCT: Tensor) -> Tensor:
        """[B, C, T] to [B, 2 C]."""
        return torch.cat([x_BCT.mean(2), x_BCT.std(2, unbiased=True)], dim=1)


class Embedding(nn.Module):
    """Linear map to the speaker vector and a norm without parameters."""

    def __init__(self, inputs: int, size: int) -> None:
        super().__init__()
        self.linear = nn.Conv1d(inputs, size, 1, bias=False)
        self.nonlinear = nn.Sequential(OrderedDict(batchnorm=nn.BatchNorm1d(size, affine=False)))

    def forward(self, x_BC: Tensor) -> Tensor:
        """[B, inputs] to [B, size]."""
        return self.nonlinear(self.linear(x_BC[..., None])[..., 0])


class SpeakerEncoder(nn.Module):
    """CAM++ (arXiv 2303.00332) with 3D-Speaker's parameter names, whose checkpoints load unchanged. Use it in eval mode."""

    def __init__(
        self,
        head: int = 32,
        channels: int = 128,
        growth: int = 32,
        bottleneck: int = 128,
        layers: Sequence[int] = (12, 24, 16),
        size: int = 192,
        bins: int = 80,
    ) -> None:
        super().__init__()
        self.head = ConvolutionHead(head)
        stack: OrderedDict[str, nn.Module] = OrderedDict(tdnn=FirstLayer(head * bins // _STRIDES, channels))
        for number, (count, dilation) in enumerate(zip(layers, DILATIONS, strict=True), 1):
            dense = [DenseLayer(channels + i * growth, growth, bottleneck, dilation) for i in range(count)]
            stack[f"block{number}"] = DenseBlock(OrderedDict((f"tdnnd{i}", layer) for i, layer in enumerate(dense, 1)))
            channels += count * growth
            stack[f"transit{number}"] = Transit(channels)
            channels //= 2
        stack |= OrderedDict(out_nonlinear=_norm_relu(channels), stats=Statistics(), dense=Embedding(2 * channels, size))
        self.xvector = nn.Sequential(stack)

    @classmethod
    def sizes_of(cls, tensors: Mapping[str, Tensor]) -> dict[str, int | list[int]]:
        """Arguments of the constructor for these weights. Raises KeyError if they are no CAM++'s."""
        head = len(tensors["head.conv1.weight"])
        first = tensors["xvector.tdnn.linear.weight"]
        found = [re.match(r"xvector\.block(\d+)\.tdnnd(\d+)\.", name) for name in tensors]
        return {
            "head": head,
            "channels": len(first),
            "growth": len(tensors["xvector.block1.tdnnd1.cam_layer.linear_local.weight"]),
            "bottleneck": len(tensors["xvector.block1.tdnnd1.linear1.weight"]),
            "layers": [max((int(m[2]) for m in found if m and int(m[1]) == block), default=0) for block in (1, 2, 3)],
            "size": len(tensors["xvector.dense.linear.weight"]),
            "bins": first.shape[1] * _STRIDES // head,
        }

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.head.conv1.weight.device

    @torch.no_grad()
    def forward(self, features_BTM: Tensor) -> Tensor:
        """Filter banks [B, T, 80], their mean over time taken off, to speaker vectors [B, 192], not normalised.

        All rows are T long (at least 3): the statistics know no padding.
        """
        return self.xvector(self.head(features_BTM.transpose(1, 2)))
