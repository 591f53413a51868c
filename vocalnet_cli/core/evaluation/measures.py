"""What is measured of the sound of an answer beside what was heard in it. Light: names alone."""

from __future__ import annotations

RATES = {"wer": "WER %", "truncated": "cut off %"}
"""Rates of a set that stand beside them."""

MEASURES = {
    "utmos": "UTMOS",
    "dnsmos": "DNSMOS",
    "lufs": "LUFS",
    "words_per_s": "words/s",
    "similarity": "voice similarity",
}
"""Numbers of one answer, as `QuestionResult.measures` has them, and what a table calls them. A set's number is their mean."""
