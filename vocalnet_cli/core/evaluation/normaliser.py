"""Whisper's English text normaliser: numbers as digits, contractions written out, one spelling."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from importlib.metadata import version

from vocalnet_cli.core.errors import VocalnetError


@cache
def english() -> Callable[[str], str]:
    """The normaliser (arXiv 2212.04356, appendix C). Raises VocalnetError where it is not installed."""
    try:
        module = importlib.import_module("whisper_normalizer.english")
    except ImportError as error:
        hint = "pip install 'vocalnet-cli[eval]'"
        raise VocalnetError("whisper-normalizer is not installed: texts cannot be compared by its rules", hint) from error
    found: Callable[[str], str] = module.EnglishTextNormalizer()
    return found


def english_name() -> str:
    """What results call it. Raises VocalnetError where it is not installed."""
    english()
    return f"Whisper's English normaliser (whisper-normalizer {version('whisper-normalizer')})"
