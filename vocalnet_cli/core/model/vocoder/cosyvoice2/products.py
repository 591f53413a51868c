"""Matrix products with weights made ready for them: several as one and, on a CPU, laid out as oneDNN wants them.

torch's own single-precision products on a CPU are MKL's: they lay out the weights in every call and, on AMD's, use half of the
machine's arithmetic (AVX2). oneDNN's are 1.9 to 2.3 times as fast there, for 60 rows as for 1000. torch.compile, weights frozen, comes
after them: layers over a chunk's rows take 1.3 to 1.5 times as long (torch 2.13, one thread), and compiling five of them a minute.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def half_on_cpu(x: Tensor) -> bool:
    """Where arithmetic is fast in matrix products alone."""
    return x.device.type == "cpu" and x.dtype in (torch.bfloat16, torch.float16)


def fits(x: Tensor, weight: Tensor) -> bool:
    """Whether a `Product` can multiply these: of the same type, and no gradient is wanted."""
    return weight.dtype == x.dtype and not weight.requires_grad and not x.requires_grad


def lays_out(x: Tensor) -> bool:
    """Whether products with x take weights that are laid out beforehand."""
    return x.device.type == "cpu" and _lays_out(x.dtype)


@lru_cache(maxsize=8)
def _lays_out(dtype: torch.dtype) -> bool:
    ops: Any = torch.ops.mkldnn
    wanted = "_reorder_linear_weight", "_linear_pointwise", "_reorder_convolution_weight", "_reorder_convolution_transpose_weight"
    if not torch.backends.mkldnn.is_available() or not all(hasattr(ops, one) for one in wanted):
        return False
    if dtype == torch.float32:
        return torch.backends.cpu.get_cpu_capability().startswith("AVX")
    supported = {torch.bfloat16: "_is_mkldnn_bf16_supported", torch.float16: "_is_mkldnn_fp16_supported"}
    return dtype in supported and bool(getattr(ops, supported[dtype], lambda: False)())


class Made:
    """What is made of some weights once and again whenever they change. Nothing of it is saved or copied with a model."""

    def __init__(self) -> None:
        self._made: tuple[Hashable, Tensor] | None = None

    def __reduce__(self) -> Any:
        return type(self), ()

    def of(self, how: Hashable, make: Callable[..., Tensor], *weights: Tensor) -> Tensor:
        """`make(*weights)`; `how` tells apart what may be made of the same weights."""
        key = how, *((weight.data_ptr(), weight.dtype, 0 if weight.is_inference() else weight._version) for weight in weights)
        if self._made is None or self._made[0] != key:
            with torch.inference_mode(False), torch.no_grad():
                self._made = key, make(*(weight.detach() for weight in weights))
        return self._made[1]


class Product(Made):
    """x W^T + b, W made of some weights."""

    def __call__(self, x: Tensor, make: Callable[..., Tensor], *weights: Tensor, bias: Tensor | None = None, **then: Any) -> Tensor:
        """x [..., n] to [..., m]; `make(*weights)` gives W [m, n].

        `then`: gelu=True, the exact one of the result; or onto=y [..., m], which is added to.
        """
        if not lays_out(x):
            y = F.linear(x, self.of(False, lambda *those: make(*those).contiguous(), *weights), bias)
            if "onto" in then:
                return y + then["onto"]
            return F.gelu(y) if then else y
        rows = x.numel() // x.shape[-1]
        matrix = self.of(True, lambda *those: torch.ops.mkldnn._reorder_linear_weight(make(*those).contiguous(), rows), *weights)
        if "onto" in then:
            return torch.ops.mkldnn._linear_pointwise.binary(x, then["onto"], matrix, bias, "add")
        return torch.ops.mkldnn._linear_pointwise(x, matrix, bias, "gelu" if then else "none", [], "none")

    def linear(self, x: Tensor, layer: nn.Linear, **then: Any) -> Tensor:
        """What a linear layer gives."""
        return self(x, _same, layer.weight, bias=layer.bias, **then)

    def each(self, x: Tensor, layer: nn.Conv1d, **then: Any) -> Tensor:
        """What a convolution of one frame gives on rows [..., C]."""
        return self(x, _frame, layer.weight, bias=layer.bias, **then)


class Convolution(Made):
    """Convolutions over [B, C, n] with prepared weights, where `lays_out`. What goes in and comes out lies in memory frame by frame."""

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor, stride: int, dilation: int, pad: int = 0) -> Tensor:
        """What `F.conv1d` gives, weight [out, C, kernel]."""
        flat, geometry = by_frames(x).unsqueeze(2), ([0, pad], [1, stride], [1, dilation], 1)

        def make(those: Tensor) -> Tensor:
            return torch.ops.mkldnn._reorder_convolution_weight(those.unsqueeze(2), *geometry, list(flat.shape))

        return torch.ops.mkldnn._convolution_pointwise(flat, self.of(None, make, weight), bias, *geometry, "none", [], "none").squeeze(2)

    def transposed(self, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        """What `F.conv_transpose1d` gives, weight [C, out, kernel]."""
        flat, geometry = by_frames(x).unsqueeze(2), ([0, 0], [0, 0], [1, stride], [1, 1], 1)

        def make(those: Tensor) -> Tensor:
            return torch.ops.mkldnn._reorder_convolution_transpose_weight(those.unsqueeze(2), *geometry, list(flat.shape))

        matrix = self.of(None, make, weight)
        return torch.ops.mkldnn._convolution_transpose_pointwise(flat, matrix, None, *geometry, "none", [], "none").squeeze(2)


def by_frames(x: Tensor) -> Tensor:
    """[B, C, n] as it is, in memory frame by frame."""
    return x.mT.contiguous().mT


def _same(weight: Tensor) -> Tensor:
    return weight


def _frame(weight: Tensor) -> Tensor:
    return weight[..., 0]
