"""Speech tokens out of .npy files. Released ones may be pickled: they are read by an unpickler that can make arrays and dicts only."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy_format

from vocalnet_cli.core.data.prep.corpora import BadRow

MOST_TOKENS = 65_536
"""Tokens of one answer: 44 minutes. A file that claims more is refused."""

_LARGEST = 8 * MOST_TOKENS + 4096


def _array(subtype: Any, shape: Any, kind: Any) -> np.ndarray:
    if shape != (0,):
        raise pickle.UnpicklingError("an array of unknown size")
    return np.empty(0, np.int8)


_KNOWN = {
    ("numpy.core.multiarray", "_reconstruct"): _array,
    ("numpy._core.multiarray", "_reconstruct"): _array,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class _ArraysOnly(pickle.Unpickler):
    """Numbers, text, lists, dicts and plain numpy arrays. Anything else in the stream is refused before it is made."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _KNOWN:
            return _KNOWN[module, name]
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed")


def read_tokens(path: Path, field: str = "speech_tokens", pickled: bool = True) -> list[int]:
    """The tokens of a .npy file: a plain integer array, or (if `pickled`) pickled as an array or as a dict with one. Raises BadRow."""
    try:
        size = path.stat().st_size
        if size > _LARGEST:
            raise BadRow("too many speech tokens", field, f"{path.name}: {size} bytes")
        data = path.read_bytes()
    except OSError as error:
        raise BadRow("file missing", field, path.name) from error
    try:
        found = _loaded(data, pickled)
    except Exception as error:  # damaged headers and pickles raise anything at all
        raise BadRow(
            "speech tokens cannot be read", field, f"{path.name}: {str(error).splitlines()[0] if str(error) else 'damaged'}"
        ) from error
    if isinstance(found, dict):
        arrays = [value for value in found.values() if isinstance(value, (np.ndarray, list))]
        if len(arrays) != 1:
            raise BadRow("speech tokens cannot be read", field, f"{path.name}: a dict with {len(arrays)} arrays")
        found = arrays[0]
    tokens = np.asarray(found)
    if tokens.dtype == object:
        tokens = np.asarray(tokens.tolist())
    if tokens.dtype.kind not in "iu":
        raise BadRow("speech tokens are no integers", field, f"{path.name}: {tokens.dtype}")
    return [int(token) for token in tokens.flatten()]


def _loaded(data: bytes, pickled: bool) -> Any:
    file = io.BytesIO(data)
    version = npy_format.read_magic(file)
    reader = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
    shape, _, kind = reader(file)
    count = 1
    for side in shape:
        count *= side
    if not kind.hasobject:
        if count > MOST_TOKENS or count * kind.itemsize != len(data) - file.tell():
            raise ValueError("its header does not fit its size")
        file.seek(0)
        return np.load(file, allow_pickle=False)
    if not pickled:
        raise ValueError("pickled, which a manifest's files are not")
    found = _ArraysOnly(file).load()
    return found.item() if isinstance(found, np.ndarray) and found.dtype == object and found.ndim == 0 else found
