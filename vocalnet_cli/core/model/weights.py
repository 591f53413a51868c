"""Our checkpoint folder: config.json, one safetensors file a part, the tokenizer's files."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from vocalnet_cli.core.config.schema import ModelSettings, VocoderSettings
from vocalnet_cli.core.config.vocoder_schema import VocoderElsewhere
from vocalnet_cli.core.errors import MissingWeights, VocalnetError
from vocalnet_cli.core.model.device import DTYPES
from vocalnet_cli.core.model.folder import FORMAT, PARTS, read_config
from vocalnet_cli.core.model.released import load_released
from vocalnet_cli.core.model.speech_llm import SpeechLLM
from vocalnet_cli.core.model.tensor_file import write_tensors
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

    `generation` holds the settings `infer` uses by default, `recipe` names what the model was trained by. With `vocoder` the model
    speaks through a CosyVoice2 folder, and none of its own is written. Floating-point weights are stored as `dtype`.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as name:
        new = Path(name) / "model"
        new.mkdir()
        kept = [part for part in PARTS if part in parts and getattr(model, part) is not None and not (part == "vocoder" and vocoder)]
        for part in kept:
            save_part(getattr(model, part), new, part, dtype)
        if getattr(model, "tokenizer", None) is not None:
            model.tokenizer.save_pretrained(str(new))
        made_by = {} if recipe is None else {"recipe": recipe}
        elsewhere = {} if vocoder is None else {"vocoder": vocoder.model_dump()}
        settings = model.settings if vocoder is None else model.settings.model_copy(update={"vocoder": None})
        config = {"format": FORMAT, **made_by, "parts": kept, "model": settings.model_dump(mode="json"), **elsewhere}
        config["generation"] = generation or {}
        (new / "config.json").write_text(json.dumps(config, indent=1) + "\n")
        if folder.exists():
            os.replace(folder, Path(name) / "old")
        os.replace(new, folder)


def save_part(part: nn.Module, folder: Path, name: str, dtype: str = "fp32") -> None:
    """Write one part's weights into `folder`."""
    write_tensors(folder / f"{name}.safetensors", _stored(part, DTYPES[dtype]))


def _stored(part: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    """Tensors of a part as they go to disk: tied copies once, floating point in `dtype`."""
    seen: set[int] = set()
    stored: dict[str, Tensor] = {}
    for name, tensor in part.state_dict().items():
        if tensor.data_ptr() in seen and tensor.numel():
            continue
        seen.add(tensor.data_ptr())
        stored[name] = (tensor.to(dtype) if tensor.is_floating_point() else tensor).detach().cpu().contiguous()
    return stored


def load_part(part: nn.Module, folder: Path, name: str) -> None:
    """Read one part's weights from `folder` into `part`; every tensor must be there, with its shape."""
    path = folder / f"{name}.safetensors"
    if not path.is_file():
        raise MissingWeights(f"{path}: no such file", f"The folder holds no {name}: train it first, or name another folder.")
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise VocalnetError(f"{path}: cannot be read ({error})", "The file is damaged: copy or train the model again.") from error
    own = part.state_dict()
    stored = {own[key].data_ptr() for key in tensors if key in own}
    problems = [f"missing {key}" for key in own if key not in tensors and own[key].data_ptr() not in stored]
    problems += [f"unexpected {key}" for key in tensors if key not in own]
    shapes = [(key, tuple(tensor.shape), tuple(own[key].shape)) for key, tensor in tensors.items() if key in own]
    problems += [f"{key} is {found}, not {wanted}" for key, found, wanted in shapes if found != wanted]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise VocalnetError(
            f"{path}: does not fit the recipe: {', '.join(problems[:3])}{more}", "Use the recipe the weights were trained with."
        )
    part.load_state_dict(tensors, strict=False)


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
