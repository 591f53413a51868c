"""Whose behaviour a model follows: every difference between what we train and the released checkpoints, one row each.

`paper` is what we train. `released` is for the released weights: the habits they were trained and measured with are kept, the defects
of the released code are not. `official` is the released code to the last token, defects included; only parity tests want it.
K and F numbers are those of vocalnet.md, sections 6.6 and 6.7.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Rules:
    """One column of the table; `RULES` holds the three."""

    # --- training masks and positions
    speech_after_text: bool
    """Speech positions start after the longest text of the batch, not at 0 (section 5.2)."""
    bos_is_text: bool
    """BOS counts as one of the first C_t text rows (section 5.4)."""
    modules_look_ahead: bool
    """Module k takes the text view of row r + k (section 5.5), and the last k speech rows are padding to it."""
    blind_without_speech: bool
    """A streaming sample without speech tokens sees no text from its SOS row (section 5.4)."""
    # --- decoding
    states_that_predict: bool
    """The talker gets the states that predicted each text token, the last prompt position's first, not those that read it (K1)."""
    causal_text: bool
    """Text rows never look ahead when the whole text is there (K3)."""
    modules_read_decoder: bool
    """Over text, every module reads the decoder's output, not the previous module's (K4)."""
    views_by_chunk: bool
    """A speech row sees the text that was there when it was read, and stands after it: position T_c + r (K6, K7)."""
    penalty_divides_scores: bool
    """The repetition penalty divides the score once an occurrence, negative scores too (K5)."""
    penalty: float
    """Repetition penalty that is used where nothing else is asked for."""
    penalty_window: tuple[int, int]
    """Tokens it looks back on: for a whole answer (SOS counts, main head only), and while streaming (this chunk only, every head) (K5)."""
    segments: bool
    """Long answers are spoken in segments, cut at punctuation (K8)."""
    # --- prompt and question
    text_end_in_prompt: bool
    """Qwen's prompt has `<|endoftext|>` after the user's turn (K9)."""
    adaptor_hears_padding: bool
    """The adaptor reads the whole padded window; its rows are cut afterwards, with the released rounding of lengths (K11)."""
    # --- defects
    broken_streams: bool
    """Special ids leave the talker, EOS only ends a chunk, a chunk may end inside a step (F1, F2, F3)."""
    broken_segments: bool
    """Last tokens dropped blindly, two-token answers silent, empty segments, lost tails, filler tokens (F4, F5, F6, F8, K15)."""


_PAPER = Rules(
    speech_after_text=False,
    bos_is_text=False,
    modules_look_ahead=False,
    blind_without_speech=False,
    states_that_predict=False,
    causal_text=False,
    modules_read_decoder=False,
    views_by_chunk=False,
    penalty_divides_scores=False,
    penalty=1.0,
    penalty_window=(0, 0),
    segments=False,
    text_end_in_prompt=False,
    adaptor_hears_padding=False,
    broken_streams=False,
    broken_segments=False,
)
_OFFICIAL = Rules(
    speech_after_text=True,
    bos_is_text=True,
    modules_look_ahead=True,
    blind_without_speech=True,
    states_that_predict=True,
    causal_text=True,
    modules_read_decoder=True,
    views_by_chunk=True,
    penalty_divides_scores=True,
    penalty=2.0,
    penalty_window=(5, 6),
    segments=True,
    text_end_in_prompt=True,
    adaptor_hears_padding=True,
    broken_streams=True,
    broken_segments=True,
)

RULES: dict[str, Rules] = {
    "paper": _PAPER,
    "released": replace(_OFFICIAL, broken_streams=False, broken_segments=False),
    "official": _OFFICIAL,
}
"""The table: a column each for `paper`, `released` and `official`."""
