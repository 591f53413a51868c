"""YAML as a tree that remembers where each value was written, so that every mistake can name its line."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

LONGEST_FILE = 1_000_000
"""Bytes; a recipe is a page of text."""
DEEPEST = 20
"""Levels of nesting; the schema needs five."""
LARGEST_INTEGER = 2**53
"""Integers beyond this are no exact numbers any more once they meet a float."""

_SCALARS = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str"))


@dataclass(frozen=True)
class Entry:
    """A value and where it was written (`file:line` or `--set key=value`). `value`: scalar, list of Entry, or dict of str to Entry."""

    value: Any
    where: str


class _Loader(yaml.SafeLoader):
    """SafeLoader that also reads 1e-4 as a number: YAML 1.1 wants a point and a sign there, people do not."""


_Loader.add_implicit_resolver(  # type: ignore[no-untyped-call]
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read_tree(path: Path, shown: str, mistakes: list[str]) -> Entry | None:
    """The mapping a YAML file holds; none if it holds no mapping. What is wrong is appended to `mistakes`, one a line."""
    try:
        with path.open("rb") as file:
            raw = file.read(LONGEST_FILE + 1)
    except OSError as error:
        mistakes.append(f"{shown}  cannot be read: {error.strerror}")
        return None
    if len(raw) > LONGEST_FILE:
        mistakes.append(f"{shown}  is larger than {LONGEST_FILE} bytes: not a recipe")
        return None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        mistakes.append(f"{shown}:{raw[: error.start].count(10) + 1}  is not UTF-8 text (byte {error.start})")
        return None
    tree = parse(text, shown, mistakes, numbered=True)
    if tree is None:
        return None
    if not isinstance(tree.value, dict):
        mistakes.append(f"{tree.where}  the file is {'empty' if tree.value is None else 'not a mapping'}: a recipe is `key: value` lines")
        return None
    return tree


def parse(text: str, shown: str, mistakes: list[str], numbered: bool) -> Entry | None:
    """Tree of a YAML text; `numbered` adds line numbers to `shown`. None if it cannot be parsed at all (then a mistake is appended)."""
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        reader = _Reader(loader, shown, numbered, mistakes)
        return reader.entry(node, "", 0) if node is not None else Entry(None, reader.place(None))
    except RecursionError:
        mistakes.append(f"{shown}  is nested too deeply")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if numbered and mark is not None else ""
        mistakes.append(f"{shown}{line}  is not YAML: {_one_line(error.problem or error.context or 'broken')}")
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        mistakes.append(f"{shown}  is not YAML: {_one_line(getattr(error, 'reason', None) or error)}")
    finally:
        if loader is not None:
            loader.dispose()  # type: ignore[no-untyped-call]
    return None


class _Reader:
    """Turns YAML nodes into entries. A value that cannot be used is reported and left out."""

    def __init__(self, loader: _Loader, shown: str, numbered: bool, mistakes: list[str]) -> None:
        self.loader, self.shown, self.numbered, self.mistakes = loader, shown, numbered, mistakes
        self.seen: set[int] = set()

    def place(self, node: yaml.Node | None) -> str:
        if not self.numbered:
            return self.shown
        return f"{self.shown}:{node.start_mark.line + 1 if node is not None else 1}"

    def entry(self, node: yaml.Node, key: str, depth: int) -> Entry | None:
        # An alias gives the same node object again. Recipes do without: `extends` shares, and nothing can blow up.
        if id(node) in self.seen:
            return self._refuse(node, key, "is an alias (*name): write the value out")
        self.seen.add(id(node))
        if depth > DEEPEST:
            return self._refuse(node, key, f"is nested deeper than {DEEPEST} levels")
        if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
            return Entry(self._mapping(node, key, depth), self.place(node))
        if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
            items = [self.entry(item, f"{key}[{i}]", depth + 1) for i, item in enumerate(node.value)]
            return Entry([item for item in items if item is not None], self.place(node))
        if isinstance(node, yaml.ScalarNode) and node.tag in _SCALARS:
            return self._scalar(node, key)
        return self._refuse(node, key, f"has the YAML type {node.tag.rpartition(':')[2]}: quote it to make it text")

    def _mapping(self, node: yaml.MappingNode, key: str, depth: int) -> dict[str, Entry]:
        values: dict[str, Entry] = {}
        lines: dict[str, str] = {}
        for name_node, value_node in node.value:
            if not isinstance(name_node, yaml.ScalarNode) or name_node.tag != "tag:yaml.org,2002:str":
                self._refuse(name_node, key, "has a key that is not text")
                continue
            name = name_node.value
            if name in lines:
                self._refuse(name_node, join(key, name), f"is given twice, first at {lines[name]}")
                continue
            lines[name] = self.place(name_node)
            value = self.entry(value_node, join(key, name), depth + 1)
            if value is not None:
                values[name] = Entry(value.value, lines[name])
        return values

    def _scalar(self, node: yaml.ScalarNode, key: str) -> Entry | None:
        try:
            value = self.loader.construct_object(node)  # type: ignore[no-untyped-call]
        except (yaml.YAMLError, ValueError, KeyError, IndexError, OverflowError):
            return self._refuse(node, key, f"is {shorten(node.value)}: not a {node.tag.rpartition(':')[2]}")
        if isinstance(value, float) and not math.isfinite(value):
            return self._refuse(node, key, f"is {shorten(node.value)}: must be a finite number")
        if isinstance(value, int) and abs(value) > LARGEST_INTEGER:
            return self._refuse(node, key, f"is {shorten(node.value)}: too large a number")
        if isinstance(value, str) and not value.isprintable() and any(0xD800 <= ord(letter) <= 0xDFFF for letter in value):
            return self._refuse(node, key, "holds half a character (a surrogate)")
        return Entry(value, self.place(node))

    def _refuse(self, node: yaml.Node, key: str, why: str) -> Entry | None:
        self.mistakes.append(f"{self.place(node)}  {shorten(key) or 'the file'} {why}")
        return None


def join(path: str, name: str) -> str:
    """Dotted path of a key below another."""
    return f"{path}.{name}" if path else name


def plain(entry: Entry) -> Any:
    """The values alone."""
    if isinstance(entry.value, dict):
        return {name: plain(item) for name, item in entry.value.items()}
    if isinstance(entry.value, list):
        return [plain(item) for item in entry.value]
    return entry.value


def shorten(value: object, longest: int = 60) -> str:
    """At most `longest` characters on one line."""
    text = _one_line(value)
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _one_line(value: object) -> str:
    text = str(value)
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
