"""A model folder of ours once more: weights in another type, or only the parts that another model does not have."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

from torch import nn

from vocalnet_cli.core.config.places import EMBEDDED, model_name
from vocalnet_cli.core.config.schema import PartsElsewhere
from vocalnet_cli.core.errors import MissingWeights, VocalnetError
from vocalnet_cli.core.model.folder import FORMAT, LOOKUP_FILE, PARTS, read_config, weights_mark
from vocalnet_cli.core.model.part_weights import load_part, save_part
from vocalnet_cli.core.model.speech_llm import SpeechLLM, build_model
from vocalnet_cli.core.model.tensor_file import whole_folder

_SAME = 0.02
"""Largest relative difference (norms) between the same weights stored in different types."""


def store(folder: Path, output: Path, dtype: str, parts: Collection[str] = (), beside: Path | None = None) -> dict[str, int]:
    """Copy the model of `folder` into `output` with the named parts (none = all it carries) stored as `dtype`, a name of STORED.

    With `beside`, only the named parts and the settings that differ: all else is that of this other model, whose shared weights must be
    the same. Returns each written part's bytes. All else of the folder comes along as it is, but not the lookup baseline's bank if the
    encoder it belongs to changes. Raises VocalnetError for a released checkpoint, whose layout knows no such types, if `output` is not
    empty, or if the other model's weights are others; MissingWeights for a part that is not there.
    """
    config = read_config(folder)
    if "format" not in config:
        raise VocalnetError(
            f"{folder}: a released checkpoint, whose tensors have the type of their layout", "Write it with `vocalnet models export`."
        )
    carried = [part for part in PARTS if (folder / f"{part}.safetensors").is_file()]
    for part in parts:
        if part not in carried:
            raise MissingWeights(f"{folder}: holds no {part}", f"It carries {', '.join(carried)}.")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise VocalnetError(f"{output}: is there already, and not empty", "Name a new folder with -o.")
    changed = set(parts or carried)
    left = {LOOKUP_FILE} if "encoder" in changed else set()
    model = build_model(config["model"])
    with whole_folder(output) as new:
        if beside is None:
            for path in sorted(folder.iterdir()):
                if path.is_file() and path.name not in left and path.stem not in changed:
                    shutil.copyfile(path, new / path.name)
        else:
            _check_shared(model, folder, beside, [part for part in carried if part not in changed])
            (new / "config.json").write_text(json.dumps(_beside(config, beside, changed), indent=1) + "\n", encoding="utf-8")
        for part in sorted(changed):
            load_part(getattr(model, part), folder, part)
            save_part(getattr(model, part), new, part, dtype)
    return {part: size.stat().st_size for part in PARTS if (size := output / f"{part}.safetensors").is_file()}


def _beside(config: dict[str, Any], beside: Path, parts: Collection[str]) -> dict[str, Any]:
    """config.json of a model that carries `parts` alone and takes the others from `beside`."""
    other = read_config(beside)
    name = model_name(beside)
    shares = PartsElsewhere(
        model=name if name in EMBEDDED else str(beside.resolve()), thinker_mark=weights_mark(beside / "thinker.safetensors")
    )
    told, theirs = config.get("generation") or {}, other.get("generation") or {}
    return {
        "format": FORMAT,
        **({"recipe": config["recipe"]} if "recipe" in config else {}),
        "parts": sorted(parts),
        "shares": shares.model_dump(),
        "model": {part: getattr(config["model"], part).model_dump(mode="json") for part in sorted(parts)},
        "generation": {key: value for key, value in told.items() if theirs.get(key) != value},
    }


def _check_shared(model: SpeechLLM, folder: Path, beside: Path, shared: Collection[str]) -> None:
    """Raises VocalnetError unless `beside` carries all other parts, and the talker's reading and the speech tokens are the same there."""
    settings = read_config(beside)["model"]
    absent = [part for part in PARTS if getattr(model, part) is not None and part not in shared and part != "talker"]
    absent = [part for part in absent if not (folder / f"{part}.safetensors").is_file()]
    missing = [part for part in [*shared, *absent] if not (beside / f"{part}.safetensors").is_file()]
    if missing:
        raise MissingWeights(f"{beside}: carries no {', '.join(missing)}", "Name a model that carries what is to be shared.")
    theirs = build_model(settings)
    for part in shared:
        load_part(getattr(model, part), folder, part)
        load_part(getattr(theirs, part), beside, part)
        mine, other = (_tokens_or_all(getattr(one, part)) for one in (model, theirs))
        own, seen = mine.state_dict(), other.state_dict()
        if part == "vocoder":  # some keep the tokenizer's way back from tokens, some do not
            own = {name: tensor for name, tensor in own.items() if name in seen}
        wrong = [name for name in own if name not in seen or own[name].shape != seen[name].shape]
        wrong += [name for name in own if name not in wrong and _apart(own[name], seen[name]) > _SAME]
        if wrong:
            raise VocalnetError(
                f"{beside}: its {part} is not that of {folder} ({wrong[0]} and {len(wrong) - 1} more)",
                f"Name the model this one was made from, or write its {part} too.",
            )


def _tokens_or_all(part: nn.Module) -> nn.Module:
    """Of a vocoder the speech tokenizer, which alone decides what the talker's codes mean."""
    return dict(part.named_children()).get("tokenizer", part)


def _apart(mine: Any, other: Any) -> float:
    mine, other = mine.float(), other.float()
    return float((mine - other).norm() / mine.norm().clamp(min=1e-12))
