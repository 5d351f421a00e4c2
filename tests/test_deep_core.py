"""Residual cores: gradients by differences, a plain loop as twin, equal bits on every setting and chunk length."""

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st

from fastconv import config
from fastconv.functional import residual
from fastconv.functional._check import MOST_NUMBERS
from fastconv.functional.residual import (
    ACTIVATIONS,
    ResidualCore,
    from_blocks,
    residual_backward,
    residual_forward,
    to_blocks,
)

WIDTHS = [*range(1, 10), 16, 33]
BATCHES = [1, 2, 5, 15, 16, 17, 19]


def problem(width, layers, batch, activation, dtype, seed=0):
    rng = np.random.default_rng(seed)
    core = ResidualCore(width, layers, 0.3, activation)
    weights = rng.normal(0, 0.5 / np.sqrt(width), (layers, core.row)).astype(dtype)
    h, g = (rng.normal(0, 1, (batch, width)).astype(dtype) for _ in range(2))
    return core, weights, h, g


def step(core, weights, h, g, rate, chunk, separate=False):
    """One step through the kernels: as reference.residual_core."""
    n, state = len(h), to_blocks(h)
    marks = np.empty((-(-len(weights) // chunk), *state.shape), weights.dtype)
    residual_forward(core, weights, state, chunk=chunk, marks=marks)
    before = weights.copy()
    new = np.empty_like(weights) if separate else before
    grad = residual_backward(core, before, to_blocks(g, "zero"), marks, rate, chunk=chunk, updated=new)
    if separate:
        np.testing.assert_array_equal(before, weights)
    return from_blocks(state, n), new, from_blocks(grad, n)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_plain_loop_gives_the_same(activation, dtype):
    layers = 7
    for width in WIDTHS:
        for batch in BATCHES:
            core, weights, h, g = problem(width, layers, batch, activation, dtype)
            got = step(core, weights, h, g, 0.1, chunk=3, separate=True)
            twin = reference.residual_core(
                weights.astype(np.float64), h.astype(np.float64), g.astype(np.float64), 0.3, activation, 0.1
            )
            for a, b in zip(got, twin, strict=True):
                # each layer adds sums of at most width (or batch) terms, each rounded
                bound = 4 * np.finfo(dtype).eps * layers * (width + batch) * np.abs(b).max()
                np.testing.assert_allclose(a, b, rtol=0, atol=bound, err_msg=f"width {width}, batch {batch}")


@pytest.mark.gradients
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients_against_central_differences(activation):
    eps = 1e-6
    for width in WIDTHS:
        for batch in (1, 4, 19):
            core, weights, h, g = problem(width, 3, batch, activation, np.float64, seed=width)

            def value(w, x, core=core, g=g):
                state = residual_forward(core, w, to_blocks(x))
                return float((from_blocks(state, len(x)) * g).sum())

            _, new, grad = step(core, weights, h, g, 1.0, chunk=2)
            rng = np.random.default_rng(width + batch)
            for array, gradient in ((weights, weights - new), (h, grad)):
                for _ in range(6):
                    at = tuple(rng.integers(0, n) for n in array.shape)
                    kept = array[at]
                    array[at] = kept + eps
                    high = value(weights, h)
                    array[at] = kept - eps
                    low = value(weights, h)
                    array[at] = kept
                    assert gradient[at] == pytest.approx((high - low) / (2 * eps), rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_same_bits_on_every_setting_and_chunk_length(activation, dtype):
    for width in (1, 2, 3, 4, 8, 13, 16, 33):
        for batch in (3, 16, 40):
            core, weights, h, g = problem(width, 9, batch, activation, dtype)
            expected = step(core, weights, h, g, 0.1, chunk=9)
            for isa in config.available_isas():
                for chunk in (1, 4):
                    with config.isa(isa):
                        got = step(core, weights, h, g, 0.1, chunk, separate=chunk == 4)
                    for a, b in zip(got, expected, strict=True):
                        np.testing.assert_array_equal(a, b, err_msg=f"width {width}, batch {batch}, {isa}, {chunk}")


@pytest.mark.parametrize(
    ("width", "batch", "layers"),
    [(4, 16, 3000), (4, 64, 400), (2, 33, 2000), (8, 16, 800), (32, 16, 64), (40, 33, 50), (5, 7, 1000)],
)
def test_same_bits_on_any_number_of_threads(width, batch, layers):
    core, weights, h, g = problem(width, layers, batch, "softsign", np.float32)
    core = ResidualCore(width, layers)
    results = []
    for threads in (1, 2, 3, 5):
        for chunk in (layers // 7, layers // 3 + 1):
            with config.threads(threads):
                results.append(step(core, weights, h, g, 0.1, chunk))
    for got in results[1:]:
        for a, b in zip(got, results[0], strict=True):
            np.testing.assert_array_equal(a, b)


@given(width=st.integers(1, 512), layers=st.integers(1, 10**9), samples=st.integers(1, 5000))
def test_a_chunk_is_short_unless_that_takes_much_memory(width, layers, samples):
    layers = min(layers, MOST_NUMBERS // (width * width + width))  # more is refused
    core = ResidualCore(width, layers)
    chunk, state = core.chunk(samples), -(-samples // 16) * 64 * width
    usual = max(16, min(256, (256 << 10) // state))
    weights = 4 * layers * width * (width + 1)
    if chunk > usual:
        assert layers // (chunk // 2) * state > max(64 << 20, weights // 20)
    if -(-layers // chunk) * state > (68 << 20) + weights // 20:  # then longer tapes would take more than they spare
        assert 16 * chunk**2 >= layers
    assert 1 <= chunk <= layers


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_decay_is_that_of_sgd_whatever_the_runs(data):
    """Weights and biases shrink by their own factors, in place or not, over several runs, to the same bits."""
    width, layers = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 40))
    decay = data.draw(st.tuples(*[st.sampled_from([0.0, 0.5, 0.01])] * 2))
    chunk, dtype = data.draw(st.integers(1, layers)), data.draw(st.sampled_from([np.float32, np.float64]))
    core, rng = ResidualCore(width, layers, 0.3), np.random.default_rng(layers)
    weights = rng.normal(0, 0.3, (layers, core.row)).astype(dtype)
    x, grad = (to_blocks(rng.standard_normal((5, width)).astype(dtype), pad) for pad in ("repeat", "zero"))
    marks = np.empty((-(-layers // chunk), *x.shape), dtype)
    residual_forward(core, weights, x.copy(), chunk=chunk, marks=marks)

    def step(target, **decays):
        g = grad.copy()
        before = weights.copy()
        residual_backward(core, before, g, marks, 0.25, chunk=chunk, updated=target, **decays)
        return before if target is None else target, g

    found = []
    for nbytes in (1, 2000, 1 << 20):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(residual, "DECAY_BYTES", nbytes)
            for target in (None, np.empty_like(weights)):
                found.append(step(target, weight_decay=decay[0], bias_decay=decay[1]))
    plain, g = step(np.empty_like(weights))
    factor = np.repeat(np.array(decay, dtype) * dtype(0.25), (width * width, width))
    for new, back in found:
        np.testing.assert_array_equal(new, plain - factor * weights if any(decay) else plain)
        np.testing.assert_array_equal(back, g)
    for name in ("weight_decay", "bias_decay"):
        with pytest.raises(ValueError, match=rf"{name} must be finite and at least 0, got -1"):
            step(None, **{name: -1.0})


def test_padding_contributes_nothing():
    """A sample's state and gradient do not depend on the batch it stands in; weights add up the same."""
    core, weights, h, g = problem(4, 20, 5, "tanh", np.float64)
    whole = step(core, weights, h, g, 0.1, 7)
    for i in range(5):
        one = step(core, weights, h[i : i + 1], g[i : i + 1], 0.1, 7)
        np.testing.assert_array_equal(one[0][0], whole[0][i])
        np.testing.assert_array_equal(one[2][0], whole[2][i])


def test_overflow_in_a_sample_is_not_hidden_and_not_made_up():
    core, weights, h, g = problem(4, 50, 3, "relu", np.float32)
    core = ResidualCore(4, 50, 2.0, "relu")
    weights[:] = np.abs(weights) * 100
    state, new, _ = step(core, weights, np.abs(h), g, 0.1, 10)
    assert not np.isfinite(state).any()
    h[:], g[:] = 0, 0
    weights[:, 16:] = 0
    state, new, _ = step(core, weights, h, g, 0.1, 10)
    np.testing.assert_array_equal(state, 0)
    np.testing.assert_array_equal(new, weights)


def test_errors_hold_the_numbers():
    with pytest.raises(ValueError, match=r"\[1, 512\], got 513"):
        ResidualCore(513, 1)
    with pytest.raises(ValueError, match="at least 1 layer, got 0"):
        ResidualCore(4, 0)
    with pytest.raises(ValueError, match="alpha must be positive and finite, got -1"):
        ResidualCore(4, 1, -1.0)
    with pytest.raises(ValueError, match="softsign, tanh, relu"):
        ResidualCore(4, 1, 1.0, "gelu")
    core = ResidualCore(4, 2)
    with pytest.raises(ValueError, match=r"width 4 must be \(layers, 20\)"):
        residual_forward(core, np.zeros((2, 19), np.float32), np.zeros((1, 4, 16), np.float32))
    with pytest.raises(TypeError, match="weights is float64, h is float32"):
        residual_forward(core, np.zeros((2, 20)), np.zeros((1, 4, 16), np.float32))


def test_against_torch_autograd():
    torch = pytest.importorskip("torch")
    core, weights, h, g = problem(5, 6, 9, "softsign", np.float64)
    w, x = (torch.tensor(a, requires_grad=True) for a in (weights, h))
    y = x
    for row in w:
        y = y + 0.3 * torch.nn.functional.softsign(y @ row[:25].reshape(5, 5) + row[25:])
    y.backward(torch.tensor(g))
    out, new, grad = step(core, weights, h, g, 1.0, 4)
    np.testing.assert_allclose(out, y.detach().numpy(), rtol=1e-12)
    np.testing.assert_allclose(weights - new, w.grad.numpy(), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(grad, x.grad.numpy(), rtol=1e-10)
