"""Pooling: equal to the oracle bit by bit, equal bits everywhere, gradients against central differences."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import fastconv.functional as F
from fastconv import config


@dataclass(frozen=True)
class Pool:
    """One pooling: shape (N, C, H, W) and the window."""

    name: str
    shape: tuple[int, int, int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[Any, Any] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    ceil_mode: bool = False

    @property
    def window(self) -> tuple[Any, ...]:
        """What max pooling takes."""
        return self.kernel, self.stride, self.padding, self.dilation, self.ceil_mode

    def averaged(self, include) -> tuple[Any, ...]:
        """What mean pooling takes."""
        return self.kernel, self.stride, self.padding, self.ceil_mode, include, self.dilation

    def axes(self):
        return [
            reference.pool_axis(
                self.shape[2 + i], self.kernel[i], self.stride[i], self.padding[i], self.dilation[i], self.ceil_mode
            )
            for i in (0, 1)
        ]

    def __str__(self) -> str:
        return self.name


POOLS = [
    Pool("2x2, 1 channel", (3, 1, 6, 8), (2, 2), (2, 2)),
    Pool("2x2, 6 channels", (3, 6, 8, 10), (2, 2), (2, 2)),
    Pool("2x2, 8 channels", (2, 8, 8, 6), (2, 2), (2, 2)),
    Pool("2x2, 16 channels, odd sides", (2, 16, 7, 9), (2, 2), (2, 2)),
    Pool("2x2, 17 channels, odd sides, ceil", (2, 17, 7, 9), (2, 2), (2, 2), ceil_mode=True),
    Pool("2x2, 33 channels", (1, 33, 4, 6), (2, 2), (2, 2)),
    Pool("2x2 every pixel", (2, 6, 5, 6), (2, 2), (1, 1)),
    Pool("2x2 with gaps", (2, 7, 9, 8), (2, 2), (3, 3)),
    Pool("3x3/2 padded", (2, 64, 9, 8), (3, 3), (2, 2), (1, 1)),
    Pool("3x3/2 padded, 5 channels, ceil", (2, 5, 8, 8), (3, 3), (2, 2), (1, 1), ceil_mode=True),
    Pool("3x3/1", (2, 19, 6, 5), (3, 3), (1, 1), (1, 1)),
    Pool("3x3/3 padded: tiles cut by the border", (2, 6, 8, 7), (3, 3), (3, 3), (1, 1)),
    Pool("mixed", (2, 9, 11, 13), (3, 4), (2, 3), (1, 2)),
    Pool("rows overlap, columns have gaps", (2, 5, 9, 11), (3, 1), (2, 3)),
    Pool("dilated", (2, 6, 11, 12), (3, 2), (1, 2), (2, 1), (2, 3)),
    Pool("dilated, starts of padded windows not ascending", (1, 8, 9, 9), (3, 3), (1, 1), (2, 2), (2, 2)),
    Pool("padding above half the kernel", (2, 5, 6, 7), (3, 2), (1, 1), (2, 1)),
    Pool("asymmetric", (2, 17, 7, 6), (3, 3), (2, 2), ((0, 1), (2, 0))),
    Pool("asymmetric, ceil", (2, 6, 8, 7), (3, 4), (2, 3), ((2, 0), (1, 3)), ceil_mode=True),
    Pool("asymmetric, dilated", (1, 9, 9, 8), (3, 2), (1, 2), ((1, 4), (0, 2)), (2, 3)),
    Pool("1x1", (2, 6, 4, 5), (1, 1), (1, 1)),
    Pool("1x1/2", (2, 6, 5, 5), (1, 1), (2, 2)),
    Pool("whole image", (2, 70, 5, 7), (5, 7), (5, 7)),
    Pool("255 taps", (1, 3, 18, 16), (17, 15), (1, 1)),
    Pool("256 taps", (1, 3, 18, 17), (16, 16), (1, 1)),
    Pool("wide tiles of 400 taps", (1, 4, 20, 41), (20, 20), (20, 20)),
]

# Enough rows for several blocks, too few images for the threads: channels are cut as well.
LARGE = [
    Pool("many rows", (1, 24, 150, 40), (3, 3), (2, 2), (1, 1)),
    Pool("many tiles", (1, 6, 400, 30), (2, 2), (2, 2)),
    Pool("many channels", (1, 200, 8, 8), (8, 8), (8, 8)),
    Pool("many channels, overlapping", (1, 150, 30, 30), (3, 3), (2, 2)),
    Pool("many channels, three rows", (1, 150, 3, 30), (3, 3), (2, 2)),
]


def integers(rng, shape, dtype):
    return rng.integers(-4, 5, shape).astype(dtype)


def normals(rng, shape, dtype):
    return rng.standard_normal(shape).astype(dtype)


def channels_last(a):
    return np.ascontiguousarray(a.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


def run_max(pool, x, g):
    """Return maxima, positions, indices and the input gradient."""
    argmax = F.max_pool2d_argmax_like(x, *pool.window)
    y, indices = F.max_pool2d(x, *pool.window, return_indices=True, argmax=argmax)
    assert_array_equal(F.max_pool2d(x, *pool.window), y)
    return y, argmax, indices, F.max_pool2d_backward(g, argmax, x.shape, *pool.window)


def expect_max(pool, x, g):
    rows, cols = pool.axes()
    y, position, index = reference.max_pool2d(x, rows, cols, pool.kernel[1])
    return y, position, index, reference.max_pool2d_backward(g, position, x.shape, rows, cols, pool.kernel[1])


def run_avg(pool, x, g, include):
    window = pool.averaged(include)
    return F.avg_pool2d(x, *window), F.avg_pool2d_backward(g, x.shape, *window)


def expect_avg(pool, x, g, include):
    axes = pool.axes()
    return reference.avg_pool2d(x, *axes, include), reference.avg_pool2d_backward(g, x.shape, *axes, include)


def check(got, want, **more):
    for a, b in zip(got, want, strict=True):
        assert_array_equal(a, b, **more)


def max_arrays(pool, make=normals, dtype=np.float32):
    rng = np.random.default_rng(1)
    return make(rng, pool.shape, dtype), make(rng, F.pool2d_output_shape(pool.shape, *pool.window), dtype)


def avg_arrays(pool, make=normals, dtype=np.float32):
    rng = np.random.default_rng(2)
    shape = F.pool2d_output_shape(pool.shape, *pool.window)
    return make(rng, pool.shape, dtype), make(rng, shape, dtype)


@pytest.mark.parametrize("make", [integers, normals])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("pool", POOLS, ids=str)
def test_max_pooling_is_the_oracle_on_every_isa_and_thread_count(pool, dtype, make, every_setting):
    x, g = max_arrays(pool, make, dtype)
    expected = expect_max(pool, x, g)
    for setting, results in every_setting(lambda: run_max(pool, x, g)).items():
        check(results, expected, err_msg=str(setting))
        assert [a.dtype for a in results[::3]] == [dtype, dtype]


@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("pool", POOLS, ids=str)
def test_mean_pooling_is_the_oracle_on_every_isa_and_thread_count(pool, dtype, include, every_setting):
    x, g = avg_arrays(pool, normals, dtype)
    expected = expect_avg(pool, x, g, include)
    for setting, results in every_setting(lambda: run_avg(pool, x, g, include)).items():
        check(results, expected, err_msg=str(setting))
        assert [a.dtype for a in results] == [dtype, dtype]


@pytest.mark.parametrize("pool", LARGE, ids=str)
def test_blocks_and_parts_change_no_bit(pool, every_setting):
    x, g = max_arrays(pool)
    wanted = [a.tobytes() for a in (*expect_max(pool, x, g)[::3], *expect_avg(pool, x, g, True))]
    results = every_setting(lambda: (*run_max(pool, x, g)[::3], *run_avg(pool, x, g, True)))
    for setting, got in results.items():
        assert [a.tobytes() for a in got] == wanted, setting


@pytest.mark.parametrize("size", [(1, 1), (3, 3), (4, 7), (9, 8), (12, 3), (2, 9)])
def test_adaptive_pooling_is_the_oracle(size, every_setting):
    rng = np.random.default_rng(3)
    x, g = normals(rng, (2, 19, 9, 8), np.float32), normals(rng, (2, 19, *size), np.float32)
    axes = reference.adaptive_axis(9, size[0]), reference.adaptive_axis(8, size[1])
    expected = reference.avg_pool2d(x, *axes), reference.avg_pool2d_backward(g, x.shape, *axes)
    results = every_setting(lambda: (F.adaptive_avg_pool2d(x, size), F.adaptive_avg_pool2d_backward(g, x.shape)))
    for got in results.values():
        check(got, expected)


def test_global_pooling_is_adaptive_pooling_to_one_pixel(every_setting):
    rng = np.random.default_rng(4)
    x, g = normals(rng, (3, 130, 7, 5), np.float32), normals(rng, (3, 130, 1, 1), np.float32)
    expected = F.adaptive_avg_pool2d(x, 1), F.adaptive_avg_pool2d_backward(g, x.shape)
    results = every_setting(lambda: (F.global_avg_pool2d(x), F.global_avg_pool2d_backward(g, x.shape)))
    for got in results.values():
        check(got, expected)


def test_adaptive_sizes_may_be_left_out():
    x = normals(np.random.default_rng(5), (1, 2, 4, 6), np.float64)
    assert_array_equal(F.adaptive_avg_pool2d(x, (None, 3)), F.avg_pool2d(x, (1, 2)))
    assert_array_equal(F.adaptive_avg_pool2d(x, [2, None]), F.avg_pool2d(x, (2, 1)))
    assert_array_equal(F.adaptive_avg_pool2d(x, None), x)


@pytest.mark.parametrize("pool", POOLS[:14:3], ids=str)
def test_layout_never_changes_a_result(pool):
    x, g = max_arrays(pool)
    expected = run_max(pool, x, g)
    mean_g = avg_arrays(pool)[1]
    expected_mean = run_avg(pool, x, mean_g, True)
    wide = np.zeros((*x.shape[:3], 2 * x.shape[3]), x.dtype)
    wide[..., ::2] = x
    frozen = x.copy()
    frozen.flags.writeable = False
    layouts = {
        "channels last": channels_last,
        "Fortran": np.asfortranarray,
        "reversed": lambda a: a[::-1, ::-1].copy()[::-1, ::-1],
        "byte-swapped": lambda a: a.astype(">f4"),
        "strided": lambda a: wide[..., ::2] if a is x else a,
        "read-only": lambda a: frozen if a is x else a,
    }
    for name, layout in layouts.items():
        check(run_max(pool, layout(x), layout(g)), expected, err_msg=name)
        check(run_avg(pool, layout(x), layout(mean_g), True), expected_mean, err_msg=name)
    argmax = np.ascontiguousarray(expected[1])
    assert_array_equal(F.max_pool2d_backward(g, argmax, x.shape, *pool.window), expected[3])


# --- drawn shapes -----------------------------------------------------------------------------------------


@st.composite
def drawn_pools(draw):
    kernel, stride, padding, dilation, size = [], [], [], [], []
    for _ in range(2):
        k, d = draw(st.integers(1, 4)), draw(st.integers(1, 2))
        reach = d * (k - 1) + 1
        p = draw(st.tuples(st.integers(0, reach - 1), st.integers(0, reach - 1)))
        kernel.append(k)
        dilation.append(d)
        padding.append(p)
        stride.append(draw(st.integers(1, 4)))
        size.append(draw(st.integers(max(1, reach - sum(p)), 9)))
    channels = draw(st.sampled_from([1, 2, 3, 6, 8, 9, 17]))
    pool = Pool("drawn", (draw(st.integers(1, 2)), channels, *size), *map(tuple, (kernel, stride, padding, dilation)),
                draw(st.booleans()))  # fmt: skip
    return pool


def valid(pool):
    """Return whether every window sees the image: dilated taps may step over it."""
    return all(taps for axis in pool.axes() for taps, _ in axis)


SPECIAL = np.array([np.nan, np.inf, -np.inf, -0.0, 0.0, 1.0, -1.0], np.float32)


@given(pool=drawn_pools(), seed=st.integers(0, 2**32 - 1), special=st.booleans())
@settings(max_examples=150, deadline=None)
def test_drawn_max_pools_are_the_oracle(pool, seed, special):
    if not valid(pool):
        with pytest.raises(ValueError, match="sees only padding"):
            F.pool2d_output_shape(pool.shape, *pool.window)
        return
    rng = np.random.default_rng(seed)
    x = rng.choice(SPECIAL, pool.shape) if special else normals(rng, pool.shape, np.float32)
    g = normals(rng, F.pool2d_output_shape(pool.shape, *pool.window), np.float32)
    got, want = run_max(pool, x, g), expect_max(pool, x, g)
    check(got, want)
    assert_array_equal(np.signbit(got[0]), np.signbit(want[0]))  # -0 and +0 are equal: the first counts
    flat = np.take_along_axis(x.reshape(*x.shape[:2], -1), got[2].reshape(*x.shape[:2], -1), 2)
    assert_array_equal(flat.reshape(got[0].shape), got[0])


@given(pool=drawn_pools(), seed=st.integers(0, 2**32 - 1), include=st.booleans())
@settings(max_examples=150, deadline=None)
def test_drawn_mean_pools_are_the_oracle(pool, seed, include):
    if not valid(pool):
        with pytest.raises(ValueError, match="sees only padding"):
            F.avg_pool2d(np.zeros(pool.shape), *pool.averaged(include))
        return
    rng = np.random.default_rng(seed)
    x = normals(rng, pool.shape, np.float32)
    g = normals(rng, F.pool2d_output_shape(pool.shape, *pool.window), np.float32)
    check(run_avg(pool, x, g, include), expect_avg(pool, x, g, include))


@pytest.mark.gradients
@given(pool=drawn_pools(), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_max_pooling_gradients_match_central_differences(pool, seed):
    if not valid(pool):
        return
    rng = np.random.default_rng(seed)
    x = rng.permutation(int(np.prod(pool.shape))).reshape(pool.shape) / 8.0  # no two within a step of each other
    g = normals(rng, F.pool2d_output_shape(pool.shape, *pool.window), np.float64)
    numerical = reference.numerical_gradient(lambda a: float((F.max_pool2d(a, *pool.window) * g).sum()), x)
    bound = 8 * np.finfo(np.float64).eps * (1 + np.abs(g).sum() * x.max()) / 1e-6
    assert_allclose(run_max(pool, x, g)[3], numerical, rtol=0, atol=bound)


@pytest.mark.gradients
@given(pool=drawn_pools(), seed=st.integers(0, 2**32 - 1), include=st.booleans())
@settings(max_examples=40, deadline=None)
def test_mean_pooling_gradients_match_central_differences(pool, seed, include):
    if not valid(pool):
        return
    rng = np.random.default_rng(seed)
    x = normals(rng, pool.shape, np.float64)
    g = normals(rng, F.pool2d_output_shape(pool.shape, *pool.window), np.float64)
    numerical = reference.numerical_gradient(lambda a: float((F.avg_pool2d(a, *pool.averaged(include)) * g).sum()), x)
    bound = 8 * np.finfo(np.float64).eps * (1 + np.abs(g).sum() * np.abs(x).max()) / 1e-6
    assert_allclose(run_avg(pool, x, g, include)[1], numerical, rtol=0, atol=bound)


@pytest.mark.gradients
@given(st.tuples(*[st.integers(1, 7)] * 4), st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_adaptive_pooling_gradients_match_central_differences(sizes, seed):
    rng = np.random.default_rng(seed)
    x, g = normals(rng, (2, 3, *sizes[:2]), np.float64), normals(rng, (2, 3, *sizes[2:]), np.float64)
    numerical = reference.numerical_gradient(lambda a: float((F.adaptive_avg_pool2d(a, sizes[2:]) * g).sum()), x)
    bound = 8 * np.finfo(np.float64).eps * (1 + np.abs(g).sum() * np.abs(x).max()) / 1e-6
    assert_allclose(F.adaptive_avg_pool2d_backward(g, x.shape), numerical, rtol=0, atol=bound)


# --- special values ---------------------------------------------------------------------------------------


def windows_of(*values):
    """Return one 2x2 window a channel."""
    return np.array(values, np.float32).reshape(1, -1, 2, 2)


def test_ties_nan_and_infinities_pick_the_first(isa):
    nan, inf = np.nan, np.inf
    x = windows_of(
        [1, 5, 5, 2], [3, 3, 3, 3], [1, nan, 7, nan], [nan, 9, nan, 1], [inf, nan, inf, inf],
        [-inf, -inf, -inf, -inf], [-inf, -inf, -inf, -5], [nan, nan, nan, nan], [0, -0.0, 0, 0],
    )  # fmt: skip
    y, indices = F.max_pool2d(x, 2, return_indices=True)
    assert_array_equal(indices.ravel(), [1, 0, 1, 0, 1, 0, 3, 0, 0])
    assert_array_equal(y.ravel(), [5, 3, nan, nan, nan, -inf, -5, nan, 0])
    assert_array_equal(F.max_pool2d(x, 2), y)


def test_gradients_go_to_the_maximum_alone_whatever_they_are(isa):
    x = windows_of([1, 5, 2, 3], [9, 1, 1, 1])
    argmax = F.max_pool2d_argmax_like(x, 2)
    F.max_pool2d(x, 2, argmax=argmax)
    g = np.array([np.nan, np.inf], np.float32).reshape(1, 2, 1, 1)
    got = F.max_pool2d_backward(g, argmax, x.shape, 2)
    assert_array_equal(got, windows_of([0, np.nan, 0, 0], [np.inf, 0, 0, 0]))


def test_foreign_positions_write_nowhere_else(isa):
    # a position that no tap has lands on no element
    x = np.zeros((1, 3, 4, 4), np.float32)
    argmax = F.max_pool2d_argmax_like(x, 2, 1)
    argmax[...] = 200
    assert not F.max_pool2d_backward(np.ones(argmax.shape, np.float32), argmax, x.shape, 2, 1).any()


def test_means_of_nan_and_infinity(isa):
    x = windows_of([1, np.nan, 2, 3], [np.inf, 1, 1, 1], [np.inf, -np.inf, 0, 0])
    with np.errstate(invalid="ignore"):
        assert_array_equal(F.avg_pool2d(x, 2).ravel(), [np.nan, np.inf, np.nan])


def test_the_mean_divides():
    # 1 / 49 rounds: multiplying by it would give 6.9999995
    x = np.full((1, 1, 7, 7), 7, np.float32)
    assert F.avg_pool2d(x, 7).item() == 7
    x = np.float32([[[[1, 1, 1]]]]) / 3
    assert F.avg_pool2d(x, (1, 3)).item() == np.float32(x[0, 0, 0].sum(dtype=np.float32)) / np.float32(3)


# --- PyTorch's rules --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "window", "outputs"),
    [
        (5, (2, 2, 0, 1, False), 2),
        (5, (2, 2, 0, 1, True), 3),
        (5, (2, 3, 0, 1, True), 2),
        (6, (2, 4, 0, 1, True), 2),
        (4, (2, 4, 0, 1, True), 1),  # a second window would start behind the image
        (4, (3, 2, 1, 1, True), 3),
        (2, (3, 2, 0, 1, True), 1),  # in ceil mode the kernel may stand out
        (7, (3, 2, 2, 2, False), 4),
    ],
)
def test_output_sizes(size, window, outputs):
    assert F.pool2d_output_shape((2, 3, size, size), *window) == (2, 3, outputs, outputs)
    y = F.max_pool2d(np.zeros((2, 3, size, size), np.float32), *window)
    assert y.shape == (2, 3, outputs, outputs)


def test_divisors():
    ones = np.ones((1, 1, 4, 4))
    # 3/2 with padding 1 in ceil mode: the last window begins at 3 and ends at 5 (padded size), not 6
    assert_array_equal(F.avg_pool2d(ones, 3, 2, 1, True)[0, 0, 0] * 3, np.array([2, 3, 1.5]) * 2 / 3)
    assert_array_equal(F.avg_pool2d(ones, 3, 2, 1, True, False), np.ones((1, 1, 3, 3)))


def test_results_lie_in_channels_last_memory_and_out_is_used():
    x = np.ones((2, 6, 8, 8), np.float32)
    y = F.max_pool2d(x, 2)
    assert y.transpose(0, 2, 3, 1).flags.c_contiguous
    assert F.max_pool2d(x, 2, out=y) is y
    assert F.avg_pool2d(x, 2, out=y) is y
    assert F.adaptive_avg_pool2d(x, 4, out=y) is y
    gx = channels_last(x)
    argmax = F.max_pool2d_argmax_like(x, 2)
    F.max_pool2d(x, 2, argmax=argmax)
    assert F.max_pool2d_backward(y, argmax, x.shape, 2, grad_input=gx) is gx
    assert F.avg_pool2d_backward(y, x.shape, 2, grad_input=gx) is gx
    assert F.adaptive_avg_pool2d_backward(y, x.shape, grad_input=gx) is gx
    assert gx.sum() == y.sum()


@pytest.mark.parametrize("pool", POOLS, ids=str)
def test_gradients_overwrite_every_element(pool):
    # windows may leave gaps and borders: nothing of the old content may stay
    x, g = max_arrays(pool)
    _, argmax, _, expected = run_max(pool, x, g)
    dirty = np.full_like(channels_last(x), np.nan)
    assert_array_equal(F.max_pool2d_backward(g, argmax, x.shape, *pool.window, grad_input=dirty), expected)
    dirty[...] = np.nan
    assert not np.isnan(F.avg_pool2d_backward(g, x.shape, *pool.averaged(True), grad_input=dirty)).any()


def test_nothing_is_written_outside_the_result(isa):
    # spilling vectors must end with the last pixel: guards of NaN around the buffers stay
    for channels in (1, 3, 6, 17):
        for window in ((2, 2), (3, 2, 1), (3, 1)):
            x = normals(np.random.default_rng(6), (1, channels, 7, 7), np.float32)
            argmax = F.max_pool2d_argmax_like(x, *window)
            shape = argmax.shape

            def guarded(shape):
                n, c, h, w = shape
                buffer = np.full(n * c * h * w + 128, np.nan, np.float32)
                return buffer, buffer[64:-64].reshape(n, h, w, c).transpose(0, 3, 1, 2)

            buffer, y = guarded(shape)
            F.max_pool2d(x, *window, out=y, argmax=argmax)
            F.avg_pool2d(x, *window, out=y)
            other, gx = guarded(x.shape)
            F.max_pool2d_backward(y, argmax, x.shape, *window, grad_input=gx)
            F.avg_pool2d_backward(y, x.shape, *window, grad_input=gx)
            for b in (buffer, other):
                assert np.isnan(b[:64]).all()
                assert np.isnan(b[-64:]).all()
                assert not np.isnan(b[64:-64]).any()


def test_the_batch_may_be_empty():
    x = np.zeros((0, 3, 6, 6), np.float32)
    argmax = F.max_pool2d_argmax_like(x, 2)
    y, indices = F.max_pool2d(x, 2, return_indices=True)
    assert y.shape == indices.shape == F.avg_pool2d(x, 2).shape == (0, 3, 3, 3)
    assert F.max_pool2d_backward(y, argmax, x.shape, 2).shape == x.shape
    assert F.avg_pool2d_backward(y, x.shape, 2).shape == x.shape
    assert F.global_avg_pool2d_backward(F.global_avg_pool2d(x), x.shape).shape == x.shape


def test_positions_are_compact():
    x = np.zeros((1, 1, 20, 20), np.float32)
    assert F.max_pool2d_argmax_like(x, (15, 17)).dtype == np.uint8
    assert F.max_pool2d_argmax_like(x, 16).dtype == np.int32


X = np.zeros((2, 3, 8, 6), np.float32)
ARGMAX = np.zeros((2, 3, 4, 3), np.uint8)
G = np.zeros((2, 3, 4, 3), np.float32)


@pytest.mark.parametrize(
    ("error", "call", "message"),
    [
        (ValueError, lambda: F.max_pool2d(X, 9), "kernel of height 9 .* larger than the padded input of height 8"),
        (ValueError, lambda: F.max_pool2d(X, (2, 4), dilation=3), "kernel of width 10 .* padded input of width 6"),
        (ValueError, lambda: F.avg_pool2d(X, 3, padding=3), "smaller than the kernel, got 3 for height 3"),
        (ValueError, lambda: F.max_pool2d(X, 2, padding=((0, 1), (0, 2))), r"kernel, got 2 for width 2 .*=\(0, 2\)"),
        (ValueError, lambda: F.max_pool2d(X[:, :, :3], 2, 1, 1, 4), "window 0 of height 3 sees only padding"),
        (ValueError, lambda: F.max_pool2d(X, 0), "kernel_size must be an int >= 1.*got 0"),
        (ValueError, lambda: F.max_pool2d(X, 2.0), "kernel_size must be an int >= 1.*got 2.0"),
        (ValueError, lambda: F.max_pool2d(X, (2, 2, 2)), r"kernel_size must .*got \(2, 2, 2\)"),
        (ValueError, lambda: F.max_pool2d(X, 2, stride=0), "stride must be an int >= 1.*got 0"),
        (ValueError, lambda: F.avg_pool2d(X, 2, padding=-1), "padding must be an int >= 0.*got -1"),
        (ValueError, lambda: F.max_pool2d(X, 2, dilation=0), "dilation must be an int >= 1.*got 0"),
        (ValueError, lambda: F.max_pool2d(X[0], 2), r"4 dimensions, got shape \(3, 8, 6\)"),
        (ValueError, lambda: F.avg_pool2d(X[:, :0], 2), r"empty dimension, shape \(2, 0, 8, 6\)"),
        (ValueError, lambda: F.adaptive_avg_pool2d(X, 0), "output_size must be an int >= 1"),
        (ValueError, lambda: F.adaptive_avg_pool2d(X, (1, 2, 3)), "output_size must be"),
        (ValueError, lambda: F.max_pool2d(X, 2, out=G[:1]), r"out must have shape \(2, 3, 4, 3\)"),
        (ValueError, lambda: F.max_pool2d(X, 2, out=G), "out must be .*NHWC memory"),
        (ValueError, lambda: F.max_pool2d(X, 2, argmax=ARGMAX.astype(int)), "argmax must have .*uint8, got .*int64"),
        (ValueError, lambda: F.max_pool2d_backward(G[:1], ARGMAX, X.shape, 2), r"grad_output must have shape \(2, 3"),
        (ValueError, lambda: F.max_pool2d_backward(G, ARGMAX[:1], X.shape, 2), r"argmax must have shape \(2, 3"),
        (TypeError, lambda: F.max_pool2d_backward(G, ARGMAX.astype(np.int64), X.shape, 2), "argmax must be uint8"),
        (
            ValueError,
            lambda: F.avg_pool2d_backward(G, X.shape[1:], 2),
            r"input_shape must be .*got \(3, 8, 6\)",
        ),
        (ValueError, lambda: F.global_avg_pool2d_backward(G, X.shape), r"grad_output must have shape \(2, 3, 1, 1\)"),
        (TypeError, lambda: F.max_pool2d(X.astype(int), 2), "float32 or float64, got int64"),
        (TypeError, lambda: F.avg_pool2d(X.tolist(), 2), "must be a NumPy array, got list"),
    ],
)
def test_wrong_arguments_are_refused_with_their_numbers(error, call, message):
    with pytest.raises(error, match=message):
        call()


def test_pooling_runs_the_same_on_threads_that_share_one_geometry():
    # one cached description serves all calls at once
    from concurrent.futures import ThreadPoolExecutor

    pool = POOLS[8]
    x, g = max_arrays(pool)
    expected = run_max(pool, x, g)
    with config.threads(1), ThreadPoolExecutor(4) as threads:
        for got in threads.map(lambda _: run_max(pool, x, g), range(16)):
            check(got, expected)
