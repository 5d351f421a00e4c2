"""Activations by name, their values and slopes, and what an operation does to its result in its own pass."""

import numpy as np
import reference as ref

from fastconv.functional import ACTIVATIONS

from .drawing import Unchecked, channels, f64


def sized(values):
    """Settings of an activation as numbers, none so large that float32 has another answer."""
    values = [float(value) for value in values]
    if not all(abs(value) < 2**24 for value in values):
        raise Unchecked
    return values


def softsign(x):
    return np.where(np.isinf(x), np.sign(x), x / (1 + abs(x)))


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


def exp(x):
    """exp, where it is a number in float32 as well."""
    if (np.isfinite(x) & (x > 88)).any():
        raise Unchecked
    return np.exp(x)


def positive(y):
    return ~(y <= 0)


# name: the function, its slope as a function of what the gradient is made from, and what may be set
CURVES = {
    "relu": (lambda x: np.where(x < 0, 0, x), positive, {}),
    "leaky_relu": (ref.leaky_relu, lambda x, a: np.where(x > 0, 1, a), {"negative_slope": 0.01}),
    "relu6": (lambda x: ref.hardtanh(x, 0, 6), lambda y: between(y, 0, 6), {}),
    "hardtanh": (ref.hardtanh, between, {"min_val": -1.0, "max_val": 1.0}),
    "elu": (ref.elu, lambda y, a: np.where(y <= 0, y + a, 1), {"alpha": 1.0}),
    "gelu": (ref.gelu, gelu_slope, {}),
    "gelu_tanh": (ref.gelu_tanh, gelu_tanh_slope, {}),
    "silu": (ref.silu, silu_slope, {}),
    "mish": (ref.mish, mish_slope, {}),
    "hardswish": (ref.hardswish, lambda x: np.where(x <= -3, 0, np.where(x < 3, x / 3 + 0.5, 1)), {}),
    "hardsigmoid": (ref.hardsigmoid, lambda x: between(x, -3, 3) / 6, {}),
    "sigmoid": (ref.sigmoid, lambda y: (1 - y) * y, {}),
    "tanh": (np.tanh, lambda y: 1 - y * y, {}),
    "softplus": (ref.softplus, lambda x, beta, most: np.where(beta * x > most, 1, ref.sigmoid(beta * x)),
                 {"beta": 1.0, "threshold": 20.0}),
    "softsign": (softsign, lambda x: 1 / (1 + abs(x)) ** 2, {}),
    "exp": (exp, lambda y: y, {}),
    "log": (np.log, lambda x: 1 / x, {}),
    "sqrt": (np.sqrt, lambda y: 0.5 / y, {}),
    "erf": (ref.erf, lambda x: 2 / np.sqrt(np.pi) * np.exp(-x * x), {}),
}  # fmt: skip
EXACT = (None, "relu", "relu6", "hardtanh", "prelu")
STEEP = ("log", "sqrt")  # of a sum near 0 its rounding decides: tests/test_epilogue.py has them behind operations


def sloped(g, slope):
    """A gradient times a slope; where a slope is yes or no, nothing comes of infinite gradients."""
    return np.where(slope, g, 0) if slope.dtype == bool else g * slope


def activation_of(d, channels, learned=True):
    """An activation as operations take it, often none or ReLU; learned slopes are quarters, which keep sums exact."""
    if d.chance(0.6):
        return d.one_of(None, "relu")
    names = [*(name for name in CURVES if name not in STEEP), *(["prelu"] if learned else [])]
    name = d.one_of(*names)
    if name == "prelu":
        return name, d.whole(channels) / d.dtype(4)
    values = [d.one_of(default, default / 2) for default in CURVES[name][2].values()]
    return (name, *values[: d.rng.integers(len(values) + 1)]) if d.chance() else name


def ulps_of(activation, inexact=64.0):
    name = activation[0] if isinstance(activation, tuple) else activation
    return 0.0 if name in EXACT else inexact


def _named(activation):
    """Name of an activation and its settings as numbers."""
    name, *given = activation if isinstance(activation, tuple) else (activation,)
    if name == "prelu":
        return name, [f64(given[0])]
    defaults = list(CURVES[name][2].values())
    return name, sized([*given, *defaults[len(given) :]])


def finish(y, a):
    """What an operation's result becomes: scale and shift, a sum, and the activation; with what is written."""
    if a.get("coefficients") is not None:
        scale, shift = f64(a["coefficients"])
        y = y * channels(scale, y) + channels(shift, y)
    if a.get("add") is not None:
        y = y + f64(a["add"])
    before = y
    if a.get("activation") is not None:
        name, values = _named(a["activation"])
        y = ref.prelu(y, *values) if name == "prelu" else CURVES[name][0](y, *values)
    return y, {"out": y, "pre": before}


def masked(a):
    """The gradient before the activation."""
    g = f64(a["grad_output"])
    if a.get("activation") is None:
        return g
    name, values = _named(a["activation"])
    known = ACTIVATIONS[name].known
    if known == "either":
        known = "input" if values[0] < 0 else "output"
    return sloped(g, CURVES[name][1](f64(a["output" if known == "output" else "pre_activation"]), *values))


def epilogue(d, shape):
    """Arguments that say what an operation does to its result."""
    return dict(activation=activation_of(d, shape[1]), add=d.maybe(d.placed(*shape), 0.3),
                pre=d.maybe(d.placed(*shape), 0.3))  # fmt: skip


def before(d, shape):
    """Arguments that say what an operation did to its result, for its gradients."""
    return dict(activation=activation_of(d, shape[1], learned=d.chance(0.02)), output=d.whole(*shape),
                pre_activation=d.whole(*shape))  # fmt: skip
