"""A recipe from YAML: `extends`, `--set`, and every mistake at once with its file and line, before anything is built."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from vocalnet_cli.core.config.find import find_recipe, recipe_name
from vocalnet_cli.core.config.mistakes import KINDS, describe
from vocalnet_cli.core.config.schema import Recipe
from vocalnet_cli.core.config.yaml_tree import DEEPEST, Entry, parse, plain, read_tree, shorten
from vocalnet_cli.core.errors import RecipeError

RESOLVED = "recipe.yaml"
"""File of a run that holds its whole recipe."""

_OPENING = "# {name}, resolved from {path}\n"


@dataclass(frozen=True)
class LoadedRecipe:
    """A checked recipe and where it came from."""

    recipe: Recipe
    path: Path
    resolved: dict[str, Any]
    """Every setting, parents and overrides applied, defaults filled in; plain values as YAML and JSON know them."""
    name: str
    """`family/name` of a recipe of the toolkit, else the file's stem."""


def load_recipe(name_or_path: str, overrides: Sequence[str] = ()) -> LoadedRecipe:
    """Read a recipe by name or file, apply its parents and `key=value` overrides, and check it.

    Raises RecipeError whose problem lists every mistake, one a line: `file:line  key is VALUE: what is wrong. Nearest: X.`
    """
    path = find_recipe(name_or_path)
    mistakes: list[str] = []
    recipe = check_tree(_with_parents(path, mistakes), overrides, mistakes)
    if mistakes or recipe is None:
        raise RecipeError("\n".join(dict.fromkeys(mistakes)), _hint(mistakes, _shown(path)))
    return LoadedRecipe(recipe, path, recipe.model_dump(mode="json"), recipe_name(path))


def check_tree(tree: Entry | None, overrides: Sequence[str], mistakes: list[str]) -> Recipe | None:
    """The recipe of a tree (none: it could not be read) with `key=value` overrides. What is wrong is appended to `mistakes`, one a line."""
    for override in overrides:
        child = _override(override, mistakes)
        if child is not None and tree is not None:
            tree = _merge(tree, child)
    return _validate(tree, mistakes) if tree is not None else None


def save_resolved(loaded: LoadedRecipe, folder: Path) -> Path:
    """Write the whole recipe, parents and overrides applied, as `folder`/recipe.yaml. It loads on its own."""
    folder.mkdir(parents=True, exist_ok=True)
    path, partial = folder / RESOLVED, folder / f"{RESOLVED}.{os.getpid()}.tmp"
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(_OPENING.format(name=loaded.name, path=_shown(loaded.path)))
            yaml.safe_dump(loaded.resolved, file, sort_keys=False, allow_unicode=True, width=120)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def resolved_name(folder: Path) -> str | None:
    """Name of the recipe that `save_resolved` wrote into `folder`; None if there is none."""
    try:
        with (folder / RESOLVED).open(encoding="utf-8") as file:
            opening = re.fullmatch(_OPENING.format(name="(.+)", path=".*"), file.readline())
    except (OSError, UnicodeDecodeError):
        return None
    return opening[1] if opening else None


def _with_parents(path: Path, mistakes: list[str]) -> Entry | None:
    """Tree of a file merged over those it extends, nearest last."""
    chain: list[Entry] = []
    visited: list[Path] = []
    following: Path | None = path
    while following is not None:
        visited.append(following.resolve())
        tree = read_tree(following, _shown(following), mistakes)
        if tree is None:
            break
        parent = tree.value.pop("extends", None)
        chain.append(tree)
        following = _parent(parent, following, visited, mistakes) if parent is not None else None
    if not chain:
        return None
    merged = chain[-1]
    for child in reversed(chain[:-1]):
        merged = _merge(merged, child)
    return merged


def _parent(parent: Entry, child: Path, visited: list[Path], mistakes: list[str]) -> Path | None:
    """File a recipe extends: a path relative to the recipe that names it, or a recipe's name."""
    name = parent.value
    if not isinstance(name, str) or not name:
        mistakes.append(f"{parent.where}  extends is {shorten(json.dumps(plain(parent)))}: must be the name of one recipe")
        return None
    beside = os.path.join(child.parent, name)
    try:
        found = find_recipe(beside if name.endswith((".yaml", ".yml")) and os.path.isfile(beside) else name)
    except RecipeError as error:
        mistakes.append(f"{parent.where}  extends is {shorten(name)}: {error.problem.partition(': ')[2]}")
        return None
    if found.resolve() in visited:
        mistakes.append(f"{parent.where}  extends is {shorten(name)}: that recipe extends this one, in a circle")
        return None
    return found


def _override(text: str, mistakes: list[str]) -> Entry | None:
    """`a.b=c` as a tree of its own; the value is YAML."""
    where = f"--set {shorten(text)}"
    key, equals, value = text.partition("=")
    names = key.strip().split(".")
    if not equals or not all(names):
        mistakes.append(f"{where}  is not KEY=VALUE: write it as train.lr=1e-4")
        return None
    if len(names) > DEEPEST:
        mistakes.append(f"{where}  is nested deeper than {DEEPEST} levels")
        return None
    entry = parse(value, where, mistakes, numbered=False)
    for name in reversed(names):
        entry = Entry({name: entry}, where) if entry is not None else None
    return entry


def _merge(parent: Entry, child: Entry, path: str = "") -> Entry:
    """The child's values over the parent's, mapping by mapping."""
    if not isinstance(parent.value, dict) or not isinstance(child.value, dict):
        return child
    inherited = parent.value
    part = path.removeprefix("model.")
    if part in KINDS:
        inherited = _inherited(inherited, child.value, KINDS[part])
    merged = dict(inherited)
    for name, value in child.value.items():
        merged[name] = _merge(inherited[name], value, f"{path}.{name}" if path else name) if name in inherited else value
    return Entry(merged, parent.where)


def _inherited(parent: dict[str, Entry], child: dict[str, Entry], known: Mapping[str, type[BaseModel]]) -> dict[str, Entry]:
    """What a talker or vocoder keeps of its parent: another kind leaves behind the keys only the parent's kind has."""
    before, after = (part["kind"].value if "kind" in part else None for part in (parent, child))
    if not isinstance(before, str) or not isinstance(after, str) or before not in known or after not in known or before == after:
        return parent
    left_behind = known[before].model_fields.keys() - known[after].model_fields.keys()
    return {name: value for name, value in parent.items() if name not in left_behind}


def _validate(tree: Entry, mistakes: list[str]) -> Recipe | None:
    """The recipe a tree describes. JSON mode is strict about types yet takes mappings for sections."""
    values = plain(tree)
    try:
        return Recipe.model_validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        found = error.errors(include_url=False)
        mistakes.extend(describe(one, tree) for one in found)
    unknown = [one["loc"] for one in found if one["type"] == "extra_forbidden"]
    if len(unknown) == len(found):
        # Sections that do not fit each other are only seen once every key is known: look again without the strange ones.
        for loc in unknown:
            _drop(values, loc)
        try:
            Recipe.model_validate_json(json.dumps(values), strict=True)
        except ValidationError as error:
            mistakes.extend(describe(one, tree) for one in error.errors(include_url=False))
    return None


def _drop(values: Any, loc: tuple[int | str, ...]) -> None:
    for step in loc[:-1]:
        # The kind of a talker or vocoder stands in the location of a mistake, not in the recipe.
        values = values.get(step, values)
    values.pop(loc[-1], None)


def _shown(path: Path) -> str:
    """Path as a reader would type it."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)


def _hint(mistakes: list[str], shown: str) -> str:
    count = len(dict.fromkeys(mistakes))
    if all(line.startswith("--set ") for line in mistakes):
        return "Fix the --set option; `vocalnet recipes NAME` prints every key of a recipe."
    return f"Fix {'it' if count == 1 else f'all {count}'} and run again; `vocalnet recipes NAME` prints every key ({shown} was read)."
