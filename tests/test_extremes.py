"""Denormal, huge and missing numbers in the data: kernels flush what is slow, and nothing takes another path."""

import numpy as np
import pytest

import fastconv
from fastconv import nn, optim

DENORMAL = np.float32(1e-40)


def train(x, steps=3):
    """Return losses, outputs and weights of a few steps of a net with every family of kernels."""
    fastconv.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 5, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(5, 4, 3, bias=False),
        nn.BatchNorm2d(4), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3),
    )  # fmt: skip
    loss, optimizer = nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    results = []
    for _ in range(steps):
        optimizer.zero_grad()
        results.append(np.array(loss(model(x), np.arange(len(x)) % 3)))
        grad = model.backward(loss.backward())
        results.append(grad.copy())
        optimizer.step()
    return [*results, *model.state_dict().values()]


def test_denormal_images_are_zeros_to_the_kernels(isa):
    x = np.random.default_rng(0).standard_normal((6, 2, 8, 8)).astype(np.float32)
    denormal, zeros = x * DENORMAL, x * np.float32(0)
    assert denormal.any()
    for a, b in zip(train(denormal), train(zeros), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (np.ones(4, np.float32) * DENORMAL).all()  # outside of kernels the processor is as it was


def test_denormal_weights_and_gradients_are_flushed(isa):
    p = nn.Parameter(np.full(40, DENORMAL))
    p.grad[...] = DENORMAL
    optim.SGD([p], lr=1.0).step()
    assert not p.data.any()


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30, 0.0])
def test_extreme_images_go_through_without_a_word(isa, value):
    x = np.full((6, 2, 8, 8), value, np.float32)
    results = train(x)
    assert len(results) == len(train(np.zeros_like(x)))
    if np.isnan(value):
        assert np.isnan(results[0])
