"""A line for each mistake in a recipe: where it stands, the value, what is wrong, and the nearest thing that would be right."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, get_args

from pydantic import BaseModel

from vocalnet_cli.core.config.schema import Recipe
from vocalnet_cli.core.config.talker_schema import TalkerChoice
from vocalnet_cli.core.config.vocoder_schema import CosyVoice2Settings, GriffinLimSettings
from vocalnet_cli.core.config.yaml_tree import Entry, join, plain, shorten

KINDS = {
    "talker": {kind.model_fields["kind"].default: kind for kind in get_args(get_args(TalkerChoice)[0])},
    "vocoder": {kind.model_fields["kind"].default: kind for kind in (GriffinLimSettings, CosyVoice2Settings)},
}
"""Settings class of each talker and each vocoder, by the `kind` a recipe names."""

_QUOTED = re.compile(r"'([^']*)'")


def describe(error: Any, tree: Entry) -> str:
    """`file:line  key is VALUE: what is wrong. Nearest: X.` for one of pydantic's errors about the values of `tree`."""
    kind, context = error["type"], error.get("ctx", {})
    steps = _steps(error["loc"])
    if kind == "extra_forbidden":
        return _unknown_key(steps, tree, _siblings(steps))
    if error["loc"] and error["loc"][-1] == "[key]":
        return _unknown_key(steps, tree, _QUOTED.findall(context.get("expected", "")))
    where, value = _find(steps, tree)
    key = _dotted(steps)
    if kind == "value_error":
        return _conflict(steps, str(context["error"]), tree)
    if kind in ("missing", "union_tag_not_found"):
        missing = join(key, "kind") if kind == "union_tag_not_found" else key
        choice = f": say one of {', '.join(KINDS[str(steps[-1])])}" if kind == "union_tag_not_found" else ""
        return f"{where}  {missing} is missing{choice}."
    if kind == "union_tag_invalid":
        where, value = _find([*steps, "kind"], tree)
        part = str(steps[-1])
        return f"{where}  {join(key, 'kind')} is {_show(value)}: not a {part}{_nearest(str(value), list(KINDS[part]))}"
    if kind == "literal_error":
        near = _nearest(str(value), _QUOTED.findall(context["expected"]), show_all=False)
        return f"{where}  {key} is {_show(value)}: {_must(error['msg'])}{near}"
    return f"{where}  {key or 'the recipe'} is {_show(value)}: {_must(error['msg'])}."


def _unknown_key(steps: list[int | str], tree: Entry, siblings: list[str]) -> str:
    where, value = _find(steps, tree)
    key, last = _dotted(steps), str(steps[-1])
    if last in siblings:
        part = str(steps[-2])
        kinds = [kind for kind, settings in KINDS[part].items() if last in settings.model_fields]
        return f"{where}  {shorten(key)} is {_show(value)}: this kind of {part} has no such key, only {', '.join(kinds)}."
    close = difflib.get_close_matches(last, siblings, n=1, cutoff=0.6)
    if close:
        near = join(key.rpartition(".")[0], close[0])
    else:
        near = next((known for known in _all_keys(Recipe) if known.rpartition(".")[2] == last), "")
    told = f" Nearest: {near}." if near else f" Known here: {', '.join(siblings)}." if siblings else ""
    return f"{where}  {shorten(key)} is {_show(value)}: unknown key.{told}"


def _conflict(steps: list[int | str], message: str, tree: Entry) -> str:
    """A message of the schema that starts with the key it is about, relative to its section.

    Of the places where the keys it names were written, an override is told first: it is what the user changed last.
    """
    found = [_find([*steps, *word.split(".")], tree) for word in re.findall(r"[a-z_]+(?:\.[a-z_]+)*", message)]
    places = [place for place, value in found if value is not None] or [_find(steps, tree)[0]]
    where = next((place for place in places if place.startswith("--set ")), places[0])
    return f"{where}  {join(_dotted(steps), message)}."


def _steps(loc: tuple[int | str, ...]) -> list[int | str]:
    """Path of a value in the tree, without what pydantic puts in between (the kind of a talker or vocoder, the mark of a key)."""
    steps: list[int | str] = []
    for i, step in enumerate(loc):
        if step == "[key]" or (i and step in KINDS.get(str(loc[i - 1]), {})):
            continue
        steps.append(step)
    return steps


def _find(steps: Iterable[int | str], tree: Entry) -> tuple[str, Any]:
    """Where the value at a path was written, and the value; of what is not there, the nearest section above."""
    entry = tree
    for step in steps:
        inside = entry.value
        if isinstance(inside, dict) and step in inside:
            entry = inside[str(step)]
        elif isinstance(inside, list) and isinstance(step, int) and step < len(inside):
            entry = inside[step]
        else:
            return entry.where, None
    return entry.where, plain(entry)


def _siblings(steps: list[int | str]) -> list[str]:
    """Keys the schema knows beside the last step of a path; for a talker or vocoder, those of every kind."""
    models: list[type[BaseModel]] = [Recipe]
    for step in steps[:-1]:
        models = [inner for model in models if step in model.model_fields for inner in _models(model.model_fields[str(step)].annotation)]
    return list(dict.fromkeys(name for model in models for name in model.model_fields))


def _models(annotation: Any) -> list[type[BaseModel]]:
    """Section classes an annotation names, alone or in a union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models(inner)]


def _all_keys(model: type[BaseModel], path: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield join(path, name)
        for inner in _models(field.annotation):
            yield from _all_keys(inner, join(path, name))


def _dotted(steps: list[int | str]) -> str:
    key = ""
    for step in steps:
        key = f"{key}[{step}]" if isinstance(step, int) else join(key, step)
    return shorten(key)


def _show(value: Any) -> str:
    return shorten(json.dumps(value, ensure_ascii=False))


def _must(message: str) -> str:
    return message.replace("Input should be", "must be").replace("an object", "a mapping").rstrip(".")


def _nearest(value: str, known: list[str], show_all: bool = True) -> str:
    close = difflib.get_close_matches(value, known, n=1, cutoff=0.5)
    if close:
        return f". Nearest: {close[0]}."
    return f". Known: {', '.join(known)}." if show_all else "."
