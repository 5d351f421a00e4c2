"""Every layer's backward against central differences, over drawn hyperparameters and shapes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import fastconv
from fastconv import nn
from fastconv.testing import gradcheck, numerical_gradient

pytestmark = pytest.mark.gradients

drawn = settings(max_examples=20, deadline=None)
sizes = st.integers(1, 3)
batches = st.integers(1, 3)
seeds = st.integers(0, 2**32)


def check(layer, shape, seed=0, samples=16):
    for parameter in layer.parameters():
        if parameter.data.ndim == 1:  # zeros and ones hide mistakes
            parameter.data += np.linspace(-0.4, 0.4, parameter.data.size, dtype=parameter.data.dtype)
    assert gradcheck(layer, shape, seed=seed, samples=samples).ok


@st.composite
def convolutions(draw, dimensions):
    """Draw a convolution and an input shape it takes."""
    groups = draw(st.integers(1, 3))
    channels = [groups * draw(sizes) for _ in range(2)]

    def extent(low, high):
        values = tuple(draw(st.integers(low, high)) for _ in range(dimensions))
        return values if dimensions == 2 else values[0]

    kernel, dilation = extent(1, 3), extent(1, 2)
    padding = draw(st.sampled_from(["number", "same", "valid", "uneven"]))
    stride = 1 if padding == "same" else extent(1, 3)
    if padding == "number":
        padding = draw(st.integers(0, 2))
    elif padding == "uneven":
        sides = tuple((draw(st.integers(0, 2)), draw(st.integers(0, 2))) for _ in range(dimensions))
        padding = sides if dimensions == 2 else sides[0]
    kind = nn.Conv2d if dimensions == 2 else nn.Conv1d
    fastconv.manual_seed(draw(seeds))
    layer = kind(*channels, kernel, stride, padding, dilation, groups, bias=draw(st.booleans()))
    return layer, (draw(batches), channels[0], *(draw(st.integers(5, 8)) for _ in range(dimensions)))


@drawn
@given(convolutions(1), seeds)
def test_conv1d(case, seed):
    check(*case, seed)


@drawn
@given(convolutions(2), seeds)
def test_conv2d(case, seed):
    check(*case, seed)


@drawn
@given(st.integers(1, 20), st.integers(1, 20), st.booleans(), batches, seeds)
def test_linear(features, outputs, bias, batch, seed):
    fastconv.manual_seed(seed)
    check(nn.Linear(features, outputs, bias), (batch, features), seed)


@drawn
@given(st.sampled_from([(), (4,), (3, 4)]), st.integers(1, 9), batches, seeds)
def test_bias(tail, channels, batch, seed):
    check(nn.Bias(channels), (batch, channels, *tail), seed)


ACTIVATIONS = [
    nn.ReLU(), nn.LeakyReLU(), nn.LeakyReLU(0.3), nn.Tanh(), nn.Sigmoid(), nn.Softsign(), nn.PReLU(), nn.ReLU6(),
    nn.Hardtanh(-0.5, 0.7), nn.ELU(), nn.ELU(0.3), nn.GELU(), nn.GELU("tanh"), nn.SiLU(), nn.Mish(), nn.Hardswish(),
    nn.Hardsigmoid(), nn.Softplus(), nn.Softplus(2.0, 1.0),
    nn.Softmax(), nn.LogSoftmax(), nn.Softmax(-1), nn.LogSoftmax(0),
]  # fmt: skip


@pytest.mark.parametrize("layer", ACTIVATIONS, ids=repr)
@settings(max_examples=8, deadline=None)
@given(st.sampled_from([(), (4,), (3, 4)]), st.integers(1, 9), batches, seeds)
def test_activations(layer, tail, channels, batch, seed):
    check(layer, (batch, channels, *tail), seed)


@pytest.mark.parametrize("shape", [(7,), (2, 3, 2, 2, 2), (2, 3, 1, 2, 3, 2)], ids=len)
@pytest.mark.parametrize("layer", [*ACTIVATIONS, nn.PReLU(3)], ids=repr)
def test_activations_on_any_rank(layer, shape):
    """Also where channels are neither the only axis nor the last in memory."""
    if len(shape) == 1 and isinstance(layer, nn.PReLU):
        layer = nn.PReLU()
    elif len(shape) == 1 and getattr(layer, "axis", 0) == 1:
        layer = type(layer)(0)
    check(layer, shape, 0)


@drawn
@given(st.sampled_from([(), (4,), (3, 4)]), st.integers(1, 9), batches, seeds)
def test_prelu(tail, channels, batch, seed):
    check(nn.PReLU(channels, init=0.3), (batch, channels, *tail), seed)


@st.composite
def windows(draw):
    kernel = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    return {
        "kernel_size": kernel,
        "stride": draw(st.none() | st.integers(1, 3)),
        "padding": tuple(draw(st.integers(0, k // 2)) for k in kernel),
        "ceil_mode": draw(st.booleans()),
    }


images = st.tuples(batches, st.integers(1, 5), st.integers(5, 8), st.integers(5, 8))


@drawn
@given(windows(), st.integers(1, 2), images, seeds)
def test_max_pool2d(window, dilation, shape, seed):
    check(nn.MaxPool2d(**window, dilation=dilation), shape, seed)


@drawn
@given(windows(), st.booleans(), images, seeds)
def test_avg_pool2d(window, count_include_pad, shape, seed):
    check(nn.AvgPool2d(**window, count_include_pad=count_include_pad), shape, seed)


@drawn
@given(st.integers(1, 9) | st.tuples(st.none() | st.integers(1, 9), st.integers(1, 9)), images, seeds)
def test_adaptive_avg_pool2d(size, shape, seed):
    check(nn.AdaptiveAvgPool2d(size), shape, seed)


@drawn
@given(images, seeds)
def test_global_avg_pool2d_and_flatten(shape, seed):
    check(nn.GlobalAvgPool2d(), shape, seed)
    check(nn.Flatten(), shape, seed)


@drawn
@given(
    st.sampled_from([(), (4,), (3, 4)]),
    st.integers(1, 5),
    st.floats(1e-5, 1e-1),
    st.none() | st.floats(0, 1),
    st.booleans(),
    st.booleans(),
    seeds,
)
def test_batch_norm(tail, channels, eps, momentum, affine, training, seed):
    kind = nn.BatchNorm2d if len(tail) == 2 else nn.BatchNorm1d
    layer = kind(channels, eps, momentum, affine)
    # three examples at least: two values normalise to +1 and -1, whatever they are, and their slopes are ~eps
    layer.running_mean += np.linspace(-1, 1, channels, dtype="f")
    layer.running_var += np.linspace(0, 2, channels, dtype="f")
    check(layer.train(training), (5, channels, *tail), seed)


@drawn
@given(st.sampled_from([(), (4,), (3, 4)]), st.floats(0, 1), st.booleans(), st.integers(1, 5), batches, seeds)
def test_dropout(tail, p, training, channels, batch, seed):
    fastconv.manual_seed(seed)
    check(nn.Dropout(p).train(training), (batch, channels, *tail), seed)


@drawn
@given(st.booleans(), st.booleans(), st.booleans(), seeds)
def test_residual_in_sequential(shortcut, activation, training, seed):
    fastconv.manual_seed(seed)
    body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 5 if shortcut else 3, 1))
    side = nn.Conv2d(3, 5, 1, bias=False) if shortcut else None
    block = nn.Residual(body, side, nn.Tanh() if activation else None)
    net = nn.Sequential(
        nn.Conv2d(2, 3, 3, bias=False), nn.Bias(3), nn.ReLU(), block,
        nn.Dropout(0.2), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(20 if shortcut else 12, 4), nn.LogSoftmax(),
    )  # fmt: skip
    check(net.train(training), (3, 2, 6, 6), seed, samples=8)


LOSSES = [
    nn.CrossEntropyLoss, nn.MSELoss, nn.MultiMarginLoss, lambda reduction: nn.MultiMarginLoss(0.3, reduction)
]  # fmt: skip


@pytest.mark.parametrize("kind", LOSSES)
@settings(max_examples=10, deadline=None)
@given(st.sampled_from(["mean", "sum"]), st.integers(1, 7), batches, st.booleans(), seeds)
def test_losses(kind, reduction, classes, batch, image, seed):
    rng = np.random.default_rng(seed)
    output = rng.standard_normal((batch, classes, 2, 3) if image else (batch, classes))
    loss = kind(reduction=reduction)
    if isinstance(loss, nn.MSELoss):
        target = rng.standard_normal(output.shape)
    else:
        target = rng.integers(0, classes, (batch, 2, 3) if image else batch)
    value = loss(output, target)
    gradient = loss.backward().copy()
    numeric, doubt = numerical_gradient(lambda y: loss(y, target), output)
    rounding = 64 * np.finfo(float).eps * max(abs(value), 1) / 1e-4
    assert (np.abs(gradient.reshape(-1) - numeric) <= doubt + rounding).all()
    loss(output, target)
    assert_array_equal(loss.backward(2.0), 2 * gradient)
