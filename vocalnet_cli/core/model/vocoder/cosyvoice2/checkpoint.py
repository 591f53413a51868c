"""A released CosyVoice2 folder: sizes from its YAML, weights from flow.pt and hift.pt (or .safetensors of the same names).

Both generations have the same tensors; the YAML tells them apart. Only tensors are read, never pickled objects.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from vocalnet_cli.core.config.places import link_or_copy
from vocalnet_cli.core.config.vocoder_schema import RELEASED_CONFIGS, CosyVoice2Settings
from vocalnet_cli.core.errors import MissingWeights, VocalnetError
from vocalnet_cli.core.model.hub import COSYVOICE2
from vocalnet_cli.core.model.tensor_file import write_tensors

_BLOCK_2024 = 50
"""Attention block of the 2024 release, which its YAML does not tell."""

_COPY = f"Name the folder of CosyVoice2-0.5B; get it with `vocalnet models pull {COSYVOICE2}`, or copy it again."
_OTHER_FILES = {*RELEASED_CONFIGS, *(f"{part}.{kind}" for part in ("flow", "hift") for kind in ("pt", "safetensors"))} | {
    f"{part}.{kind}" for part in ("campplus", "speech_tokenizer_v2") for kind in ("onnx", "safetensors")
}
"""All files of a folder that speaking, and making voices, needs."""

_NAMES = {("weight_g", "weight_v"), ("parametrizations.weight.original0", "parametrizations.weight.original1")}


@dataclass(frozen=True)
class _Reference:
    """`!ref <a> * <b>` of a hyperpyyaml file."""

    text: str


class _Loader(yaml.SafeLoader):
    """Plain YAML values; `!new:`, `!name:` and `!apply:` build nothing, their mapping keeps the class's name under `!`."""


def _tagged(loader: yaml.SafeLoader, tag: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return {**loader.construct_mapping(node, deep=True), "!": tag}
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    assert isinstance(node, yaml.ScalarNode)
    return _Reference(node.value) if tag == "ref" else node.value


_Loader.add_multi_constructor("!", _tagged)


def read_settings(folder: Path) -> CosyVoice2Settings:
    """Sizes of a released folder, and the defaults of how it speaks. Raises MissingWeights or VocalnetError."""
    path = next((folder / name for name in RELEASED_CONFIGS if (folder / name).is_file()), None)
    if path is None:
        raise MissingWeights(f"{folder}: no CosyVoice2 checkpoint there ({' and '.join(RELEASED_CONFIGS)} are missing)", _COPY)
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
        tree = _resolved(tree, tree)
        return CosyVoice2Settings.model_validate(_settings(tree["flow"], tree["hift"]))
    except (yaml.YAMLError, UnicodeDecodeError, ValidationError, KeyError, TypeError, ValueError, RecursionError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise VocalnetError(f"{path}: not the description of a CosyVoice2 model ({first})", _COPY) from error


def settings_for(folder: Path, codes: int) -> CosyVoice2Settings:
    """`read_settings` for a talker of so many speech tokens. Raises VocalnetError if the vocoder speaks others."""
    settings = read_settings(folder)
    if settings.codes != codes:
        raise VocalnetError(
            f"vocoder {folder}: speaks {settings.codes} speech tokens, the model's talker says {codes}",
            "A model speaks through the vocoder whose tokens it was trained on; the embedded model carries its own.",
        )
    return settings


def _resolved(value: Any, tree: Any) -> Any:
    """A value with its references replaced; a reference may be a product."""
    if isinstance(value, dict):
        return {key: _resolved(inner, tree) for key, inner in value.items()}
    if isinstance(value, list):
        return [_resolved(inner, tree) for inner in value]
    if not isinstance(value, _Reference):
        return value
    terms = [term.strip() for term in value.text.split("*")]
    found = [_resolved(tree[term[1:-1]], tree) if term.startswith("<") else int(term) for term in terms]
    product = found[0]
    for factor in found[1:]:
        product = product * factor
    return product


def _settings(flow: dict[str, Any], hift: dict[str, Any]) -> dict[str, Any]:
    encoder, estimator = flow["encoder"], flow["decoder"]["estimator"]
    old = "causal" in estimator
    return {
        "codes": flow["vocab_size"],
        "release": "2024" if old else "2025",
        "trained_block": encoder.get("static_chunk_size", _BLOCK_2024 if old else 25),
        "flow": {
            "hidden": encoder["output_size"],
            "heads": encoder["attention_heads"],
            "ffn": encoder["linear_units"],
            "layers": encoder["num_blocks"],
            "up_layers": encoder.get("num_up_blocks", 4),
            "lookahead_tokens": flow["pre_lookahead_len"],
            "speaker": flow["spk_embed_dim"],
            "channels": estimator["channels"][0],
            "estimator_heads": estimator["num_heads"],
            "head_dim": estimator["attention_head_dim"],
            "groups": estimator["num_mid_blocks"],
            "transformers": estimator["n_blocks"],
        },
        "hift": {
            "channels": hift["base_channels"],
            "f0_channels": hift["f0_predictor"]["cond_channels"],
            "harmonics": hift["nb_harmonics"],
            "amplitude": hift["nsf_alpha"],
            "noise": hift["nsf_sigma"],
            "voiced_hz": hift["nsf_voiced_threshold"],
            "upsample_rates": hift["upsample_rates"],
            "upsample_kernels": hift["upsample_kernel_sizes"],
            "kernels": hift["resblock_kernel_sizes"],
            "dilations": hift["resblock_dilation_sizes"],
            "source_kernels": hift["source_resblock_kernel_sizes"],
            "source_dilations": hift["source_resblock_dilation_sizes"],
            "istft_fft": hift["istft_params"]["n_fft"],
            "istft_hop": hift["istft_params"]["hop_len"],
            "slope": hift["lrelu_slope"],
            "limit": hift["audio_limit"],
        },
    }


def folded(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """HiFT's tensors with weight norm multiplied out (w = g v / |v|), whichever way it is spelt, and without `generator.`."""
    plain = {name.removeprefix("generator."): tensor for name, tensor in tensors.items()}
    for gain_name, direction_name in _NAMES:
        for name in [name for name in plain if name.endswith(f".{gain_name}")]:
            layer = name.removesuffix(gain_name)
            gain, direction = plain.pop(name), plain.pop(layer + direction_name)
            norm = direction.norm(dim=tuple(range(1, direction.dim())), keepdim=True)
            plain[f"{layer}weight"] = gain * direction / norm
    return plain


def load_released(flow: nn.Module, hift: nn.Module, folder: Path) -> None:
    """Fill a flow and a HiFT with a released folder's weights; every tensor must be there. Raises MissingWeights or VocalnetError."""
    load_released_part(flow, folder, "flow")
    load_released_part(hift, folder, "hift")


def load_released_part(module: nn.Module, folder: Path, name: str) -> None:
    """Fill a `flow` or a `hift` with a released folder's weights; as `load_released`."""
    path, tensors = _read(folder, name)
    _fill(module, path, folded(tensors) if name == "hift" else tensors)


def save_released_part(module: nn.Module, source: Path, name: str, output: Path) -> None:
    """A released folder whose `flow` or `hift` is another: `output` gets NAME.safetensors, and links to the other files of `source`.

    Where the disk has no links the files are copied. Raises OSError if the disk refuses.
    """
    write_tensors(output / f"{name}.safetensors", {key: tensor.detach().cpu().contiguous() for key, tensor in module.state_dict().items()})
    for path in sorted(source.iterdir()):
        if path.name in _OTHER_FILES - {f"{name}.pt", f"{name}.safetensors"}:
            link_or_copy(path, output / path.name)


def _read(folder: Path, name: str) -> tuple[Path, dict[str, Tensor]]:
    for path in (folder / f"{name}.safetensors", folder / f"{name}.pt"):
        if not path.is_file():
            continue
        try:
            tensors = load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
        except (SafetensorError, OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise VocalnetError(f"{path}: cannot be read ({str(error).splitlines()[0]})", _COPY) from error
        if not isinstance(tensors, dict) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
            raise VocalnetError(f"{path}: holds something other than named tensors", _COPY)
        return path, tensors
    raise MissingWeights(f"{folder}: neither {name}.pt nor {name}.safetensors is there", _COPY)


def _fill(module: nn.Module, path: Path, tensors: dict[str, Tensor]) -> None:
    own = module.state_dict()
    problems = [f"missing {name}" for name in own.keys() - tensors.keys()]
    problems += [f"unexpected {name}" for name in tensors.keys() - own.keys()]
    for name in own.keys() & tensors.keys():
        if own[name].shape != tensors[name].shape:
            problems.append(f"{name} is {tuple(tensors[name].shape)}, not {tuple(own[name].shape)}")
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise VocalnetError(f"{path}: does not fit the folder's YAML: {', '.join(sorted(problems)[:3])}{more}", _COPY)
    module.load_state_dict(tensors)
