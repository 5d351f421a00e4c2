"""Models as ONNX files: one function an operation says how it is written."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fastconv._version import __version__
from fastconv.functional._check import pair
from fastconv.graph.operation import Array, Spec
from fastconv.graph.value import Graph, Node, Value
from fastconv.nn import _running
from fastconv.nn.base import Module, in_mode
from fastconv.onnx.reading import package
from fastconv.serialize.files import replacing

OPSET = 21
"""The oldest opset that has all that is written: GroupNormalization by channels came last."""
_IR = 10

_WRITERS: dict[str, Callable[["_Draft", Node], None]] = {}


def save(
    model: Module, path: str | os.PathLike[str], input_shape: Sequence[Any], dynamic_batch: bool = True,
    metadata: Mapping[str, str] | None = None,
) -> None:  # fmt: skip
    """Write what a model does in evaluation mode to an ONNX file.

    Names of weights are those of ``model.state_dict()``.

    Parameters
    ----------
    model : Module
        It stays as it is. Layers that define `backward` themselves cannot be written.
    path : path-like
        Replaced if it exists.
    input_shape : sequence of int, or a sequence of such for several inputs
        (N, ...), the batch included.
    dynamic_batch : bool
        The first size of every input is left open.
    metadata : mapping of str to str, optional
        What else the file shall say: names of classes, say.

    Raises
    ------
    TypeError
        If the model runs something that has no ONNX operator; nothing is written.
    ValueError
        If a size is below 1 or the model cannot take it, or the batch is burned in where it is to be left open.
    OSError
        If the file cannot be written; what was there before is untouched.
    ImportError
        If the package onnx is missing.

    Notes
    -----
    Opset 21; a model whose weights have more than 2 GB does not fit ONNX's format without external data.
    """
    onnx = package()
    shapes = _shapes(input_shape)
    proto = _write(onnx, model, shapes, dynamic_batch)
    if dynamic_batch:  # what differs for a batch of another size would be a wrong number in the file
        try:
            other = _write(onnx, model, [(n + 1, *rest) for n, *rest in shapes], True)
            same = other.graph == proto.graph
        except ValueError:
            same = False
        if not same:
            raise ValueError(
                f"{type(model).__name__}: what forward does depends on the size of the batch; save it with "
                "dynamic_batch=False for one size"
            )
    if metadata:
        onnx.helper.set_model_props(proto, dict(metadata))
    onnx.checker.check_model(proto, full_check=True)
    with replacing(path) as draft:
        draft.write_bytes(proto.SerializeToString())


def _shapes(given: Sequence[Any]) -> list[tuple[int, ...]]:
    several = len(given) > 0 and all(isinstance(shape, tuple | list) for shape in given)
    shapes = [tuple(int(n) for n in shape) for shape in (given if several else (given,))]
    for shape in shapes:
        if not shape or min(shape) < 1:
            raise ValueError(f"onnx.save: input_shape must be (N, ...), all at least 1, got {given}")
    return shapes


def _write(onnx: Any, model: Module, shapes: list[tuple[int, ...]], dynamic: bool) -> Any:
    """Return the file's content."""
    if model.is_opaque():
        raise TypeError(f"{type(model).__name__} defines backward itself, so that nothing is known of what it does")
    dtype = next((p.data.dtype for p in model.parameters()), np.dtype(np.float32))
    with in_mode(model, False):
        graph = _running.trace(
            model, type(model).forward.raw, [Spec(shape, dtype) for shape in shapes]  # type: ignore[attr-defined]
        )
    draft = _Draft(onnx, model, graph)
    for node in graph.nodes:
        kind = type(node.op).__name__
        if kind not in _WRITERS:
            layer = getattr(node.op, "layer", node.module)
            raise TypeError(f"{type(layer).__name__}: its {node.op.name} has no ONNX operator")
        _WRITERS[kind](draft, node)
    helper = onnx.helper
    kind = helper.np_dtype_to_tensor_dtype(dtype)

    def info(name: str, shape: tuple[int, ...]) -> Any:
        open_ = dynamic and shape and shape[0] == shapes[0][0]
        return helper.make_tensor_value_info(name, kind, ["N", *shape[1:]] if open_ else shape)

    outputs = []
    for i, value in enumerate(graph.outputs):
        name = "output" if len(graph.outputs) == 1 else f"output{i}"
        draft.node("Identity", [draft.name(value)], name)
        outputs.append(info(name, value.shape))
    proto = helper.make_model(
        helper.make_graph(
            draft.nodes, type(model).__name__, [info(draft.name(v), v.shape) for v in graph.inputs], outputs,
            draft.weights,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)], producer_name="fastconv", producer_version=__version__,
    )  # fmt: skip
    proto.ir_version = _IR
    return proto


class _Draft:
    """The nodes and weights so far, and the names of values."""

    def __init__(self, onnx: Any, model: Module, graph: Graph) -> None:
        self.onnx, self.graph = onnx, graph
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self.names: dict[int, str] = {}
        self.written: set[str] = set()
        self.made = 0
        self.state = {id(getattr(owner, at)): name for name, owner, at, _ in model._entries()}
        for i, value in enumerate(graph.inputs):
            self.names[id(value)] = "input" if len(graph.inputs) == 1 else f"input{i}"

    def name(
        self, value: Value, change: Callable[[Array], Array] | None = None, mark: str = "", statistic: bool = False
    ) -> str:  # fmt: skip
        """Return the name of a value; a weight is written down, changed if it must be."""
        if id(value) in self.names and change is None:
            return self.names[id(value)]
        source = value.source
        array = source if isinstance(source, np.ndarray) else source.data
        name = self.state.get(id(source)) or self._fresh()
        if change is not None and (id(value) in self.names or name in self.written):
            name += mark  # the weight as it is has the name
        if name not in self.written:
            array = np.ascontiguousarray(array if change is None else change(array))
            tensor = self.onnx.numpy_helper.from_array(array.astype(array.dtype.newbyteorder("=")), name)
            if value.learned or statistic:
                self.weights.append(tensor)
            else:  # what nobody trains comes back as such
                self.nodes.append(self.onnx.helper.make_node("Constant", [], [name], name, value=tensor))
            self.written.add(name)
        if change is None:
            self.names[id(value)] = name
        return name

    def _fresh(self) -> str:
        self.made += 1
        return f"constant_{self.made}"

    def constant(self, array: Any) -> str:
        """Return the name of a constant that is no weight."""
        name = self._fresh()
        self.weights.append(self.onnx.numpy_helper.from_array(np.asarray(array), name))
        return name

    def node(self, kind: str, inputs: Sequence[str], output: str = "", **settings: Any) -> str:
        name = output or f"value_{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(kind, list(inputs), [name], name, **settings))
        return name

    def put(self, node: Node, kind: str, inputs: Sequence[str], **settings: Any) -> None:
        """Write the node that gives an operation's one output."""
        self.names[id(node.outputs[0])] = self.node(kind, inputs, **settings)

    def operands(self, node: Node) -> list[str]:
        return [self.name(value) for value in node.inputs if value is not None]


def _writes(*kinds: str) -> Callable[[Callable[[_Draft, Node], None]], Callable[[_Draft, Node], None]]:
    def register(function: Callable[[_Draft, Node], None]) -> Callable[[_Draft, Node], None]:
        _WRITERS.update(dict.fromkeys(kinds, function))
        return function

    return register


# ---- convolutions and matrices


@_writes("Convolution")
def _convolution(draft: _Draft, node: Node) -> None:
    op: Any = node.op
    x, weight = node.inputs[0], node.inputs[1]
    assert x is not None
    assert weight is not None
    g = op.geometry(x.spec, weight.spec)
    sizes = zip((g.p, g.q), (g.h, g.w), (g.sh, g.sw), (g.dh, g.dw), (g.r, g.s), (g.top, g.left), strict=True)
    after = [max((p - 1) * s + (k - 1) * d + 1 - n - before, 0) for p, n, s, d, k, before in sizes]
    dims = slice(2 - op.dimensions, 2)
    settings = {
        "kernel_shape": (g.r, g.s)[dims], "strides": (g.sh, g.sw)[dims], "dilations": (g.dh, g.dw)[dims],
        "pads": (*(g.top, g.left)[dims], *after[dims]), "group": g.groups,
    }  # fmt: skip
    draft.put(node, "Conv", draft.operands(node), **settings)


@_writes("TransposedConvolution")
def _transposed(draft: _Draft, node: Node) -> None:
    op: Any = node.op
    sizes = [tuple(sides[2 - op.dimensions :]) for sides in op._sizes()]
    stride, padding, more, dilation = sizes
    weight = node.inputs[1]
    assert weight is not None
    draft.put(
        node, "ConvTranspose", draft.operands(node), kernel_shape=weight.shape[2:], strides=stride,
        pads=(*padding, *padding), output_padding=more, dilations=dilation, group=op.groups,
    )  # fmt: skip


@_writes("Linear")
def _linear(draft: _Draft, node: Node) -> None:
    draft.put(node, "Gemm", draft.operands(node), transB=1)


@_writes("Bias")
def _bias(draft: _Draft, node: Node) -> None:
    x, bias = node.inputs
    assert x is not None
    assert bias is not None
    shape = (-1, *(1,) * (x.ndim - 2))
    mark = "" if x.ndim == 2 else f".{x.ndim}d"
    draft.put(node, "Add", [draft.name(x), draft.name(bias, lambda a: a.reshape(shape), mark)])


@_writes("BatchNorm")
def _batch_norm(draft: _Draft, node: Node) -> None:
    op: Any = node.op
    x, weight, bias, mean, var = node.inputs[:5]
    assert x is not None
    assert mean is not None
    assert var is not None
    if op.training:
        raise TypeError("a normalisation by the batch's statistics in evaluation mode has no ONNX operator")
    channels = x.shape[1]
    given = [
        draft.constant(np.full(channels, fill, x.dtype)) if value is None else draft.name(value)
        for value, fill in ((weight, 1), (bias, 0))
    ]
    momentum = 1.0 if op.momentum is None else 1 - op.momentum
    statistics = [draft.name(value, statistic=True) for value in (mean, var)]
    operands = [draft.name(x), *given, *statistics]
    draft.put(node, "BatchNormalization", operands, epsilon=op.eps, momentum=momentum)


def _affine(draft: _Draft, node: Node, shape: tuple[int, ...]) -> list[str]:
    """Return the names of x, scale and shift, ones and zeros where there are none."""
    x, *given = node.inputs
    assert x is not None
    return [draft.name(x)] + [
        draft.constant(np.full(shape, fill, x.dtype)) if value is None else draft.name(value)
        for value, fill in zip(given, (1, 0), strict=True)
    ]


@_writes("GroupNorm")
def _group_norm(draft: _Draft, node: Node) -> None:
    op: Any = node.op
    operands = _affine(draft, node, node.outputs[0].shape[1:2])
    if op.groups:
        draft.put(node, "GroupNormalization", operands, num_groups=op.groups, epsilon=op.eps)
    else:
        draft.put(node, "InstanceNormalization", operands, epsilon=op.eps)


@_writes("LayerNorm")
def _layer_norm(draft: _Draft, node: Node) -> None:
    op: Any = node.op
    shape = op.normalized_shape
    draft.put(node, "LayerNormalization", _affine(draft, node, shape), axis=-len(shape), epsilon=op.eps)


@_writes("LocalResponseNorm")
def _local_response_norm(draft: _Draft, node: Node) -> None:
    op: Any = node.op
    if op.size % 2 == 0:
        raise TypeError(f"local_response_norm over {op.size} channels, an even number, has no ONNX operator")
    draft.put(node, "LRN", draft.operands(node), size=op.size, alpha=op.alpha, beta=op.beta, bias=op.k)


# ---- pooling


@_writes("MaxPool", "AvgPool")
def _pool(draft: _Draft, node: Node) -> None:
    op: Any = node.op
    if type(op).__name__ == "MaxPool":
        kernel, stride, padding, dilation, ceil = op.window
        settings: dict[str, Any] = {}
    else:
        kernel, stride, padding, ceil, dilation = op.kernel_size, op.stride, op.padding, op.ceil_mode, op.dilation
        settings = {"count_include_pad": int(op.count_include_pad)}
    if len(node.outputs) > 1:
        raise TypeError("max_pool2d with return_indices has no ONNX operator that counts as torch does")
    settings["dilations"] = pair("pool", "dilation", dilation)
    kernel = pair("pool", "kernel_size", kernel)
    stride = kernel if stride is None else pair("pool", "stride", stride)
    nested = isinstance(padding, tuple) and any(isinstance(side, tuple) for side in padding)
    sides = padding if nested else [(n, n) for n in pair("pool", "padding", padding, 0)]
    draft.put(
        node, type(op).__name__.replace("AvgPool", "AveragePool"), draft.operands(node), kernel_shape=kernel,
        strides=stride, pads=(sides[0][0], sides[1][0], sides[0][1], sides[1][1]), ceil_mode=int(ceil), **settings,
    )  # fmt: skip


@_writes("AdaptiveAvgPool", "AdaptiveMaxPool")
def _adaptive(draft: _Draft, node: Node) -> None:
    [x], y = node.inputs, node.outputs[0]
    assert x is not None
    if len(node.outputs) > 1:
        raise TypeError("adaptive_max_pool2d with return_indices has no ONNX operator")
    kind = "Average" if type(node.op).__name__ == "AdaptiveAvgPool" else "Max"
    if y.shape[2:] == (1, 1):
        draft.put(node, f"Global{kind}Pool", draft.operands(node))
        return
    if any(n % m for n, m in zip(x.shape[2:], y.shape[2:], strict=True)):
        raise TypeError(f"adaptive pooling from {x.shape[2:]} to {y.shape[2:]} has no ONNX operator: its windows "
                        "differ")  # fmt: skip
    kernel = tuple(n // m for n, m in zip(x.shape[2:], y.shape[2:], strict=True))
    draft.put(node, f"{kind}Pool", draft.operands(node), kernel_shape=kernel, strides=kernel)


# ---- elementwise

_NAMES: dict[str, tuple[str, tuple[str, ...], dict[str, Any]]] = {
    "relu": ("Relu", (), {}), "sigmoid": ("Sigmoid", (), {}), "tanh": ("Tanh", (), {}),
    "softsign": ("Softsign", (), {}), "hardswish": ("HardSwish", (), {}), "mish": ("Mish", (), {}),
    "leaky_relu": ("LeakyRelu", ("alpha",), {}), "elu": ("Elu", ("alpha",), {}),
    "hardsigmoid": ("HardSigmoid", (), {"alpha": 1 / 6, "beta": 0.5}),
    "gelu": ("Gelu", (), {}), "gelu_tanh": ("Gelu", (), {"approximate": "tanh"}),
}  # fmt: skip


@_writes("Activate")
def _activate(draft: _Draft, node: Node) -> None:
    op: Any = node.op
    [x] = draft.operands(node)
    dtype = node.outputs[0].dtype
    kind, parameters = op.kind, op.params
    if kind == "silu":
        draft.put(node, "Mul", [x, draft.node("Sigmoid", [x])])
    elif kind in ("relu6", "hardtanh"):
        ends = (0.0, 6.0) if kind == "relu6" else parameters
        draft.put(node, "Clip", [x, *(draft.constant(dtype.type(end)) for end in ends)])
    elif kind == "softplus":
        if parameters[:1] not in ((), (1.0,)):
            raise TypeError(f"softplus with beta={parameters[0]} has no ONNX operator")
        draft.put(node, "Softplus", [x])
    elif kind in _NAMES:
        name, settings, fixed = _NAMES[kind]
        draft.put(node, name, [x], **fixed, **dict(zip(settings, parameters, strict=False)))
    else:
        raise TypeError(f"{kind} has no ONNX operator")


@_writes("PReLU")
def _prelu(draft: _Draft, node: Node) -> None:
    x, weight = node.inputs
    assert x is not None
    assert weight is not None
    shape = (-1, *(1,) * max(x.ndim - 2, 0))
    change = (lambda a: a) if weight.shape == (1,) else lambda a: a.reshape(shape)
    draft.put(node, "PRelu", [draft.name(x), draft.name(weight, change)])


@_writes("Softmax")
def _softmax(draft: _Draft, node: Node) -> None:
    op: Any = node.op
    draft.put(node, "LogSoftmax" if op.logarithm else "Softmax", draft.operands(node), axis=op.axis)


@_writes("Arithmetic")
def _arithmetic(draft: _Draft, node: Node) -> None:
    op: Any = node.op
    draft.put(node, op.kind.capitalize(), draft.operands(node))


@_writes("Reduce")
def _reduce(draft: _Draft, node: Node) -> None:
    op: Any = node.op
    [x] = node.inputs
    assert x is not None
    axes = draft.constant(np.array(op._axes(x.spec), np.int64))
    draft.put(node, f"Reduce{op.kind.capitalize()}", [draft.name(x), axes], keepdims=int(op.keepdims))


# ---- shapes


def _batch(node: Node, shape: Sequence[int]) -> list[int]:
    """Return a shape with 0, "as it is", for a batch that stays."""
    [x], [y] = node.inputs, node.outputs
    assert x is not None
    return [0, *shape[1:]] if x.shape and y.shape and x.shape[0] == y.shape[0] else list(shape)


@_writes("Reshape", "Flatten")
def _reshape(draft: _Draft, node: Node) -> None:
    [y] = node.outputs
    shape = _batch(node, y.shape)
    if shape[:1] != [0] and isinstance(getattr(node.op, "shape", None), tuple) and -1 in node.op.shape:  # type: ignore[attr-defined]
        shape = list(node.op.shape)  # type: ignore[attr-defined]
    draft.put(node, "Reshape", [*draft.operands(node), draft.constant(np.array(shape, np.int64))])


@_writes("Permute")
def _permute(draft: _Draft, node: Node) -> None:
    op: Any = node.op
    draft.put(node, "Transpose", draft.operands(node), perm=[a % len(op.axes) for a in op.axes])


@_writes("Cat")
def _cat(draft: _Draft, node: Node) -> None:
    op: Any = node.op
    draft.put(node, "Concat", draft.operands(node), axis=op.axis)


@_writes("Slice")
def _slice(draft: _Draft, node: Node) -> None:
    op: Any = node.op
    [x], [y] = node.inputs, node.outputs
    assert x is not None
    starts: list[int] = []
    ends, axes, steps = list(starts), list(starts), list(starts)
    axis, moved = 0, False
    for part in op.key():
        if part is None:
            moved = True
            continue
        n = x.shape[axis]
        if isinstance(part, slice):
            start, stop, step = part.indices(n)
            if (start, stop, step) != (0, n, 1):
                last = np.iinfo(np.int64).max if part.stop is None and step > 0 else stop
                starts, ends = [*starts, start], [*ends, last if step > 0 or stop >= 0 else -n - 1]
                axes, steps = [*axes, axis], [*steps, step]
        else:
            moved = True
            start = part % n
            starts, ends, axes, steps = [*starts, start], [*ends, start + 1], [*axes, axis], [*steps, 1]
        axis += 1
    name = draft.name(x)
    if axes:
        given = (draft.constant(np.array(v, np.int64)) for v in (starts, ends, axes, steps))
        name = draft.node("Slice", [name, *given])
    if moved:
        name = draft.node("Reshape", [name, draft.constant(np.array(_batch(node, y.shape), np.int64))])
    draft.names[id(y)] = name


@_writes("Pad")
def _pad(draft: _Draft, node: Node) -> None:
    op: Any = node.op
    widths = [a for a, _ in op.widths] + [b for _, b in op.widths]
    value = draft.constant(node.outputs[0].dtype.type(op.value))
    draft.put(node, "Pad", [*draft.operands(node), draft.constant(np.array(widths, np.int64)), value])


@_writes("Nearest")
def _nearest(draft: _Draft, node: Node) -> None:
    op: Any = node.op
    [x], [y] = node.inputs, node.outputs
    assert x is not None
    settings = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    factors = op.scale_factor or [b / a for a, b in zip(x.shape[2:], y.shape[2:], strict=True)]
    scales = draft.constant(np.array((1.0, 1.0, *factors), np.float32))
    exact = all(math.floor(n * np.float32(f)) == m for n, f, m in zip(x.shape[2:], factors, y.shape[2:], strict=True))
    if not exact:
        raise TypeError(f"interpolate from {x.shape[2:]} to {y.shape[2:]} has no ONNX operator with these very pixels")
    draft.put(node, "Resize", [draft.name(x), "", scales], **settings)


@_writes("Bilinear")
def _bilinear(draft: _Draft, node: Node) -> None:
    op: Any = node.op
    [x], [y] = node.inputs, node.outputs
    assert x is not None
    mode = "align_corners" if op.align_corners else "half_pixel"
    settings = {"mode": "linear", "coordinate_transformation_mode": mode}
    if op.scale_factor is None or op.align_corners:
        sizes = draft.constant(np.array(y.shape[2:], np.int64))
        draft.put(node, "Resize", [draft.name(x), "", "", sizes], axes=(2, 3), **settings)
    else:
        scales = draft.constant(np.array(op.scale_factor, np.float32))
        draft.put(node, "Resize", [draft.name(x), "", scales], axes=(2, 3), **settings)


@_writes("Dropout", "Detach", "Same")
def _same(draft: _Draft, node: Node) -> None:
    x = node.inputs[0]
    assert x is not None
    draft.names[id(node.outputs[0])] = draft.name(x)


@_writes("Observe")
def _nothing(draft: _Draft, node: Node) -> None:
    """Leave hooks out: they change nothing."""
