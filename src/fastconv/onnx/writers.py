"""How each operation is written as nodes of ONNX: one function an operation."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastconv.functional._check import pair
from fastconv.graph.value import Node
from fastconv.onnx.drafting import Draft, writes

# ---- convolutions and matrices


@writes("Convolution")
def _convolution(draft: Draft, node: Node) -> None:
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


@writes("TransposedConvolution")
def _transposed(draft: Draft, node: Node) -> None:
    op: Any = node.op
    sizes = [tuple(sides[2 - op.dimensions :]) for sides in op._sizes()]
    stride, padding, more, dilation = sizes
    weight = node.inputs[1]
    assert weight is not None
    draft.put(
        node, "ConvTranspose", draft.operands(node), kernel_shape=weight.shape[2:], strides=stride,
        pads=(*padding, *padding), output_padding=more, dilations=dilation, group=op.groups,
    )  # fmt: skip


@writes("Linear")
def _linear(draft: Draft, node: Node) -> None:
    draft.put(node, "Gemm", draft.operands(node), transB=1)


@writes("Bias")
def _bias(draft: Draft, node: Node) -> None:
    x, bias = node.inputs
    assert x is not None
    assert bias is not None
    shape = (-1, *(1,) * (x.ndim - 2))
    mark = "" if x.ndim == 2 else f".{x.ndim}d"
    draft.put(node, "Add", [draft.name(x), draft.name(bias, lambda a: a.reshape(shape), mark)])


@writes("BatchNorm")
def _batch_norm(draft: Draft, node: Node) -> None:
    op: Any = node.op
    x, weight, bias, mean, var = node.inputs[:5]
    assert x is not None
    assert mean is not None
    assert var is not None
    if op.training:
        raise TypeError("a normalisation by the batch's statistics in evaluation mode has no ONNX operator")
    channels = x.shape[1]
    given = [
        draft.filled(channels, fill, x.dtype) if value is None else draft.name(value)
        for value, fill in ((weight, 1), (bias, 0))
    ]
    momentum = 1.0 if op.momentum is None else 1 - op.momentum
    statistics = [draft.name(value, statistic=True) for value in (mean, var)]
    operands = [draft.name(x), *given, *statistics]
    draft.put(node, "BatchNormalization", operands, epsilon=op.eps, momentum=momentum)


def _affine(draft: Draft, node: Node, shape: tuple[int, ...]) -> list[str]:
    """Return the names of x, scale and shift, ones and zeros where there are none."""
    x, *given = node.inputs
    assert x is not None
    return [draft.name(x)] + [
        draft.filled(shape, fill, x.dtype) if value is None else draft.name(value)
        for value, fill in zip(given, (1, 0), strict=True)
    ]


@writes("GroupNorm")
def _group_norm(draft: Draft, node: Node) -> None:
    op: Any = node.op
    operands = _affine(draft, node, node.outputs[0].shape[1:2])
    if op.groups:
        draft.put(node, "GroupNormalization", operands, num_groups=op.groups, epsilon=op.eps)
    else:
        draft.put(node, "InstanceNormalization", operands, epsilon=op.eps)


def _rows(draft: Draft, node: Node, shape: tuple[int, ...]) -> list[str]:
    """Return the names of x, scale and shift, no shift where there is a scale alone."""
    alone = node.inputs[1] is not None and node.inputs[2] is None
    return draft.operands(node) if alone else _affine(draft, node, shape)


@writes("LayerNorm")
def _layer_norm(draft: Draft, node: Node) -> None:
    op: Any = node.op
    shape = op.normalized_shape
    draft.put(node, "LayerNormalization", _rows(draft, node, shape), axis=-len(shape), epsilon=op.eps)


@writes("LayerNorm2d")
def _layer_norm2d(draft: Draft, node: Node) -> None:
    op: Any = node.op
    x, *affine = _rows(draft, node, node.outputs[0].shape[1:2])
    last = len(node.outputs[0].shape) - 1
    rows = draft.node("Transpose", [x], perm=(0, *range(2, last + 1), 1))
    rows = draft.node("LayerNormalization", [rows, *affine], axis=-1, epsilon=op.eps)
    draft.put(node, "Transpose", [rows], perm=(0, last, *range(1, last)))


@writes("LocalResponseNorm")
def _local_response_norm(draft: Draft, node: Node) -> None:
    op: Any = node.op
    if op.size % 2 == 0:
        raise TypeError(f"local_response_norm over {op.size} channels, an even number, has no ONNX operator")
    draft.put(node, "LRN", draft.operands(node), size=op.size, alpha=op.alpha, beta=op.beta, bias=op.k)


# ---- pooling


@writes("MaxPool", "AvgPool")
def _pool(draft: Draft, node: Node) -> None:
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


@writes("AdaptiveAvgPool", "AdaptiveMaxPool")
def _adaptive(draft: Draft, node: Node) -> None:
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
    "exp": ("Exp", (), {}), "log": ("Log", (), {}), "sqrt": ("Sqrt", (), {}), "erf": ("Erf", (), {}),
    "gelu": ("Gelu", (), {}), "gelu_tanh": ("Gelu", (), {"approximate": "tanh"}),
}  # fmt: skip


@writes("Activate")
def _activate(draft: Draft, node: Node) -> None:
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


@writes("PReLU")
def _prelu(draft: Draft, node: Node) -> None:
    x, weight = node.inputs
    assert x is not None
    assert weight is not None
    shape = (-1, *(1,) * max(x.ndim - 2, 0))
    change = (lambda a: a) if weight.shape == (1,) else lambda a: a.reshape(shape)
    draft.put(node, "PRelu", [draft.name(x), draft.name(weight, change)])


@writes("Softmax")
def _softmax(draft: Draft, node: Node) -> None:
    op: Any = node.op
    draft.put(node, "LogSoftmax" if op.logarithm else "Softmax", draft.operands(node), axis=op.axis)


@writes("Arithmetic")
def _arithmetic(draft: Draft, node: Node) -> None:
    op: Any = node.op
    draft.put(node, op.kind.capitalize(), draft.operands(node))


@writes("Reduce")
def _reduce(draft: Draft, node: Node) -> None:
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


@writes("Reshape", "Flatten")
def _reshape(draft: Draft, node: Node) -> None:
    [y] = node.outputs
    shape = _batch(node, y.shape)
    if shape[:1] != [0] and isinstance(getattr(node.op, "shape", None), tuple) and -1 in node.op.shape:  # type: ignore[attr-defined]
        shape = list(node.op.shape)  # type: ignore[attr-defined]
    draft.put(node, "Reshape", [*draft.operands(node), draft.constant(np.array(shape, np.int64))])


@writes("Permute")
def _permute(draft: Draft, node: Node) -> None:
    op: Any = node.op
    draft.put(node, "Transpose", draft.operands(node), perm=[a % len(op.axes) for a in op.axes])


@writes("Cat")
def _cat(draft: Draft, node: Node) -> None:
    op: Any = node.op
    draft.put(node, "Concat", draft.operands(node), axis=op.axis)


@writes("Slice")
def _slice(draft: Draft, node: Node) -> None:
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


@writes("Pad")
def _pad(draft: Draft, node: Node) -> None:
    op: Any = node.op
    widths = [a for a, _ in op.widths] + [b for _, b in op.widths]
    value = draft.constant(node.outputs[0].dtype.type(op.value))
    draft.put(node, "Pad", [*draft.operands(node), draft.constant(np.array(widths, np.int64)), value])


@writes("Nearest")
def _nearest(draft: Draft, node: Node) -> None:
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


@writes("PixelShuffle")
def _pixel_shuffle(draft: Draft, node: Node) -> None:
    op: Any = node.op
    draft.put(node, "DepthToSpace", draft.operands(node), blocksize=op.upscale_factor, mode="CRD")


@writes("ChannelShuffle")
def _channel_shuffle(draft: Draft, node: Node) -> None:
    op: Any = node.op
    [y] = node.outputs
    rest = y.shape[2:]
    apart = draft.constant(np.array((0, op.groups, y.shape[1] // op.groups, *rest), np.int64))
    dealt = draft.node("Reshape", [*draft.operands(node), apart])
    dealt = draft.node("Transpose", [dealt], perm=(0, 2, 1, *range(3, 3 + len(rest))))
    draft.put(node, "Reshape", [dealt, draft.constant(np.array((0, *y.shape[1:]), np.int64))])


@writes("ReflectionPad")
def _reflection_pad(draft: Draft, node: Node) -> None:
    op: Any = node.op
    (top, bottom), (left, right) = op.borders
    pads = draft.constant(np.array((0, 0, top, left, 0, 0, bottom, right), np.int64))
    draft.put(node, "Pad", [*draft.operands(node), pads], mode="reflect")


@writes("Bilinear")
def _bilinear(draft: Draft, node: Node) -> None:
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


@writes("Dropout", "DropWhole", "Detach", "Same")
def _same(draft: Draft, node: Node) -> None:
    x = node.inputs[0]
    assert x is not None
    draft.names[id(node.outputs[0])] = draft.name(x)


@writes("Observe")
def _nothing(draft: Draft, node: Node) -> None:
    """Leave hooks out: they change nothing."""
