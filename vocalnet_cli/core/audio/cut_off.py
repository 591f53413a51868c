"""Whether an Ogg or MP3 file ends before its end. Their decoders play what is there and say nothing.

Sources: Ogg pages, RFC 3533, section 6; MPEG audio frame headers, ISO/IEC 11172-3, section 2.4.2.3, and 13818-3 for the half rates.
"""

from __future__ import annotations

import mmap
from pathlib import Path

_LARGEST_PAGE = 27 + 255 + 255 * 255
_LAST_PAGE = 0x04

_KBITS = {
    (1, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""(1: full rates, 2: half and quarter rates; layer) to kbit/s by index; layer 3 of the lower rates is as layer 2."""

_RATES = (44_100, 48_000, 32_000)


def ogg_missing(path: Path) -> str:
    """What an Ogg file lacks at its end; empty if it is whole."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - 2 * _LARGEST_PAGE))
        tail = file.read()
    at = len(tail)
    while (at := tail.rfind(b"OggS\0", 0, at)) >= 0:
        sizes = tail[at + 27 : at + 27 + tail[at + 26]] if at + 26 < len(tail) else b""
        end = at + 27 + len(sizes) + sum(sizes)
        if at + 26 >= len(tail) or len(sizes) < tail[at + 26] or end > len(tail):
            return "it ends within a page"
        return "" if tail[at + 5] & _LAST_PAGE else "its last page is missing"
    return "it ends within a page"


def mp3_missing(path: Path) -> tuple[str, int]:
    """What an MP3 file lacks at its end (empty if its last frame is whole), and the samples its frames hold.

    0 samples where it is not plain frames from the start, and cannot be judged.
    """
    samples = 0
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at, size = _after_tags(data), len(data)
        while at + 4 <= size:
            length, held = _frame(data[at], data[at + 1], data[at + 2])
            if length == 0:
                return "", samples  # a tag, or nothing we know
            if at + length > size:
                return f"its last frame has {size - at} of {length} bytes", samples
            at += length
            samples += held
        return ("it ends within a frame" if at < size and data[at] == 0xFF else ""), samples


def _after_tags(data: mmap.mmap) -> int:
    """Where the first frame may start: after ID3v2 tags."""
    at = 0
    while data[at : at + 3] == b"ID3" and at + 10 <= len(data):
        high, mid, low, last = data[at + 6 : at + 10]
        at += 10 + (high << 21 | mid << 14 | low << 7 | last) + (10 if data[at + 5] & 0x10 else 0)
    return at


def _frame(first: int, second: int, third: int) -> tuple[int, int]:
    """Bytes and samples of a frame by its header; none if it is no header, or leaves the bit rate free."""
    version, layer = (second >> 3) & 3, 4 - ((second >> 1) & 3)
    rate, kbits = (third >> 2) & 3, third >> 4
    if first != 0xFF or second < 0xE0 or version == 1 or layer == 4 or rate == 3 or kbits in (0, 15):
        return 0, 0
    full = version == 3
    per_second = _KBITS[1 if full else 2, layer if full else min(layer, 2)][kbits] * 1000
    hz = _RATES[rate] // (1 if full else 2 if version == 2 else 4)
    padding = (third >> 1) & 1
    if layer == 1:
        return (12 * per_second // hz + padding) * 4, 384
    held = 576 if layer == 3 and not full else 1152
    return held // 8 * per_second // hz + padding, held
