"""What models there are on this machine, and what one of them consists of."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vocalnet_cli.core.config.places import EMBEDDED, embedded_folder, is_embedded
from vocalnet_cli.core.model import hub
from vocalnet_cli.core.model.folder import PARTS, read_config
from vocalnet_cli.core.model.shards import opened
from vocalnet_cli.core.model.speech_llm import build_model

BYTES = {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0, "8bit": 1.0, "4bit": 0.5}
"""Bytes a weight takes; the quantised kinds concern the thinker's layers only, everything else is then 2 bytes."""
GB = 1e9


@dataclass(frozen=True)
class Listed:
    """One row of `vocalnet models`."""

    name: str
    what: str
    folder: Path | None
    """Where it is on this machine, or none."""


def known_models() -> list[Listed]:
    """The embedded models, then the published ones, with what is on this machine."""
    rows = [Listed(name, what, embedded_folder(name)) for name, what in EMBEDDED.items() if is_embedded(name)]
    return rows + [Listed(known.name, known.what, hub.cached(known.name)) for known in hub.KNOWN]


@dataclass(frozen=True)
class Description:
    """What a model folder holds."""

    compat: str
    family: str
    talker: str
    parameters: dict[str, int]
    """By part."""
    dtypes: dict[str, int]
    """Bytes on disk by safetensors type name."""
    quantizable: int
    """Parameters that `--quantize` makes smaller."""

    def memory_gb(self) -> dict[str, float]:
        """Weights in memory by `--dtype` or `--quantize`, in 10^9 bytes; caches of an answer come on top."""
        total = sum(self.parameters.values())
        rest = total - self.quantizable
        sizes = {kind: size * total if size >= 2 else size * self.quantizable + 2 * rest for kind, size in BYTES.items()}
        return {kind: round(size / GB, 3) for kind, size in sizes.items()}

    def as_json(self) -> dict[str, Any]:
        """The object `models show --json` prints."""
        return {
            "compat": self.compat,
            "family": self.family,
            "talker": self.talker,
            "parameters": self.parameters,
            "stored_bytes": self.dtypes,
            "memory_gb": self.memory_gb(),
            "devices_gb": devices_gb(),
        }


def describe(folder: Path) -> Description:
    """Parts, parameters and stored types of a folder; no weight is read. Raises what `read_config` raises."""
    settings = read_config(folder)["model"]
    with torch.device("meta"):
        model = build_model(settings)
    parameters = {}
    for name in PARTS:
        if (part := getattr(model, name)) is not None:
            parameters[name] = sum(tensor.numel() for tensor in part.state_dict().values())
    if settings.thinker.tied:
        parameters["thinker"] -= settings.thinker.vocab * settings.thinker.hidden
    layers = model.thinker.model.layers
    quantizable = sum(p.numel() for layer in layers for m in layer.modules() if isinstance(m, torch.nn.Linear) for p in m.parameters())
    return Description(settings.compat, settings.thinker.family, settings.talker.kind, parameters, _stored(folder), quantizable)


def _stored(folder: Path) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with opened(path) as file:
            names = file.keys()
            for name in names:
                piece = file.get_slice(name)
                kind = str(piece.get_dtype())
                width = int("".join(filter(str.isdigit, kind)) or 8) // 8
                sizes[kind] = sizes.get(kind, 0) + math.prod(piece.get_shape()) * width
    return sizes


def devices_gb() -> dict[str, float]:
    """Memory of each device of this machine, in 10^9 bytes."""
    sizes = {}
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        sizes["cpu"] = round(int(lines[0].split()[1]) * 1024 / GB, 1)
    except (OSError, IndexError, ValueError):
        pass  # not Linux: how much memory there is cannot be told without another package
    for index in range(torch.cuda.device_count()):
        sizes[f"cuda:{index}"] = round(torch.cuda.get_device_properties(index).total_memory / GB, 1)
    return sizes
