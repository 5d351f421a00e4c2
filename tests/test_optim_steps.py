"""Optimiser steps: PyTorch's formulas against float64, equal bits everywhere, PyTorch's worked values."""

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import fastconv.functional as F

sizes = st.integers(1, 70)
float_types = st.sampled_from([np.float32, np.float64])
factors = st.sampled_from([0.0, 0.3, 0.9])
decays = st.sampled_from([0.0, 0.01])
seeds = st.integers(0, 99)


def draw(n, dtype=np.float32, seed=0, count=5):
    """Return param, grad and state arrays; the state is positive, as squares are."""
    rng = np.random.default_rng(seed)
    return [a.astype(dtype) for a in (*rng.normal(size=(2, n)), *rng.uniform(0.5, 2, (count - 2, n)))]


def check(got, want, arrays):
    """Compare with float64 to a few roundings of the largest operand."""
    largest = max(1.0, *(np.abs(a).max() for a in arrays))
    for a, b in zip(got, want, strict=True):
        if b is None:
            assert a is None
        else:
            assert_allclose(a, b, rtol=0, atol=64 * np.finfo(a.dtype).eps * largest**2)


@given(
    n=sizes,
    dtype=float_types,
    momentum=factors,
    dampening=st.sampled_from([0.0, 0.5]),
    decay=decays,
    nesterov=st.booleans(),
    first=st.booleans(),
    seed=seeds,
)
@settings(max_examples=60, deadline=None)
def test_sgd(n, dtype, momentum, dampening, decay, nesterov, first, seed):
    p, g, buffer, *_ = draw(n, dtype, seed)
    nesterov = nesterov and momentum > 0 and dampening == 0
    buffer = buffer if momentum else None
    before = [a if a is None else a.astype(np.float64) for a in (p, g, buffer)]
    want = reference.sgd(*before, 0.1, momentum, dampening, decay, nesterov, first)
    F.sgd_step(p, g, buffer, 0.1, momentum, dampening, decay, nesterov, first_step=first)
    check((p, buffer), want, before[:2])


@given(
    n=sizes,
    dtype=float_types,
    beta1=st.sampled_from([0.0, 0.4, 0.9]),
    decay=decays,
    step=st.integers(1, 1000),
    decoupled=st.booleans(),
    seed=seeds,
)
@settings(max_examples=60, deadline=None)
def test_adam(n, dtype, beta1, decay, step, decoupled, seed):
    p, g, m, v, _ = draw(n, dtype, seed)
    options = (0.01, beta1, 0.999, 1e-8, decay, step, decoupled)
    want = reference.adam(*(a.astype(np.float64) for a in (p, g, m, v)), *options)
    before = [p.copy(), g]
    F.adam_step(p, g, m, v, *options)
    # 1 - beta2^step is as small as 0.001 and divides
    check((p, m, v), want, before)


@given(
    n=sizes, dtype=float_types, momentum=factors, centred=st.booleans(), decay=decays, seed=seeds
)
@settings(max_examples=60, deadline=None)
def test_rmsprop(n, dtype, momentum, centred, decay, seed):
    p, g, square, buffer, average = draw(n, dtype, seed)
    square += 4  # keeps the variance away from 0, where errors are magnified
    state = square, buffer if momentum else None, average if centred else None
    options = (0.01, 0.9, 1e-8, decay, momentum)
    before = [p.copy(), g]
    want = reference.rmsprop(*(a if a is None else a.astype(np.float64) for a in (p, g, *state)), *options)
    F.rmsprop_step(p, g, *state, *options)
    check((p, *state), want, before)


@given(n=sizes, dtype=float_types, decay=decays, step=st.integers(1, 100), seed=seeds)
@settings(max_examples=40, deadline=None)
def test_adagrad(n, dtype, decay, step, seed):
    p, g, total, *_ = draw(n, dtype, seed)
    options = (0.1, 0.02, 1e-10, decay, step)
    want = reference.adagrad(*(a.astype(np.float64) for a in (p, g, total)), *options)
    before = [p.copy(), g]
    F.adagrad_step(p, g, total, *options)
    check((p, total), want, before)


STEPS = {
    "sgd": lambda p, g, a, b, c: F.sgd_step(p, g, None, 0.1, weight_decay=0.01),
    "momentum": lambda p, g, a, b, c: F.sgd_step(p, g, a, 0.1, 0.9, 0.1, 0.01),
    "nesterov": lambda p, g, a, b, c: F.sgd_step(p, g, a, 0.1, 0.9, 0, 0.01, True),
    "adam": lambda p, g, a, b, c: F.adam_step(p, g, a, b, weight_decay=0.01, step=3),
    "adamw": lambda p, g, a, b, c: F.adam_step(p, g, a, b, weight_decay=0.01, step=3, decoupled=True),
    "rmsprop": lambda p, g, a, b, c: F.rmsprop_step(p, g, a, weight_decay=0.01),
    "rmsprop centred": lambda p, g, a, b, c: F.rmsprop_step(p, g, a, b, c, momentum=0.9),
    "adagrad": lambda p, g, a, b, c: F.adagrad_step(p, g, a, lr_decay=0.1, weight_decay=0.01, step=4),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_random_data_gives_the_same_bits_on_every_isa_and_thread_count(step, dtype, every_setting):
    arrays = draw(40_013, dtype)

    def run():
        copies = [a.copy() for a in arrays]
        step(*copies)
        assert_array_equal(copies[1], arrays[1])
        return tuple(a.tobytes() for a in copies)

    assert len(set(every_setting(run).values())) == 1


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_the_gradient_may_have_any_layout_and_shape_does_not_matter(step):
    flat = draw(60)
    step(*flat)
    p, g, *state = draw(60)
    wide = np.zeros((3, 4, 10), np.float32)
    wide[..., ::2] = g.reshape(3, 4, 5)
    frozen = g.reshape(3, 4, 5).copy()
    frozen.flags.writeable = False
    for grad in (wide[..., ::2], np.asfortranarray(g.reshape(3, 4, 5)), frozen, frozen.astype(">f4")):
        shaped = [a.reshape(3, 4, 5).copy() for a in (p, *state)]
        step(shaped[0], grad, *shaped[1:])
        assert_array_equal(shaped[0].ravel(), flat[0])
        assert_array_equal(shaped[1].ravel(), flat[2])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_a_bad_gradient_spoils_its_own_element_alone(step, bad, isa):
    clean, spoilt = draw(37), draw(37)
    spoilt[1][20] = bad
    step(*clean)
    step(*spoilt)
    assert not np.isfinite(spoilt[0][20])
    others = np.arange(37) != 20
    for a, b in zip(clean, spoilt, strict=True):
        assert_array_equal(a[others], b[others])


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_an_empty_parameter_is_left_alone(step):
    step(*(np.empty((0, 3), np.float32) for _ in range(5)))


def test_a_constant_gradient_keeps_centred_rmsprop_finite():
    p, g = np.zeros(100, np.float32), np.linspace(0.1, 3, 100).astype(np.float32)
    square, average = np.zeros_like(p), np.zeros_like(p)
    for _ in range(3000):
        F.rmsprop_step(p, g, square, None, average, lr=1e-9)
    assert np.isfinite(p).all()


def test_the_first_steps_by_hand():
    # one parameter at 1 with gradient 0.5, lr 0.1
    def one(*values):
        return [np.array([v]) for v in values]

    p, g, buffer = one(1.0, 0.5, 7.0)
    F.sgd_step(p, g, buffer, 0.1, 0.9, 0.5, first_step=True)  # undampened: buffer is the gradient
    assert_allclose([p, buffer], [[0.95], [0.5]], rtol=1e-15)
    F.sgd_step(p, g, buffer, 0.1, 0.9, 0.5)
    assert_allclose([p, buffer], [[0.95 - 0.1 * 0.7], [0.9 * 0.5 + 0.5 * 0.5]], rtol=1e-15)

    p, g, m, v = one(1.0, 0.5, 0.0, 0.0)
    F.adam_step(p, g, m, v, lr=0.1)  # bias correction makes the first step lr * sign(g)
    assert_allclose([p, m, v], [[0.9], [0.05], [0.00025]], rtol=1e-7)
    p, g, m, v = one(1.0, 0.5, 0.0, 0.0)
    F.adam_step(p, g, m, v, lr=0.1, weight_decay=0.5, decoupled=True)
    assert_allclose(p, [0.95 - 0.1], rtol=1e-7)

    p, g, square = one(1.0, 0.5, 0.0)
    F.rmsprop_step(p, g, square, lr=0.01)
    assert_allclose([p, square], [[1 - 0.01 * 0.5 / 0.05], [0.0025]], rtol=1e-6)

    p, g, total = one(1.0, 0.5, 0.0)
    F.adagrad_step(p, g, total, lr=0.1)
    F.adagrad_step(p, g, total, lr=0.1, lr_decay=1.0, step=2)
    assert_allclose([p, total], [[1 - 0.1 - 0.05 / np.sqrt(2)], [0.5]], rtol=1e-9)


A, B = (np.ones((2, 3), np.float32) for _ in range(2))
FROZEN = A.copy()
FROZEN.flags.writeable = False
BAD = [
    (TypeError, lambda: F.sgd_step(A, B.astype(float), None, 0.1), "param is float32, grad is float64"),
    (TypeError, lambda: F.adagrad_step(A, B, np.ones((2, 3), int)), "state_sum must be float32 or float64, got int64"),
    (TypeError, lambda: F.sgd_step([1.0], B, None, 0.1), "param must be a NumPy array, got list"),
    (ValueError, lambda: F.sgd_step(A, B[:1], None, 0.1), r"grad must have shape \(2, 3\), got \(1, 3\)"),
    (ValueError, lambda: F.sgd_step(A, B, B[0], 0.1), r"momentum_buffer must have shape \(2, 3\).*got \(3,\)"),
    (ValueError, lambda: F.sgd_step(FROZEN, B, None, 0.1), "param must be writable"),
    (ValueError, lambda: F.sgd_step(np.asfortranarray(A), B, None, 0.1), "param must be writable and C-contiguous"),
    (ValueError, lambda: F.sgd_step(A.astype(">f4"), B, None, 0.1),
     "param must have shape .* dtype float32, got .* >f4"),
    (ValueError, lambda: F.sgd_step(A, B, B, 0.1, 0.9, 0.5, 0, True), "nesterov needs.*momentum=0.9, dampening=0.5"),
    (ValueError, lambda: F.adam_step(A, B, B, FROZEN), "v must be writable"),
    (ValueError, lambda: F.adam_step(A, B, A.copy(), B, step=0), "step counts from 1, got 0"),
    (ValueError, lambda: F.adam_step(A, B, A.copy(), B, beta1=1.0), r"must be in \[0, 1\), got 1.0 and 0.999"),
    (ValueError, lambda: F.adagrad_step(A, B, A.copy(), step=0), "step counts from 1, got 0"),
]


@pytest.mark.parametrize(("error", "call", "words"), BAD, ids=[words for _, _, words in BAD])
def test_bad_arguments_are_refused_with_their_numbers(error, call, words):
    with pytest.raises(error, match=words):
        call()
