"""Written text as it is said: without markup, code, addresses and pictures."""

from __future__ import annotations

import html
import re

_FENCE = re.compile(r"(?ms)^[ \t]*(```|~~~).*?(^[ \t]*\1[ \t]*$|\Z)")
_TAG = re.compile(r"</?[a-zA-Z][^<>]{0,200}>")
_IMAGE = re.compile(r"!\[[^\]]*\]\([^)\s]*[^)]*\)")
_LINK = re.compile(r"\[([^\]]+)\]\((?:[^)\s]+)[^)]*\)")
_ADDRESS = re.compile(r"<?\b(?:https?://|www\.)[^\s>)\]]+[^\s>)\].,;:!?]>?")
_HEADER = re.compile(r"^[ \t]{0,3}#{1,6}[ \t]+(.*?)[ \t]*#*$")
_BULLET = re.compile(r"^[ \t]*(?:[-*+\u2022\u25aa\u25cf][ \t]+)(.*)$")
_NUMBERED = re.compile(r"^[ \t]*(\d{1,3})[.)][ \t]+(.*)$")
_QUOTE = re.compile(r"^[ \t]*>[ \t]?")
_RULE = re.compile(r"^[ \t]*([-*_=])(?:[ \t]*\1){2,}[ \t]*$")
_TABLE_RULE = re.compile(r"^[ \t]*\|?[ \t:|-]*-{3,}[ \t:|-]*$")
_EMPHASIS = (
    re.compile(r"(\*\*\*|___)(?=\S)(.+?)(?<=\S)\1"),
    re.compile(r"(\*\*|__|~~)(?=\S)(.+?)(?<=\S)\1"),
    re.compile(r"(?<![\w*])(\*)(?=[^\s*])(.+?)(?<=[^\s*])\1(?![\w*])"),
    re.compile(r"(?<!\w)(_)(?=[^\s_])(.+?)(?<=[^\s_])\1(?!\w)"),
    re.compile(r"(`+)(.+?)\1"),
)
_PICTURE = re.compile(
    "[\U0001f000-\U0001faff\u2600-\u27bf\u2b00-\u2bff\u2190-\u21ff\u2300-\u23ff\ufe0e\ufe0f\u200d\u20e3\U000e0020-\U000e007f\U0001f1e6-\U0001f1ff]+"
)
_INVISIBLE = re.compile("[\u200b\u200c\u2060\ufeff\u00ad\x00-\x08\x0b-\x1f\x7f]")
_ENDED = re.compile(r"[.!?:;,\u2026\u3002\uff01\uff1f][\"'\u201d\u2019)\]]*$")
_HOLLOW = re.compile(r"\([\s,;:]*\)|\[[\s,;:]*\]")


def speakable(text: str) -> str:
    """`text` without markdown, HTML, code blocks, addresses and emoji on one line. Headings, list items and paragraphs end as sentences do.

    What remains is untouched: numbers and abbreviations are the synthesizer's business. Empty if there is nothing to say.
    """
    text = html.unescape(text.replace("\r\n", "\n").replace("\r", "\n"))
    text = _FENCE.sub("\n", text)
    text = _LINK.sub(r"\1", _IMAGE.sub(" ", text))
    text = _ADDRESS.sub(" ", _TAG.sub(" ", text))
    paragraphs = [" ".join(filter(None, map(_line, part.split("\n")))) for part in re.split(r"\n[ \t]*\n", text)]
    *before, last = [part for part in paragraphs if part] or [""]
    joined = _INVISIBLE.sub("", _PICTURE.sub(" ", " ".join([*map(_ended, before), last])))
    for mark in _EMPHASIS:
        joined = mark.sub(r"\2", joined)
    joined = _HOLLOW.sub(" ", joined)
    joined = re.sub(r"\s+", " ", joined)
    joined = re.sub(r" ([.,!?;:])(?=\s|$)", r"\1", joined).strip()
    return joined if re.search(r"\w", joined) else ""


def _line(line: str) -> str:
    """One line of markdown as it is said; empty if nothing is."""
    line = _QUOTE.sub("", line)
    if _RULE.match(line) or _TABLE_RULE.match(line):
        return ""
    if header := _HEADER.match(line):
        return _ended(header[1])
    if item := _BULLET.match(line):
        return _ended(item[1])
    if item := _NUMBERED.match(line):
        return _ended(f"{item[1]}. {item[2]}")
    if line.count("|") >= 2 and line.strip().startswith("|"):
        return _ended(", ".join(cell.strip() for cell in line.strip().strip("|").split("|") if cell.strip()))
    return line.strip()


def _ended(text: str) -> str:
    bare = text.strip().rstrip("*_` ")
    if not bare:
        return ""
    return text.strip() if _ENDED.search(bare) else f"{text.strip()}."
