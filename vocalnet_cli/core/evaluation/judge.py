"""Right or wrong by rule: the short answers of a question, looked for where the answer stands in the sentence."""

from __future__ import annotations

from collections.abc import Mapping

from vocalnet_cli.core.data.record import Record
from vocalnet_cli.core.data.synth.domain import MAX_NUMBER, number_words
from vocalnet_cli.core.evaluation.wer import words_of

JUDGE = "rules: the expected sentence, or a short answer in its place"

DIGIT = "digit"
"""Kind whose short answer must be the only number that is said."""
WHOLE = {"spelling", "repeat"}
"""Kinds whose short answer must be all that is said, but for the opening (`Cat is spelled`)."""
RESULT = {"plus", "minus", "times", "capital", "opposite"}
"""Kinds whose answer stands after `is`: what stands before only repeats the question."""
NEIGHBOUR = {"after", "before"}
"""Kinds whose answer stands before `comes`."""

KINDS = {DIGIT, *WHOLE, *RESULT, *NEIGHBOUR}
"""The kinds of question these rules know."""

_SPELLED = "spelled"
_DIGITS = {str(number) for number in range(MAX_NUMBER + 1)}
_NUMBER_WORDS = {word for number in range(MAX_NUMBER + 1) for word in number_words(number).split()}


def is_right(said: str, record: Record, alike: Mapping[str, str] | None = None) -> bool:
    """Whether `said` answers the question of `record`.

    Right is the expected sentence, or one of `meta.aliases` as consecutive words in the answer's place. A number inside a longer
    number (`seven` in `twenty seven`) and a value that is only repeated from the question do not count.
    """
    words = _in_words(words_of(said, alike))
    if words == words_of(record.answer.text, alike):
        return True
    kind = str(record.meta.get("kind", ""))
    place = _answer_place(words, kind)
    aliases = [words_of(str(alias), alike) for alias in record.meta.get("aliases", [])]
    if kind == DIGIT:
        place = [word for word in words if word in _NUMBER_WORDS]
    if kind == DIGIT or kind in WHOLE:
        return any(place == alias for alias in aliases if alias)
    return any(_holds(place, alias) for alias in aliases if alias)


def _in_words(words: list[str]) -> list[str]:
    """Numbers written as digits as the words they are said with; some recognisers write them so."""
    return [spoken for word in words for spoken in (number_words(int(word)).split() if word in _DIGITS else [word])]


def _answer_place(words: list[str], kind: str) -> list[str]:
    """The words of a sentence that give the answer."""
    if kind == "spelling" and _SPELLED in words:
        return words[words.index(_SPELLED) + 1 :]
    if kind in RESULT and "is" in words:
        at = len(words) - 1 - words[::-1].index("is")
        turned_round = words[at + 1 : at + 2] == ["the"]  # Paris is the capital of France
        return words[:at] if turned_round else words[at + 1 :]
    if kind in NEIGHBOUR and "comes" in words:
        return words[: words.index("comes")]
    return words


def _holds(words: list[str], alias: list[str]) -> bool:
    """Whether `alias` stands in `words`, and not inside a longer number."""
    for at in range(len(words) - len(alias) + 1):
        if words[at : at + len(alias)] != alias:
            continue
        before, after = words[max(at - 1, 0) : at], words[at + len(alias) : at + len(alias) + 1]
        longer = (alias[0] in _NUMBER_WORDS and _NUMBER_WORDS.intersection(before)) or (
            alias[-1] in _NUMBER_WORDS and _NUMBER_WORDS.intersection(after)
        )
        if not longer:
            return True
    return False
