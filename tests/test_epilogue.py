"""Epilogues: bias, scale and shift, a sum and an activation in an operation's own pass give the bits of the steps one
after the other, on every table, forward and backward."""

import timeit

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import fastconv.functional as F
from fastconv import config
from fastconv._ext.epilogue import Epilogue

FLOATS = [np.float32, np.float64]
# None, and every activation with parameters drawn for those that have some
CHOICES = [None, *F.ACTIVATIONS, ("leaky_relu", 0.3), ("leaky_relu", -0.2), ("hardtanh", -0.4, 0.6), ("elu", 0.5),
           ("softplus", 2.0, 1.5)]  # fmt: skip
ALONE = {"gelu_tanh": (F.gelu, F.gelu_backward, ("tanh",))}


def draw(rng, shape, dtype):
    return rng.normal(size=shape).astype(dtype)


def with_slopes(activation, rng, channels, dtype):
    """Give PReLU its weight."""
    return (activation, draw(rng, (channels,), dtype)) if activation == "prelu" else activation


def alone(activation):
    """Return the function of an activation, its gradient's, and the parameters of both."""
    name, *params = (activation,) if isinstance(activation, str) else activation
    f, backward, fixed = ALONE.get(name) or (getattr(F, name), getattr(F, name + "_backward"), ())
    return f, backward, (*fixed, *params)


def apply(activation, x):
    if activation is None:
        return x
    f, _, params = alone(activation)
    return f(x, *params)


def known(activation):
    """Return whether the gradient is made from "output" or "input"."""
    name, *params = (activation,) if isinstance(activation, str) else activation
    kind = F.ACTIVATIONS[name].known
    return kind if kind != "either" else "input" if params and params[0] < 0 else "output"


@st.composite
def steps(draw_):
    """Draw which steps an epilogue has."""
    return {
        "activation": draw_(st.sampled_from(CHOICES)),
        **{name: draw_(st.booleans()) for name in ("bias", "coefficients", "add", "spaced", "pre")},
        "dtype": draw_(st.sampled_from(FLOATS)),
        "isa": draw_(st.sampled_from(config.available_isas())),
        "seed": draw_(st.integers(0, 2**16)),
    }


def check(plain, shape, steps, rng, affine=True):
    """Compare ``plain(**epilogue)`` with its steps one by one; ``plain()`` is the operation without an epilogue."""
    dtype, channels = steps["dtype"], shape[1]
    activation = with_slopes(steps["activation"], rng, channels, dtype)
    bias = draw(rng, (channels,), dtype) if steps["bias"] and affine else None
    coefficients = draw(rng, (2, channels), dtype) if steps["coefficients"] and affine else None
    add = pre = None
    if steps["add"] and steps["spaced"]:  # part of a concatenation
        wide = draw(rng, (shape[0], *shape[2:], channels + 3), dtype)
        add = np.moveaxis(wide[..., 1 : channels + 1], -1, 1)
    elif steps["add"]:
        add = draw(rng, shape, dtype)
    expected = plain()
    if bias is not None:
        expected = F.bias_add(expected if expected.ndim != 3 else expected[:, :, None], bias).reshape(expected.shape)
    if coefficients is not None:
        whole = expected if expected.ndim != 3 else expected[:, :, None]
        mean, variance = np.zeros(channels, dtype), np.ones(channels, dtype)
        # the scale and shift of these statistics are the coefficients themselves
        expected = F.batch_norm(whole, mean, variance, *coefficients, eps=0.0).reshape(expected.shape)
    if add is not None:
        expected = expected + add
    before = expected
    expected = apply(activation, before)
    if steps["pre"]:
        pre = np.moveaxis(np.empty((shape[0], *shape[2:], channels), dtype), -1, 1)
    arguments = {"add": add, "pre": pre, "activation": activation}
    if affine:
        arguments |= {"bias": bias, "coefficients": coefficients}
    with config.isa(steps["isa"]):
        result = plain(**arguments)
    assert_array_equal(result, expected)
    if pre is not None:
        assert_array_equal(pre, before)


@given(
    steps(), st.integers(1, 3), st.integers(1, 3), st.integers(1, 21), st.sampled_from([1, 1, 2, 3]),
    st.integers(4, 13), st.integers(4, 40), st.sampled_from([1, 2]), st.booleans(),
)  # fmt: skip
@settings(max_examples=250, deadline=None)
def test_convolutions(steps, n, cg, kg, groups, height, width, stride, depthwise):
    rng = np.random.default_rng(steps["seed"])
    kernel = int(rng.integers(1, 4)), int(rng.integers(1, 4))
    groups, cg, kg = (kg * groups, 1, 1) if depthwise else (groups, cg, kg)
    x = draw(rng, (n, cg * groups, height, width), steps["dtype"])
    w = draw(rng, (kg * groups, cg, *kernel), steps["dtype"])
    padding = int(rng.integers(0, 2))

    def plain(bias=None, **epilogue):
        return F.conv2d(x, w, bias, stride, padding, 1, groups, **epilogue)

    check(plain, plain().shape, steps, rng)


@given(steps(), st.integers(1, 2), st.integers(1, 70), st.integers(1, 70), st.integers(3, 30))
@settings(max_examples=60, deadline=None)
def test_wide_convolutions_in_one_dimension(steps, n, c, k, length):
    rng = np.random.default_rng(steps["seed"])
    x, w = draw(rng, (n, c, length), steps["dtype"]), draw(rng, (k, c, 3), steps["dtype"])

    def plain(bias=None, **epilogue):
        return F.conv1d(x, w, bias, **epilogue)

    check(plain, plain().shape, steps, rng)


@given(steps(), st.integers(1, 40), st.integers(1, 700), st.integers(1, 90))
@settings(max_examples=100, deadline=None)
def test_linear(steps, n, features, k):
    rng = np.random.default_rng(steps["seed"])
    x, w = draw(rng, (n, features), steps["dtype"]), draw(rng, (k, features), steps["dtype"])

    def plain(bias=None, **epilogue):
        return F.linear(x, w, bias, **epilogue)

    check(plain, (n, k), steps, rng)


@given(steps(), st.sampled_from([(), (5, 4)]), st.integers(2, 300), st.integers(1, 150), st.booleans())
@settings(max_examples=100, deadline=None)
def test_rows(steps, tail, n, channels, training):
    rng = np.random.default_rng(steps["seed"])
    shape = (n if not tail else n % 9 + 2, channels, *tail)
    dtype = steps["dtype"]
    x, bias = draw(rng, shape, dtype), draw(rng, (channels,), dtype)
    check(lambda **epilogue: F.bias_add(x, bias, **epilogue), shape, steps, rng, affine=False)
    running = draw(rng, (channels,), dtype), draw(rng, (channels,), dtype) ** 2 + dtype(0.1)

    def norm(**epilogue):
        mean, variance = (a.copy() for a in running)
        return F.batch_norm(x, mean, variance, bias, bias, training, **epilogue)

    check(norm, shape, steps, rng, affine=False)


def test_threads_share_an_epilogue(every_setting):
    rng = np.random.default_rng(0)
    x, w = draw(rng, (3, 5, 21, 19), np.float32), draw(rng, (37, 5, 3, 3), np.float32)
    add, bias = draw(rng, (3, 37, 19, 17), np.float32), draw(rng, (37,), np.float32)
    pre = np.empty((3, 19, 17, 37), np.float32).transpose(0, 3, 1, 2)

    def run():
        return F.conv2d(x, w, bias, add=add, pre=pre, activation="mish"), pre.copy()

    results = every_setting(run)
    for got in results.values():
        for a, b in zip(got, results["scalar", 1], strict=True):
            assert_array_equal(a, b)


# --- backward ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", [c for c in CHOICES if c not in (None, "prelu")], ids=str)
@pytest.mark.parametrize("dtype", FLOATS)
def test_gradients_are_those_of_the_steps(activation, dtype):
    rng = np.random.default_rng(1)
    _, backward, params = alone(activation)
    x, add = draw(rng, (2, 3, 7, 9), dtype), draw(rng, (2, 5, 7, 9), dtype)
    w, b = draw(rng, (5, 3, 3, 3), dtype), draw(rng, (5,), dtype)
    pre = np.empty((2, 7, 9, 5), dtype).transpose(0, 3, 1, 2)
    y = F.conv2d(x, w, b, 1, 1, activation=activation, add=add, pre=pre)
    g = draw(rng, y.shape, dtype)
    made_from = {"output": y} if known(activation) == "output" else {"pre_activation": pre}
    masked = backward(g, *made_from.values(), *params)

    grad_add = np.empty_like(pre)
    got = F.conv2d_backward(g, x, w, 1, 1, activation=activation, **made_from, grad_add=grad_add)
    assert_array_equal(grad_add, masked)
    for other in (got, F.conv2d_backward(g, x, w, 1, 1, activation=activation, **made_from)):
        for a, z in zip(other, F.conv2d_backward(masked, x, w, 1, 1), strict=True):
            assert_array_equal(a, z)
    for a, z in zip(
        F.bias_add_backward(g, activation=activation, **made_from), F.bias_add_backward(masked), strict=True
    ):
        assert_array_equal(a, z)
    saved = np.stack([draw(rng, (5,), dtype), np.abs(draw(rng, (5,), dtype))])
    for training in (True, False):
        arguments = (add, b, saved, training)
        got = F.batch_norm_backward(g, *arguments, activation=activation, **made_from, grad_add=grad_add)
        assert_array_equal(grad_add, masked)
        for other in (got, F.batch_norm_backward(g, *arguments, activation=activation, **made_from)):
            for a, z in zip(other, F.batch_norm_backward(masked, *arguments), strict=True):
                assert_array_equal(a, z)
    flat = {name: a[:, :, 0, 0] for name, a in made_from.items()}
    rows = np.ascontiguousarray(x[:, :, 0, 0]), np.ascontiguousarray(w[:, :, 0, 0])
    got = F.linear_backward(g[:, :, 0, 0], *rows, activation=activation, **flat)
    for a, z in zip(got, F.linear_backward(masked[:, :, 0, 0], *rows), strict=True):
        assert_array_equal(a, z)


def test_the_gradient_of_a_sum_without_activation_is_the_gradient():
    rng = np.random.default_rng(2)
    x, w, g = (draw(rng, shape, np.float32) for shape in ((4, 6), (3, 6), (4, 3)))
    grad_add = np.empty_like(g)
    got = F.linear_backward(g, x, w, grad_add=grad_add)
    assert_array_equal(grad_add, g)
    for a, z in zip(got, F.linear_backward(g, x, w), strict=True):
        assert_array_equal(a, z)


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.sampled_from(FLOATS), st.integers(0, 2**16))
@settings(max_examples=60, deadline=None)
def test_an_input_gradient_takes_up_another(stride, dilation, groups, dtype, seed):
    """What a value read twice needs: one gradient is added while the other is stored, phases of the stride too."""
    from fastconv._ext.conv.algorithms import kernel
    from fastconv.functional._check import memory, scratch
    from fastconv.functional._geometry import convolution

    rng = np.random.default_rng(seed)
    c, k, size = groups * int(rng.integers(1, 20)), groups * int(rng.integers(1, 4)), int(rng.integers(7, 14))
    w = draw(rng, (k, c // groups, int(rng.integers(1, 4)), 2), dtype)
    geometry = convolution("test", (2, c, size, size), w.shape, stride, 1, dilation, groups)
    g = draw(rng, (2, geometry.p, geometry.q, k), dtype)
    other = draw(rng, (2, size, size, c + 2), dtype)[..., 1:-1]
    out = np.empty((2, size, size, c), dtype)
    run = kernel("input_gradient", geometry, np.dtype(dtype).itemsize)
    run(g, w, out, geometry, Epilogue(add=other), scratch)
    plain = F.conv2d_input_grad(g.transpose(0, 3, 1, 2), (2, c, size, size), w, stride, 1, dilation, groups)
    assert_array_equal(out, memory(plain) + other)


# --- the boundary -----------------------------------------------------------------------------------------

X, W = np.ones((2, 3), np.float32), np.ones((4, 3), np.float32)
OUT = np.empty((2, 4), np.float32)
SLOPES = np.ones(4, np.float32)


@pytest.mark.parametrize(
    ("error", "arguments", "message"),
    [
        (ValueError, {"activation": "swash"}, "linear: activation must be None, one of relu, .*got 'swash'"),
        (ValueError, {"activation": ()}, r"activation must be None.*got \(\)"),
        (ValueError, {"activation": ["relu"]}, "activation must be None.*got \\['relu'\\]"),
        (ValueError, {"activation": ("relu", 1)}, "activation 'relu' got 1 parameters.*it takes none"),
        (ValueError, {"activation": ("elu", -1.0)}, "alpha must be at least 0, got -1.0"),
        (ValueError, {"activation": "prelu"}, r"activation 'prelu' needs its weight, as \('prelu', array\)"),
        (ValueError, {"activation": ("prelu", SLOPES[:3])}, r"weight of prelu must have shape \(4,\), got \(3,\)"),
        (TypeError, {"activation": ("prelu", SLOPES.astype(np.float64))}, "weight of prelu must be float32"),
        (ValueError, {"add": np.ones((2, 3), np.float32)}, r"add must have shape \(2, 4\), got \(2, 3\)"),
        (TypeError, {"add": np.ones((2, 4))}, "add must be float32 as the input is, got float64"),
        (TypeError, {"add": [[1.0] * 4] * 2}, "add must be a NumPy array, got list"),
        (ValueError, {"add": OUT}, "linear: out shares memory with add; pass another array"),
        (ValueError, {"pre": OUT}, "linear: pre shares memory with out; pass another array"),
        (ValueError, {"pre": np.empty((2, 3), np.float32)}, r"pre must have shape \(2, 4\)"),
        (ValueError, {"pre": np.empty((4, 2), np.float32).T}, "pre must be writable and C-contiguous"),
    ],
    ids=str,
)
def test_epilogues_that_do_not_fit(error, arguments, message):
    with pytest.raises(error, match=message):
        F.linear(X, W, out=OUT, **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"activation": "gelu", "output": OUT}, "activation='gelu' needs pre_activation=, what the forward call wrote"),
        ({"activation": "tanh", "pre_activation": OUT}, "activation='tanh' needs output=, what the forward call ret"),
        ({"activation": ("leaky_relu", -0.1), "output": OUT}, "needs pre_activation="),
        ({"activation": ("prelu", SLOPES)}, "'prelu' learns; call prelu_backward first"),
        ({"activation": "relu", "output": OUT[:1]}, r"output must have shape \(2, 4\), got \(1, 4\)"),
    ],
    ids=str,
)
def test_gradients_say_what_they_need(arguments, message):
    with pytest.raises(ValueError, match=message):
        F.linear_backward(OUT, X, W, **arguments)


def test_the_kernels_side_checks_sizes():
    with pytest.raises(ValueError, match="coefficients has -1 pixels of 3 channels of 8 bytes, what came before"):
        Epilogue(bias=np.ones(3, np.float32), coefficients=np.ones((2, 3)))
    with pytest.raises(ValueError, match="pixels at one distance"):
        Epilogue(add=np.ones((4, 5, 6, 3))[:, ::2])
    with pytest.raises(KeyError):
        Epilogue("swash")


def test_an_epilogue_is_made_in_microseconds():
    """Some hundred nanoseconds where this was written; the bound leaves room for a busy machine."""
    bias, coefficients, add = np.ones(8, np.float32), np.ones((2, 8), np.float32), np.ones((4, 8), np.float32)
    best = min(timeit.repeat(lambda: Epilogue("relu", (), bias, coefficients, add), number=1000, repeat=5))
    assert best / 1000 < 10e-6
