"""Checkpoints in the layout of the released ones: their config.json in our settings, their weights read straight into place."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ValidationError
from torch import nn

from vocalnet_cli.core.config.schema import AdaptorSettings, EncoderSettings, ModelSettings, ThinkerSettings
from vocalnet_cli.core.config.talker_schema import MtpVocalnetSettings, NtpSettings, TalkerSettings
from vocalnet_cli.core.config.vocoder_schema import VocoderElsewhere
from vocalnet_cli.core.errors import MissingWeights, VocalnetError
from vocalnet_cli.core.model import hub
from vocalnet_cli.core.model.official_weights import PREFIXES, is_weight, misfits, our_name, part_of, refuse
from vocalnet_cli.core.model.shards import Shards
from vocalnet_cli.core.model.speech_llm import SpeechLLM, build_model
from vocalnet_cli.core.units import ENCODER_HOP, ENCODER_STRIDE, QUESTION_HZ

FAMILIES: dict[str, Literal["llama", "qwen2"]] = {
    "omni_speech2s_llama": "llama",
    "omni_speech2s_qwen": "qwen2",
    "omni_speech2s_qwen2": "qwen2",
}
"""Thinker family of each released `model_type`."""
OURS = "vocalnet"
"""Key of config.json under which an exported model keeps our own settings."""
SPECIALS = ("speech_bos_token_id", "speech_sos_token_id", "speech_eos_token_id", "speech_padding_token_id")
_FIXED = {
    "speech_encoder_type": "whisper",
    "speech_projector_type": "linear",
    "speech_generator_type": "ar_mtp",
    "special_tokens": len(SPECIALS),
    "hidden_act": "silu",
    "mlp_bias": False,
    "use_sliding_window": False,
    "use_duplex": False,
    "partial_rotary_factor": 1.0,
}
"""What the released code can build, and so can we; a checkpoint that says otherwise is refused by name."""
_ABOUT_TALKER = {
    "decoder_hidden_size", "decoder_ffn_dim", "decoder_num_heads", "decoder_dropout", "decoder_num_layers", "encoder_num_layers",
    "unit_vocab_size", "mtp_num", "txt_token_num", "speech_token_num", "speech_generator_type", "speech_generator_config",
    "speech_generator_lr", *SPECIALS,
}  # fmt: skip
_TALKER_PREFIXES = ("decoder_", "encoder_", "unit_", "mtp_", "txt_", "speech_generator_")
WHISPER_HEAD_DIM = 64
"""Width of an attention head in every Whisper encoder, where no config.json of one tells."""


class _Unknown(Exception):
    """A setting of a checkpoint that we cannot build; the message names it."""


def is_released(config: dict[str, Any]) -> bool:
    """Whether a config.json is of the released layout (`model_type` omni_speech…)."""
    return str(config.get("model_type", "")).startswith("omni_speech")


def released_config(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """What `read_config` tells of a released checkpoint. Raises VocalnetError naming what we cannot build."""
    path = folder / "config.json"
    if OURS in config:
        try:
            ours = config[OURS]
            elsewhere = {"vocoder": VocoderElsewhere.model_validate(ours["vocoder"])} if "vocoder" in ours else {}
            return {"model": ModelSettings.model_validate(ours["model"]), "generation": ours.get("generation") or {}, **elsewhere}
        except (ValidationError, KeyError, TypeError) as error:
            first = str(error).splitlines()[0]
            raise VocalnetError(f"{path}: {OURS} is not a model description ({first})", "The file is damaged: export it again.") from error
    _check(path, config)
    try:
        talker = _talker(config)
        settings = ModelSettings(
            compat="released",
            encoder=_encoder(folder, config),
            adaptor=AdaptorSettings(stack=config["speech_encoder_ds_rate"], hidden=_shapes(folder, "adaptor")["linear1.bias"][0]),
            thinker=_thinker(config, tied="lm_head.weight" not in Shards(folder).shapes),
            talker=talker,
        )
    except (KeyError, _Unknown, ValidationError) as error:
        told = f"{error} is not there" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise VocalnetError(f"{path}: {told}", "Is this a speech-to-speech checkpoint of VocalNet? Pull or copy it again.") from error
    return {"model": settings, "generation": _generation(folder, talker)}


def _check(path: Path, config: dict[str, Any]) -> None:
    model_type = config["model_type"]
    hint = "Only the released VocalNet speech-to-speech models and exports of ours are read."
    if model_type not in FAMILIES:
        raise VocalnetError(f"{path}: model_type is {model_type!r}, not one of {', '.join(FAMILIES)}", hint)
    if "speech_generator_type" not in config:
        raise VocalnetError(f"{path}: no speech_generator_type, so this checkpoint cannot speak", "Name a speech-to-speech checkpoint.")
    for key, wanted in _FIXED.items():
        if config.get(key, wanted) != wanted:
            raise VocalnetError(f"{path}: {key} is {config[key]!r}, only {wanted!r} is known", hint)
    unknown = sorted(key for key in config if key.startswith(_TALKER_PREFIXES) and key not in _ABOUT_TALKER)
    if unknown:
        raise VocalnetError(f"{path}: unknown setting {', '.join(unknown)}", hint)
    units = config.get("unit_vocab_size", 0)
    for number, key in enumerate(SPECIALS):
        if config.get(key, units + number) != units + number:
            raise VocalnetError(f"{path}: {key} is {config[key]!r}, not {units + number}", hint)
    if config.get("llm_hidden_size", config["hidden_size"]) != config["hidden_size"]:
        raise VocalnetError(f"{path}: llm_hidden_size is {config['llm_hidden_size']}, hidden_size {config['hidden_size']}", hint)


def _talker(config: dict[str, Any]) -> TalkerSettings:
    sizes = dict(
        hidden=config.get("llm_hidden_size", config["hidden_size"]),
        ffn=config["decoder_ffn_dim"],
        heads=config["decoder_num_heads"],
        projector_layers=config["encoder_num_layers"],
        decoder_layers=config["decoder_num_layers"],
        codes=config["unit_vocab_size"],
        dropout=config.get("decoder_dropout", 0.1),
        text_chunk=config["txt_token_num"],
        speech_chunk=config["speech_token_num"],
    )
    return MtpVocalnetSettings(**sizes, modules=config["mtp_num"]) if config["mtp_num"] else NtpSettings(**sizes)


def _thinker(config: dict[str, Any], tied: bool) -> ThinkerSettings:
    family = FAMILIES[config["model_type"]]
    # transformers 5 keeps theta and scaling together, earlier ones apart.
    rope = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    theta = rope.pop("rope_theta", config.get("rope_theta", 10000.0))
    older_name = rope.pop("type", "default")
    rope.setdefault("rope_type", older_name)
    if rope["rope_type"] not in ("default", "llama3"):
        raise _Unknown(f"rope_type is {rope['rope_type']!r}, only 'default' and 'llama3' are known")
    if family == "llama" and config.get("attention_bias", False):
        raise _Unknown("attention_bias is true, only false is known")
    return ThinkerSettings(
        family=family,
        hidden=config["hidden_size"],
        layers=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        kv_heads=config["num_key_value_heads"],
        ffn=config["intermediate_size"],
        vocab=config["vocab_size"],
        tied=tied or bool(config.get("tie_word_embeddings", False)),
        rope_theta=theta,
        rope_scaling=rope if rope["rope_type"] != "default" else None,
        norm_eps=config["rms_norm_eps"],
        max_positions=config["max_position_embeddings"],
    )


def _encoder(folder: Path, config: dict[str, Any]) -> EncoderSettings:
    """Sizes of the encoder from its tensors' shapes; the number of heads is in no shape, so from a config.json of it where there is one."""
    shapes = _shapes(folder, "encoder")
    beside = _encoder_folder(folder, config)
    hidden, bins, _ = shapes["conv1.weight"]
    told = json.loads((beside / "config.json").read_text(encoding="utf-8")) if beside and (beside / "config.json").is_file() else {}
    if config.get("speech_encoder_hidden_size", hidden) != hidden:
        raise _Unknown(f"speech_encoder_hidden_size is {config['speech_encoder_hidden_size']}, the encoder's tensors have {hidden}")
    return EncoderSettings(
        hidden=hidden,
        layers=1 + max(int(found[1]) for name in shapes if (found := re.match(r"layers\.(\d+)\.", name))),
        heads=told.get("encoder_attention_heads", hidden // WHISPER_HEAD_DIM),
        ffn=shapes["layers.0.fc1.weight"][0],
        mel_bins=bins,
        window_s=shapes["embed_positions.weight"][0] * ENCODER_STRIDE * ENCODER_HOP / QUESTION_HZ,
    )


def _encoder_folder(folder: Path, config: dict[str, Any]) -> Path | None:
    """Where the encoder lies apart from the checkpoint: the folder its config names, or the hub cache."""
    named = str(config.get("speech_encoder") or "")
    for place in (folder / named, Path(named)) if named else ():
        if (place / "config.json").is_file():
            return place
    return hub.cached(hub.WHISPER)


def _shapes(folder: Path, part: str) -> dict[str, tuple[int, ...]]:
    """Shapes of one part's tensors under the part's own names, wherever they lie."""
    shapes = {}
    for name, (shards, stored) in _sources(folder).items():
        if is_weight(name) and part_of(name) == part:
            shapes[name.removeprefix(PREFIXES[part])] = shards.shapes[stored]
    return shapes


def _sources(folder: Path) -> dict[str, tuple[Shards, str]]:
    """Every tensor of a checkpoint by its released name: the files it lies in, and its name there.

    The encoder is that of the checkpoint, or Whisper's own where the checkpoint has none. Raises MissingWeights where neither is there.
    """
    shards = Shards(folder)
    sources = {name: (shards, name) for name in shards.shapes if is_weight(name)}
    if any(part_of(name) == "encoder" for name in sources):
        return sources
    place = _encoder_folder(folder, json.loads((folder / "config.json").read_text(encoding="utf-8")))
    if place is None:
        raise MissingWeights(
            f"{folder}: holds no speech encoder, and {hub.WHISPER} is not here", f"Run `vocalnet models pull {hub.WHISPER}`."
        )
    whisper = Shards(place)
    for name in whisper.shapes:
        if name.startswith("model.encoder."):
            sources[PREFIXES["encoder"] + name.removeprefix("model.encoder.")] = (whisper, name)
    return sources


def _generation(folder: Path, talker: TalkerSettings) -> dict[str, Any]:
    """How the released scripts draw answers: greedy, the whole text first, two modules (vocalnet.md, sections 6.1 to 6.3)."""
    generation: dict[str, Any] = {"streaming": False, "tokens_per_step": min(3, talker.step_sizes[-1])}
    path = folder / "generation_config.json"
    if path.is_file():
        try:
            generation["text_repetition_penalty"] = json.loads(path.read_text(encoding="utf-8")).get("repetition_penalty", 1.0)
        except (json.JSONDecodeError, UnicodeDecodeError, AttributeError) as error:
            raise VocalnetError(f"{path}: not JSON ({error})", "The file is damaged: pull or copy the model again.") from error
    return generation


# --- weights -------------------------------------------------------------------------------------------------------


def load_released(folder: Path, settings: ModelSettings, device: torch.device, dtype: torch.dtype) -> SpeechLLM:
    """The model with its weights on `device` as `dtype`: built without memory, then filled tensor by tensor.

    Raises VocalnetError naming what is missing, unexpected or of another shape; no tensor is read before all fit.
    """
    with torch.device("meta"):
        model = build_model(settings.model_copy(update={"vocoder": None}))
    sources = _sources(folder)
    if settings.thinker.tied:
        sources.pop("lm_head.weight", None)
    _refuse_misfits(folder, model, sources)
    for name, (shards, stored) in sources.items():
        for _, tensor in shards.read([stored], device, dtype):
            owner, _, leaf = str(our_name(name)).rpartition(".")
            setattr(model.get_submodule(owner), leaf, nn.Parameter(tensor, requires_grad=False))
    if settings.thinker.tied:
        model.thinker.get_output_embeddings().weight = model.thinker.get_input_embeddings().weight
    fill_buffers(model, device)
    return model


def _refuse_misfits(folder: Path, model: SpeechLLM, sources: dict[str, tuple[Shards, str]]) -> None:
    problems: list[str] = []
    for part in PREFIXES:
        own = {name: tuple(tensor.shape) for name, tensor in getattr(model, part).state_dict().items()}
        if part == "thinker" and model.settings.thinker.tied:
            own.pop("lm_head.weight", None)
        theirs = [name for name in sources if part_of(name) == part]
        known = {ours: name for name in theirs if (ours := our_name(name)) is not None}
        found = {ours.removeprefix(f"{part}."): sources[name][0].shapes[sources[name][1]] for ours, name in known.items()}
        problems += misfits(part, own, found, [name for name in theirs if our_name(name) is None])
    refuse(str(folder), problems)


def fill_buffers(model: nn.Module, device: torch.device) -> None:
    """Makes the rotary frequencies, which no checkpoint holds, of a model built on the meta device; in single precision."""
    for module in model.modules():
        for name, child in module.named_children():
            if any(buffer.is_meta for buffer in child.buffers(recurse=False)):
                setattr(module, name, type(child)(child.config).to(device))
    left = [name for name, tensor in [*model.named_parameters(), *model.named_buffers()] if tensor.is_meta]
    assert not left, f"never filled: {left[:3]}"
