"""A folder in the layout of the released checkpoints, made of one of the small whole models of the fixtures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.parity.numbers import FOLDER
from vocalnet_cli.core.model.tokenizer import LLAMA_TEMPLATE, QWEN_TEMPLATE

SEGMENT_ENDS = {".": 13, "?": 30, "!": 0, ",": 11}
SPECIAL_FROM = 290
"""Ids from here on have no text (the fixtures' stand-in tokenizer)."""


def config_of(meta: dict[str, Any]) -> dict[str, Any]:
    """The config.json the released code would have saved for a model of these sizes."""
    talker, llm = dict(meta["talker_config"]), dict(meta["llm_config"])
    return {
        **llm,
        **talker,
        "model_type": f"omni_speech2s_{meta['family']}",
        "architectures": ["OmniSpeech2SLlamaForCausalLM"],
        "speech_encoder": "./speech_encoder",
        "speech_encoder_type": "whisper",
        "speech_encoder_ds_rate": meta["adaptor"]["downsample_k"],
        "speech_encoder_hidden_size": meta["whisper_encoder_config"]["d_model"],
        "speech_projector_type": "linear",
        "speech_projector_lr": None,
        "speech_generator_type": "ar_mtp",
        "speech_generator_config": "./scripts/mtp/ar_config_5.yaml",
        "hidden_act": "silu",
        "switch_token_id": talker["unit_vocab_size"] + 4,
        "torch_dtype": "float32",
        "use_duplex": False,
    }


def tokenizer_of(meta: dict[str, Any]) -> PreTrainedTokenizerFast:
    """A word tokenizer with the fixture's special ids under their real names."""
    ids = meta["ids"]
    names = {index: f"w{index}" for index in range(meta["llm_config"]["vocab_size"])} | {i: token for token, i in SEGMENT_ENDS.items()}
    llama = meta["family"] == "llama"
    names[ids["end_of_turn_id"]] = "<|eot_id|>" if llama else "<|im_end|>"
    if not llama:
        names[ids["text_eos_embedding_id"]] = "<|endoftext|>"
    inner = Tokenizer(models.WordLevel({name: index for index, name in names.items()}, unk_token="w1"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.decoder = decoders.Fuse()
    special = [name for index, name in names.items() if index >= SPECIAL_FROM]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, extra_special_tokens=special, clean_up_tokenization_spaces=False)
    tokenizer.chat_template = LLAMA_TEMPLATE if llama else QWEN_TEMPLATE
    return tokenizer


def write_folder(meta: dict[str, Any], folder: Path, shards: int = 1, drop: tuple[str, ...] = (), dtype: torch.dtype | None = None) -> Path:
    """Write the model `full_FAMILY` as a released checkpoint; tensors whose names start with one of `drop` are left out."""
    folder.mkdir(parents=True)
    state = load_file(FOLDER / f"full_{meta['family']}_state.safetensors")
    state = {name: tensor.to(dtype or tensor.dtype) for name, tensor in state.items() if not name.startswith(drop or ("-",))}
    if shards == 1:
        save_file(state, folder / "model.safetensors")
    else:
        names = sorted(state)
        files = {f"model-{i + 1:05}-of-{shards:05}.safetensors": names[i::shards] for i in range(shards)}
        for file, inside in files.items():
            save_file({name: state[name] for name in inside}, folder / file)
        index = {"metadata": {}, "weight_map": {name: file for file, inside in files.items() for name in inside}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps(config_of(meta)))
    (folder / "speech_encoder").mkdir()
    (folder / "speech_encoder" / "config.json").write_text(json.dumps(meta["whisper_encoder_config"]))
    tokenizer_of(meta).save_pretrained(str(folder))
    return folder
