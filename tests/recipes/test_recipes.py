"""Every recipe loads, builds without memory, and tells at its top what it stands for and how to run it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vocalnet_cli.core.config.find import list_recipes
from vocalnet_cli.core.config.load import load_recipe
from vocalnet_cli.core.model.speech_llm import build_model

ROOT = Path(__file__).parents[2] / "recipes"
RECIPES = sorted(ROOT.rglob("*.yaml"))


def test_no_recipe_is_left_out():
    assert len(RECIPES) >= 8
    assert len(RECIPES) == len(list_recipes())
    assert not [path for path in ROOT.rglob("*") if path.is_file() and path.suffix != ".yaml"]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_recipe_builds(path):
    recipe = load_recipe(str(path)).recipe
    with torch.device("meta"):
        model = build_model(recipe.model)
    assert sum(parameter.numel() for parameter in model.talker.parameters()) > 0
    assert all(parameter.is_meta for parameter in model.parameters())


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_recipe_opens_with_its_story(path):
    loaded = load_recipe(str(path))
    story = "".join(line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.startswith("#"))
    assert path.read_text(encoding="utf-8").startswith("# ") and loaded.recipe.about
    if loaded.recipe.stage is not None:
        command = "distill" if loaded.recipe.stage == "distill" else "train"
        assert f"vocalnet {command} --recipe {loaded.name}" in story
    if loaded.recipe.latency.model is not None:
        assert f"latency --recipe {loaded.name}" in story or f"latency --recipe {path.stem}" in story
    if loaded.recipe.paper is not None:
        assert f"Table {loaded.recipe.paper.table}" in story and loaded.recipe.paper.arxiv in story
        assert all(str(number) in story for number in loaded.recipe.paper.expect.values())
