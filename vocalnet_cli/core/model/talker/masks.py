"""Who sees whom in the talker, and at which rotary position: pure functions of row numbers and lengths.

One integer numbers a row: text row j is j (row 0 is BOS); a speech row is -1 - r when r tokens have been read with it (SOS is no
token, so the SOS row is -1). Where a row reads a group of G tokens at once, those numbers are G apart, and nothing else changes.
Training sees the rows as [text | speech], decoding in order of arrival; both build their masks here.
Streaming, C_t = 2, C_s = 3 (arXiv 2504.04060, equation 6), text 5 with BOS, speech rows SOS and tokens 1 to 6:

    text row 0   x . . . . | . . . . . . .
    text row 1   x x . . . | . . . . . . .
    text row 4   x x x x x | . . . . . . .
    SOS          x x x . . | x . . . . . .     BOS and 2 text rows
    token 3      x x x . . | x x x x . . .
    token 4      x x x x x | x x x x x . .     BOS and 4 text rows
    token 6      x x x x x | x x x x x x x

Not streaming (equation 5): text rows see all text, speech rows all text and the speech so far.

`compat` chooses the rules (`compat.RULES`): `paper` is what we train; by the released code's, BOS counts as one of the C_t text
rows, prediction module k takes the text view of row r + k, and speech positions start after the longest text of the batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vocalnet_cli.core.model.compat import RULES

EVERYTHING = 2**31 - 1
"""A text limit no text reaches, and the number of a row of padding: nobody sees it."""


def row_numbers(text: int, speech: int, device: torch.device | str | None = None, group: int = 1) -> Tensor:
    """Numbers of `text` text rows, then `speech` speech rows of `group` tokens each; long [text + speech]."""
    return torch.cat([torch.arange(text, device=device), -1 - group * torch.arange(speech, device=device)])


def positions(rows: Tensor, text_columns: int, compat: str, group: int = 1) -> Tensor:
    """Rotary position of each row: rows are counted, whatever number of tokens each holds.

    `paper` counts each stream from 0, so no position depends on how long the text will be; the released code puts speech row r at
    `text_columns` + r, where `text_columns` counts BOS and padding.
    """
    offset = text_columns if RULES[compat].speech_after_text else 0
    return torch.where(rows >= 0, rows, offset + (-1 - rows) // group)


def text_view(tokens: int, text_chunk: int, speech_chunk: int) -> int:
    """Text rows, BOS included, that must be there before the speech row with token number `tokens` (0: SOS) is read, `paper` streaming.

    Equation 6, except that SOS joins the first chunk: a first token drawn before any text was read would be a guess. A row of a group
    of tokens has the view of its last one.
    """
    return 1 + text_chunk * max(1, -(-tokens // speech_chunk))


def chunk_view(drawn: int, total: Tensor, text_chunk: int, speech_chunk: int) -> Tensor:
    """Text rows, BOS included, that the released streaming shows to the rows read after `drawn` tokens; long [B].

    Chunk c, the tokens from `speech_chunk` * c on, sees BOS and `text_chunk` * (c + 1) rows, at most `total` [B]: unlike `text_view`,
    the tokens of one chunk that are read at the start of the next one see the newer text already (vocalnet.md, section 6.5).
    """
    return torch.clamp(total, max=1 + text_chunk * (drawn // speech_chunk + 1))


def text_limits(rows: Tensor, streaming: Tensor, text_chunk: int, speech_chunk: int, compat: str, depth: int = 0) -> Tensor:
    """Text rows below this number are seen by each row; `rows` [N] or [B, N], `streaming` bool [B], result long [B, N]."""
    speech = -1 - rows
    if RULES[compat].modules_look_ahead:
        speech = speech + depth
    chunks = ((speech + speech_chunk - 1) // speech_chunk).clamp(min=1)
    view = text_chunk * chunks + (0 if RULES[compat].bos_is_text else 1)
    limit = torch.where(rows >= 0, rows + 1, view)
    return torch.where(streaming[:, None], limit, EVERYTHING)


def attends(query: Tensor, key: Tensor, limits: Tensor) -> Tensor:
    """Bool [B, Q, K]: whether query row [Q] sees key row [K] (or [B, Q] and [B, K]), given the queries' text limits [B, Q]."""
    key = key[..., None, :]
    text = key < limits[..., None]
    speech = key >= query[..., None]  # speech numbers fall, so an earlier row has a larger one; never true for a text query
    return torch.where(key >= 0, text, speech)


def training_mask(
    text: Tensor,
    speech: Tensor,
    streaming: Tensor,
    columns: tuple[int, int],
    chunks: tuple[int, int],
    compat: str,
    depth: int = 0,
    group: int = 1,
) -> Tensor:
    """Bool [B, N, N] over [text | speech], N = sum(columns), for the decoder (depth 0) or prediction module `depth`.

    `text` and `speech` long [B] count valid rows, BOS and SOS included; `columns` are the padded widths; `chunks` are (C_t, C_s) in
    text rows and speech tokens; `group` is the number of tokens a speech row holds.
    Rows and columns of padding are False; so are, where modules look ahead, the last `depth` speech rows, which have no target then.
    """
    rows = row_numbers(*columns, device=text.device, group=group)
    limits = text_limits(rows, streaming, *chunks, compat, depth)
    if RULES[compat].blind_without_speech:
        blind = (streaming & (speech == 1))[:, None] & (rows < 0)
        limits = torch.where(blind, 0, limits)
    if RULES[compat].modules_look_ahead:
        speech = speech - depth
    valid = torch.where(rows >= 0, rows < text[:, None], -1 - rows < group * speech[:, None])
    return attends(rows, rows, limits) & valid[:, None, :] & valid[:, :, None]
