"""Weights a run starts from: parts of our own folders, or base models laid out as on the hub."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

import torch
from torch import nn
from transformers import AutoModelForCausalLM, WhisperModel

from vocalnet_cli.core.config.find import laptop_twin
from vocalnet_cli.core.config.places import NANO, embedded_folder, is_embedded
from vocalnet_cli.core.config.schema import Recipe
from vocalnet_cli.core.config.vocoder_schema import CosyVoice2Settings, VocoderElsewhere
from vocalnet_cli.core.errors import MissingWeights, RecipeError, VocalnetError
from vocalnet_cli.core.model import hub
from vocalnet_cli.core.model.folder import FORMAT, VOCODER_PARTS, is_vocoder, read_config
from vocalnet_cli.core.model.part_weights import load_part, load_vocoder_part
from vocalnet_cli.core.model.released import is_released, load_released
from vocalnet_cli.core.model.speech_llm import SpeechLLM, part_of
from vocalnet_cli.core.model.talker import build_talker
from vocalnet_cli.core.model.talker.adapt import adapt, recode
from vocalnet_cli.core.model.talker.contract import Talker
from vocalnet_cli.core.model.talker.mdm import MdmTalker
from vocalnet_cli.core.model.tokenizer import load_tokenizer
from vocalnet_cli.core.model.vocoder import CosyVoice2Vocoder
from vocalnet_cli.core.model.vocoder.cosyvoice2.checkpoint import load_released as load_cosyvoice2
from vocalnet_cli.core.model.vocoder.cosyvoice2.checkpoint import load_released_part, settings_for
from vocalnet_cli.core.training.stage_plan import STAGES


def locate(where: str) -> Path | None:
    """Folder of a part's weights: an embedded model's, a local one, or that of a hub id in the local cache; none if not here."""
    if where == NANO or is_embedded(where):
        return embedded_folder(where)
    if Path(where).is_dir():
        return Path(where)
    return hub.cached(where) if hub.is_hub_id(where) else None


def how_to_get(where: str) -> str:
    """The command that brings weights that are missing to this machine."""
    if hub.is_hub_id(where):
        return f"vocalnet models pull {where}"
    return f"vocalnet train --recipe {where.removeprefix('runs/').removesuffix('/').removesuffix('/model')}"


def missing_init(recipe: Recipe, recipe_name: str) -> dict[str, list[str]]:
    """Folders or hub ids the recipe starts from that are not on this machine, each with its parts.

    A vocoder that is only named, for the finished model to speak through, is none of them. Raises VocalnetError when the recipe does
    not say where a part that its stage needs comes from.
    """
    assert recipe.stage is not None
    needs = STAGES[recipe.stage].needs
    if recipe.data.questions == "written":
        needs = tuple(part for part in needs if part not in ("encoder", "adaptor"))  # nothing is heard
    if "vocoder" in recipe.init:
        needs = tuple(part for part in needs if part not in VOCODER_PARTS)
    unnamed = [part for part in needs if part not in recipe.init]
    if "vocoder" in unnamed and (recipe.model.vocoder is None or {"flow", "hift"} <= recipe.init.keys()):
        unnamed.remove("vocoder")  # rows then carry their speech tokens, or it comes in parts
    if unnamed:
        raise VocalnetError(
            f"recipe {recipe_name}: stage {recipe.stage} needs weights of {', '.join(unnamed)}",
            f"Say where they are: --set init.{unnamed[0]}=FOLDER",
        )
    missing: dict[str, list[str]] = {}
    for part, where in recipe.init.items():
        if locate(where) is None and not (part == "vocoder" and _only_named(recipe, where)):
            missing.setdefault(where, []).append(part)
    return missing


def _only_named(recipe: Recipe, vocoder: str) -> bool:
    return recipe.model.vocoder is None and hub.is_hub_id(vocoder)


def vocoder_elsewhere(recipe: Recipe) -> VocoderElsewhere | None:
    """The CosyVoice2 that the recipe's finished model speaks through without carrying it; none if `init.vocoder` names none."""
    where = recipe.init.get("vocoder")
    if where is None:
        return None
    folder = locate(where)
    if not (_only_named(recipe, where) if folder is None else is_vocoder(folder)):
        return None
    own = recipe.model.vocoder
    said = own.model_dump(mode="json", include=set(own.TUNED), exclude_defaults=True) if isinstance(own, CosyVoice2Settings) else {}
    return VocoderElsewhere(place=str(Path(where).resolve()) if Path(where).is_dir() else where, settings=said)


def locate_all(recipe: Recipe, recipe_name: str) -> dict[str, Path]:
    """Folder of every part the recipe starts from.

    Raises MissingWeights before anything is built when one is missing, with the command that gets it and the laptop twin of
    the recipe, and what `missing_init` raises.
    """
    for where, parts in missing_init(recipe, recipe_name).items():
        twin = laptop_twin(recipe_name)
        instead = f", or run the laptop version: vocalnet train --recipe {twin}" if twin else ""
        raise MissingWeights(
            f"recipe {recipe_name} starts its {', '.join(parts)} from {where}: not on this machine",
            f"Get it first: `{how_to_get(where)}`{instead}",
        )
    return {part: folder for part, where in recipe.init.items() if (folder := locate(where)) is not None}


def load_init(model: SpeechLLM, folders: dict[str, Path], talker_learns: bool = True) -> None:
    """Read every part's starting weights into the model.

    A masked-diffusion talker may start from one of another kind (`adapt`), a talker from one of ours of other speech tokens (`recode`),
    but only where it learns from recorded speech: elsewhere, and as a teacher, it must speak already.
    """
    released = lru_cache(_read_released)  # several parts may come from one folder
    for part, folder in folders.items():
        if part == "tokenizer":
            model.tokenizer = load_tokenizer(folder)
        elif part in VOCODER_PARTS:
            _load_vocoder_part(model, part, folder)
        elif part == "vocoder" and is_vocoder(folder):
            _load_vocoder(model, folder)
        elif getattr(model, part) is None:
            raise VocalnetError(f"init.{part} is {folder}, but model.{part} is not set", f"Say its kind: --set model.{part}.kind=KIND")
        elif part == "talker" and isinstance(model.talker, MdmTalker) and _of_another_kind(folder):
            if not talker_learns:
                raise RecipeError(
                    f"init.talker is {folder}: not a masked-diffusion talker, and none is trained here from recorded speech",
                    "Train one from it first: vocalnet train --recipe nano/mdm --set init.talker=FOLDER",
                )
            source = released(folder).talker if _released(folder) else _read_talker(folder, model.settings.talker.codes)
            adapt(source, model.talker, str(folder))
        elif part == "talker" and is_ours(folder) and (old := _codes(folder)) != (new := model.settings.talker.codes):
            if not talker_learns:
                raise RecipeError(
                    f"init.talker is {folder}: it speaks {old} speech tokens, the recipe {new}",
                    "Train it on these first, by a recipe of stage speak, or set model.talker.codes to the folder's.",
                )
            recode(_read_talker(folder), model.talker, old, new, str(folder))
        elif _released(folder):
            _copy(getattr(released(folder), part), getattr(model, part), folder)
        elif is_ours(folder):
            load_part(getattr(model, part), folder, part)
        elif part == "thinker":
            _copy(AutoModelForCausalLM.from_pretrained(str(folder), local_files_only=True, dtype=torch.float32), model.thinker, folder)
        elif part == "encoder":
            whisper = WhisperModel.from_pretrained(str(folder), local_files_only=True, dtype=torch.float32)
            _copy(whisper.encoder, model.encoder, folder)
        else:
            raise VocalnetError(
                f"{folder}: not a folder of ours, so it holds no {part}", f"Name a folder written by `vocalnet train` in init.{part}."
            )


def _read_released(folder: Path) -> SpeechLLM:
    return load_released(folder, read_config(folder)["model"], torch.device("cpu"), torch.float32)


def _of_another_kind(folder: Path) -> bool:
    """Whether a model folder's talker is not of masked diffusion."""
    return (_released(folder) or is_ours(folder)) and read_config(folder)["model"].talker.kind != "mdm"


def _codes(folder: Path) -> int:
    """Speech tokens of a model folder's talker."""
    codes: int = read_config(folder)["model"].talker.codes
    return codes


def _read_talker(folder: Path, codes: int | None = None) -> Talker:
    """The talker of a model folder; where it does not speak as many tokens as `codes`, one of its layers that does (`recode`)."""
    theirs = read_config(folder)["model"]
    talker = build_talker(theirs.talker, theirs.compat)
    load_part(talker, folder, "talker")
    if codes is None or codes == theirs.talker.codes:
        return talker
    other = build_talker(theirs.talker.model_copy(update={"codes": codes}), theirs.compat)
    recode(talker, other, theirs.talker.codes, codes, str(folder))
    return other


def _load_vocoder(model: SpeechLLM, folder: Path) -> None:
    """Weights of a CosyVoice2 folder, whose sizes must be the recipe's. Of a model without vocoder only the speech tokens must fit."""
    theirs, own = settings_for(folder, model.settings.talker.codes), model.settings.vocoder
    if own is None:
        return
    sizes = set(CosyVoice2Settings.model_fields) - set(CosyVoice2Settings.TUNED)
    if theirs.model_dump(include=sizes) != own.model_dump(include=sizes):
        raise VocalnetError(
            f"{folder}: a CosyVoice2 of other sizes, or another kind of vocoder, than the recipe's model.vocoder",
            "Leave model.vocoder out (null), or give it kind cosyvoice2 and the sizes of the folder's YAML.",
        )
    assert isinstance(model.vocoder, CosyVoice2Vocoder)
    load_cosyvoice2(model.vocoder.flow, model.vocoder.hift, folder)


def _load_vocoder_part(model: SpeechLLM, name: str, folder: Path) -> None:
    """From a folder of ours, or the flow and HiFT of a released one, whose S3 tokenizer is no part of the model."""
    if model.vocoder is None:
        raise RecipeError("model.vocoder is not set, so init cannot name its parts", "Set model.vocoder.kind in the recipe.")
    if is_ours(folder):
        load_vocoder_part(model.vocoder, folder, name)
    elif name != "speech-tokenizer":
        load_released_part(part_of(model, name), folder, name)


def is_ours(folder: Path) -> bool:
    """Whether a folder was written by us."""
    config = folder / "config.json"
    return config.is_file() and f'"{FORMAT}"' in config.read_text()


def _released(folder: Path) -> bool:
    config = folder / "config.json"
    return config.is_file() and is_released(json.loads(config.read_text(encoding="utf-8")))


def _copy(source: nn.Module, target: nn.Module, folder: Path) -> None:
    """Copy weights of a base model, whose sizes must be the recipe's."""
    theirs, own = source.state_dict(), target.state_dict()
    wrong = [name for name in own if name not in theirs or theirs[name].shape != own[name].shape]
    if wrong:
        found = tuple(theirs[wrong[0]].shape) if wrong[0] in theirs else "not there"
        raise VocalnetError(
            f"{folder}: {wrong[0]} is {found}, the recipe says {tuple(own[wrong[0]].shape)} ({len(wrong)} tensors differ)",
            "Change the sizes in the recipe to those of the folder's config.json.",
        )
    target.load_state_dict({name: theirs[name] for name in own})
