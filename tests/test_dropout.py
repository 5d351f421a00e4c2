"""Dropout: the mask is the generator's bits, nothing else; the rest is a product."""

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import fastconv.functional as F
from fastconv import random

shapes = st.one_of(
    st.lists(st.integers(1, 9), min_size=1, max_size=3).map(tuple),
    st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 12), st.integers(1, 12)),
)
KEY = {"seed": 3, "stream": "dropout", "step": 5}


def normal(shape, dtype=np.float32):
    return np.random.default_rng(0).normal(size=shape).astype(dtype)


@given(
    shape=shapes,
    dtype=st.sampled_from([np.float32, np.float64]),
    p=st.floats(0, 1),
    seed=st.integers(0, 2**64 - 1),
    step=st.integers(0, 2**64 - 1),
)
@settings(max_examples=80, deadline=None)
def test_the_mask_is_the_generator_s_bits_in_nchw_order(shape, dtype, p, seed, step):
    x = normal(shape, dtype)
    mask = F.dropout_mask_like(x)
    y = F.dropout(x, p, True, seed=seed, stream="dropout", step=step, mask=mask)
    want = reference.dropout_mask(shape, p, random.generator(seed, "dropout", step))
    assert_array_equal(mask, want)
    scale = dtype(1 / (1 - p) if p < 1 else 0)
    assert y.dtype == dtype
    assert_array_equal(y, np.where(want, x * scale, 0))
    assert_array_equal(F.dropout_backward(x, mask, p), y)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(100_001,), (64, 500), (7, 19, 33, 31)], ids=str)
def test_every_isa_and_thread_count_drops_the_same_elements(shape, dtype, every_setting):
    x = normal(shape, dtype)
    results = every_setting(lambda: F.dropout(x, 0.3, True, **KEY).tobytes())
    assert len(set(results.values())) == 1
    want = reference.dropout_mask(shape, 0.3, random.generator(**KEY))
    assert_array_equal(F.dropout(x, 0.3, True, **KEY), x * (want * dtype(1 / 0.7)))


def test_the_share_of_dropped_elements_is_p():
    n = 1 << 20
    for p in (0.001, 0.1, 0.5, 0.9):
        mask = F.dropout_mask_like(np.empty(n))
        F.dropout(np.ones(n), p, True, **KEY, mask=mask)
        assert abs(1 - mask.mean() - p) < 5 * np.sqrt(p * (1 - p) / n)  # five standard deviations


def test_another_seed_stream_or_step_is_another_mask():
    x = np.ones(256, np.float32)
    keys = [KEY, {**KEY, "seed": 4}, {**KEY, "stream": "other"}, {**KEY, "stream": 7}, {**KEY, "step": 6}]
    outputs = [F.dropout(x, 0.5, True, **key) for key in keys]
    assert len({y.tobytes() for y in outputs}) == len(keys)
    assert_array_equal(outputs[0], F.dropout(x, 0.5, True, **KEY))


def test_layout_never_changes_a_result_and_flatten_commutes():
    x = normal((4, 6, 5, 3))
    want = F.dropout(x, 0.4, True, **KEY)
    wide = np.zeros((4, 6, 5, 6), np.float32)
    wide[..., ::2] = x
    frozen = x.copy()
    frozen.flags.writeable = False
    channels_last = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    for a in (np.asfortranarray(x), wide[..., ::2], x.astype(">f4"), frozen, channels_last):
        assert_array_equal(F.dropout(a, 0.4, True, **KEY), want)
    flat = x.reshape(4, -1)
    assert_array_equal(F.dropout(flat, 0.4, True, **KEY), want.reshape(4, -1))
    mask = F.dropout_mask_like(x)
    F.dropout(x, 0.4, True, **KEY, mask=mask)
    c_order = np.ascontiguousarray(mask)
    for a in (np.asfortranarray(x), x.astype(">f4"), frozen):
        assert_array_equal(F.dropout_backward(a, c_order, 0.4), want)


def test_evaluation_returns_the_input_and_needs_no_mask():
    x = normal((2, 3, 4, 5))
    assert_array_equal(F.dropout(x, 0.5, False, **KEY), x)
    out = F.dropout(x, 0.0, True, **KEY)
    assert F.dropout(-x, 0.5, False, **KEY, out=out) is out
    assert_array_equal(out, -x)


def test_p_0_keeps_and_p_1_drops_everything():
    x = normal((3, 4, 5, 6))
    mask = F.dropout_mask_like(x)
    assert_array_equal(F.dropout(x, 0, True, **KEY, mask=mask), x)
    assert mask.all()
    assert_array_equal(F.dropout(x, 1, True, **KEY, mask=mask), np.zeros_like(x))
    assert not mask.any()
    assert_array_equal(F.dropout_backward(x, mask, 1), np.zeros_like(x))


def test_buffers_are_used():
    x = normal((2, 3, 4, 5))
    out, grad_input = F.dropout(x, 0.5, True, **KEY), F.dropout(x, 0.5, True, **{**KEY, "step": 9})
    mask = F.dropout_mask_like(x)
    assert F.dropout(-x, 0.5, True, **KEY, mask=mask, out=out) is out
    assert F.dropout_backward(-x, mask, 0.5, grad_input=grad_input) is grad_input
    assert_array_equal(out, grad_input)


def test_nan_and_infinity_go_through_even_where_dropped(isa):
    x = normal((50, 4))
    x[:, 1], x[:, 2] = np.nan, np.inf
    y = F.dropout(x, 0.5, True, **KEY)
    kept = reference.dropout_mask(x.shape, 0.5, random.generator(**KEY))
    assert np.isnan(y[:, 1]).all()
    assert_array_equal(np.isinf(y[:, 2]), kept[:, 2])
    assert_array_equal(np.isnan(y[:, 2]), ~kept[:, 2])
    assert np.isfinite(y[:, [0, 3]]).all()


@pytest.mark.parametrize("shape", [(0, 3), (0, 3, 4, 4)], ids=str)
def test_an_empty_batch_stays_empty(shape):
    x = np.zeros(shape, np.float32)
    mask = F.dropout_mask_like(x)
    assert F.dropout(x, 0.5, True, **KEY, mask=mask).shape == shape
    assert F.dropout_backward(x, mask, 0.5).shape == shape


@pytest.mark.gradients
@given(shape=shapes, p=st.floats(0, 0.9), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_the_backward_pass_is_the_adjoint(shape, p, seed):
    # dropout is linear in x for a fixed mask: <D x, g> == <x, D' g> says all about its gradient
    rng = np.random.default_rng(seed)
    x, g = rng.normal(size=shape), rng.normal(size=shape)
    mask = F.dropout_mask_like(x)
    y = F.dropout(x, p, True, seed=seed, stream=1, step=2, mask=mask)
    back = F.dropout_backward(g, mask, p)
    bound = 4 * np.finfo(float).eps * x.size * np.abs(y * g).max()
    assert abs((y * g).sum() - (x * back).sum()) <= bound


X = np.ones((2, 3), np.float32)
BAD = [
    (TypeError, lambda: F.dropout(np.ones(3, np.int64), 0.5, True, **KEY),
     "input must be float32 or float64, got int64"),
    (ValueError, lambda: F.dropout(X, -0.1, True, **KEY), r"p must be in \[0, 1\], got -0.1"),
    (ValueError, lambda: F.dropout(X, float("nan"), True, **KEY), r"p must be in \[0, 1\], got nan"),
    (ValueError, lambda: F.dropout(X, 0.5, True, seed=-1, stream=0, step=0), "seed must be in"),
    (ValueError, lambda: F.dropout(X, 0.5, True, **KEY, mask=X), "mask must have shape .* uint8, got .* float32"),
    (ValueError, lambda: F.dropout(X, 0.5, True, **KEY, out=X.T), r"out must have shape \(2, 3\).*got \(3, 2\)"),
    (ValueError, lambda: F.dropout_backward(X, X, 0.5), "mask must have .* uint8, got .* float32"),
    (ValueError, lambda: F.dropout_backward(X, np.ones(3, np.uint8), 0.5),
     r"mask must have shape \(2, 3\).*got \(3,\)"),
    (ValueError, lambda: F.dropout_backward(X, np.ones((2, 3), np.uint8), 2), r"p must be in \[0, 1\], got 2"),
]


@pytest.mark.parametrize(("error", "call", "words"), BAD, ids=[words for _, _, words in BAD])
def test_bad_arguments_are_refused_with_their_numbers(error, call, words):
    with pytest.raises(error, match=words):
        call()
