"""Recipes by name: where they lie, and which are close to a misspelt one."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from pathlib import Path

from vocalnet_cli.core.errors import RecipeError

FAMILIES = ("vocalnet", "vocalnet-mdm", "nano", "vocoder")
"""Folders of recipes, in the order in which a short name is searched."""

_PACKAGE = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class RecipeInfo:
    """One recipe that comes with the toolkit."""

    name: str
    """`family/short`, as `--recipe` takes it."""
    family: str
    short: str
    path: Path


def recipe_root() -> Path:
    """Folder of the recipes: inside the installed package, or `recipes/` beside the package in a checkout."""
    installed = _PACKAGE / "recipes"
    return installed if installed.is_dir() else _PACKAGE.parent / "recipes"


def list_recipes() -> list[RecipeInfo]:
    """Every recipe of the toolkit, by family in search order, then by name."""
    root = recipe_root()
    found = []
    for path in root.rglob("*.yaml"):
        name = path.relative_to(root).with_suffix("").as_posix()
        family, _, short = name.rpartition("/")
        found.append(RecipeInfo(name, family, short, path))
    return sorted(found, key=lambda recipe: (_rank(recipe.family), recipe.name))


def find_recipe(name: str) -> Path:
    """Path of a recipe: a YAML file, `family/name`, or a short name (first family that has it). Raises RecipeError."""
    if name.endswith((".yaml", ".yml")) and os.path.isfile(name):
        return Path(name)
    recipes = list_recipes()
    for recipe in recipes:
        if recipe.name == name:
            return recipe.path
    for recipe in recipes:
        if recipe.short == name and recipe.family in FAMILIES:
            return recipe.path
    what = "no such file" if name.endswith((".yaml", ".yml")) else "no such recipe"
    raise RecipeError(f"recipe {name!r}: {what}{nearest(name)}", "List them with: vocalnet recipes")


def laptop_twin(name: str) -> str | None:
    """The nano recipe that does at laptop size what recipe `family/short` does; none if there is none, or it is one itself.

    It is called the same, has the name of an ablation, or does without the last part of the name (`align-1b`, `mtp5-step1`).
    """
    family, _, short = name.rpartition("/")
    known = {recipe.name for recipe in list_recipes()}
    names = (f"nano/{short}", f"nano/ablation-{short}", f"nano/{short.rpartition('-')[0]}")
    return next((twin for twin in names if twin in known), None) if family not in ("", "nano") else None


def nearest(name: str) -> str:
    """`. Nearest: a, b.` for a name that no recipe has; empty when none is close."""
    recipes = list_recipes()
    stem = name.removesuffix(".yaml").removesuffix(".yml")
    close = difflib.get_close_matches(stem, [recipe.name for recipe in recipes], n=2)
    for recipe in recipes:
        if recipe.short in difflib.get_close_matches(stem.rpartition("/")[2], [recipe.short], cutoff=0.6) and recipe.name not in close:
            close.append(recipe.name)
    return f". Nearest: {', '.join(close[:3])}." if close else ""


def recipe_name(path: Path) -> str:
    """`family/short` of a recipe of the toolkit, the file's stem of any other."""
    root = recipe_root().resolve()
    resolved = path.resolve()
    if resolved.is_relative_to(root):
        return resolved.relative_to(root).with_suffix("").as_posix()
    return resolved.stem


def _rank(family: str) -> int:
    return FAMILIES.index(family) if family in FAMILIES else len(FAMILIES)
