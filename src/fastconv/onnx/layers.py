"""The layers that hold a file's weights, under the file's names."""

import keyword
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from fastconv import nn
from fastconv.graph.operation import Array
from fastconv.nn._parameter import blank
from fastconv.nn.base import OWN, Module, Parameter
from fastconv.nn.graph import Part
from fastconv.onnx.operators import NUMBERS, sides
from fastconv.onnx.reading import Net, Step


def plant(model: Module, net: Net) -> tuple[Net, dict[str, str]]:
    """Put layers and weights into a model.

    Returns
    -------
    net : Net
        Its steps know their layers, its constants are those that no layer holds.
    planted : dict of str to str
        Names of the weights that stand in the model by themselves, to their path.
    """
    garden = _Garden(model, net)
    steps, loose, numbered = [], set(), set()
    for step in net.steps:
        build = _BUILDERS.get(step.kind)
        with step.named():
            found = build(garden, step) if build is not None else None
        if found is not None:
            name, layer = found
            step = replace(step, layer=garden.place(name, layer))
        numbers = NUMBERS.get(step.kind, ())
        for i, name in enumerate(step.inputs):
            apart = step.kind == "Gemm" and i == 2 and found is not None and found[1].bias is None  # type: ignore[attr-defined]
            if i in numbers:
                numbered.add(name)
            elif found is None or i == 0 or apart:
                loose.add(name)
        steps.append(step)
    loose.update(net.outputs)
    planted = {}
    for name, array in net.constants.items():
        if name in loose and array.dtype.kind == "f" and array.size > 1:
            planted[name] = garden.plain(name)
    constants = {
        name: array
        for name, array in net.constants.items()
        if name in numbered or (name in loose and name not in planted)
    }
    return replace(net, steps=tuple(steps), constants=constants), planted


class _Garden:
    """The tree that grows, and which weight became which parameter."""

    def __init__(self, model: Module, net: Net) -> None:
        self.model, self.net = model, net
        self.parameters: dict[str, Parameter] = {}

    def constant(self, step: Step, i: int) -> Array | None:
        name = step.inputs[i] if i < len(step.inputs) else ""
        return self.net.constants.get(name) if name else None

    def has(self, step: Step, i: int) -> bool:
        return i < len(step.inputs) and bool(step.inputs[i])

    def parameter(self, name: str, change: Callable[[Array], Array] | None = None) -> Parameter:
        """Return the parameter of a weight: the same one wherever it is used as it is."""
        array = self.net.constants[name]
        if change is not None:
            return Parameter(np.array(change(array)), name in self.net.learned)
        if name not in self.parameters:
            self.parameters[name] = Parameter(np.array(array), name in self.net.learned)
        return self.parameters[name]

    def plain(self, name: str) -> str:
        parent, last, path = self._parent(_parts(name))
        if name in self.net.learned:
            vars(parent)[last] = self.parameter(name)
        else:
            vars(parent)[last] = np.array(self.net.constants[name])
            vars(parent)["buffer_names"] = (*parent.buffer_names, last)
        return path

    def place(self, name: str, layer: Module) -> str:
        """Put a layer where the name of its weight says: without ".weight", which is the layer's own."""
        parts = _parts(name)
        parent, last, path = self._parent(parts[:-1] if len(parts) > 1 and parts[-1] == "weight" else parts)
        vars(parent)[last] = layer
        return path

    def _parent(self, parts: list[str]) -> tuple[Module, str, str]:
        """Return the part that is to hold something, a name that is free there, and the path of that."""
        parent, path = self.model, []
        for part in parts[:-1]:
            while not isinstance(vars(parent).setdefault(part, Part()), Part):
                part += "_"
            parent = vars(parent)[part]
            path.append(part)
        last, count = parts[-1], 1
        while last in vars(parent):
            last, count = f"{parts[-1]}_{count}", count + 1
        return parent, last, ".".join((*path, last))


def _parts(name: str) -> list[str]:
    """Return a name of a file as the parts of a path in a model."""
    found = []
    for part in name.split("."):
        part = re.sub(r"\W", "_", part) or "_"
        while hasattr(Module, part) or part in OWN or part in ("_net", "_planted") or keyword.iskeyword(part):
            part += "_"
        found.append(part)
    return found


# ---- what holds which step's weights: (the name it is called by, the layer), or None if they are no constants

_Built = tuple[str, Module] | None


def _fill(garden: _Garden, layer: Any, step: Step, weight: int = 1, bias: int = 2) -> Any:
    layer.weight = garden.parameter(step.inputs[weight])
    layer.bias = garden.parameter(step.inputs[bias]) if garden.has(step, bias) else None
    return layer


def _conv(garden: _Garden, step: Step) -> _Built:
    weight, bias = garden.constant(step, 1), garden.constant(step, 2)
    if weight is None or (garden.has(step, 2) and bias is None) or weight.ndim not in (3, 4):
        return None
    dims, groups = weight.ndim - 2, step.settings.get("group", 1)
    strides, dilations = (tuple(step.settings.get(k, (1,) * dims)) for k in ("strides", "dilations"))
    padding: Any = sides(step, dims) if step.settings.get("auto_pad", "NOTSET") == "NOTSET" else ((0, 0),) * dims
    with blank():
        kind: Any = nn.Conv2d if dims == 2 else nn.Conv1d
        if dims == 1:
            [padding] = padding
        elif all(a == b for a, b in padding):
            padding = tuple(a for a, _ in padding)
        layer = kind(
            weight.shape[1] * groups, weight.shape[0], weight.shape[2:], strides, padding, dilations, groups,
            bias is not None,
        )  # fmt: skip
    return step.inputs[1], _fill(garden, layer, step)


def _conv_transpose(garden: _Garden, step: Step) -> _Built:
    weight, bias = garden.constant(step, 1), garden.constant(step, 2)
    plain = step.settings.get("auto_pad", "NOTSET") == "NOTSET" and "output_shape" not in step.settings
    if weight is None or (garden.has(step, 2) and bias is None) or weight.ndim not in (3, 4) or not plain:
        return None
    dims, groups = weight.ndim - 2, step.settings.get("group", 1)
    padding = sides(step, dims)
    if any(a != b for a, b in padding):
        return None
    strides, dilations = (tuple(step.settings.get(k, (1,) * dims)) for k in ("strides", "dilations"))
    more = tuple(step.settings.get("output_padding", (0,) * dims))
    with blank():
        kind: Any = nn.ConvTranspose2d if dims == 2 else nn.ConvTranspose1d
        layer = kind(
            weight.shape[0], weight.shape[1] * groups, weight.shape[2:], strides, tuple(a for a, _ in padding), more,
            groups, bias is not None, dilations,
        )  # fmt: skip
    return step.inputs[1], _fill(garden, layer, step)


def _gemm(garden: _Garden, step: Step) -> _Built:
    weight, bias = garden.constant(step, 1), garden.constant(step, 2)
    if weight is None or weight.ndim != 2:
        return None
    flat = bias is not None and step.settings.get("beta", 1.0) == 1.0 and step.settings.get("alpha", 1.0) == 1.0
    outputs = weight.shape[0] if step.settings.get("transB", 0) else weight.shape[1]
    flat = flat and bias is not None and bias.size == outputs and bias.shape[-1:] == (outputs,)
    return _linear(garden, step, weight, bool(step.settings.get("transB", 0)), flat)


def _matmul(garden: _Garden, step: Step) -> _Built:
    weight = garden.constant(step, 1)
    return None if weight is None or weight.ndim != 2 else _linear(garden, step, weight, False, garden.has(step, 2))


def _linear(garden: _Garden, step: Step, weight: Array, rows: bool, bias: bool) -> _Built:
    outputs, inputs = weight.shape if rows else weight.shape[::-1]
    with blank():
        layer = nn.Linear(inputs, outputs, bias)
    layer.weight = garden.parameter(step.inputs[1], None if rows else lambda a: np.ascontiguousarray(a.T))
    if bias:
        name = step.inputs[2]
        change = None if garden.net.constants[name].ndim == 1 else lambda a: a.reshape(-1)
        layer.bias = garden.parameter(name, change)
    return step.inputs[1], layer


def _batch_norm(garden: _Garden, step: Step) -> _Built:
    arrays = [garden.constant(step, i) for i in range(1, 5)]
    if any(a is None for a in arrays):
        return None
    scale, _, mean, var = arrays
    assert scale is not None
    assert mean is not None
    assert var is not None
    eps, momentum = step.settings.get("epsilon", 1e-5), step.settings.get("momentum", 0.9)
    kind: Any = nn.BatchNorm2d if garden.net.ranks.get(step.inputs[0], 4) == 4 else nn.BatchNorm1d
    with blank():
        layer = kind(scale.size, float(eps), round(1 - float(momentum), 7))
    _fill(garden, layer, step)
    layer.running_mean, layer.running_var = np.array(mean), np.array(var)
    layer.num_batches_tracked = np.array(0, np.int64)
    return step.inputs[1], layer


def _channel_norm(garden: _Garden, step: Step) -> _Built:
    """The layer of a normalisation over channels whose scale and bias are numbers for each channel."""
    scale, bias = garden.constant(step, 1), garden.constant(step, 2)
    if "axes" not in step.settings or scale is None or (garden.has(step, 2) and bias is None):
        return None
    rank = garden.net.ranks.get(step.inputs[0], 0)
    known = [(scale.size, *(1,) * (rank - 2)), (1, scale.size, *(1,) * (rank - 2))] if rank > 1 else []
    for a in (scale,) if bias is None else (scale, bias):
        if a.ndim != 1 and a.shape not in known:
            return None
    with blank():
        layer = nn.LayerNorm2d(scale.size, float(step.settings.get("epsilon", 1e-5)), bias=bias is not None)
    for i, (name, array) in enumerate((("weight", scale), ("bias", bias)), 1):
        if array is not None:
            change = None if array.ndim == 1 else lambda a: a.reshape(-1)
            setattr(layer, name, garden.parameter(step.inputs[i], change))
    return step.inputs[1], layer


def _prelu(garden: _Garden, step: Step) -> _Built:
    slope = garden.constant(step, 1)
    if slope is None or slope.size != max(slope.shape, default=1) or (slope.size > 1 and slope.ndim not in (1, 3)):
        return None
    if slope.size > 1 and slope.shape[0] != slope.size:
        return None
    layer = nn.PReLU(slope.size)
    layer.weight = garden.parameter(step.inputs[1], None if slope.ndim == 1 else lambda a: a.reshape(-1))
    return step.inputs[1], layer


def _dropout(garden: _Garden, step: Step) -> _Built:
    ratio: Any = step.settings.get("ratio", 0.5)
    if garden.has(step, 1):
        ratio = garden.constant(step, 1)
    return None if ratio is None else (step.name, nn.Dropout(float(np.asarray(ratio).reshape(-1)[0])))


_BUILDERS: dict[str, Callable[[_Garden, Step], _Built]] = {
    "BatchNormalization": _batch_norm, "Conv": _conv, "ConvTranspose": _conv_transpose, "Dropout": _dropout,
    "Gemm": _gemm, "LayerNormalization": _channel_norm, "MatMul": _matmul, "PRelu": _prelu,
}  # fmt: skip
