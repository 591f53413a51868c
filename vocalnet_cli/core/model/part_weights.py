"""One part's weights: written to its file in a model folder, and read from it, without the rest of the model."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import torch
from torch import Tensor, nn

from vocalnet_cli.core.config.vocoder_schema import VocoderSettings
from vocalnet_cli.core.errors import MissingWeights, VocalnetError
from vocalnet_cli.core.model.device import DTYPES
from vocalnet_cli.core.model.folder import VOCODER_PARTS, home, read_config
from vocalnet_cli.core.model.tensor_file import in_int8, read_tensors, write_tensors
from vocalnet_cli.core.model.vocoder import Vocoder, build_vocoder
from vocalnet_cli.core.model.vocoder.voices import VoiceTable


def save_part(part: nn.Module, folder: Path, name: str, dtype: str = "fp32", inside: Collection[str] | None = None) -> None:
    """Write one part's weights into `folder`, those of the modules `inside` it alone if given; of a vocoder its voices too."""
    stored = _stored(part, dtype)
    write_tensors(
        folder / f"{name}.safetensors", {key: tensor for key, tensor in stored.items() if inside is None or key.split(".")[0] in inside}
    )
    if isinstance(part, Vocoder) and part.voices is not None:
        part.voices.save(folder)


def _stored(part: nn.Module, dtype: str) -> dict[str, Tensor]:
    """Tensors of a part as they go to disk: tied copies once, floating point in `dtype` (a name of STORED)."""
    seen: set[int] = set()
    stored: dict[str, Tensor] = {}
    for name, tensor in part.state_dict().items():
        if tensor.data_ptr() in seen and tensor.numel():
            continue
        seen.add(tensor.data_ptr())
        stored[name] = tensor.detach().cpu().contiguous()
    if dtype == "int8":
        return in_int8(stored, {name for name, _ in part.named_parameters()})
    return {name: tensor.to(DTYPES[dtype]) if tensor.is_floating_point() else tensor for name, tensor in stored.items()}


def load_part(part: nn.Module, folder: Path, name: str) -> None:
    """Read one part's weights from `folder`, or from the model it shares them with, into `part`; every tensor must be there, with its
    shape."""
    folder = home(folder, f"{name}.safetensors")
    path = folder / f"{name}.safetensors"
    tensors = _tensors(path, name)
    _fill(part, path, tensors)
    if isinstance(part, Vocoder):
        part.know(VoiceTable.of(folder))


def load_vocoder_part(vocoder: Vocoder, folder: Path, name: str) -> None:
    """Read one of VOCODER_PARTS from the vocoder of `folder`, and with a flow the voices it knows."""
    folder = home(folder, "vocoder.safetensors")
    path, inside = folder / "vocoder.safetensors", VOCODER_PARTS[name]
    if inside not in dict(vocoder.named_children()):
        hint = (
            "Set model.vocoder.tokenizer, or name the folder of CosyVoice2-0.5B there." if name == "speech-tokenizer" else "Leave it out."
        )
        raise VocalnetError(f"init.{name} is {folder}: the recipe's vocoder has no {name} of that kind", hint)
    found = {key.removeprefix(f"{inside}."): tensor for key, tensor in _tensors(path, name).items() if key.startswith(f"{inside}.")}
    if not found:
        raise MissingWeights(f"{path}: holds no {name}", f"Name a folder that does: --set init.{name}=FOLDER")
    module = vocoder.get_submodule(inside)
    if name == "speech-tokenizer":  # the way back from tokens may not be wanted here
        found = {key: tensor for key, tensor in found.items() if key in module.state_dict()}
    _fill(module, path, found)
    if name == "flow":
        vocoder.know(VoiceTable.of(folder))


def _tensors(path: Path, name: str) -> dict[str, Tensor]:
    if not path.is_file():
        raise MissingWeights(f"{path}: no such file", f"The folder holds no {name}: train it first, or name another folder.")
    return read_tensors(path)


def _fill(part: nn.Module, path: Path, tensors: dict[str, Tensor]) -> None:
    own = part.state_dict()
    absent = {key.split(".")[0] for key in own} - {key.split(".")[0] for key in tensors}
    if isinstance(part, Vocoder) and absent:
        names = [name for name, inside in VOCODER_PARTS.items() if inside in absent]
        raise MissingWeights(f"{path}: holds no {', '.join(names)}: its training is not finished", "Name the folder of its last stage.")
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


def load_own_vocoder(folder: Path, settings: VocoderSettings | None = None, device: torch.device | str = "cpu") -> Vocoder:
    """The vocoder a folder of ours carries, and nothing else of it, ready to speak. Raises MissingWeights if it carries none.

    `settings`: how it is to speak, if not as the folder's config.json says; sizes are the same.
    """
    settings = settings or read_config(folder)["model"].vocoder
    if settings is None:
        raise MissingWeights(f"{folder}: this model has no vocoder", "Name a folder with one, such as the embedded model (--model nano).")
    vocoder = build_vocoder(settings)
    load_part(vocoder, folder, "vocoder")
    return vocoder.eval().requires_grad_(False).to(device)
