"""A model folder of ours once more, with weights stored in another type."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path

from vocalnet_cli.core.errors import MissingWeights, VocalnetError
from vocalnet_cli.core.model.folder import LOOKUP_FILE, PARTS, read_config
from vocalnet_cli.core.model.speech_llm import build_model
from vocalnet_cli.core.model.tensor_file import whole_folder
from vocalnet_cli.core.model.weights import load_part, save_part


def store(folder: Path, output: Path, dtype: str, parts: Collection[str] = ()) -> dict[str, int]:
    """Copy the model of `folder` into `output` with the named parts (none = all it carries) stored as `dtype`, a name of STORED.

    Returns each part's bytes on disk. All else of the folder comes along as it is, but not the lookup baseline's bank if the encoder
    it belongs to changes. Raises VocalnetError for a released checkpoint, whose layout knows no such types, or if `output` is not
    empty; MissingWeights for a part that is not there.
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
    with whole_folder(output) as new:
        for path in sorted(folder.iterdir()):
            if path.is_file() and path.name not in left and path.stem not in changed:
                shutil.copyfile(path, new / path.name)
        model = build_model(config["model"])
        for part in sorted(changed):
            load_part(getattr(model, part), folder, part)
            save_part(getattr(model, part), new, part, dtype)
    return {part: (output / f"{part}.safetensors").stat().st_size for part in carried}
