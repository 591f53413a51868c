"""Names of weights in ONNX files and in the torch modules they were exported from.

torch's exporter keeps the name of a parameter that goes into the graph unchanged. One that was transposed, or folded with a batch norm,
becomes `onnx::MatMul_2536` or `onnx::Conv_1519`, numbers that change with every export. The name of the operation then still says
which module it belongs to: `/head/layer1/layer1.0/conv1/Conv`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor

from vocalnet_cli.core.model.voice.onnx_file import Node, OnnxGraph

_SLOTS = {
    "Conv": ("weight", "bias"),
    "LayerNormalization": ("weight", "bias"),
    "BatchNormalization": ("weight", "bias", "running_mean", "running_var"),
}
"""Operations whose inputs after the first are parameters, in this order."""

_CONSTANT_BATCHNORM = re.compile(r"xvector\.dense\.nonlinear\.batchnorm\.(weight|bias)")


def torch_names(graph: OnnxGraph) -> dict[str, Tensor]:
    """The graph's weights float32 under the parameter names of the module it was exported from; constants may be among them."""
    found: dict[str, np.ndarray] = {}
    makers = {output: node for node in graph.nodes for output in node.outputs}
    for node in graph.nodes:
        if node.op in _SLOTS:
            for slot, name in zip(_SLOTS[node.op], node.inputs[1:], strict=False):
                if name in graph.tensors:
                    found.setdefault(_parameter(node, name, slot), graph.tensors[name])
        elif node.op == "MatMul" and len(node.inputs) == 2 and graph.tensors.get(node.inputs[1], np.zeros(0)).ndim == 2:
            found.setdefault(_parameter(node, node.inputs[1], "weight"), graph.tensors[node.inputs[1]].T)
        elif node.op in ("Add", "Mul"):
            for name in node.inputs:
                if name in graph.tensors and graph.tensors[name].ndim == 1 and graph.tensors[name].size > 1:
                    own = _parameter(node, name, "bias" if node.op == "Add" else "weight")
                    found.setdefault(own, graph.tensors[name])
                    _name_by_bias(node, own, makers, graph, found)
    return {name: _copied(value) for name, value in found.items()}


def _copied(value: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(value, np.float32, order="C"))


def _parameter(node: Node, tensor: str, slot: str) -> str:
    """`module.slot` by the tensor's own name, if it has one, else by the operation's."""
    module, dot, last = tensor.rpartition(".")
    if dot and last == slot and "::" not in tensor:
        return tensor
    path: list[str] = []
    for part in node.name.strip("/").split("/")[:-1]:
        # A Sequential's child is called by both names: `layer1/layer1.0`.
        if path and part.startswith(path[-1] + "."):
            path.pop()
        path.append(part)
    return ".".join([*path, slot])


def _name_by_bias(add: Node, bias: str, makers: dict[str, Node], graph: OnnxGraph, found: dict[str, np.ndarray]) -> None:
    """A MatMul that feeds the addition of a bias is of the bias' module, whatever its own name says."""
    if add.op != "Add":
        return
    for name in add.inputs:
        maker = makers.get(name)
        if maker is not None and maker.op == "MatMul" and maker.inputs[1] in graph.tensors:
            found.setdefault(bias.removesuffix("bias") + "weight", graph.tensors[maker.inputs[1]].T)


def s3_tokenizer_weights(graph: OnnxGraph) -> dict[str, Tensor]:
    """Weights of `speech_tokenizer_v2.onnx` under the names of the `s3tokenizer` package, as `S3Tokenizer` has them."""
    named: dict[str, Tensor] = {}
    for name, tensor in torch_names(graph).items():
        short = name.removeprefix("encoders.").removeprefix("encoder.")
        if re.match(r"(conv[12]|blocks\.\d+)\.", short):
            short = f"encoder.{short}"
        named[short.replace("quantizer.project_in.", "quantizer._codebook.project_down.")] = tensor
    _unnamed_convolutions(graph, named)
    return named


def _unnamed_convolutions(graph: OnnxGraph, named: dict[str, Tensor]) -> None:
    """The two convolutions in front by their order, if the file does not say which module they are of."""
    if "encoder.conv1.weight" in named:
        return
    convolutions = [node for node in graph.nodes if node.op == "Conv" and len(node.inputs) == 3]
    for node, path in zip(convolutions, ("encoder.conv1", "encoder.conv2"), strict=False):
        for slot, name in zip(("weight", "bias"), node.inputs[1:], strict=True):
            if name in graph.tensors:
                named[f"{path}.{slot}"] = _copied(graph.tensors[name])


def campplus_weights(graph: OnnxGraph) -> dict[str, Tensor]:
    """Weights of `campplus.onnx` under 3D-Speaker's names, as `SpeakerEncoder` has them.

    The exporter folds a batch norm into the convolution before it. What is left of it is the convolution's new bias: such a norm gets
    that bias as the mean it takes off, and a variance of one.
    """
    named = torch_names(graph)
    for name in [name for name in named if name.endswith(".bias")]:
        norm = _norm_after(name.removesuffix(".bias"))
        if norm is not None and f"{norm}.running_mean" not in named:
            named.update(_shift_only(norm, named.pop(name)))
    for name in [name for name in named if _CONSTANT_BATCHNORM.fullmatch(name)]:
        if torch.equal(named[name], torch.full_like(named[name], float(name.endswith("weight")))):
            del named[name]  # a norm without parameters is exported with ones and zeros
    return named


_NORMS = [
    (r"(.*\.)?conv([12])", r"\1bn\2"),
    (r"(.*)\.shortcut\.0", r"\1.shortcut.1"),
    (r"xvector\.tdnn\.linear", r"xvector.tdnn.nonlinear.batchnorm"),
    (r"(.*\.tdnnd\d+)\.linear1", r"\1.nonlinear2.batchnorm"),
    (r"xvector\.transit3\.linear", r"xvector.out_nonlinear.batchnorm"),
    (r"xvector\.dense\.linear", r"xvector.dense.nonlinear.batchnorm"),
]
"""Convolutions without a bias of their own in CAM++, and the batch norm that follows each at once."""


def _norm_after(convolution: str) -> str | None:
    for pattern, norm in _NORMS:
        match = re.fullmatch(pattern, convolution)
        if match:
            return match.expand(norm)
    return None


def _shift_only(norm: str, shift: Tensor) -> dict[str, Tensor]:
    """Parameters of a batch norm (eps 1e-5) that does nothing but add `shift`."""
    one = torch.ones_like(shift)
    named = {f"{norm}.running_mean": -shift, f"{norm}.running_var": one - 1e-5}
    if not norm.endswith("dense.nonlinear.batchnorm"):
        named |= {f"{norm}.weight": one, f"{norm}.bias": torch.zeros_like(shift)}
    return named


def differences(own: dict[str, Tensor], found: Mapping[str, Tensor], ignored: Iterable[str] = ()) -> list[str]:
    """What keeps the tensors `found` from being the state `own`: one line a tensor that is missing or of another shape."""
    problems = [f"missing {name}" for name in own if name not in found and not name.endswith(tuple(ignored))]
    shapes = [(name, tuple(found[name].shape), tuple(own[name].shape)) for name in own if name in found]
    return problems + [f"{name} is {there}, not {wanted}" for name, there, wanted in shapes if there != wanted]
