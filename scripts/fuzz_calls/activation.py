"""Activations and softmax."""

import numpy as np
import reference as ref

from .drawing import DRAWS, Call, Draw, draws, f64
from .epilogue import CURVES, gelu_slope, gelu_tanh_slope, sized, sloped, softsign


def unary(name, function, ulps=4.0, draw=Draw.real):
    def make(d):
        shape = d.shape()
        args = dict(input=draw(d, *shape), out=d.maybe(d.whole(*shape)))

        def twin(a):
            y = function(f64(a["input"]))
            return y, {"out": y}

        return Call(args, twin, ("out",), ulps)

    DRAWS[name] = make


def binary_backward(name, known, function, draw=Draw.whole, ulps=8.0):
    def make(d):
        shape = d.shape()
        args = {"grad_output": d.whole(*shape), known: draw(d, *shape), "grad_input": d.maybe(d.whole(*shape))}

        def twin(a):
            gx = function(f64(a["grad_output"]), f64(a[known]))
            return gx, {"grad_input": gx}

        return Call(args, twin, ("grad_input",), ulps)

    DRAWS[name] = make


def clipped(function, ranges):
    def make(d):
        shape = d.shape()
        args = dict(input=d.real(*shape), out=d.maybe(d.whole(*shape)))

        def twin(a):
            low, high = ranges[a["input"].dtype.type]
            y = function(np.clip(f64(a["input"]), low, high))
            return y, {"out": y}

        return Call(args, twin, ("out",), 16.0)

    return make


unary("relu", lambda x: np.where(x < 0, 0, x), 0)
unary("tanh", np.tanh)
unary("sigmoid", ref.sigmoid)
unary("softsign", softsign)
EXP = {np.float32: (-87.33654, 88.72283), np.float64: (-708.3964185322641, 709.782712893384)}
DRAWS["safe_exp"] = clipped(np.exp, EXP)
DRAWS["safe_log"] = clipped(np.log, {t: (np.finfo(t).tiny, np.finfo(t).max) for t in (np.float32, np.float64)})
binary_backward("relu_backward", "output", lambda g, y: np.where(y <= 0, 0, g), ulps=0)
binary_backward("tanh_backward", "output", lambda g, y: g * (1 - y * y))
binary_backward("sigmoid_backward", "output", lambda g, y: g * (1 - y) * y)
binary_backward("softsign_backward", "input", lambda g, x: g / (1 + abs(x)) ** 2)


def with_settings(name, known, ulps=16.0):
    """An activation that takes numbers, and its gradient made from what is known; both twins take them last."""
    function, slope, defaults = CURVES[name]

    def settings(d):
        return {setting: d.one_of(default, default / 2) for setting, default in defaults.items()}

    def values(a):
        return sized(a.get(setting, default) for setting, default in defaults.items())

    def make(d):
        shape = d.shape()
        args = dict(input=d.real(*shape), **settings(d), out=d.maybe(d.whole(*shape)))

        def twin(a):
            y = function(f64(a["input"]), *values(a))
            return y, {"out": y}

        return Call(args, twin, ("out",), ulps)

    def make_backward(d):
        shape = d.shape()
        args = {"grad_output": d.whole(*shape), known: d.whole(*shape), **settings(d),
                "grad_input": d.maybe(d.whole(*shape))}  # fmt: skip

        def twin(a):
            gx = sloped(f64(a["grad_output"]), slope(f64(a[known]), *values(a)))
            return gx, {"grad_input": gx}

        return Call(args, twin, ("grad_input",), ulps)

    DRAWS[name], DRAWS[f"{name}_backward"] = make, make_backward


with_settings("leaky_relu", "input", 2.0)
with_settings("relu6", "output", 0.0)
with_settings("hardtanh", "output", 0.0)
for name in ("elu", "exp", "sqrt"):
    with_settings(name, "output")
for name in ("silu", "mish", "hardswish", "hardsigmoid", "softplus", "log", "erf"):
    with_settings(name, "input")


@draws("gelu")
def _(d):
    shape = d.shape()
    args = dict(input=d.real(*shape), approximate=d.one_of("none", "tanh"), out=d.maybe(d.whole(*shape)))

    def twin(a):
        y = (ref.gelu_tanh if a.get("approximate") == "tanh" else ref.gelu)(f64(a["input"]))
        return y, {"out": y}

    return Call(args, twin, ("out",), 16.0)


@draws("gelu_backward")
def _(d):
    shape = d.shape()
    args = dict(grad_output=d.whole(*shape), input=d.whole(*shape), approximate=d.one_of("none", "tanh"),
                grad_input=d.maybe(d.whole(*shape)))  # fmt: skip

    def twin(a):
        slope = (gelu_tanh_slope if a.get("approximate") == "tanh" else gelu_slope)(f64(a["input"]))
        return f64(a["grad_output"]) * slope, {"grad_input": f64(a["grad_output"]) * slope}

    return Call(args, twin, ("grad_input",), 16.0)


def slopes_of(d, shape):
    """A weight of PReLU: one number, or one a channel."""
    return d.whole(1 if len(shape) < 2 or d.chance(0.3) else shape[1]) / d.dtype(4)


@draws("prelu")
def _(d):
    shape = d.shape()
    args = dict(input=d.real(*shape), weight=slopes_of(d, shape), out=d.maybe(d.whole(*shape)))

    def twin(a):
        x = f64(a["input"])
        y = ref.prelu(x, f64(a["weight"])).reshape(x.shape)  # of an array without axes, too
        return y, {"out": y}

    return Call(args, twin, ("out",), 2.0)


@draws("prelu_backward")
def _(d):
    shape = d.shape()
    weight = slopes_of(d, shape)
    args = dict(grad_output=d.whole(*shape), input=d.whole(*shape), weight=weight,
                grad_input=d.maybe(d.whole(*shape)), grad_weight=d.maybe(d.whole(*weight.shape)))  # fmt: skip

    def twin(a):
        g, x, weight = (f64(a[name]) for name in ("grad_output", "input", "weight"))
        gx = np.where(x > 0, g, ref.prelu(-np.ones_like(x), weight).reshape(x.shape) * -g)
        sums = (g * np.minimum(x, 0)).sum(tuple(i for i in range(x.ndim) if i != 1))
        before = 0 if a.get("grad_weight") is None else f64(a["grad_weight"])
        gw = before + (sums if weight.size == np.size(sums) else np.sum(sums)) * np.ones(weight.shape)
        return (gx, gw), {"grad_input": gx, "grad_weight": gw}

    return Call(args, twin, ("grad_input", "grad_weight"), 8.0)


def along_axis(name, function):
    def make(d):
        shape = d.shape()
        args = dict(input=d.real(*shape), axis=int(d.rng.integers(-len(shape), len(shape))),
                    out=d.maybe(d.whole(*shape)))  # fmt: skip

        def twin(a):
            x = f64(a["input"])
            y = function(x, int(a["axis"])) if x.size else x
            return y, {"out": y}

        return Call(args, twin, ("out",), 64.0)

    def make_backward(d):
        shape = d.shape()
        args = dict(grad_output=d.whole(*shape), output=-np.abs(d.whole(*shape)),
                    axis=int(d.rng.integers(-len(shape), len(shape))), grad_input=d.maybe(d.whole(*shape)))  # fmt: skip

        def twin(a):
            g, y, axis = f64(a["grad_output"]), f64(a["output"]), int(a["axis"])
            if not y.size:
                return y, {"grad_input": y}
            if name == "softmax":
                gx = y * (g - (g * y).sum(axis, keepdims=True))
            else:
                gx = g - np.exp(y) * g.sum(axis, keepdims=True)
            return gx, {"grad_input": gx}

        return Call(args, twin, ("grad_input",), 64.0)

    DRAWS[name], DRAWS[f"{name}_backward"] = make, make_backward


along_axis("softmax", ref.softmax)
along_axis("log_softmax", ref.log_softmax)
