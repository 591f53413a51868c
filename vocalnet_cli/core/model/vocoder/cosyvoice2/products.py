"""Matrix products with weights made ready for them: several as one and, on a CPU, laid out as oneDNN wants them.

torch's own single-precision products on a CPU are MKL's: they lay out the weights in every call and, on AMD's, use half of the
machine's arithmetic (AVX2). oneDNN's are 1.9 to 2.3 times as fast there, for 60 rows as for 1000.
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
    if not torch.backends.mkldnn.is_available() or not all(hasattr(ops, one) for one in ("_reorder_linear_weight", "_linear_pointwise")):
        return False
    if dtype == torch.float32:
        return torch.backends.cpu.get_cpu_capability().startswith("AVX")
    supported = {torch.bfloat16: "_is_mkldnn_bf16_supported", torch.float16: "_is_mkldnn_fp16_supported"}.get(dtype, "")
    return bool(getattr(ops, supported, lambda: False)())


class Product:
    """x W^T + b, W made of some weights once and again whenever they change. Nothing of it is saved or copied with a model."""

    def __init__(self) -> None:
        self._made: tuple[Hashable, Tensor] | None = None

    def __reduce__(self) -> Any:
        return Product, ()

    def __call__(self, x: Tensor, make: Callable[..., Tensor], *weights: Tensor, bias: Tensor | None = None, **then: Any) -> Tensor:
        """x [..., n] to [..., m]; `make(*weights)` gives W [m, n].

        `then`: gelu=True, the exact one of the result; or onto=y [..., m], which is added to.
        """
        laid_out = lays_out(x)
        key = tuple((weight.data_ptr(), weight.dtype, 0 if weight.is_inference() else weight._version) for weight in weights)
        if self._made is None or self._made[0] != key:
            with torch.inference_mode(False), torch.no_grad():
                matrix = make(*(weight.detach() for weight in weights)).contiguous()
                rows = x.numel() // x.shape[-1]
                self._made = key, torch.ops.mkldnn._reorder_linear_weight(matrix, rows) if laid_out else matrix
        matrix = self._made[1]
        if laid_out:
            if "onto" in then:
                return torch.ops.mkldnn._linear_pointwise.binary(x, then["onto"], matrix, bias, "add")
            return torch.ops.mkldnn._linear_pointwise(x, matrix, bias, "gelu" if then else "none", [], "none")
        y = F.linear(x, matrix, bias)
        if "onto" in then:
            return y + then["onto"]
        return F.gelu(y) if then else y

    def linear(self, x: Tensor, layer: nn.Linear, **then: Any) -> Tensor:
        """What a linear layer gives."""
        return self(x, _same, layer.weight, bias=layer.bias, **then)

    def each(self, x: Tensor, layer: nn.Conv1d, **then: Any) -> Tensor:
        """What a convolution of one frame gives on rows [..., C]."""
        return self(x, _frame, layer.weight, bias=layer.bias, **then)


def _same(weight: Tensor) -> Tensor:
    return weight


def _frame(weight: Tensor) -> Tensor:
    return weight[..., 0]
