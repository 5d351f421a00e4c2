"""Activations, softmax and sums of two arrays."""

import numpy as np
import reference as ref

from .drawing import DRAWS, Call, Draw, Unchecked, draws, f64


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


def softsign(x):
    return np.where(np.isinf(x), np.sign(x), x / (1 + abs(x)))


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


def sized(a, **defaults):
    """The settings of an activation as numbers, none so large that float32 has another answer."""
    values = [float(a.get(name, default)) for name, default in defaults.items()]
    if not all(abs(value) < 2**24 for value in values):
        raise Unchecked
    return values


def with_settings(name, known, function, slope, ulps=16.0, **defaults):
    """An activation that takes numbers, and its gradient made from what is known; both twins take them last."""

    def settings(d):
        return {setting: d.one_of(default, default / 2) for setting, default in defaults.items()}

    def make(d):
        shape = d.shape()
        args = dict(input=d.real(*shape), **settings(d), out=d.maybe(d.whole(*shape)))

        def twin(a):
            y = function(f64(a["input"]), *sized(a, **defaults))
            return y, {"out": y}

        return Call(args, twin, ("out",), ulps)

    def make_backward(d):
        shape = d.shape()
        args = {"grad_output": d.whole(*shape), known: d.whole(*shape), **settings(d),
                "grad_input": d.maybe(d.whole(*shape))}  # fmt: skip

        def twin(a):
            gx = f64(a["grad_output"]) * slope(f64(a[known]), *sized(a, **defaults))
            return gx, {"grad_input": gx}

        return Call(args, twin, ("grad_input",), ulps)

    DRAWS[name], DRAWS[f"{name}_backward"] = make, make_backward


def near(x):
    """Where every smooth slope has its limit already; the limits of products are those of numbers there."""
    return np.clip(x, -1e3, 1e3)


def between(y, low, high):
    return ~((y <= low) | (high <= y))


def gelu_slope(x):
    return ref.normal(near(x)).astype(np.float64) + near(x) * np.exp(-near(x) ** 2 / 2) / np.sqrt(2 * np.pi)


def gelu_tanh_slope(x):
    p, q = np.sqrt(8 / np.pi), np.sqrt(8 / np.pi) * 0.044715
    x = np.clip(x, -100, 100)
    s, rest = (ref.sigmoid(sign * x * (p + q * x * x)) for sign in (1, -1))
    return s + x * s * rest * (p + 3 * q * x * x)


def silu_slope(x):
    return ref.sigmoid(near(x)) * (1 + near(x) * ref.sigmoid(-near(x)))


def mish_slope(x):
    w = np.tanh(ref.softplus(near(x), 1.0, np.inf))
    return w + near(x) * (1 - w * w) * ref.sigmoid(near(x))


with_settings("leaky_relu", "input", ref.leaky_relu, lambda x, a: np.where(x > 0, 1, a), 2.0, negative_slope=0.01)
with_settings("relu6", "output", lambda x: ref.hardtanh(x, 0, 6), lambda y: between(y, 0, 6), 0.0)
with_settings("hardtanh", "output", ref.hardtanh, between, 0.0, min_val=-1.0, max_val=1.0)
with_settings("elu", "output", ref.elu, lambda y, a: np.where(y <= 0, y + a, 1), alpha=1.0)
with_settings("silu", "input", ref.silu, silu_slope)
with_settings("mish", "input", ref.mish, mish_slope)
with_settings("hardswish", "input", ref.hardswish,
              lambda x: np.where(x <= -3, 0, np.where(x < 3, x / 3 + 0.5, 1)))  # fmt: skip
with_settings("hardsigmoid", "input", ref.hardsigmoid, lambda x: between(x, -3, 3) / 6)
with_settings("softplus", "input", ref.softplus,
              lambda x, beta, most: np.where(beta * x > most, 1, ref.sigmoid(beta * x)),
              beta=1.0, threshold=20.0)  # fmt: skip


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


@draws("add")
def _(d):
    shape = d.shape()

    def twin(a):
        y = f64(a["a"]) + f64(a["b"])
        return y, {"out": y}

    return Call(dict(a=d.whole(*shape), b=d.whole(*shape), out=d.maybe(d.whole(*shape))), twin, ("out",))


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
