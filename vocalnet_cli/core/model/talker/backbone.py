"""Llama layers with explicit positions and masks: the stack that projector, decoder and prediction modules share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaMLP, LlamaRMSNorm

from vocalnet_cli.core.config.talker_schema import TalkerSettings
from vocalnet_cli.core.model.cache import GrowingCache
from vocalnet_cli.core.model.talker.cpu_layer import layer_step
from vocalnet_cli.core.model.talker.side_by_side import SideBySide

ROPE_THETA = 10000.0
NORM_EPS = 1e-6
INIT_STD = 0.02


class FrugalMLP(LlamaMLP):
    """Llama's gated MLP that keeps for the backward pass what its inner layers gave, and makes the product of the two again."""

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_proj(x), self.up_proj(x)
        if not gate.requires_grad:
            return self._down(gate, up)
        return checkpoint(self._down, gate, up, use_reentrant=False, preserve_rng_state=False)

    def _down(self, gate: Tensor, up: Tensor) -> Tensor:
        return self.down_proj(self.act_fn(gate) * up)


class TalkerLayer(LlamaDecoderLayer):
    """Llama's layer, with a training step of its own for rows side by side [T, H]."""

    def forward(self, hidden_states: Tensor, *arguments: Any, side: SideBySide | None = None, **more: Any) -> Tensor:
        if side is None:
            return super().forward(hidden_states, *arguments, **more)
        return layer_step(self, hidden_states, side)


class LayerStack(nn.Module):
    """Llama decoder layers without a final norm: states [B, N, H] in and out."""

    def __init__(self, settings: TalkerSettings, layers: int) -> None:
        super().__init__()
        config = LlamaConfig(
            hidden_size=settings.hidden,
            intermediate_size=settings.ffn,
            num_attention_heads=settings.heads,
            num_key_value_heads=settings.heads,
            num_hidden_layers=layers,
            rms_norm_eps=NORM_EPS,
            attention_dropout=settings.dropout,
        )
        config._attn_implementation = "sdpa"
        self.heads = settings.heads
        self.layers = nn.ModuleList(TalkerLayer(config, index) for index in range(layers))
        for layer in self.layers:
            layer.mlp.__class__ = FrugalMLP  # the same weights, another forward pass

    def forward(self, states: Tensor, rotary: tuple[Tensor, Tensor], mask: Tensor, cache: GrowingCache | None = None) -> Tensor:
        """`rotary` from `rotary_table`; `mask` bool [B or 1, 1, N, keys], True = may attend, or what is added to the scores (`added`);
        keys = cached rows, then these."""
        if cache is None and mask.dtype == torch.bool and side_by_side(states):
            side = SideBySide.whole(mask, rotary, len(states), self.heads)
            return self.run(states.flatten(0, 1), side).view(states.shape)
        for layer in self.layers:
            states = layer(states, mask, None, cache, position_embeddings=rotary)
        return states

    def run(self, rows: Tensor, side: SideBySide) -> Tensor:
        """The same for rows [T, H] of `side`, where `side_by_side` is true."""
        for layer in self.layers:
            rows = layer(rows, side=side)
        return rows


def side_by_side(states: Tensor) -> bool:
    """Whether layers take rows side by side: in training on a CPU, where it is faster and looking at lengths waits for no device."""
    return torch.is_grad_enabled() and states.device.type == "cpu"


def rotary_table(positions: Tensor, head_dim: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines and sines [B, N, head_dim] of positions [N] or [B, N] (B is 1 for [N]), in Llama's half-rotation layout.

    Computed here in single precision: transformers keeps the frequencies in a buffer, which `module.to(bfloat16)` would round.
    """
    steps = torch.arange(0, head_dim, 2, device=positions.device, dtype=torch.float32) / head_dim
    angles = torch.atleast_2d(positions)[..., None].float() * ROPE_THETA**-steps
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def added(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A bool mask as what is added to attention scores: made once, where every layer would make and keep its own."""
    kind = mask.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, -torch.inf)


def norm(settings: TalkerSettings) -> nn.Module:
    """The RMSNorm before a head."""
    return LlamaRMSNorm(settings.hidden, eps=NORM_EPS)


def init_weights(module: nn.Module) -> None:
    """The start Hugging Face models have: N(0, 0.02), zero biases, zero padding row."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=INIT_STD)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
    if isinstance(module, nn.Embedding) and module.padding_idx is not None:
        nn.init.zeros_(module.weight[module.padding_idx].detach())
