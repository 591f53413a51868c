"""Our checkpoint folder: config.json, one safetensors file a part, the tokenizer's files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from vocalnet_cli.core.config.schema import ModelSettings
from vocalnet_cli.core.config.vocoder_schema import VocoderElsewhere, VocoderSettings
from vocalnet_cli.core.model.folder import FORMAT, PARTS, VOCODER_PARTS, read_config
from vocalnet_cli.core.model.part_weights import load_part, save_part
from vocalnet_cli.core.model.released import load_released
from vocalnet_cli.core.model.speech_llm import SpeechLLM
from vocalnet_cli.core.model.tensor_file import whole_folder
from vocalnet_cli.core.model.tokenizer import load_tokenizer
from vocalnet_cli.core.model.vocoder import build_vocoder


def save_model(
    model: SpeechLLM,
    folder: Path,
    parts: set[str],
    dtype: str = "fp32",
    generation: dict[str, Any] | None = None,
    recipe: str | None = None,
    vocoder: VocoderElsewhere | None = None,
) -> None:
    """Write the named parts of a model into `folder`, whole or not at all.

    `parts` may name parts of the vocoder alone (VOCODER_PARTS): its file then holds those. `generation` holds the settings `infer`
    uses by default, `recipe` names what the model was trained by. With `vocoder` the model speaks through a CosyVoice2 folder, and none
    of its own is written. Floating-point weights are stored as `dtype`.
    """
    inside = None if "vocoder" in parts else sorted(VOCODER_PARTS[part] for part in parts & VOCODER_PARTS.keys())
    wanted = parts - {"vocoder"} if vocoder else parts | {"vocoder"} if inside else parts
    with whole_folder(folder) as new:
        kept = [part for part in PARTS if part in wanted and getattr(model, part) is not None]
        for part in kept:
            save_part(getattr(model, part), new, part, dtype, inside if part == "vocoder" else None)
        if getattr(model, "tokenizer", None) is not None:
            model.tokenizer.save_pretrained(str(new))
        made_by = {} if recipe is None else {"recipe": recipe}
        elsewhere = {} if vocoder is None else {"vocoder": vocoder.model_dump()}
        settings = model.settings if vocoder is None else model.settings.model_copy(update={"vocoder": None})
        config = {"format": FORMAT, **made_by, "parts": kept, "model": settings.model_dump(mode="json"), **elsewhere}
        config["generation"] = generation or {}
        (new / "config.json").write_text(json.dumps(config, indent=1) + "\n")


def load_model(
    folder: Path | str,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    vocoder: VocoderSettings | None = None,
) -> SpeechLLM:
    """The model of a folder, ours or in the released layout, with the parts the folder holds. Raises MissingWeights when one is not there.

    A released checkpoint has no vocoder; an export of ours carries the one it was trained with. `vocoder`: how the model's own
    vocoder is to speak, if not as its config.json says; sizes are the same.
    """
    folder, device = Path(folder), torch.device(device)
    config = read_config(folder)
    settings: ModelSettings = config["model"] if vocoder is None else config["model"].model_copy(update={"vocoder": vocoder})
    if "format" not in config:
        model = load_released(folder, settings, device, dtype)
        if settings.vocoder is not None:
            model.settings, model.vocoder = settings, build_vocoder(settings.vocoder)
            load_part(model.vocoder, folder, "vocoder")
            model.vocoder.to(device)
        model.tokenizer = load_tokenizer(folder)
        return model.eval().requires_grad_(False)
    model = SpeechLLM(settings)
    for part in PARTS:
        module = getattr(model, part)
        if module is not None:
            load_part(module, folder, part)
    model.tokenizer = load_tokenizer(folder)
    model.eval().requires_grad_(False)
    model.to(device)
    for module in (model.encoder, model.adaptor, model.thinker, model.talker):
        for parameter in module.parameters():  # buffers stay: rotary frequencies lose too much below single precision, as spectra do
            parameter.data = parameter.data.to(dtype)
    return model
