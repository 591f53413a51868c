"""Which parts each training stage needs, trains and leaves alone (DESIGN of the two-stage plan: arXiv 2504.04060, section 3.4)."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from vocalnet_cli.core.config.load import LoadedRecipe
from vocalnet_cli.core.errors import RecipeError
from vocalnet_cli.core.model.folder import PARTS


@dataclass(frozen=True)
class StagePlan:
    """One row of the table: parts that learn, parts that must come with weights, and the class that does it."""

    trains: tuple[str, ...]
    needs: tuple[str, ...]
    where: str
    may: tuple[str, ...] = ()
    """Parts that learn only where `train.parts` names them."""
    builds: tuple[str, ...] = PARTS
    """Parts of the model that are built at all."""


STAGES = {
    "lm": StagePlan(("thinker",), (), "lm:LmStage"),
    "encoder": StagePlan(("encoder", "adaptor"), ("tokenizer", "thinker"), "encoder:EncoderStage"),
    "speech-tokenizer": StagePlan(("speech-tokenizer",), (), "speech_tokenizer:SpeechTokenizerStage"),
    "flow": StagePlan(("flow",), ("speech-tokenizer",), "flow:FlowStage", builds=("vocoder",)),
    "hift": StagePlan(("hift",), (), "hift:HiftStage", builds=("vocoder",)),
    "asr-pretrain": StagePlan(("adaptor",), ("tokenizer", "encoder", "thinker"), "asr_pretrain:AsrPretrainStage"),
    "align": StagePlan(("adaptor", "lora"), ("tokenizer", "encoder", "thinker"), "align:AlignStage", may=("encoder",)),
    "tts-pretrain": StagePlan(("talker", "lora"), ("tokenizer", "thinker", "vocoder"), "tts_pretrain:TtsPretrainStage"),
    "speak": StagePlan(("talker",), ("tokenizer", "encoder", "adaptor", "thinker", "vocoder"), "speak:SpeakStage", may=("lora",)),
    "joint": StagePlan(("adaptor", "lora", "talker"), ("tokenizer", "encoder", "thinker", "vocoder"), "speak:SpeakStage"),
    "distill": StagePlan(("talker",), ("tokenizer", "encoder", "adaptor", "thinker", "talker", "vocoder"), "distill:DistillStage"),
}


def stage_class(stage: str) -> Any:
    """The class that trains a stage, imported when asked for."""
    module, name = STAGES[stage].where.split(":")
    return getattr(import_module(f"vocalnet_cli.core.training.stages.{module}"), name)


def parts_to_train(loaded: LoadedRecipe) -> tuple[str, ...]:
    """Parts that learn in this run. Raises RecipeError when the recipe has no stage, or names a part its stage cannot train."""
    recipe = loaded.recipe
    if recipe.stage is None:
        raise RecipeError(f"recipe {loaded.name} has no stage: others extend it", "`vocalnet recipes` lists those that train.")
    plan = STAGES[recipe.stage]
    allowed = plan.trains + plan.may
    wanted = tuple(recipe.train.parts) if recipe.train.parts is not None else plan.trains
    wrong = [part for part in wanted if part not in allowed]
    if wrong or not wanted:
        raise RecipeError(
            f"train.parts is {list(wanted)}: stage {recipe.stage} can train {', '.join(allowed)}",
            "Name some of those, or leave train.parts out.",
        )
    return wanted
