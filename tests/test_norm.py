"""Batch normalisation: against the oracle, equal bits everywhere, gradients by central differences."""

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import fastconv.functional as F

# Narrow rows are folded (1, 3, 10, 33 channels), wide ones not; several are cut into odd numbers of shards.
SHAPES = [
    (2, 1),
    (7, 3),
    (300, 600),
    (64, 10),
    (2, 17, 5, 3),
    (40, 3, 32, 32),
    (20, 33, 12, 11),
    (11, 100, 8, 8),
    (3, 130, 9, 7),
]
float_types = st.sampled_from([np.float32, np.float64])
shapes = st.one_of(
    st.tuples(st.integers(2, 40), st.integers(1, 70)),
    st.tuples(st.integers(1, 4), st.integers(1, 70), st.integers(1, 5), st.integers(2, 5)),
)


def draw(shape, dtype=np.float32, seed=0):
    """Return x, weight, bias and a gradient.

    Every channel has a mean and a deviation of its own, and both drift along the batch: shards differ.
    """
    rng = np.random.default_rng(seed)
    ones = (1, shape[1]) + (1,) * (len(shape) - 2)
    drift = np.linspace(-2, 2, shape[0]).reshape((-1,) + (1,) * (len(shape) - 1))
    x = rng.normal(size=shape) * rng.uniform(0.5, 2, ones) + rng.uniform(-3, 3, ones) + drift
    weight, bias = rng.normal(size=(2, shape[1]))
    return [a.astype(dtype) for a in (x, weight, bias, rng.normal(size=shape) + drift)]


def run(x, w, b, g):
    """Return everything a training step computes: output, statistics, gradients."""
    c = x.shape[1]
    mean, var, saved = np.zeros(c, w.dtype), np.ones(c, w.dtype), np.empty((2, c), w.dtype)
    y = F.batch_norm(x, mean, var, w, b, training=True, saved=saved)
    return y, mean, var, saved, *F.batch_norm_backward(g, x, w, saved, True)


def error(x, *factors):
    """Bound of the rounding errors of a mean over a channel: longest chain * eps * largest factors.

    However many values, a chain of sums is at most 16384 / 64 rows of a shard, then trees.
    """
    chain = min(x.size // x.shape[1], 256) + 16
    return 4 * chain * np.finfo(x.dtype).eps * np.prod([max(1.0, np.abs(f).max()) for f in factors])


@given(shape=shapes, dtype=float_types, affine=st.booleans(), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_training_matches_the_oracle(shape, dtype, affine, seed):
    x, w, b, g = draw(shape, dtype, seed)
    weight, bias = (w, b) if affine else (None, None)
    m = x.size // shape[1]
    mean, var = (np.linspace(i, i + 1, shape[1]).astype(dtype) for i in range(2))
    saved = np.empty((2, shape[1]), dtype)
    old = mean.copy(), var.copy()
    y = F.batch_norm(x, mean, var, weight, bias, training=True, momentum=0.3, saved=saved)
    dx, dw, db = F.batch_norm_backward(g, x, weight, saved, True, bias=affine)

    axes = (0, *range(2, x.ndim))
    exact = x.astype(np.float64)
    w, b = (w, b) if affine else (np.ones_like(w), np.zeros_like(b))
    batch_mean, batch_var = exact.mean(axes), exact.var(axes)
    invstd = 1 / np.sqrt(batch_var + 1e-5)
    bound = error(x, x, w, invstd)
    assert y.dtype == dtype
    assert_allclose(y, reference.batch_norm(x, None, None, w, b), rtol=0, atol=bound + error(x[:1], b))
    assert_allclose(mean, 0.7 * old[0] + 0.3 * batch_mean, rtol=0, atol=error(x, x))
    assert_allclose(var, 0.7 * old[1] + 0.3 * batch_var * m / (m - 1), rtol=0, atol=error(x, x, x))
    assert_allclose(saved, [batch_mean, invstd], rtol=0, atol=error(x, x, x, invstd, invstd))
    want = reference.batch_norm_backward(g, x, w)
    bound *= np.abs(g).max() * max(1.0, invstd.max())
    assert_allclose(dx, want[0], rtol=0, atol=bound * np.abs(x).max() * max(1.0, invstd.max()))
    if affine:
        assert_allclose(dw, want[1], rtol=0, atol=bound * m * max(1.0, np.abs(x).max()))
        assert_allclose(db, want[2], rtol=0, atol=error(x, g) * m)
    else:
        assert dw is None
        assert db is None


@given(shape=shapes, dtype=float_types, affine=st.booleans(), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_evaluation_is_one_fma_with_the_published_coefficients(shape, dtype, affine, seed):
    x, w, b, g = draw(shape, dtype, seed)
    mean, var = b.copy(), (w * w).astype(dtype)
    w, b = (w, b) if affine else (None, None)
    saved = np.empty((2, shape[1]), dtype)
    y = F.batch_norm(x, mean, var, w, b, eps=0.1, saved=saved)
    scale, shift = F.batch_norm_coefficients(mean, var, w, b, eps=0.1)
    ones = (1, -1) + (1,) * (x.ndim - 2)
    if (
        dtype == np.float32
    ):  # the product of two float32 is exact in float64, the sum is to within 2**-40 of a tie
        exact = x.astype(np.longdouble) * scale.reshape(ones) + shift.reshape(ones)
        assert_array_equal(y, exact.astype(np.float32))
    invstd = 1 / np.sqrt(var + 0.1)
    assert_allclose(saved, [mean, invstd], rtol=4 * np.finfo(dtype).eps)
    want = reference.batch_norm(x, mean, var, 1 if w is None else w, 0 if b is None else b, 0.1)
    assert_allclose(y, want, rtol=0, atol=error(x, x, *([] if w is None else [w]), mean, invstd))
    dx, dw, db = F.batch_norm_backward(g, x, w, saved, False, bias=affine)
    assert_allclose(dx, g * scale.reshape(ones), rtol=4 * np.finfo(dtype).eps, atol=1e-30)
    if affine:
        xhat = reference.batch_norm(x, mean, var, eps=0.1)
        assert_allclose(
            dw, reference._sum_channels(g * xhat), rtol=0, atol=error(x, g, x, mean, invstd) * x.size
        )
        assert_allclose(db, reference._sum_channels(g), rtol=0, atol=error(x, g) * x.size)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_random_data_gives_the_same_bits_on_every_isa_and_thread_count(shape, dtype, every_setting):
    arrays = draw(shape, dtype)
    results = every_setting(lambda: tuple(a.tobytes() for a in run(*arrays)))
    assert len(set(results.values())) == 1
    for name, got in zip(("y", "mean", "var", "saved", "dx", "dw", "db"), run(*arrays), strict=True):
        assert np.isfinite(got).all(), name


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_many_shards_match_the_oracle(shape):
    x, w, b, g = draw(shape)
    y, mean, var, _, dx, dw, db = run(x, w, b, g)
    m = x.size // shape[1]
    axes = (0, *range(2, x.ndim))
    exact = x.astype(np.float64)
    assert_allclose(y, reference.batch_norm(x, None, None, w, b), rtol=0, atol=error(x, x, w))
    assert_allclose(mean, 0.1 * exact.mean(axes), rtol=0, atol=error(x, x))
    assert_allclose(var, 0.9 + 0.1 * exact.var(axes) * m / (m - 1), rtol=0, atol=error(x, x, x))
    if m > 2:  # two values may lie close together, which magnifies every error
        want = reference.batch_norm_backward(g, x, w)
        assert_allclose(dx, want[0], rtol=0, atol=error(x, x, w, g))
        assert_allclose(dw, want[1], rtol=0, atol=error(x, x, g) * m)
        assert_allclose(db, want[2], rtol=0, atol=error(x, g) * m)


def test_sums_of_integers_are_exact(every_setting):
    # 14 shards, the last one short, in a tree with leaves at two depths
    rng = np.random.default_rng(1)
    x, g = (rng.integers(-4, 5, (9, 24, 30, 31)).astype(np.float32) for _ in range(2))
    saved = np.stack([np.arange(24) % 3, np.ones(24)]).astype(np.float32)
    centred = x - saved[0][:, None, None]
    for _, dw, db in every_setting(lambda: F.batch_norm_backward(g, x, saved[1], saved, False)).values():
        assert_array_equal(dw, (g * centred).sum((0, 2, 3)))
        assert_array_equal(db, g.sum((0, 2, 3)))


@pytest.mark.parametrize("shape", [(6, 5, 4, 3), (6, 5)], ids=str)
def test_layout_never_changes_a_result(shape):
    x, w, b, g = draw(shape)
    wide = np.zeros((*shape[:-1], 2 * shape[-1]), x.dtype)
    wide[..., ::2] = x
    frozen = [a.copy() for a in (x, w, b, g)]
    for a in frozen:
        a.flags.writeable = False
    pairs = np.stack([w, b], 1)
    layouts = {
        "Fortran": (np.asfortranarray(x), w, b, np.asfortranarray(g)),
        "strided": (wide[..., ::2], pairs[:, 0], pairs[:, 1], g),
        "reversed": (x[::-1, ::-1].copy()[::-1, ::-1], w[::-1].copy()[::-1], b, g),
        "byte-swapped": (x.astype(">f4"), w.astype(">f4"), b.astype(">f4"), g.astype(">f4")),
        "read-only": frozen,
    }
    if x.ndim == 4:
        layouts["channels last"] = (
            np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
            w,
            b,
            g,
        )
    expected = run(x, w, b, g)
    evaluated = F.batch_norm(x, b, abs(w), w, b)
    for name, arrays in layouts.items():
        xi, wi, bi, gi = arrays
        native = wi.astype(np.float32), bi.astype(np.float32)
        for got, want in zip(run(xi, *native, gi), expected, strict=True):
            assert_array_equal(got, want, err_msg=name)
        assert_array_equal(F.batch_norm(xi, bi, abs(native[0]), wi, bi), evaluated, err_msg=name)


@pytest.mark.gradients
@given(shape=shapes, training=st.booleans(), seed=st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_gradients_match_central_differences(shape, training, seed):
    x, w, b, g = draw(shape, np.float64, seed)
    saved = np.empty((2, shape[1]))
    mean, var = b.copy(), w * w + 0.5
    eps = 0.1  # keeps channels of few values far from a singularity

    def loss(x, w, b):
        # training leaves the running statistics out: it must not depend on them
        running = (None, None) if training else (mean, var)
        return float((F.batch_norm(x, *running, w, b, training, eps=eps, saved=saved) * g).sum())

    loss(x, w, b)
    gradients = F.batch_norm_backward(g, x, w, saved.copy(), training)
    rng = np.random.default_rng(seed)
    for i, (a, gradient) in enumerate(zip((x, w, b), gradients, strict=True)):
        direction = rng.normal(size=a.shape)
        step = 1e-5
        ends = [
            loss(*(a + s * direction if j == i else o for j, o in enumerate((x, w, b))))
            for s in (step, -step)
        ]
        measured = (ends[0] - ends[1]) / (2 * step)
        scale = np.abs(gradient * direction).sum() + np.abs(g).sum()
        # the third derivative times step**2, and rounding over step
        assert abs(measured - (gradient * direction).sum()) <= 1e-7 * scale


@pytest.mark.parametrize("shape", [(1, 3), (1, 3, 1, 1), (0, 3), (0, 3, 4, 4)], ids=str)
def test_training_needs_two_values_per_channel(shape):
    x = np.zeros(shape, np.float32)
    with pytest.raises(ValueError, match=r"more than 1 value per channel, got [01] \(input.shape=\([01], 3"):
        F.batch_norm(x, None, None, training=True)


@pytest.mark.parametrize("shape", [(0, 3), (0, 3, 4, 5)], ids=str)
def test_an_empty_batch_evaluates_to_an_empty_array(shape):
    x, ones = np.zeros(shape, np.float32), np.ones(3, np.float32)
    saved = np.empty((2, 3), np.float32)
    assert F.batch_norm(x, ones, ones, saved=saved).shape == shape
    dx, dw, db = F.batch_norm_backward(x, x, ones, saved, False)
    assert dx.shape == shape
    assert_array_equal(dw, [0, 0, 0])
    assert_array_equal(db, [0, 0, 0])


def test_one_batch_of_equal_values_is_the_bias():
    x = np.full((5, 3, 2, 2), 7.25, np.float32)
    y = F.batch_norm(x, None, None, None, np.array([1, 2, 3], np.float32), training=True, eps=0.25)
    assert_array_equal(y, np.broadcast_to(np.array([1, 2, 3]).reshape(1, 3, 1, 1), x.shape))


def test_momentum_0_keeps_and_1_replaces_the_running_statistics():
    x = np.array([[1.0, 2.0], [3.0, 6.0]], np.float32)
    for momentum, mean_want, var_want in ((0, [5, 5], [9, 9]), (1, [2, 4], [2, 8])):
        mean, var = np.full(2, 5, np.float32), np.full(2, 9, np.float32)
        F.batch_norm(x, mean, var, training=True, momentum=momentum)
        assert_array_equal(mean, mean_want)
        assert_array_equal(var, var_want)


def test_gradients_accumulate_and_buffers_are_used():
    x, w, b, g = draw((6, 5, 4, 3))
    saved = np.empty((2, 5), np.float32)
    out, grad_input = (F.batch_norm(x, b, w * w, w, b) for _ in range(2))
    y = F.batch_norm(x, None, None, w, b, training=True, out=out, saved=saved)
    assert y is out
    assert_array_equal(out, F.batch_norm(x, None, None, w, b, training=True))
    dx, dw, db = F.batch_norm_backward(g, x, w, saved, True)
    total = [np.full(5, 3, np.float32) for _ in range(2)]
    got = F.batch_norm_backward(
        g, x, w, saved, True, grad_input=grad_input, grad_weight=total[0], grad_bias=total[1]
    )
    assert got[0] is grad_input
    assert got[1] is total[0]
    assert_array_equal(grad_input, dx)
    assert_array_equal(total, [3 + dw, 3 + db])
    nothing, dw2, _ = F.batch_norm_backward(g, x, w, saved, True, need_input_grad=False)
    assert nothing is None
    assert_array_equal(dw2, dw)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_go_through_and_stay_in_their_channel(bad, isa):
    x, w, b, _ = draw((4, 20, 3, 3))
    mean, var, w = b.copy(), w * w + 1, abs(w) + 1
    clean = F.batch_norm(x, None, None, w, b, training=True), F.batch_norm(x, mean, var, w, b)
    x[1, 7, 2, 0] = bad
    y = F.batch_norm(x, mean, var, w, b)
    assert_array_equal(y[1, 7, 2, 0], np.float32(bad))
    y[1, 7, 2, 0] = clean[1][1, 7, 2, 0]
    assert_array_equal(y, clean[1])
    y = F.batch_norm(x, mean, var, w, b, training=True)
    assert np.isnan(y[:, 7]).all()
    assert np.isnan(var[7])
    assert not np.isfinite(mean[7])
    others = np.arange(20) != 7
    assert_array_equal(y[:, others], clean[0][:, others])
    assert np.isfinite(mean[others]).all()


def _args(**changes):
    ones = np.ones(3, np.float32)
    args = {"input": np.ones((4, 3, 2, 2), np.float32), "running_mean": ones, "running_var": ones, **changes}
    return lambda: F.batch_norm(**args)


ONES = np.ones(3, np.float32)
X = np.ones((4, 3), np.float32)
FROZEN = np.ones(3, np.float32)
FROZEN.flags.writeable = False
BAD = [
    (TypeError, _args(input=np.ones((4, 3), np.int32)), "input must be float32 or float64, got int32"),
    (TypeError, _args(input=[[1.0]]), "input must be a NumPy array, got list"),
    (TypeError, _args(weight=np.ones(3)), "input is float32.*weight is float64"),
    (ValueError, _args(input=np.ones((4, 3, 2), np.float32)), r"2 or 4 dimensions, got shape \(4, 3, 2\)"),
    (ValueError, _args(input=np.ones((4, 3, 0, 2), np.float32)), r"empty dimension, shape \(4, 3, 0, 2\)"),
    (ValueError, _args(weight=np.ones(4, np.float32)), r"weight must have shape \(3,\).*got \(4,\)"),
    (ValueError, _args(bias=np.ones((1, 3), np.float32)), r"bias must have shape \(3,\).*got \(1, 3\)"),
    (
        ValueError,
        _args(running_var=np.ones(2, np.float32)),
        r"running_var must have shape \(3,\).*got \(2,\)",
    ),
    (
        ValueError,
        _args(training=True, running_mean=np.ones(2, np.float32)),
        r"running_mean.*\(3,\).*got \(2,\)",
    ),
    (ValueError, _args(running_mean=None), "evaluation needs running_mean and running_var"),
    (ValueError, _args(momentum=1.5), r"momentum must be in \[0, 1\], got 1.5"),
    (ValueError, _args(eps=-1.0), "eps must be >= 0, got -1.0"),
    (ValueError, _args(training=True, running_mean=FROZEN), "running_mean must be writable"),
    (ValueError, _args(out=np.ones((4, 3, 2, 2), np.float32)), "out must be a writable NCHW view over NHWC"),
    (ValueError, _args(saved=np.ones((2, 4), np.float32)), r"saved must have shape \(2, 3\)"),
    (
        ValueError,
        lambda: F.batch_norm_backward(X[:2], X, ONES, X[:2], True),
        r"grad_output.*\(4, 3\), got \(2, 3\)",
    ),
    (
        ValueError,
        lambda: F.batch_norm_backward(X, X, ONES, X, True),
        r"saved must have shape \(2, 3\), got \(4, 3\)",
    ),
    (ValueError, lambda: F.batch_norm_coefficients(X, ONES), "running_mean must have 1 dim"),
    (ValueError, lambda: F.batch_norm_coefficients(ONES, ONES[:2]), r"running_var must have shape \(3,\)"),
]


@pytest.mark.parametrize(("error", "call", "words"), BAD, ids=[words for _, _, words in BAD])
def test_bad_arguments_are_refused_with_their_numbers(error, call, words):
    with pytest.raises(error, match=words):
        call()


# --- with ReLU in the same pass


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(5, 3, 4, 3), (2, 17, 3, 3), (40, 64), (3, 130, 2, 2), (700, 40)])
def test_relu_in_the_same_pass_has_the_bits_of_relu_behind(isa, shape, training, dtype):
    rng = np.random.default_rng(0)
    c = shape[1]
    x, g = rng.standard_normal(shape).astype(dtype), rng.standard_normal(shape).astype(dtype)
    w, b, mean = (rng.standard_normal(c).astype(dtype) for _ in range(3))
    var = rng.random(c).astype(dtype) + 1
    if not training:
        x[0, 0] = np.nan

    def run(fused):
        saved, gw, gb = np.empty((2, c), dtype), np.ones(c, dtype), np.ones(c, dtype)
        running = mean.copy(), var.copy()
        y = F.batch_norm(x, *running, w, b, training, activation="relu" if fused else None, saved=saved)
        if fused:
            options = {"output": y, "activation": "relu"}
            behind = g
        else:
            y = F.relu(y)
            options, behind = {}, F.relu_backward(g, y)
        gx, _, _ = F.batch_norm_backward(behind, x, w, saved, training, grad_weight=gw, grad_bias=gb, **options)
        return [y, gx, gw, gb, *running]

    for a, z in zip(run(True), run(False), strict=True):
        np.testing.assert_array_equal(a, z)


def test_relu_in_the_same_pass_needs_the_output_for_its_gradient():
    x = np.ones((4, 2), np.float32)
    with pytest.raises(ValueError, match="activation='relu' needs output="):
        F.batch_norm_backward(x, x, None, np.ones((2, 2), np.float32), True, activation="relu")
    with pytest.raises(ValueError, match=r"activation must be None, one of relu, .*, got 'swash'"):
        F.batch_norm(x, None, None, training=True, activation="swash")


@pytest.mark.parametrize("name", ["running_mean", "running_var"])
def test_statistics_that_are_written_do_not_lie_in_what_is_added(name):
    memory = np.array([-2, 3], np.float32)
    statistics = {"running_mean": np.zeros(1, np.float32), "running_var": np.ones(1, np.float32), name: memory[1:]}
    x = np.array([[-2], [2]], np.float32)
    with pytest.raises(ValueError, match="batch_norm: "):
        F.batch_norm(x, **statistics, training=True, add=memory[:, None])
    assert memory.tolist() == [-2, 3]
