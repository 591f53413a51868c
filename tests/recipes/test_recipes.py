"""Every recipe loads, builds without memory, and tells at its top what it stands for and how to run it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vocalnet_cli.core.config.find import list_recipes
from vocalnet_cli.core.config.load import load_recipe
from vocalnet_cli.core.experiments.table import catalogue, find_table
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
        table = loaded.recipe.paper.table
        assert (table if table.startswith("Figure") else f"Table {table}") in story and loaded.recipe.paper.arxiv in story
        assert all(str(number) in story for number in loaded.recipe.paper.expect.values())


TABLE_5 = [
    ("ntp", 1, 1, 10.62),
    ("group-linear", 3, 3, 11.5), ("group-linear", 5, 5, 17.61),
    ("group-trans", 3, 3, 14.34), ("group-trans", 5, 5, 17.9),
    ("mtp-parallel-linear", 6, 1, 8.61), ("mtp-parallel-linear", 6, 3, 8.0), ("mtp-parallel-linear", 6, 5, 10.57),
    ("mtp-deepseek", 6, 1, 9.14), ("mtp-deepseek", 6, 3, 9.02), ("mtp-deepseek", 6, 5, 18.23),
    ("mtp-vocalnet", 6, 1, 6.84), ("mtp-vocalnet", 6, 3, 5.66), ("mtp-vocalnet", 6, 5, 6.46),
]  # fmt: skip
"""arXiv 2504.04060: talker, most tokens a step (5 modules and the main head), tokens a step, word errors in percent."""


@pytest.mark.parametrize("family", ["nano", "vocalnet"])
def test_table_5_has_every_row_in_the_papers_order(family):
    found = []
    for row in find_table(family, "5", "2504.04060").rows:
        recipe = load_recipe(row.recipe).recipe
        talker, step = recipe.model.talker, recipe.generation.tokens_per_step
        found.append((talker.kind, talker.step_sizes[-1], step, recipe.paper.expect["wer_percent"]))
    assert found == TABLE_5


MDM_ABLATION = [
    ("bernoulli", None, 1, 39.0), ("hierarchical", None, 1, 50.7),
    ("hierarchical", 0.0, 1, 41.27), ("hierarchical", 0.9, 1, 15.95),
    ("bernoulli", 0.7, 1, 9.69), ("bernoulli", 0.7, 4, 7.65),
    ("hierarchical", 0.7, 1, 6.23), ("hierarchical", 0.7, 4, 5.34),
]  # fmt: skip
"""arXiv 2602.08607: masking, alpha of the distillation (none: stage 2 alone), steps a block, word errors in percent."""


@pytest.mark.parametrize("family", ["nano", "vocalnet-mdm"])
def test_the_ablations_of_masked_diffusion_are_the_papers(family):
    found = []
    for row in find_table(family, "mdm-ablation", "2602.08607").rows:
        recipe = load_recipe(row.recipe).recipe
        assert recipe.model.talker.layout == "single"
        alpha = recipe.distill.alpha if recipe.stage == "distill" else None
        found.append((recipe.model.talker.masking, alpha, recipe.generation.steps, recipe.paper.expect.get("wer_percent")))
    assert [row for row in found if row[-1] is not None] == MDM_ABLATION


@pytest.mark.parametrize("family", ["nano", "vocalnet-mdm"])
def test_the_main_rows_of_masked_diffusion_share_thinker_and_data(family):
    rows = [load_recipe(row.recipe).recipe for row in find_table(family, "mdm", "2602.08607").rows]
    assert [(row.model.talker.kind, row.generation.steps) for row in rows[2:]] == [("mdm", steps) for steps in (16, 4, 2, 1)]
    assert [(row.model.talker.kind, row.generation.tokens_per_step) for row in rows[:2]] == [("ntp", 1), ("mtp-vocalnet", 3)]
    assert all(row.data == rows[0].data and row.model.thinker == rows[0].model.thinker for row in rows)
    assert len({row.init["thinker"] for row in rows}) == 1


def test_a_table_is_listed_with_its_parts():
    listed = catalogue("mdm")
    assert {row["paper"]["table"] for row in listed} == {"mdm", "mdm-ablation", "mdm-latency"}
    assert {row["family"] for row in listed} == {"nano", "vocalnet-mdm"}
    assert {row["paper"]["table"] for row in catalogue("mdm-latency")} == {"mdm-latency"}


@pytest.mark.parametrize("family", ["nano", "vocalnet"])
def test_rows_of_table_5_differ_in_their_talker_and_its_step_alone(family):
    recipes = [load_recipe(row.recipe).resolved for row in find_table(family, "5", "2504.04060").rows]
    sizes = ("hidden", "ffn", "heads", "projector_layers", "decoder_layers", "codes", "dropout", "text_chunk", "speech_chunk")
    for recipe in recipes:
        for told in ("about", "paper"):
            del recipe[told]
        recipe["model"]["talker"] = {name: recipe["model"]["talker"][name] for name in sizes}
        del recipe["generation"]["tokens_per_step"]
    assert all(recipe == recipes[0] for recipe in recipes)
