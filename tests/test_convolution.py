"""Convolution and linear: exact on integers, equal bits everywhere, gradients against central differences."""

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from problems import TEST, Problem

import fastconv.functional as F
from fastconv import config

EPS32 = np.finfo(np.float32).eps


@pytest.fixture(autouse=True)
def direct():
    """One chain an output: exact on integers, and with the bounds of such a chain; the other has a file of its own."""
    with config.algorithm("direct"):
        yield


def integers(rng, shape, dtype=np.float32):
    """Small integers: every order of summation is exact."""
    return rng.integers(-4, 5, shape).astype(dtype)


def arrays(problem: Problem, make, dtype=np.float32):
    """Return x, w, b and a gradient of the output."""
    x, w, b = (make(s, dtype) for s in (problem.input_shape, problem.weight_shape, (problem.K,)))
    y = reference.conv2d(x, w, b, *problem.options)
    return x, w, b, make(y.shape, dtype)


def integer_arrays(problem, dtype=np.float32):
    rng = np.random.default_rng(5)
    return arrays(problem, lambda shape, t: integers(rng, shape, t), dtype)


def random_arrays(problem, dtype=np.float32):
    rng = np.random.default_rng(6)
    return arrays(problem, lambda shape, t: rng.standard_normal(shape).astype(t), dtype)


def run(problem, x, w, b, g):
    """Return the output and the three gradients."""
    return F.conv2d(x, w, b, *problem.options), *F.conv2d_backward(g, x, w, *problem.options)


def channels_last(a):
    return np.ascontiguousarray(a.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("problem", TEST, ids=str)
def test_integers_are_exact_on_every_isa_and_thread_count(problem, dtype, every_setting):
    x, w, b, g = integer_arrays(problem, dtype)
    expected = reference.conv2d(x, w, b, *problem.options), *reference.conv2d_backward(g, x, w, *problem.options)
    for setting, results in every_setting(lambda: run(problem, x, w, b, g)).items():
        for name, got, want in zip(("output", "grad_x", "grad_w", "grad_b"), results, expected, strict=True):
            assert got.dtype == dtype
            assert_array_equal(got, want, err_msg=f"{name} with {setting}")


@pytest.mark.parametrize("problem", TEST, ids=str)
def test_random_data_gives_the_same_bits_on_every_isa_and_thread_count(problem, every_setting):
    x, w, b, g = random_arrays(problem)
    results = every_setting(lambda: [a.tobytes() for a in run(problem, x, w, b, g)])
    assert len(set(map(tuple, results.values()))) == 1


@pytest.mark.parametrize("problem", TEST[:12], ids=str)
def test_layout_never_changes_a_result(problem):
    x, w, b, g = random_arrays(problem)
    expected = run(problem, x, w, b, g)
    wide = np.zeros((*x.shape[:3], 2 * x.shape[3]), x.dtype)
    wide[..., ::2] = x
    frozen = x.copy()
    frozen.flags.writeable = False
    layouts = {
        "channels last": (channels_last(x), channels_last(g)),
        "Fortran": (np.asfortranarray(x), np.asfortranarray(g)),
        "strided": (wide[..., ::2], g),
        "reversed": (x[::-1, ::-1].copy()[::-1, ::-1], g),
        "byte-swapped": (x.astype(">f4"), g.astype(">f4")),
        "read-only": (frozen, g),
    }
    for name, (xi, gi) in layouts.items():
        for got, want in zip(run(problem, xi, np.asfortranarray(w), b, gi), expected, strict=True):
            assert_array_equal(got, want, err_msg=name)


@pytest.mark.parametrize("problem", TEST, ids=str)
def test_float32_is_within_the_chain_s_error_of_the_oracle(problem):
    x, w, b, _ = random_arrays(problem)
    got = F.conv2d(x, w, b, *problem.options)
    terms = int(np.prod(problem.weight_shape[1:])) + 1
    bound = 4 * EPS32 * terms * max(1.0, np.abs(x).max() * np.abs(w).max())
    assert_allclose(got, reference.conv2d(x, w, b, *problem.options), rtol=0, atol=bound)


def test_a_shard_boundary_inside_an_image_is_exact():
    # 40 rows x 30 columns x 3 images are 14 shards that end within images and row blocks
    problem = Problem("shards", 3, 2, 3, 40, 30, 3, 3, 1, 1)
    x, w, _, g = integer_arrays(problem)
    expected = reference.conv2d_backward(g, x, w, *problem.options)
    for got, want in zip(F.conv2d_backward(g, x, w, *problem.options), expected, strict=True):
        assert_array_equal(got, want)


def test_windows_of_several_row_blocks_are_exact():
    # an image larger than a window: blocks of rows overlap by the kernel's reach
    problem = Problem("blocks", 1, 8, 4, 150, 64, 5, 3, 1, 2)
    x, w, b, g = integer_arrays(problem)
    expected = reference.conv2d(x, w, b, *problem.options), *reference.conv2d_backward(g, x, w, *problem.options)
    for n in (1, 3):
        with config.threads(n):
            for got, want in zip(run(problem, x, w, b, g), expected, strict=True):
                assert_array_equal(got, want)


@st.composite
def widely_dilated_problems(draw):
    """Draw rows of the filter further apart than the rows of a window, or than the image is high."""
    C, K = draw(st.sampled_from([1, 3, 8, 16])), draw(st.sampled_from([2, 8, 16]))
    groups = draw(st.sampled_from([1, C] if K % C == 0 else [1]))
    R, S = draw(st.integers(2, 4)), draw(st.integers(1, 3))
    dilation = draw(st.tuples(st.integers(2, 70), st.integers(1, 40)))
    padding = tuple((draw(st.integers(0, 2 * d)), draw(st.integers(d // 2, 2 * d))) for d in dilation)
    H = draw(st.integers(max(1, (R - 1) * dilation[0] + 1 - sum(padding[0])), 230))
    W = draw(st.integers(max(1, (S - 1) * dilation[1] + 1 - sum(padding[1])), 90))
    stride = draw(st.tuples(st.integers(1, 3), st.integers(1, 2)))
    N = draw(st.sampled_from([1, 2, 16])) if C * H * W < 10_000 else 1
    return Problem("drawn", N, C, K, H, W, R, S, stride, padding, dilation, groups)


@given(problem=widely_dilated_problems(), seed=st.integers(0, 2**32 - 1), threads=st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_wide_dilations_are_exact(problem, seed, threads):
    rng = np.random.default_rng(seed)
    x, w, b, g = arrays(problem, lambda shape, t: integers(rng, shape, t))
    expected = reference.conv2d(x, w, b, *problem.options), *reference.conv2d_backward(g, x, w, *problem.options)
    for isa in config.available_isas():
        with config.isa(isa), config.threads(threads):
            for got, want in zip(run(problem, x, w, b, g), expected, strict=True):
                assert_array_equal(got, want, err_msg=isa)


@pytest.mark.parametrize("dilation", [1_000, 200_003])
def test_a_long_result_of_few_pixels_is_right(dilation):
    # windows that hold all rows between those of the filter took seconds here, and grew with the square of the length
    rng = np.random.default_rng(8)
    x, w = integers(rng, (1, 4, 1, 12)), integers(rng, (4, 3, 3, 1))
    y = F.conv_transpose2d(x, w, dilation=(dilation, 1))
    rows = np.einsum("cq,ckr->krq", x[0, :, 0], w[..., 0])
    assert y.shape == (1, 3, 2 * dilation + 1, 12)
    assert_array_equal(y[0, :, ::dilation], rows)
    assert np.count_nonzero(y) == np.count_nonzero(rows)
    back = F.conv2d(y, w, dilation=(dilation, 1))
    assert_array_equal(back[0, :, 0], np.einsum("krq,ckr->cq", rows, w[..., 0]))


@pytest.mark.parametrize(("height", "stride"), [(121, 1), (271, 1), (191, 2), (271, 2)])
def test_a_filter_a_channel_over_more_than_caches_hold_is_exact(height, stride):
    # beyond 10 MB it goes row by row, beyond 16 MB rows are fetched ahead, up to the last ones and beside the image
    problem = Problem("far", 2, 37, 37, height, 183, 3, 3, stride, 1, 1, 37)
    x, w, b, g = integer_arrays(problem)
    expected = reference.conv2d(x, w, b, *problem.options), *reference.conv2d_backward(g, x, w, *problem.options)
    for isa in config.available_isas():
        with config.isa(isa), config.threads(2):
            for got, want in zip(run(problem, x, w, b, g), expected, strict=True):
                assert_array_equal(got, want, err_msg=isa)


@st.composite
def drawn_problems(draw):
    groups = draw(st.integers(1, 3))
    C, K = groups * draw(st.integers(1, 3)), groups * draw(st.integers(1, 3))
    R, S = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    stride = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    dilation = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    sides = st.tuples(st.integers(0, 2), st.integers(0, 2))
    padding = draw(st.tuples(sides, sides))
    H = draw(st.integers(max(1, (R - 1) * dilation[0] + 1 - sum(padding[0])), 6))
    W = draw(st.integers(max(1, (S - 1) * dilation[1] + 1 - sum(padding[1])), 6))
    return Problem("drawn", draw(st.integers(1, 2)), C, K, H, W, R, S, stride, padding, dilation, groups)


@given(problem=drawn_problems(), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=80, deadline=None)
def test_drawn_shapes_are_exact(problem, seed):
    rng = np.random.default_rng(seed)
    x, w, b, g = arrays(problem, lambda shape, t: integers(rng, shape, t))
    expected = reference.conv2d(x, w, b, *problem.options), *reference.conv2d_backward(g, x, w, *problem.options)
    for got, want in zip(run(problem, x, w, b, g), expected, strict=True):
        assert_array_equal(got, want)


@pytest.mark.gradients
@given(problem=drawn_problems(), seed=st.integers(0, 2**32 - 1), relu=st.booleans())
@settings(max_examples=40, deadline=None)
def test_gradients_match_central_differences(problem, seed, relu):
    rng = np.random.default_rng(seed)
    x, w, b, g = arrays(problem, lambda shape, t: rng.standard_normal(shape), np.float64)
    activation = "relu" if relu else None

    def f(x, w, b):
        return F.conv2d(x, w, b, *problem.options, activation=activation)

    y = f(x, w, b)
    kink = np.abs(F.conv2d(x, w, b, *problem.options)).min(initial=1.0) < 1e-4
    if relu and kink:  # a difference across the corner of ReLU says nothing
        return
    grads = F.conv2d_backward(g, x, w, *problem.options, output=y, activation=activation)
    scale = 1 + np.abs(g).sum() * max(np.abs(a).max() for a in (x, w, b))
    for i, grad in enumerate(grads):

        def loss(a, i=i):
            args = [x, w, b]
            args[i] = a
            return float((f(*args) * g).sum())

        # the loss is piecewise linear in each argument: what differs is rounding, eps * |loss| / step
        bound = 8 * np.finfo(np.float64).eps * scale * 50 / 1e-6
        assert_allclose(grad, reference.numerical_gradient(loss, (x, w, b)[i]), rtol=0, atol=bound)


@given(problem=drawn_problems(), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_im2col_is_the_matrix_of_the_convolution_and_col2im_its_adjoint(problem, seed):
    rng = np.random.default_rng(seed)
    kernel = problem.R, problem.S
    options = problem.stride, problem.padding, problem.dilation
    x = integers(rng, problem.input_shape)
    columns = F.im2col(x, kernel, *options)
    w = integers(rng, (problem.K, problem.C, *kernel))
    y = F.conv2d(x, w, None, *options)
    assert_array_equal(w.reshape(problem.K, -1) @ columns, y.reshape(*y.shape[:2], -1))
    g = integers(rng, columns.shape)
    image = F.col2im(g, x.shape[2:], kernel, *options)
    assert image.shape == x.shape
    assert float((columns * g).sum()) == float((x * image).sum())


def test_conv1d_is_conv2d_with_one_row():
    rng = np.random.default_rng(0)
    x, w, b = integers(rng, (3, 4, 11)), integers(rng, (6, 2, 3)), integers(rng, (6,))
    options = dict(stride=2, padding=(1, 2), dilation=2, groups=2)
    two = (1, 2), ((0, 0), (1, 2)), (1, 2), 2
    y = F.conv1d(x, w, b, **options)
    assert_array_equal(y, F.conv2d(x[:, :, None], w[:, :, None], b, *two)[:, :, 0])
    g = integers(rng, y.shape)
    got = F.conv1d_backward(g, x, w, **options)
    gx, gw, gb = F.conv2d_backward(g[:, :, None], x[:, :, None], w[:, :, None], *two)
    for a, want in zip(got, (gx[:, :, 0], gw[:, :, 0], gb), strict=True):
        assert_array_equal(a, want)


def test_bias_and_relu_in_one_pass_give_the_bits_of_the_steps_one_by_one():
    rng = np.random.default_rng(1)
    x, w, b = (rng.standard_normal(s).astype(np.float32) for s in ((4, 5, 9, 8), (19, 5, 3, 3), (19,)))
    plain = F.conv2d(x, w, None, 1, 1)
    y = F.conv2d(x, w, b, 1, 1, activation="relu")
    assert_array_equal(y, F.bias_add(plain, b, activation="relu"))
    assert_array_equal(y, np.maximum(plain + b[:, None, None], 0))
    g = rng.standard_normal(y.shape).astype(np.float32)
    got = F.conv2d_backward(g, x, w, 1, 1, output=y, activation="relu")
    masked, gb = F.bias_add_backward(g, output=y, activation="relu")
    assert_array_equal(masked, np.where(y <= 0, 0, g))
    gx, gw, none = F.conv2d_backward(masked, x, w, 1, 1, bias=False)
    assert none is None
    for a, want in zip(got, (gx, gw, gb), strict=True):
        assert_array_equal(a, want)


def test_the_input_gradient_alone_is_the_same():
    problem = TEST[2]
    x, w, _, g = random_arrays(problem)
    gx, _, _ = F.conv2d_backward(g, x, w, *problem.options)
    assert_array_equal(F.conv2d_input_grad(g, x.shape, w, *problem.options), gx)


def test_parameter_gradients_accumulate_and_buffers_are_used():
    problem = TEST[0]
    x, w, b, g = integer_arrays(problem)
    y, gx, gw, gb = run(problem, x, w, b, g)
    out = np.full_like(channels_last(y), 7)
    assert F.conv2d(x, w, b, *problem.options, out=out) is out
    assert_array_equal(out, y)
    into = np.full_like(channels_last(gx), 7), gw.copy(), gb.copy()
    got = F.conv2d_backward(
        g, x, w, *problem.options, grad_input=into[0], grad_weight=into[1], grad_bias=into[2]
    )
    assert all(a is b for a, b in zip(got, into, strict=True))
    assert_array_equal(into[0], gx)
    assert_array_equal(into[1], 2 * gw)
    assert_array_equal(into[2], 2 * gb)
    none, _, _ = F.conv2d_backward(g, x, w, *problem.options, need_input_grad=False)
    assert none is None


def test_nan_and_infinity_go_through():
    x = np.ones((1, 1, 4, 4), np.float32)
    w = np.ones((1, 1, 2, 2), np.float32)
    x[0, 0, 0, 0], x[0, 0, 3, 3] = np.nan, np.inf
    for activation in (None, "relu"):
        y = F.conv2d(x, w, activation=activation)[0, 0]
        assert np.isnan(y[0, 0])
        assert y[2, 2] == np.inf
        assert (np.isfinite(y).sum(), y[1, 1]) == (7, 4)


def test_denormals_are_flushed_inside_and_the_caller_s_state_is_kept():
    tiny = np.float32(1e-40)
    x, w = np.full((1, 1, 1, 1), tiny), np.ones((1, 1, 1, 1), np.float32)
    for name in config.available_isas():
        with config.isa(name):
            assert F.conv2d(x, w).item() == 0
    assert float(tiny * np.float32(1)) > 0


def test_an_empty_batch_gives_empty_results_and_zero_gradients():
    x, w, b = np.zeros((0, 3, 5, 5), np.float32), np.ones((4, 3, 3, 3), np.float32), np.ones(4, np.float32)
    y = F.conv2d(x, w, b)
    assert y.shape == (0, 4, 3, 3)
    gx, gw, gb = F.conv2d_backward(y, x, w)
    assert gx.shape == x.shape
    assert not gw.any()
    assert not gb.any()
    assert F.linear(np.zeros((0, 3), np.float32), np.ones((2, 3), np.float32)).shape == (0, 2)


X, WEIGHT = np.zeros((8, 4, 32, 32), np.float32), np.zeros((16, 3, 3, 3), np.float32)


@pytest.mark.parametrize(
    ("error", "call", "words"),
    [
        (ValueError, lambda: F.conv2d(X, WEIGHT), "weight expects 3 input channels, input has 4"),
        (ValueError, lambda: F.conv2d(X[:, :3], WEIGHT, np.zeros(3, np.float32)), r"bias must have shape \(16,\)"),
        (ValueError, lambda: F.conv2d(X[:, :3, :2], WEIGHT), "kernel of 3x3 .* larger than the padded input of 2x32"),
        (ValueError, lambda: F.conv2d(X[:, :3], WEIGHT, dilation=20), "kernel of 41x41"),
        (ValueError, lambda: F.conv2d(X[:, :3], WEIGHT, stride=0), "stride must be an int >= 1.*got 0"),
        (ValueError, lambda: F.conv2d(X[:, :3], WEIGHT, padding=-1), "padding must be an int >= 0.*got -1"),
        (ValueError, lambda: F.conv2d(X[:, :3], WEIGHT, padding="full"), "'same', 'valid' or numbers, got 'full'"),
        (ValueError, lambda: F.conv2d(X[:, :3], WEIGHT, padding="same", stride=2), "needs stride 1, got"),
        (ValueError, lambda: F.conv2d(X[:, :3], WEIGHT, groups=2), "groups must divide.*groups=2, 3 input"),
        (ValueError, lambda: F.conv2d(X[:, :3], WEIGHT, activation="swash"), "erf, or a tuple .*, got 'swash'"),
        (ValueError, lambda: F.conv2d(X[0], WEIGHT), r"4 dimensions, got shape \(4, 32, 32\)"),
        (ValueError, lambda: F.conv2d(X[:, :0], WEIGHT[:, :0]), "empty dimension"),
        (ValueError, lambda: F.conv2d(X[:, :3], WEIGHT, out=np.zeros((8, 16, 30, 30), np.float32)), "NHWC memory"),
        (ValueError, lambda: F.conv2d_backward(X, X[:, :3], WEIGHT), r"grad_output must have shape \(8, 16, 30, 30\)"),
        (TypeError, lambda: F.conv2d(X[:, :3].astype(int), WEIGHT), "float32 or float64, got int64"),
        (TypeError, lambda: F.conv2d(X[:, :3].astype(float), WEIGHT), "input is float64, weight is float32"),
        (TypeError, lambda: F.conv2d([[1.0]], WEIGHT), "must be a NumPy array, got list"),
        (ValueError, lambda: F.linear(X[0, 0], WEIGHT[0, 0]), "weight expects 3 features, input has 32"),
        (ValueError, lambda: F.bias_add(X, np.zeros(3, np.float32)), r"bias must have shape \(4,\)"),
        (ValueError, lambda: F.conv1d(X[:, :3, 0], WEIGHT[:, :, 0], stride=(1, 2)), r"got \(1, 2\)"),
        (ValueError, lambda: F.col2im(X[0], (4, 4), 3), "not a multiple of the kernel's 3x3"),
    ],
)  # fmt: skip
def test_bad_arguments_are_refused_with_their_numbers(error, call, words):
    with pytest.raises(error, match=words):
        call()


@pytest.mark.parametrize(("n", "d", "k"), [(1, 1, 1), (5, 7, 3), (19, 33, 17), (64, 300, 40), (3, 784, 128)])
def test_linear_is_exact_on_integers(n, d, k, every_setting):
    rng = np.random.default_rng(2)
    x, w, b, g = (integers(rng, s) for s in ((n, d), (k, d), (k,), (n, k)))
    expected = x @ w.T + b, g @ w, g.T @ x, g.sum(0)
    for results in every_setting(lambda: (F.linear(x, w, b), *F.linear_backward(g, x, w))).values():
        for got, want in zip(results, expected, strict=True):
            assert_array_equal(got, want)


@pytest.mark.parametrize("rows", [1, 63, 64, 65, 128, 129, 257, 511, 512])
def test_gradients_of_a_linear_weight_are_added_once_whatever_the_batch(rows, every_setting):
    """A batch of one shard is added to the gradient at once, in one call or in several: whole sums, after the chain."""
    rng = np.random.default_rng(rows)
    d, k = (int(n) for n in rng.integers(1, 150, 2))
    x, w, g = integers(rng, (rows, d)), integers(rng, (k, d)), integers(rng, (rows, k))
    before = rng.standard_normal((k, d), dtype=np.float32)

    def added(into):
        return F.linear_backward(g, x, w, need_input_grad=False, grad_weight=into)[1]

    sums = added(np.zeros_like(before))
    assert_array_equal(sums, g.astype(np.float64).T @ x)
    for got in every_setting(lambda: added(before.copy())).values():
        assert_array_equal(got, before + sums)


@pytest.mark.gradients
@given(st.integers(1, 4), st.integers(1, 6), st.integers(1, 5), st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_linear_gradients_match_central_differences(n, d, k, seed):
    rng = np.random.default_rng(seed)
    args = [rng.standard_normal(s) for s in ((n, d), (k, d), (k,))]
    g = rng.standard_normal((n, k))
    grads = F.linear_backward(g, args[0], args[1])
    bound = 8 * np.finfo(np.float64).eps * (1 + np.abs(g).sum() * 10 * d) / 1e-6
    for i in range(3):

        def loss(a, i=i):
            return float((F.linear(*args[:i], a, *args[i + 1 :]) * g).sum())

        assert_allclose(grads[i], reference.numerical_gradient(loss, args[i]), rtol=0, atol=bound)


def test_bias_gradient_of_a_fused_and_a_separate_bias_agree_to_the_bit(every_setting):
    rng = np.random.default_rng(4)
    x, w = (rng.standard_normal(s).astype(np.float32) for s in ((9, 3, 20, 21), (5, 3, 3, 3)))
    g = rng.standard_normal((9, 5, 18, 19)).astype(np.float32)
    sums = every_setting(
        lambda: (F.conv2d_backward(g, x, w)[2].tobytes(), F.bias_add_backward(g)[1].tobytes())
    )
    assert len({s for pair in sums.values() for s in pair}) == 1
