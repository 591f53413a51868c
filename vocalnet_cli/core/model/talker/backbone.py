"""Llama layers with explicit positions and masks: the stack that projector, decoder and prediction modules share."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRMSNorm

from vocalnet_cli.core.config.talker_schema import TalkerSettings
from vocalnet_cli.core.model.cache import GrowingCache, cache_argument

ROPE_THETA = 10000.0
NORM_EPS = 1e-6
INIT_STD = 0.02


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
        self.layers = nn.ModuleList(LlamaDecoderLayer(config, index) for index in range(layers))

    def forward(self, states: Tensor, rotary: tuple[Tensor, Tensor], mask: Tensor, cache: GrowingCache | None = None) -> Tensor:
        """`rotary` from `rotary_table`; `mask` bool [B or 1, 1, N, keys], True = may attend; keys = cached rows, then these."""
        for layer in self.layers:
            states = layer(states, attention_mask=mask, position_embeddings=rotary, **cache_argument(layer, cache))
        return states


def rotary_table(positions: Tensor, head_dim: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines and sines [B, N, head_dim] of positions [N] or [B, N] (B is 1 for [N]), in Llama's half-rotation layout.

    Computed here in single precision: transformers keeps the frequencies in a buffer, which `module.to(bfloat16)` would round.
    """
    steps = torch.arange(0, head_dim, 2, device=positions.device, dtype=torch.float32) / head_dim
    angles = torch.atleast_2d(positions)[..., None].float() * ROPE_THETA**-steps
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos().to(dtype), angles.sin().to(dtype)


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
