"""Names of tensors in the released VocalNet checkpoints and ours, both ways (vocalnet.md section 1.3)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor, nn

from vocalnet_cli.core.errors import VocalnetError

PREFIXES = {"talker": "speech_generator.", "adaptor": "model.speech_projector."}
"""Where each part lies in a released checkpoint."""

_RENAMED: dict[str, list[tuple[str, str]]] = {
    "talker": [
        ("embedding.", "embedding."),
        ("encode_layers.", "projector.layers."),
        ("decode_layers.", "decoder.layers."),
        ("norm.", "norm."),
        ("output_proj.", "head."),
        ("mtp_layers.#.decoder_layer.", "extra.#.stack.layers.0."),
        ("mtp_layers.#.norm_final.", "extra.#.norm."),
        ("mtp_layers.#.output_proj.", "extra.#.head."),
    ],
    "adaptor": [("linear1.", "linear1."), ("linear2.", "linear2.")],
}
"""Beginnings of names, released and ours; # is a number."""


def _rename(name: str, pairs: list[tuple[str, str]]) -> str | None:
    for old, new in pairs:
        found = re.match(re.escape(old).replace(r"\#", r"(\d+)"), name)
        if found:
            return new.replace("#", found[1] if found.groups() else "") + name[found.end() :]
    return None


def ours_to_official(part: str, tensors: Mapping[str, Tensor], prefix: str | None = None) -> dict[str, Tensor]:
    """The tensors of our `part` ("talker" or "adaptor") under their released names."""
    prefix = PREFIXES[part] if prefix is None else prefix
    pairs = [(new, old) for old, new in _RENAMED[part]]
    renamed = {_rename(name, pairs): tensor for name, tensor in tensors.items()}
    unknown = [name for name in tensors if _rename(name, pairs) is None]
    if unknown:
        raise VocalnetError(f"{part}: {unknown[0]} has no released name.", "Only talkers of kind ntp and mtp-vocalnet can be exported.")
    return {f"{prefix}{name}": tensor for name, tensor in renamed.items()}


def official_to_ours(part: str, tensors: Mapping[str, Tensor], prefix: str | None = None) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of `part` under our names, and the released names in that part that we do not know.

    Tensors outside `prefix` (by default the part's place in a whole checkpoint) belong to other parts; rotary buffers are left out.
    """
    prefix = PREFIXES[part] if prefix is None else prefix
    ours: dict[str, Tensor] = {}
    unexpected: list[str] = []
    for full_name, tensor in tensors.items():
        if not full_name.startswith(prefix) or full_name.endswith("inv_freq"):
            continue
        name = _rename(full_name[len(prefix) :], _RENAMED[part])
        if name is None:
            unexpected.append(full_name)
        else:
            ours[name] = tensor
    return ours, unexpected


def load_official(module: nn.Module, part: str, tensors: Mapping[str, Tensor], prefix: str | None = None) -> None:
    """Copies released weights into our `module`. Raises VocalnetError naming what is missing, unexpected or of another shape."""
    ours, unexpected = official_to_ours(part, tensors, prefix)
    own = module.state_dict()
    problems = [f"missing {next(iter(ours_to_official(part, {name: own[name]}, prefix)))}" for name in own if name not in ours]
    problems += [f"unexpected {name}" for name in unexpected]
    for name, tensor in ours.items():
        if name not in own:
            problems.append(f"unexpected {next(iter(ours_to_official(part, {name: tensor}, prefix)))}")
        elif own[name].shape != tensor.shape:
            problems.append(f"{name} is {tuple(tensor.shape)}, not {tuple(own[name].shape)}")
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise VocalnetError(
            f"{part}: released weights do not fit: {', '.join(problems[:3])}{more}.", "Take the sizes from the checkpoint's config.json."
        )
    module.load_state_dict(ours)
