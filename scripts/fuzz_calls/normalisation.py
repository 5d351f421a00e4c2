"""Batch normalisation and dropout."""

import numpy as np
import reference as ref

from fastconv import random

from .drawing import Call, Unchecked, channels, draws, f64, gradients_of, nhwc, rows_or_image
from .epilogue import before, epilogue, finish, masked


def eps_of(a):
    eps = float(a.get("eps", 1e-5))
    if not 1e-3 <= eps < 1e6:
        raise Unchecked
    return eps


def statistic(a, name, like, default):
    return np.full(like.shape[1], default) if a.get(name) is None else f64(a[name])


@draws("batch_norm")
def _(d):
    shape = rows_or_image(d)
    c, training = shape[1], d.chance()
    args = dict(input=d.whole(*shape), running_mean=d.whole(c), running_var=d.positive(c), weight=d.maybe(d.whole(c)),
                bias=d.maybe(d.whole(c)), training=training, momentum=0.25, eps=d.one_of(0.5, 1.0),
                **epilogue(d, shape), out=d.maybe(d.whole(*shape)), saved=d.maybe(d.whole(2, c)))  # fmt: skip
    if training and d.chance(0.3):
        args["running_mean"] = args["running_var"] = None

    def twin(a):
        x, eps, contents = f64(a["input"]), eps_of(a), {}
        mean, var = f64(a["running_mean"]), f64(a["running_var"])
        if a["training"]:
            m = x.size // x.shape[1]
            over = (0, *range(2, x.ndim))
            momentum, batch = float(a["momentum"]), (x.mean(over), x.var(over))
            if mean is not None:
                contents["running_mean"] = (1 - momentum) * mean + momentum * batch[0]
            if var is not None:
                contents["running_var"] = (1 - momentum) * var + momentum * batch[1] * m / (m - 1)
            mean, var = batch
        if (var + eps < 1e-3).any():
            raise Unchecked
        y = ref.batch_norm(x, mean, var, statistic(a, "weight", x, 1.0), statistic(a, "bias", x, 0.0), eps)
        y, written = finish(y, a)
        return y, {**contents, **written, "saved": np.stack([mean, 1 / np.sqrt(var + eps)])}

    return Call(args, twin, ("out", "saved", "running_mean", "running_var", "pre"), 1000.0)


def affine(d, *shape):
    return {name: d.maybe(d.whole(*shape)) for name in ("weight", "bias")}


def gradients(found, a):
    """Those of input, weight and bias, None where there is no such parameter."""
    gx, gw, gb = found
    return gx, gw if a.get("weight") is not None else None, gb if a.get("bias") is not None else None


def signal_or_image(d, c):
    return d.one_of((d.batch(), c, 1 + d.size()), (d.batch(), c, d.size(), 1 + d.size()))


def laid(d, shape):
    """An array for a result of this shape: channels last."""
    a = d.whole(*shape)
    return np.ascontiguousarray(a.transpose(0, 2, 1)).transpose(0, 2, 1) if a.ndim == 3 else a


def grouped(function, with_groups=True):
    def twin(a):
        groups = int(a["num_groups"]) if with_groups else a["input"].shape[1]
        x, eps = f64(a["input"]), eps_of(a)
        found = ref.group_norm(x, groups, f64(a.get("weight")), f64(a.get("bias")), eps, f64(a.get("grad_output")))
        return function(found, a)

    return twin


def result(y, a):
    return y, {"out": y}


def three(found, a):
    return gradients(found, a), {}


for _kind in ("group_norm", "instance_norm"):

    def _draw(d, kind=_kind, backward=False):
        groups = d.size(3)
        c = groups * d.size(3) if kind == "group_norm" else d.channels()
        shape = signal_or_image(d, c)
        args = dict(input=d.whole(*shape), **affine(d, c), eps=d.one_of(0.5, 1.0))
        if kind == "group_norm":
            args["num_groups"] = groups
        if backward:
            args = dict(grad_output=d.whole(*shape), **args)
        else:
            args["out"] = d.maybe(laid(d, shape))
        twin = grouped(three if backward else result, kind == "group_norm")
        return Call(args, twin, () if backward else ("out",), 4000.0, repeats=kind if backward else None)

    draws(_kind)(_draw)
    draws(f"{_kind}_backward")(lambda d, draw=_draw: draw(d, backward=True))


def _layer_norm(d, backward):
    shape = (d.batch(), *(d.size() for _ in range(int(d.rng.integers(1, 4)))))
    tail = shape[-int(d.rng.integers(1, len(shape))) :]
    args = dict(input=d.whole(*shape), normalized_shape=tail, **affine(d, *tail), eps=d.one_of(0.5, 1.0))
    if backward:
        args = dict(grad_output=d.whole(*shape), **args)
    else:
        args["out"] = d.maybe(laid(d, shape))

    def twin(a):
        x, tail = f64(a["input"]), a["normalized_shape"]
        tail = tuple(map(int, tail)) if isinstance(tail, tuple | list) else (int(tail),)
        weight, bias = f64(a.get("weight")), f64(a.get("bias"))
        found = ref.layer_norm(x, tail, weight, bias, eps_of(a), f64(a.get("grad_output")))
        return three(found, a) if backward else result(found, a)

    return Call(args, twin, () if backward else ("out",), 4000.0, repeats="layer_norm" if backward else None)


def _layer_norm2d(d, backward):
    c = d.channels()
    shape = signal_or_image(d, c)
    args = dict(input=d.whole(*shape), **affine(d, c), eps=d.one_of(0.5, 1.0))
    if backward:
        args = dict(grad_output=d.whole(*shape), **args)
    else:
        args["out"] = d.maybe(laid(d, shape))

    def twin(a):
        x, grad = (None if v is None else np.moveaxis(v, 1, -1) for v in (f64(a["input"]), f64(a.get("grad_output"))))
        found = ref.layer_norm(x, x.shape[-1:], f64(a.get("weight")), f64(a.get("bias")), eps_of(a), grad)
        if backward:
            return three((np.moveaxis(found[0], -1, 1), *found[1:]), a)
        return result(np.moveaxis(found, -1, 1), a)

    return Call(args, twin, () if backward else ("out",), 4000.0, repeats="layer_norm2d" if backward else None)


draws("layer_norm2d")(lambda d: _layer_norm2d(d, False))
draws("layer_norm2d_backward")(lambda d: _layer_norm2d(d, True))
draws("layer_norm")(lambda d: _layer_norm(d, False))
draws("layer_norm_backward")(lambda d: _layer_norm(d, True))


def _local_response_norm(d, backward):
    shape = signal_or_image(d, d.channels())
    args = dict(input=d.whole(*shape), size=d.size(5), alpha=d.one_of(0.5, 1.0), beta=d.one_of(0.5, 0.75), k=1.0)
    if backward:
        args = dict(grad_output=d.whole(*shape), **args)
    else:
        args["out"] = d.maybe(laid(d, shape))

    def twin(a):
        numbers = [float(a[name]) for name in ("alpha", "beta", "k")]
        if int(a["size"]) > 64 or a["input"].shape[1] > 10_000 or not all(0 < n < 100 for n in numbers):
            raise Unchecked
        found = ref.local_response_norm(f64(a["input"]), int(a["size"]), *numbers, f64(a.get("grad_output")))
        return (found, {}) if backward else result(found, a)

    repeats = "local_response_norm" if backward else None
    return Call(args, twin, () if backward else ("out",), 4000.0, repeats=repeats)


draws("local_response_norm")(lambda d: _local_response_norm(d, False))
draws("local_response_norm_backward")(lambda d: _local_response_norm(d, True))


@draws("batch_norm_coefficients")
def _(d):
    c = d.channels()
    args = dict(running_mean=d.whole(c), running_var=d.positive(c), weight=d.maybe(d.whole(c)),
                bias=d.maybe(d.whole(c)), eps=d.one_of(0.5, 1.0), out=d.maybe(d.whole(2, c)),
                saved=d.maybe(d.whole(2, c)))  # fmt: skip

    def twin(a):
        mean, var = f64(a["running_mean"]), f64(a["running_var"]) + eps_of(a)
        if (var < 1e-3).any():
            raise Unchecked
        inverse = 1 / np.sqrt(var)
        like = mean[None]
        scale = inverse * statistic(a, "weight", like, 1.0)
        both = np.stack([scale, statistic(a, "bias", like, 0.0) - mean * scale])
        return both, {"out": both, "saved": np.stack([mean, inverse])}

    return Call(args, twin, ("out", "saved"), 16.0)


@draws("batch_norm_backward")
def _(d):
    shape = rows_or_image(d)
    c = shape[1]
    args = dict(grad_output=d.whole(*shape), input=d.whole(*shape), weight=d.maybe(d.whole(c), 0.8),
                saved=d.whole(2, c) / d.dtype(4), training=d.chance(), bias=d.chance(0.8), **before(d, shape),
                need_input_grad=d.chance(0.8), grad_input=d.maybe(d.whole(*shape)), grad_weight=d.maybe(d.whole(c)),
                grad_bias=d.maybe(d.whole(c)), grad_add=d.maybe(d.whole(*shape), 0.3))  # fmt: skip

    def twin(a):
        g, x = masked(a), f64(a["input"])
        mean, inverse = f64(a["saved"])
        m = max(x.size // x.shape[1], 1)
        xhat = (x - channels(mean, x)) * channels(inverse, x)
        gw, gb = ref._sum_channels(g * xhat), ref._sum_channels(g)
        gx = g - channels(gb / m, x) - xhat * channels(gw / m, x) if a["training"] else g
        gx = gx * channels(inverse * statistic(a, "weight", x, 1.0), x)
        if a["weight"] is None:
            (gx, _, gb), contents = gradients_of({**a, "grad_weight": None}, g, gx, gw, gb)
            del contents["grad_weight"]
            return (gx, None, gb), contents
        return gradients_of(a, g, gx, gw, gb)

    return Call(args, twin, ("grad_input", "grad_weight", "grad_bias", "grad_add"), 2000.0)


@draws("dropout")
def _(d):
    shape = d.shape()
    mask = np.zeros(shape, np.uint8)
    args = dict(input=d.whole(*shape), p=d.one_of(0.0, 0.25, 0.5, 1.0), training=d.chance(0.8), seed=d.size(1000),
                stream=d.one_of(3, "dropout"), step=d.size(1000), mask=d.maybe(nhwc(mask) if mask.ndim == 4 else mask),
                out=d.maybe(d.whole(*shape)))  # fmt: skip

    def twin(a):
        x, p = f64(a["input"]), float(a["p"])
        if not a["training"]:
            return x, {"out": x}
        keep = ref.dropout_mask(x.shape, p, random.generator(a["seed"], a["stream"], a["step"]))
        y = x * (keep / (1 - p) if p < 1 else 0.0)
        return y, {"out": y, "mask": keep}

    return Call(args, twin, ("out", "mask"), 4.0)


@draws("dropout_backward")
def _(d):
    shape = d.shape()
    mask = d.rng.integers(0, 2, shape).astype(np.uint8)
    args = dict(grad_output=d.whole(*shape), mask=nhwc(mask) if mask.ndim == 4 else mask, p=d.one_of(0.25, 0.5),
                grad_input=d.maybe(d.whole(*shape)))  # fmt: skip

    def twin(a):
        p = float(a["p"])
        gx = f64(a["grad_output"]) * (f64(a["mask"]) / (1 - p) if p < 1 else 0.0)
        return gx, {"grad_input": gx}

    return Call(args, twin, ("grad_input",), 4.0)


@draws("dropout_mask_like")
def _(d):
    return Call(dict(input=d.whole(*d.shape())), None)
