"""How near each stage comes to what the machine can do: reading its weights once a step, or its multiplications, whichever takes longer.

(The roofline model: Williams, Waterman and Patterson, CACM 52(4), 2009.)
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from vocalnet_cli.core.config.schema import Recipe
from vocalnet_cli.core.errors import VocalnetError
from vocalnet_cli.core.latency.parts import PARTS
from vocalnet_cli.core.latency.timers import DIGITS, Stopwatch, processors

GIB = 1 << 30
LEAST_READ = 2 * GIB
"""Bytes that are summed: far more than any cache holds."""

BEST_OF = 5
_MATMUL = (2048, 2048, 8192)
"""Rows, inner and outer width of the product whose rate is the machine's."""

_ATTENTION = [
    getattr(torch.ops.aten, f"_scaled_dot_product_{kind}")
    for kind in ("flash_attention_for_cpu", "flash_attention", "efficient_attention", "cudnn_attention")
]
"""What `scaled_dot_product_attention` becomes."""

_WARM, _STEPS = 2, 5
"""Steps of a stage before those that count, and those; their median is told."""


@contextmanager
def all_threads() -> Iterator[None]:
    """Every CPU thread this process may use, for the machine's limits and the stages alike."""
    before = torch.get_num_threads()
    torch.set_num_threads(processors())
    try:
        yield
    finally:
        torch.set_num_threads(before)


def bandwidth_gb_s(device: torch.device) -> float:
    """10^9 bytes a second of a read-only sum over LEAST_READ bytes, best of 5. Raises VocalnetError where they do not fit."""
    try:
        numbers = torch.ones(LEAST_READ // 4, dtype=torch.float32, device=device)
    except RuntimeError as error:
        raise VocalnetError(
            f"{device} has no {LEAST_READ / GIB:g} GiB free, which measuring its bandwidth takes", "Close something else."
        ) from error
    numbers.sum()  # every page is there
    return LEAST_READ / min(Stopwatch(device)(lambda: numbers.sum()) for _ in range(BEST_OF)) / 1e9


def matmul_gflop_s(device: torch.device, dtype: torch.dtype) -> float:
    """10^9 multiplications and additions a second of a large matrix product, best of 5."""
    rows, inner, outer = _MATMUL
    a, b = torch.randn(rows, inner, device=device).to(dtype), torch.randn(inner, outer, device=device).to(dtype)
    a @ b
    return 2 * rows * inner * outer / min(Stopwatch(device)(lambda: a @ b) for _ in range(BEST_OF)) / 1e9


def roofline(
    recipe: Recipe,
    device: torch.device,
    dtype: torch.dtype,
    seed: int = 0,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """The machine's bandwidth and matmul rate, then every stage at the recipe's sizes with random weights, one at a time, all threads.

    `stages`: for each, `bytes_per_step` (weights read by its matrix products, each time), `flops_per_step`, `ms_per_step` (median),
    `limit_ms` (the larger of both over what the machine does), `fraction_of_limit` (limit over measured; above 1 for weights that fit
    the cache) and `bound` (which of both). A step is a question for the encoder, a token for the thinker, one call of the heads
    for the talker, and a chunk for the vocoder. Raises VocalnetError for what does not fit into memory.
    """
    total = 2 + len(PARTS)
    with all_threads(), torch.no_grad():
        advance(0, total)
        bandwidth = bandwidth_gb_s(device)
        advance(1, total)
        rate = matmul_gflop_s(device, dtype)
        stages = {}
        for done, (name, make) in enumerate(PARTS.items(), 2):
            advance(done, total)
            made = make(recipe, device, dtype, seed)
            if made is not None:
                own = rate if made.dtype == dtype else matmul_gflop_s(device, made.dtype)
                stages[name] = _stage(made.part, made.step, Stopwatch(device), bandwidth, own)
            del made
        advance(total, total)
        return {
            "bandwidth_gb_s": round(bandwidth, 2),
            "matmul_gflop_s": round(rate, 1),
            "stages": stages,
            "threads": torch.get_num_threads(),
        }


def _stage(part: nn.Module, step: Callable[[], Any], clock: Stopwatch, bandwidth: float, rate: float) -> dict[str, Any]:
    for _ in range(_WARM):
        step()
    read, flops = count_work(part, step)
    seconds = statistics.median(clock(step) for _ in range(_STEPS))
    limits = {"bandwidth": read / bandwidth / 1e9, "matmul": flops / rate / 1e9}
    bound = max(limits, key=lambda name: limits[name])
    return {
        "bytes_per_step": read,
        "flops_per_step": flops,
        "ms_per_step": round(1000 * seconds, DIGITS),
        "limit_ms": round(1000 * limits[bound], DIGITS),
        "fraction_of_limit": round(limits[bound] / seconds, 4),
        "bound": bound,
    }


def count_work(part: nn.Module, step: Callable[[], Any]) -> tuple[int, int]:
    """Bytes of the part's weights that the matrix products of a step read, and the products' multiplications and additions.

    A weight that is used again is read again: so it is for weights that no cache holds.
    """
    with _WeightsRead(part) as read, FlopCounterMode(display=False, custom_mapping=dict.fromkeys(_ATTENTION, _attention_flops)) as flops:
        step()
    return read.total, flops.get_total_flops()


def _attention_flops(query: torch.Size, key: torch.Size, value: torch.Size, *_: Any, **__: Any) -> int:
    """Of shapes [B, H, N, D], keys' and values' with fewer heads where these are shared, which torch 2.11's own count refuses."""
    batch, heads, new, width = query
    return 2 * batch * heads * new * key[-2] * (width + value[-1])


class _WeightsRead(TorchDispatchMode):
    """Adds up the weights that go into the operations the flop counter counts."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.total = 0
        self._weights = {parameter.untyped_storage().data_ptr() for parameter in part.parameters()}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._overloadpacket in flop_registry:
            for value in args:
                if isinstance(value, Tensor) and value.untyped_storage().data_ptr() in self._weights:
                    self.total += value.numel() * value.element_size()
        return func(*args, **(kwargs or {}))
