"""Convolutions, matrices and normalisation."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv import functional as F
from fastconv.graph.value import Value
from fastconv.onnx.operators._registry import Pairs, operator, padding_of, refuse, reshaped, scalar, sides, sizes

if TYPE_CHECKING:
    from fastconv.onnx.model import Pass
    from fastconv.onnx.reading import Step


_MOST = 4096  # pairs of matrices

# ---- convolutions and matrices


@operator("Conv")
def _conv(run: "Pass", step: "Step", x: Any, weight: Any, bias: Any = None) -> Any:
    more: Pairs = ()
    if not isinstance(x, Value) and hasattr(x, "widths"):
        if any(n for pair in x.widths[:2] for n in pair) or min(n for pair in x.widths for n in pair) < 0:
            x = x.written()
        else:
            x, more = x.value, x.widths[2:]
    layer = run.layer(step) if step.layer else None
    if layer is not None:
        weight, bias = layer.weight, layer.bias
    kernel = weight.shape[2:]
    if len(kernel) not in (1, 2) or len(kernel) != x.ndim - 2:
        refuse(f"a convolution of {len(kernel)} dimensions on an input of shape {x.shape}")
    if tuple(step.settings.get("kernel_shape") or kernel) != kernel:
        raise ValueError(f"kernel_shape {step.settings['kernel_shape']} is not that of the weight, {kernel}")
    shape = tuple(n + sum(pair) for n, pair in zip(x.shape[2:], more, strict=True)) if more else x.shape[2:]
    padding = padding_of(step, shape, kernel)
    if layer is not None and not more and step.settings.get("auto_pad", "NOTSET") in ("NOTSET", "", "VALID"):
        return layer(x)
    if more:
        padding = tuple((a + c, b + d) for (a, b), (c, d) in zip(padding, more, strict=True))
    groups = step.settings.get("group", 1)
    strides, dilations = (sizes(step, name, len(kernel)) for name in ("strides", "dilations"))
    if len(kernel) == 1:
        return F.conv1d(x, weight, bias, strides[0], padding[0], dilations[0], groups)
    return F.conv2d(x, weight, bias, strides, padding, dilations, groups)


@operator("ConvTranspose")
def _conv_transpose(run: "Pass", step: "Step", x: Any, weight: Any, bias: Any = None) -> Any:
    if step.layer:
        return run.layer(step)(x)
    kernel = weight.shape[2:]
    dims = len(kernel)
    if dims not in (1, 2):
        refuse(f"a transposed convolution of {dims} dimensions")
    strides, dilations = (sizes(step, name, dims) for name in ("strides", "dilations"))
    extra = tuple(step.settings.get("output_padding") or (0,) * dims)
    full = [(n - 1) * s + (k - 1) * d + 1 for n, s, k, d in zip(x.shape[2:], strides, kernel, dilations, strict=True)]
    wanted = step.settings.get("output_shape")
    auto = step.settings.get("auto_pad", "NOTSET")
    if wanted is None and auto in ("SAME_UPPER", "SAME_LOWER"):
        wanted = tuple(n * s for n, s in zip(x.shape[2:], strides, strict=True))
    if wanted is not None:
        totals = [f + e - w for f, e, w in zip(full, extra, wanted[-dims:], strict=True)]
        cuts = [(t // 2, t - t // 2) if auto == "SAME_UPPER" else (t - t // 2, t // 2) for t in totals]
    else:
        cuts = list(sides(step, dims))
    groups = step.settings.get("group", 1)
    # all of it is computed and then cut, or filled up behind by zeros (and the bias) where output padding says so
    stride, dilation, none = (strides, dilations, (0, 0)) if dims == 2 else (strides[0], dilations[0], 0)
    convolve = F.conv_transpose2d if dims == 2 else F.conv_transpose1d
    y = convolve(x, weight, None, stride, 0, none, groups, dilation)
    widths = [(-a, e - b) for (a, b), e in zip(cuts, extra, strict=True)]
    if any(n for pair in widths for n in pair):
        y = F.pad(y, [n for pair in reversed(widths) for n in pair])
    return y if bias is None else F.bias_add(y, bias)


@operator("Gemm")
def _gemm(run: "Pass", step: "Step", a: Any, b: Any, c: Any = None) -> Any:
    alpha, beta = (float(step.settings.get(name, 1.0)) for name in ("alpha", "beta"))
    if step.settings.get("transA", 0):
        a = F.permute(a, 1, 0)
    layer = run.layer(step) if step.layer else None
    if layer is not None:
        y = layer(a)
        c = None if layer.bias is not None else c
    else:
        y = F.linear(a, b if step.settings.get("transB", 0) else F.permute(b, 1, 0))
    if alpha != 1:
        y = F.mul(y, alpha)
    if c is None:
        return y
    c = scalar(c)
    return F.add(y, c if beta == 1 else beta * c if isinstance(c, float) else F.mul(c, beta))


@operator("MatMul")
def _matmul(run: "Pass", step: "Step", a: Any, b: Any, bias: Any = None) -> Any:
    """Multiply; the bias, where there is one, is the layer's."""
    if not step.layer and isinstance(a, Value) and isinstance(b, Value) and (b.ndim > 2 or b.ndim == 1):
        return _stacked(a, b)
    if not isinstance(a, Value):
        refuse("a known matrix on the left")
    if step.layer:
        layer = run.layer(step)
    elif isinstance(b, Value) and b.ndim == 2:
        layer = lambda rows: F.linear(rows, F.permute(b, 1, 0))  # noqa: E731
    else:
        refuse(f"a product of arrays of shapes {a.shape} and {b.shape}")
    if a.ndim == 2:
        return layer(a)
    if a.ndim == 1:
        return F.reshape(layer(F.reshape(a, 1, a.shape[0])), -1)
    y = layer(F.reshape(a, -1, a.shape[-1]))
    return F.reshape(y, -1, *a.shape[1:-1], y.shape[1])


def _stacked(a: Any, b: Any) -> Any:
    """Multiply stacks of matrices (..., m, k) and (..., k, n), one after the other, as NumPy broadcasts them."""
    vector, other = a.ndim == 1, b.ndim == 1
    a = F.reshape(a, 1, a.shape[0]) if vector else a
    b = F.reshape(b, b.shape[0], 1) if other else b
    shape = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    count, (m, k), n = math.prod(shape), a.shape[-2:], b.shape[-1]
    if count > _MOST:
        refuse(f"a product of {count} pairs of matrices")
    rows, columns = (
        np.broadcast_to(np.arange(math.prod(x.shape[:-2])).reshape(x.shape[:-2]), shape).reshape(-1).tolist()
        for x in (a, b)
    )
    a, b = F.reshape(a, -1, m, k), F.permute(F.reshape(b, -1, k, n), 0, 2, 1)
    found = F.stack([F.linear(a[i], b[j]) for i, j in zip(rows, columns, strict=True)])
    last = (() if vector else (m,)) + (() if other else (n,))
    return reshaped(found, (*shape, *last))


@operator("BatchNormalization")
def _batch_norm(run: "Pass", step: "Step", x: Any, scale: Any, bias: Any, mean: Any, var: Any) -> Any:
    if step.settings.get("spatial", 1) != 1:
        refuse("BatchNormalization with spatial=0")
    if x.ndim > 4:
        refuse(f"BatchNormalization of an input of shape {x.shape}")
    if step.layer:
        layer = run.layer(step)
        if x.ndim in layer.ranks:
            return layer(x)
        # The file did not tell how many axes come here, so that the layer is one for others; it has all the same.
        arrays = (layer.running_mean, layer.running_var, layer.weight, layer.bias)
        return F.batch_norm(
            x, *arrays, layer.training, layer.momentum, layer.eps, count=layer.num_batches_tracked
        )  # fmt: skip
    if step.settings.get("training_mode", 0):
        refuse("training_mode=1 with statistics that are inputs")
    return F.batch_norm(x, mean, var, scale, bias, False, None, float(step.settings.get("epsilon", 1e-5)))


@operator("InstanceNormalization")
def _instance_norm(run: "Pass", step: "Step", x: Any, scale: Any = None, bias: Any = None) -> Any:
    return F.instance_norm(x, scale, bias, float(step.settings.get("epsilon", 1e-5)))


@operator("GroupNormalization")
def _group_norm(run: "Pass", step: "Step", x: Any, scale: Any = None, bias: Any = None) -> Any:
    groups = step.settings["num_groups"]
    if scale is not None and scale.shape != (x.shape[1],):  # before opset 21 there is one number per group
        refuse(f"GroupNormalization with a scale of shape {scale.shape} for {x.shape[1]} channels")
    return F.group_norm(x, groups, scale, bias, float(step.settings.get("epsilon", 1e-5)))


@operator("LayerNormalization")
def _layer_norm(run: "Pass", step: "Step", x: Any, scale: Any = None, bias: Any = None) -> Any:
    if "axes" in step.settings:
        return _over_channels(run, step, x, scale, bias)
    axis = step.settings.get("axis", -1) % x.ndim
    if step.settings.get("stash_type", 1) != 1 or not run.read.isdisjoint(step.outputs[1:]):
        refuse("LayerNormalization with statistics as outputs, or in another precision")
    shape = x.shape[axis:]
    for what, weight in (("scale", scale), ("bias", bias)):
        if weight is not None and weight.shape != shape:
            refuse(f"LayerNormalization of shape {shape} with a {what} of shape {weight.shape}")
    y = F.layer_norm(x, shape, scale, bias, float(step.settings.get("epsilon", 1e-5)))
    return (y, *[None] * (len(step.outputs) - 1)) if len(step.outputs) > 1 else y


def _over_channels(run: "Pass", step: "Step", x: Any, scale: Any, bias: Any) -> Any:
    """Normalise over axis 1; scale and bias are a layer's, vectors (C,), or multiplied and added as they are."""
    layer, eps = run.layer(step) if step.layer else None, float(step.settings.get("epsilon", 1e-5))
    if layer is not None and x.ndim in (3, 4):
        return layer(x)
    given = (scale, bias) if layer is None else (layer.weight, layer.bias)
    weight, shift = (a if a is not None and len(a.shape) == 1 else None for a in given)
    if x.ndim in (3, 4):
        y = F.layer_norm2d(x, weight, shift, eps)
    else:
        y = F.layer_norm(F.permute(x, 0, *range(2, x.ndim), 1), x.shape[1], weight, shift, eps)
        y = F.permute(y, 0, x.ndim - 1, *range(1, x.ndim - 1))
    y = y if scale is None or weight is not None else F.mul(y, scale)
    return y if bias is None or shift is not None else F.add(y, bias)


@operator("LRN")
def _local_response_norm(run: "Pass", step: "Step", x: Any) -> Any:
    size, settings = step.settings["size"], (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0))
    if size % 2 == 0:
        refuse(f"LRN over {size} channels, an even number,")
    return F.local_response_norm(x, size, *(float(step.settings.get(*entry)) for entry in settings))
