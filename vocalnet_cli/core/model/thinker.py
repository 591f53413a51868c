"""The text LLM: any transformers causal LM, built from a recipe's sizes or read from a folder; LoRA through peft."""

from __future__ import annotations

import warnings
from typing import Any

from torch import Tensor, nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from vocalnet_cli.core.config.schema import LoraSettings, ThinkerSettings
from vocalnet_cli.core.model.cache import cache_argument

FAMILIES: dict[str, tuple[type, type]] = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
}
LORA_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
"""All linear layers of each thinker layer, as the released models were adapted (vocalnet.md section 1.6)."""


def build_thinker(settings: ThinkerSettings) -> PreTrainedModel:
    """A causal LM of these sizes with random weights."""
    config_class, model_class = FAMILIES[settings.family]
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": settings.rope_theta, **(settings.rope_scaling or {})}
    config = config_class(
        vocab_size=settings.vocab,
        hidden_size=settings.hidden,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.kv_heads,
        intermediate_size=settings.ffn,
        rms_norm_eps=settings.norm_eps,
        rope_parameters=rope,
        max_position_embeddings=settings.max_positions,
        tie_word_embeddings=settings.tied,
        attn_implementation="sdpa",
        head_dim=settings.head_dim or settings.hidden // settings.heads,
    )
    return model_class(config)


def add_lora(thinker: PreTrainedModel, settings: LoraSettings) -> nn.Module:
    """The thinker with trainable low-rank factors in every linear layer; its own weights are frozen."""
    from peft import LoraConfig, get_peft_model

    lora = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]  # peft takes fractions too
        lora_dropout=settings.dropout,
        target_modules=LORA_TARGETS,
        bias="none",
        task_type="CAUSAL_LM",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft knows transformers' attributes by earlier names
        return get_peft_model(thinker, lora)


def merge_lora(thinker: Any) -> PreTrainedModel:
    """The plain thinker with the low-rank factors added into its weights."""
    return thinker.merge_and_unload()


def last_hidden(
    thinker: Any, embeds: Tensor, attention_mask: Tensor | None = None, cache: Any = None, positions: Tensor | None = None
) -> Tensor:
    """States [B, L, H] after the final norm: what the output layer sees and what the talker reads (vocalnet.md section 4).

    `positions` long [B, L] are needed where padding lies between the rows in `cache` and these.
    """
    base = thinker.get_base_model() if hasattr(thinker, "get_base_model") else thinker
    before = cache_argument(base.model, cache)
    return base.model(
        inputs_embeds=embeds, attention_mask=attention_mask, position_ids=positions, use_cache=cache is not None, **before
    ).last_hidden_state


def text_logits(thinker: Any, hidden: Tensor) -> Tensor:
    """Vocabulary logits [..., V] of states [..., H]."""
    return thinker.get_output_embeddings()(hidden)
