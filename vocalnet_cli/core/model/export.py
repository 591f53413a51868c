"""Our models in the layout of the released checkpoints, for tools that read those."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict

from vocalnet_cli.core.config.schema import ModelSettings
from vocalnet_cli.core.errors import VocalnetError
from vocalnet_cli.core.model.device import DTYPES
from vocalnet_cli.core.model.folder import read_config
from vocalnet_cli.core.model.official_weights import PREFIXES, ours_to_official
from vocalnet_cli.core.model.part_weights import save_part
from vocalnet_cli.core.model.released import OURS, SPECIALS
from vocalnet_cli.core.model.shards import WHOLE
from vocalnet_cli.core.model.speech_llm import SpeechLLM
from vocalnet_cli.core.model.tensor_file import whole_folder
from vocalnet_cli.core.model.weights import load_model

MODEL_TYPES = {
    "llama": ("omni_speech2s_llama", "OmniSpeech2SLlamaForCausalLM"),
    "qwen2": ("omni_speech2s_qwen", "OmniSpeech2SQwen2ForCausalLM"),
}
ENCODER_FOLDER = "speech_encoder"


def export_released(folder: Path, output: Path, dtype: str = "bf16", shard_size: str = "5GB") -> list[str]:
    """Write the model of `folder` as a released checkpoint into `output`, whole or not at all; returns the files' names.

    Tensors get the released names, config.json the released keys; what those cannot say (whose masks, the vocoder) stays under a key
    of our own, so that the export reads back as the same model. Raises VocalnetError for what the released code cannot build.
    """
    config = read_config(folder)
    settings: ModelSettings = config["model"]
    if settings.thinker.family not in MODEL_TYPES:
        raise VocalnetError(f"{folder}: thinker.family is {settings.thinker.family!r}", f"Released: only {', '.join(MODEL_TYPES)}.")
    if not settings.talker.in_released_code:
        raise VocalnetError(
            f"{folder}: talker.kind is {settings.talker.kind!r}", "The released code cannot speak with it; keep our layout."
        )
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise VocalnetError(f"{output}: is there already, and not empty", "Name a new folder with -o.")
    model = load_model(folder, "cpu", DTYPES[dtype])
    with whole_folder(output) as new:
        _write(model, config, new, dtype, shard_size)
    return sorted(path.name for path in output.iterdir())


def _write(model: SpeechLLM, config: dict[str, Any], new: Path, dtype: str, shard_size: str) -> None:
    state: dict[str, torch.Tensor] = {}
    for part in PREFIXES:
        state |= ours_to_official(part, getattr(model, part).state_dict())
    if model.settings.thinker.tied:
        state.pop("lm_head.weight", None)
    save_torch_state_dict(state, new, filename_pattern=WHOLE.replace(".safetensors", "{suffix}.safetensors"), max_shard_size=shard_size)
    if model.vocoder is not None:
        save_part(model.vocoder, new, "vocoder")
    model.tokenizer.save_pretrained(str(new))
    ours = {"model": model.settings.model_dump(mode="json"), "generation": config.get("generation") or {}}
    if "vocoder" in config:
        ours["vocoder"] = config["vocoder"].model_dump()
    written = released_keys(model, dtype) | {OURS: ours}
    (new / "config.json").write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    (new / ENCODER_FOLDER).mkdir()
    model.encoder.config.save_pretrained(str(new / ENCODER_FOLDER))
    shutil.rmtree(new / ".cache", ignore_errors=True)


def released_keys(model: SpeechLLM, dtype: str) -> dict[str, Any]:
    """What the released code reads of config.json (vocalnet.md, section 1.2)."""
    settings = model.settings
    thinker, talker, encoder = settings.thinker, settings.talker, settings.encoder
    model_type, architecture = MODEL_TYPES[thinker.family]
    specials = {key: talker.codes + number for number, key in enumerate(SPECIALS)}
    return {
        "model_type": model_type,
        "architectures": [architecture],
        "torch_dtype": str(DTYPES[dtype]).removeprefix("torch."),
        "vocab_size": thinker.vocab,
        "hidden_size": thinker.hidden,
        "intermediate_size": thinker.ffn,
        "num_hidden_layers": thinker.layers,
        "num_attention_heads": thinker.heads,
        "num_key_value_heads": thinker.kv_heads,
        "max_position_embeddings": thinker.max_positions,
        "rms_norm_eps": thinker.norm_eps,
        "rope_theta": thinker.rope_theta,
        "rope_scaling": thinker.rope_scaling,
        "tie_word_embeddings": thinker.tied,
        "hidden_act": "silu",
        "attention_bias": False,
        "bos_token_id": model.tokenizer.bos_token_id,
        "eos_token_id": sorted(model.end_ids),
        "speech_encoder": f"./{ENCODER_FOLDER}",
        "speech_encoder_type": "whisper",
        "speech_encoder_ds_rate": settings.adaptor.stack,
        "speech_encoder_hidden_size": encoder.hidden,
        "speech_projector_type": "linear",
        "speech_projector_lr": None,
        "speech_generator_type": "ar_mtp",
        "llm_hidden_size": talker.hidden,
        "decoder_hidden_size": talker.hidden,
        "decoder_ffn_dim": talker.ffn,
        "decoder_num_heads": talker.heads,
        "decoder_dropout": talker.dropout,
        "decoder_num_layers": talker.decoder_layers,
        "encoder_num_layers": talker.projector_layers,
        "unit_vocab_size": talker.codes,
        "special_tokens": len(SPECIALS),
        **specials,
        "switch_token_id": talker.codes + len(SPECIALS),
        "mtp_num": talker.step_sizes[-1] - 1,
        "txt_token_num": talker.text_chunk,
        "speech_token_num": talker.speech_chunk,
        "tokenizer_model_max_length": 4096,
        "tokenizer_padding_side": "right",
    }
