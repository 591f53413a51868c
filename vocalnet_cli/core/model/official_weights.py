"""Names of tensors in the released VocalNet checkpoints and ours, both ways (vocalnet.md section 1.3)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from vocalnet_cli.core.errors import VocalnetError

PREFIXES = {"talker": "speech_generator.", "adaptor": "model.speech_projector.", "encoder": "model.speech_encoder.", "thinker": ""}
"""Where each part lies in a released checkpoint; the thinker has what no other prefix takes."""

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
    "encoder": [(name, name) for name in ("conv1.", "conv2.", "embed_positions.", "layers.", "layer_norm.")],
    "thinker": [(name, name) for name in ("model.embed_tokens.", "model.layers.", "model.norm.", "lm_head.")],
}
"""Beginnings of names, released and ours; # is a number."""


def _rename(name: str, pairs: list[tuple[str, str]]) -> str | None:
    for old, new in pairs:
        found = re.match(re.escape(old).replace(r"\#", r"(\d+)"), name)
        if found:
            return new.replace("#", found[1] if found.groups() else "") + name[found.end() :]
    return None


def part_of(official: str) -> str:
    """The part a tensor of a released checkpoint belongs to."""
    return next(part for part, prefix in PREFIXES.items() if official.startswith(prefix))


def our_name(official: str) -> str | None:
    """Name in our whole model ("talker.embedding.weight") of a released tensor; none if we do not know it."""
    part = part_of(official)
    name = _rename(official.removeprefix(PREFIXES[part]), _RENAMED[part])
    return None if name is None else f"{part}.{name}"


def official_name(part: str, name: str, prefix: str | None = None) -> str:
    """Released name of tensor `name` of our `part`. Raises VocalnetError when it has none."""
    renamed = _rename(name, [(new, old) for old, new in _RENAMED[part]])
    if renamed is None:
        raise VocalnetError(f"{part}: {name} has no released name.", "Only talkers of kind ntp and mtp-vocalnet can be exported.")
    return (PREFIXES[part] if prefix is None else prefix) + renamed


def is_weight(official: str) -> bool:
    """False for what old checkpoints carry beside their weights: rotary frequencies, which follow from the settings."""
    return not official.endswith("inv_freq")


def ours_to_official(part: str, tensors: Mapping[str, Tensor], prefix: str | None = None) -> dict[str, Tensor]:
    """The tensors of our `part` under their released names."""
    return {official_name(part, name, prefix): tensor for name, tensor in tensors.items()}


def official_to_ours(part: str, tensors: Mapping[str, Tensor], prefix: str | None = None) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of `part` under our names, and the released names in that part that we do not know.

    Tensors outside `prefix` (by default the part's place in a whole checkpoint) belong to other parts; rotary buffers are left out.
    """
    ours: dict[str, Tensor] = {}
    unexpected: list[str] = []
    for full_name, tensor in tensors.items():
        inside = part_of(full_name) == part if prefix is None else full_name.startswith(prefix)
        if not inside or not is_weight(full_name):
            continue
        name = _rename(full_name.removeprefix(PREFIXES[part] if prefix is None else prefix), _RENAMED[part])
        if name is None:
            unexpected.append(full_name)
        else:
            ours[name] = tensor
    return ours, unexpected


def misfits(
    part: str, own: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], unknown: Iterable[str], prefix: str | None = None
) -> list[str]:
    """What keeps released tensors from being our `part`: missing, unexpected, of another shape; by their released names.

    `own` and `found` are shapes under our names, of the part and of what was found for it.
    """
    problems = [f"missing {official_name(part, name, prefix)}" for name in own if name not in found]
    problems += [f"unexpected {name}" for name in unknown]
    for name, shape in found.items():
        if name not in own:
            problems.append(f"unexpected {official_name(part, name, prefix)}")
        elif tuple(own[name]) != tuple(shape):
            problems.append(f"{official_name(part, name, prefix)} is {tuple(shape)}, not {tuple(own[name])}")
    return problems


def refuse(where: str, problems: list[str]) -> None:
    """Raises VocalnetError naming the first problems, if there are any."""
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise VocalnetError(
            f"{where}: released weights do not fit: {', '.join(problems[:3])}{more}.", "Take the sizes from the checkpoint's config.json."
        )


def load_official(module: nn.Module, part: str, tensors: Mapping[str, Tensor], prefix: str | None = None) -> None:
    """Copies released weights into our `module`. Raises VocalnetError naming what is missing, unexpected or of another shape."""
    ours, unexpected = official_to_ours(part, tensors, prefix)
    own = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    if "lm_head.weight" not in ours and getattr(getattr(module, "config", None), "tie_word_embeddings", False):
        own.pop("lm_head.weight", None)
    refuse(part, misfits(part, own, {name: tuple(tensor.shape) for name, tensor in ours.items()}, unexpected, prefix))
    module.load_state_dict(ours, strict=False)
