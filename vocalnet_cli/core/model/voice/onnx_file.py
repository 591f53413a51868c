"""Reads the weights out of an ONNX file: a small reader of the protobuf encoding, of the few fields it needs.

Field numbers are those of onnx.proto (https://github.com/onnx/onnx, ModelProto); they never change between versions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vocalnet_cli.core.errors import VocalnetError

_FLOATS = {1: "<f4", 10: "<f2", 11: "<f8"}
"""TensorProto.DataType to numpy's types; bfloat16 (16) has none."""
_BFLOAT16 = 16


@dataclass(frozen=True)
class Node:
    """One operation of the graph."""

    op: str
    name: str
    """Path of the module that made it, then the operation: `/blocks.0/attn/query/MatMul`. Older exporters leave it empty."""
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass
class OnnxGraph:
    """Operations in their order, and the floating-point tensors among the graph's constants, as float32 (read only)."""

    nodes: list[Node] = field(default_factory=list)
    tensors: dict[str, np.ndarray] = field(default_factory=dict)


class _Damaged(Exception):
    """The bytes are not protobuf."""


def read_onnx(path: Path) -> OnnxGraph:
    """The graph of an ONNX file. Tensors that lie in a second file are left out. Raises VocalnetError if it is not such a file."""
    try:
        data = np.memmap(path, dtype=np.uint8, mode="r")
        graph = OnnxGraph()
        found = False
        for number, value in _fields(data.data):
            if number == 7:
                found = True
                _read_graph(_bytes(value), graph)
    except OSError as error:
        raise VocalnetError(f"{path}: cannot be read ({error.strerror})", "Check the path and its permissions.") from error
    except (_Damaged, IndexError, ValueError, OverflowError) as error:
        raise VocalnetError(f"{path}: not an ONNX file, or cut off", "Download or copy the file again.") from error
    if not found:
        raise VocalnetError(f"{path}: holds no model", "Download or copy the file again.")
    return graph


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise _Damaged


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field of a message: an int, or the bytes of a fixed-size or nested value."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        if kind == 2:
            size, at = _varint(data, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise _Damaged
        if at + size > len(data):
            raise _Damaged
        yield key >> 3, data[at : at + size]
        at += size


def _bytes(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise _Damaged
    return value


def _text(value: int | memoryview) -> str:
    return bytes(_bytes(value)).decode()


def _read_graph(data: memoryview, graph: OnnxGraph) -> None:
    for number, value in _fields(data):
        if number == 1:
            node, constant = _read_node(_bytes(value))
            graph.nodes.append(node)
            if constant is not None:
                graph.tensors[node.outputs[0]] = constant
        elif number == 5:
            name, tensor = _read_tensor(_bytes(value))
            if tensor is not None:
                graph.tensors[name] = tensor
    for node in graph.nodes:
        # The exporter keeps one of several equal tensors and passes it on under the others' names.
        if node.op == "Identity" and node.inputs[0] in graph.tensors:
            graph.tensors[node.outputs[0]] = graph.tensors[node.inputs[0]]


def _read_node(data: memoryview) -> tuple[Node, np.ndarray | None]:
    """An operation and, if it is a Constant, its floating-point value."""
    inputs, outputs, name, op = [], [], "", ""
    value: np.ndarray | None = None
    for number, part in _fields(data):
        if number == 1:
            inputs.append(_text(part))
        elif number == 2:
            outputs.append(_text(part))
        elif number == 3:
            name = _text(part)
        elif number == 4:
            op = _text(part)
        elif number == 5:
            for inner, attribute in _fields(_bytes(part)):
                if inner == 5:
                    _, value = _read_tensor(_bytes(attribute))
    return Node(op, name, tuple(inputs), tuple(outputs)), value if op == "Constant" else None


def _read_tensor(data: memoryview) -> tuple[str, np.ndarray | None]:
    """Name and float32 value of a TensorProto; no value for integers and for tensors whose bytes lie elsewhere."""
    shape: list[int] = []
    name, kind, elsewhere = "", 0, False
    raw: memoryview | None = None
    listed: dict[int, list[memoryview]] = {4: [], 10: []}
    for number, value in _fields(data):
        if number == 1:
            shape += [value] if isinstance(value, int) else _packed(value)
        elif number == 2 and isinstance(value, int):
            kind = value
        elif number in listed:
            listed[number].append(_bytes(value))
        elif number == 8:
            name = _text(value)
        elif number == 9:
            raw = _bytes(value)
        elif number == 14:
            elsewhere = value == 1
    if elsewhere or (kind not in _FLOATS and kind != _BFLOAT16):
        return name, None
    if raw is not None and kind == _BFLOAT16:
        flat = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
    elif raw is not None:
        flat = np.frombuffer(raw, np.dtype(_FLOATS[kind])).astype(np.float32, copy=False)
    elif kind in (1, 11):
        flat = np.frombuffer(b"".join(listed[4 if kind == 1 else 10]), np.dtype(_FLOATS[kind])).astype(np.float32, copy=False)
    else:
        return name, None  # half precision written number by number: no exporter does
    return name, flat.reshape(shape)


def _packed(data: memoryview) -> list[int]:
    numbers, at = [], 0
    while at < len(data):
        value, at = _varint(data, at)
        numbers.append(value)
    return numbers
