"""Winograd convolution: its matrices proved, every bit against a twin with the same roundings, accuracy, borders."""

from fractions import Fraction

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import fastconv.functional as F
from fastconv import config
from fastconv._ext.conv.algorithms import WINOGRAD
from fastconv.functional._check import memory, scratch
from fastconv.functional._epilogue import NOTHING, epilogue_of
from fastconv.functional._geometry import convolution


def nhwc(a):
    """Return NCHW over NHWC memory."""
    return np.ascontiguousarray(a.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


def unwritten(shape, dtype):
    return nhwc(np.full(shape, np.nan, dtype))


def forward(x, w, padding=1, bias=None, activation=None, add=None, pre=None, dilation=1):
    g = convolution("winograd", x.shape, w.shape, 1, padding, dilation, 1)
    y = unwritten((g.n, g.k, g.p, g.q), x.dtype)
    epilogue = epilogue_of("winograd", activation, y.shape, y.dtype, bias=bias, add=add, pre=pre)
    WINOGRAD.forward[x.itemsize](memory(nhwc(x)), w, memory(y), g, epilogue, scratch)
    return y


def backward(g, x, w, padding=1, dilation=1):
    geometry = convolution("winograd", x.shape, w.shape, 1, padding, dilation, 1)
    grad_x, grad_w = unwritten(x.shape, x.dtype), np.zeros_like(w)
    WINOGRAD.input_gradient[x.itemsize](memory(nhwc(g)), w, memory(grad_x), geometry, NOTHING, scratch)
    WINOGRAD.weight_gradient[x.itemsize](memory(nhwc(x)), memory(nhwc(g)), grad_w, geometry, scratch)
    return grad_x, grad_w


def everything(x, w, g, padding=1, dilation=1):
    return forward(x, w, padding, dilation=dilation), *backward(g, x, w, padding, dilation)


def draw(seed, n, c, k, h, w, padding, dtype=np.float32, taps=3, dilation=(1, 1)):
    """Return normal x, w and a gradient of the output."""
    rng = np.random.default_rng(seed)
    (top, bottom), (left, right) = reference.borders(padding, (taps, taps), (1, 1))
    p, q = (size - (taps - 1) * d for size, d in zip((h + top + bottom, w + left + right), dilation, strict=True))
    out = n, k, p, q
    return tuple(rng.standard_normal(shape).astype(dtype) for shape in ((n, c, h, w), (k, c, taps, taps), out))


def drawn_here(taps, seed, n, c, k, h, w, padding, dtype=np.float32):
    """Return the same for a shape that is made for 3 taps: with more, images are as much larger."""
    return draw(seed, n, c, k, h + taps - 3, w + taps - 3, padding, dtype, taps)


# n, c, k, h, w, padding: channel and lane tails, channels in several chains, images smaller than a tile, of one row,
# with more border than image, unequal borders, fewer tiles than filters, more shards and chains of tiles than one,
# rows of many tiles, some of them wholly in the border
SHAPES = [
    (2, 8, 16, 8, 8, 1),
    (2, 17, 29, 6, 5, 1),
    (1, 1, 1, 3, 3, 0),
    (3, 40, 33, 9, 11, ((2, 0), (1, 3))),
    (1, 130, 20, 4, 4, 1),
    (2, 20, 70, 5, 5, 4),
    (5, 3, 7, 13, 8, 0),
    (1, 5, 3, 1, 9, 1),
    (50, 9, 12, 8, 8, 1),
    (3, 4, 6, 27, 21, 1),
    (2, 5, 9, 6, 37, 1),
    (1, 4, 3, 4, 3, 19),
    # input gradients over tiles of the results: their shares in pixels in several runs, of few images and many, of
    # fewer tiles than channels, of one row of tiles, beside pixels of a border
    (3, 12, 9, 6, 22, 0),
    (1, 70, 8, 10, 6, 0),
    (7, 37, 40, 9, 9, 0),
    (2, 90, 24, 6, 25, ((0, 0), (1, 0))),
    (6, 5, 11, 13, 6, ((1, 0), (0, 0))),
]


# --- the matrices -------------------------------------------------------------------------------------------


POINTS = [Fraction(0), Fraction(5, 8), Fraction(-5, 8), Fraction(3, 2), Fraction(-3, 2)]  # and infinity


def times(p, q):
    """Return the product of two polynomials, lowest power first."""
    product = [Fraction(0)] * (len(p) + len(q) - 1)
    for i, a in enumerate(p):
        for j, b in enumerate(q):
            product[i + j] += a * b
    return product


def matrices(taps=3):
    """Return A' (4, 6), G (6, 3) and B' (6, 6) by Toom and Cook: filters and results are polynomials at the points.

    With 5 taps A' has 2 rows, G 5 columns.
    """
    whole = [Fraction(1)]
    for point in POINTS:
        whole = times(whole, [-point, Fraction(1)])
    A = [[p**i for p in POINTS] + [Fraction(i == 6 - taps)] for i in range(7 - taps)]
    G, B = [], []
    for j, point in enumerate(POINTS):
        others, scale = [Fraction(1)], Fraction(1)
        for other in POINTS[:j] + POINTS[j + 1 :]:
            others, scale = times(others, [-other, Fraction(1)]), scale * (point - other)
        G.append([point**i / scale for i in range(taps)])
        B.append([*others, Fraction(0)])
    return A, [*G, [Fraction(i == taps - 1) for i in range(taps)]], [*B, whole]


@pytest.mark.parametrize("taps", [3, 5])
def test_matrices_of_the_points_correlate_exactly(taps):
    A, G, B = matrices(taps)
    for s in range(taps):  # filters and pixels that are 1 at one place and 0 elsewhere: a basis
        for p in range(6):
            values = [G[e][s] * B[e][p] for e in range(6)]
            results = [sum(a * v for a, v in zip(row, values, strict=True)) for row in A]
            assert results == [int(i + s == p) for i in range(7 - taps)]


@pytest.mark.parametrize(
    ("step", "matrix"),
    [
        (reference.winograd_pixels, matrices()[2]),
        (reference.winograd_shares, list(zip(*matrices()[2], strict=True))),
        (reference.winograd_filter, matrices()[1]),
        (reference.winograd_results, matrices()[0]),
        (reference.winograd_gradient, list(zip(*matrices()[0], strict=True))),
        (reference.winograd_filter_gradient, list(zip(*matrices()[1], strict=True))),
        (reference.winograd_filter, matrices(5)[1]),
        (reference.winograd_two_results, matrices(5)[0]),
        (reference.winograd_gradient, list(zip(*matrices(5)[0], strict=True))),
        (lambda m: reference.winograd_filter_gradient(m, 5), list(zip(*matrices(5)[1], strict=True))),
    ],
)
def test_the_twins_steps_are_these_matrices(step, matrix):
    exact = np.array(matrix, float)
    got = step(np.eye(exact.shape[1], dtype=np.float32))
    assert_array_equal(got.astype(np.float32), exact.astype(np.float32))


def test_fma_of_the_twin_rounds_once():
    rng = np.random.default_rng(3)
    a, b = (rng.standard_normal(3000).astype(np.float32) for _ in range(2))
    # sums next to the middle of two floats, where rounding twice would go wrong
    c = np.concatenate([rng.standard_normal(1000), np.exp2(rng.integers(10, 30, 2000))]).astype(np.float32)
    for x, y, z, got in zip(a, b, c, reference.fma32(a, b, c), strict=True):
        exact = Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z))
        error = abs(Fraction(float(got)) - exact)
        for neighbour in (np.nextafter(got, np.float32(-np.inf)), np.nextafter(got, np.float32(np.inf))):
            other = abs(Fraction(float(neighbour)) - exact)
            assert error < other or (error == other and got.view(np.int32) % 2 == 0)


# --- bits ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("taps", [3, 5])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_bit_is_the_twins_on_every_isa_and_thread_count(shape, taps, every_setting):
    x, w, g = drawn_here(taps, 1, *shape)
    (top, _), (left, _) = reference.borders(shape[-1], (taps, taps), (1, 1))
    expected = (
        reference.winograd_conv2d(x, w, top, left, *g.shape[2:]),
        reference.winograd_input_gradient(g, w, top, left, *x.shape[2:]),
        reference.winograd_weight_gradient(x, g, top, left, taps),
    )
    for setting, results in every_setting(lambda: everything(x, w, g, shape[-1])).items():
        for name, got, want in zip(("output", "grad_x", "grad_w"), results, expected, strict=True):
            assert_array_equal(got, want, err_msg=f"{name} with {setting}")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(data=st.data())
@settings(max_examples=16, deadline=None)
def test_drawn_shapes_give_the_same_bits_everywhere(dtype, data):
    side, channels, pad = st.integers(1, 14), st.integers(1, 70), st.integers(0, 3)
    n, c, k = data.draw(st.integers(1, 4)), data.draw(channels), data.draw(channels)
    padding = tuple((data.draw(pad), data.draw(pad)) for _ in range(2))
    taps = data.draw(st.sampled_from([3, 5]))
    h, w = (max(data.draw(side), taps - sum(border)) for border in padding)
    arrays = draw(data.draw(st.integers(0, 99)), n, c, k, h, w, padding, dtype, taps)
    expected = None
    for isa in config.available_isas():
        for threads in (1, 3):
            with config.isa(isa), config.threads(threads):
                got = everything(*arrays, padding)
            expected = expected or got
            for a, b in zip(got, expected, strict=True):
                assert_array_equal(a, b, err_msg=f"{isa}, {threads} threads")
    x, weight, g = arrays
    exact = reference.conv2d(x, weight, None, 1, padding), *reference.conv2d_backward(g, x, weight, 1, padding)[:2]
    for a, b in zip(expected, exact, strict=True):
        assert np.abs(a - b).max() <= 64 * np.finfo(dtype).eps * np.abs(b).max() + np.finfo(dtype).tiny


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_drawn_dilated_layers_have_the_bits_of_their_phases_everywhere(dtype, data):
    taps, channels, pad = data.draw(st.sampled_from([3, 5])), st.integers(1, 40), st.integers(0, 5)
    n, c, k = data.draw(st.integers(1, 3)), data.draw(channels), data.draw(channels)
    padding = tuple((data.draw(pad), data.draw(pad)) for _ in range(2))
    dilation = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))
    h, w = (
        max(data.draw(st.integers(1, 14)), (taps - 1) * d + 1 - sum(border))
        for border, d in zip(padding, dilation, strict=True)
    )
    x, weight, g = draw(data.draw(st.integers(0, 99)), n, c, k, h, w, padding, dtype, taps, dilation)
    expected = None
    if dtype == np.float32:  # as the twin is
        expected = reference.winograd_dilated(x, weight, g, padding[0][0], padding[1][0], dilation)
    for isa in config.available_isas():
        for threads in (1, 3):
            with config.isa(isa), config.threads(threads):
                got = everything(x, weight, g, padding, dilation)
            expected = expected or got
            for a, b in zip(got, expected, strict=True):
                assert_array_equal(a, b, err_msg=f"{isa}, {threads} threads")
    exact = (
        reference.conv2d(x, weight, None, 1, padding, dilation),
        *reference.conv2d_backward(g, x, weight, 1, padding, dilation)[:2],
    )
    for a, b in zip(expected, exact, strict=True):
        assert np.abs(a - b).max() <= 64 * np.finfo(dtype).eps * np.abs(b).max() + np.finfo(dtype).tiny


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("added", [False, True])
def test_what_is_fused_behind_a_dilated_layer_meets_its_pixels(activation, added, isa):
    x, w, g = draw(13, 2, 9, 33, 11, 10, 2, dilation=(2, 3))
    bias = np.random.default_rng(14).standard_normal(33).astype(np.float32)
    before = F.bias_add(forward(x, w, 2, dilation=(2, 3)), bias)
    before = F.add(before, g) if added else before
    pre = unwritten(g.shape, g.dtype)
    expected = F.conv2d(before, np.eye(33, dtype=np.float32)[:, :, None, None], activation=activation)
    assert_array_equal(forward(x, w, 2, bias, activation, g if added else None, pre, (2, 3)), expected)
    assert_array_equal(pre, before)


def test_large_shapes_are_blocked_without_changing_a_bit(every_setting):
    """Blocks of tiles and of weights, groups of filters, chunks of channels, shards of each kind: several of each."""
    for shape in [(2, 128, 144, 12, 12, 1), (1, 200, 136, 9, 9, 1), (13, 48, 40, 16, 16, 1), (8, 160, 161, 15, 16, 1)]:
        for taps in (3, 5):
            x, w, g = drawn_here(taps, 2, *shape)
            with config.isa("scalar"), config.threads(1):
                expected = everything(x, w, g)
            for isa in config.available_isas()[1:]:
                for threads in (1, 2, 5):
                    with config.isa(isa), config.threads(threads):
                        for got, want in zip(everything(x, w, g), expected, strict=True):
                            assert_array_equal(got, want, err_msg=f"{shape}, {taps} taps, {isa}, {threads} threads")


@pytest.mark.parametrize("taps", [3, 5])
@pytest.mark.parametrize("shape", [(5, 24, 40, 10, 7, 1), (3, 33, 200, 8, 8, 1)], ids=str)
def test_an_image_has_the_same_bits_in_any_batch(shape, taps):
    x, w, g = drawn_here(taps, 4, *shape)
    whole, gradient = forward(x, w), backward(g, x, w)[0]
    for n in range(len(x)):
        assert_array_equal(forward(x[n : n + 1], w), whole[n : n + 1])
        assert_array_equal(backward(g[n : n + 1], x[n : n + 1], w)[0], gradient[n : n + 1])


@pytest.mark.parametrize("activation", [None, "relu", "tanh", ("leaky_relu", 0.2)], ids=str)
@pytest.mark.parametrize("added", [False, True])
@pytest.mark.parametrize("taps", [3, 5])
def test_fused_is_bit_equal_to_one_after_the_other(activation, added, taps, isa):
    x, w, g = drawn_here(taps, 5, 2, 9, 69, 10, 7, 1)
    bias = np.random.default_rng(6).standard_normal(69).astype(np.float32)
    plain = F.bias_add(forward(x, w), bias)
    before = F.add(plain, g) if added else plain
    pre = unwritten(g.shape, g.dtype)
    expected = before if activation is None else F.conv2d(
        before, np.eye(69, dtype=np.float32)[:, :, None, None], activation=activation
    )  # fmt: skip
    assert_array_equal(forward(x, w, 1, bias, activation, g if added else None, pre), expected)
    assert_array_equal(pre, before)


@pytest.mark.parametrize("activation", [None, "relu", "tanh", ("leaky_relu", 0.2)], ids=str)
@pytest.mark.parametrize("shape", [(20, 9, 12, 9, 9, 0), (1, 40, 12, 9, 9, 0), (2, 12, 9, 11, 6, 1)], ids=str)
def test_what_is_fused_behind_an_input_gradient_meets_its_pixels(activation, shape, every_setting):
    x, w, g = draw(13, *shape)
    channels = shape[1]
    bias = np.random.default_rng(14).standard_normal(channels).astype(np.float32)
    geometry = convolution("winograd", x.shape, w.shape, 1, shape[-1], 1, 1)
    before = F.add(F.bias_add(backward(g, x, w, shape[-1])[0], bias), x)
    expected = before if activation is None else F.conv2d(
        before, np.eye(channels, dtype=np.float32)[:, :, None, None], activation=activation
    )  # fmt: skip

    def run():
        grad_x, pre = unwritten(x.shape, x.dtype), unwritten(x.shape, x.dtype)
        epilogue = epilogue_of("winograd", activation, x.shape, x.dtype, bias=bias, add=nhwc(x), pre=pre)
        WINOGRAD.input_gradient[4](memory(nhwc(g)), w, memory(grad_x), geometry, epilogue, scratch)
        return grad_x, pre

    for grad_x, pre in every_setting(run).values():
        assert_array_equal(grad_x, expected)
        assert_array_equal(pre, before)


def test_weight_gradients_are_added():
    x, w, g = draw(7, 3, 5, 6, 9, 8, 1)
    _, once = backward(g, x, w)
    geometry, twice = convolution("winograd", x.shape, w.shape, 1, 1, 1, 1), once.copy()
    WINOGRAD.weight_gradient[x.itemsize](memory(nhwc(x)), memory(nhwc(g)), twice, geometry, scratch)
    assert_array_equal(twice, once + once)


def test_an_empty_batch_leaves_everything_as_it_is():
    x, w, g = draw(8, 0, 5, 6, 9, 8, 1)
    y, grad_x, grad_w = everything(x, w, g)
    assert y.shape == g.shape
    assert grad_x.shape == x.shape
    assert not grad_w.any()


# --- mathematics --------------------------------------------------------------------------------------------


def rms(a):
    return np.sqrt(np.mean(np.square(a, dtype=np.float64)))


KINDS = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "ReLU-like": lambda rng, shape: np.maximum(rng.standard_normal(shape), 0),
    # channels of scales from 1e-3 to 1e3
    "ill-scaled": lambda rng, shape: rng.standard_normal(shape) * 10 ** np.linspace(-3, 3, shape[1])[:, None, None],
}


def errors(kind, n, channels, side, wanted, taps=3, bordered=True):
    """Return the root mean square of the error against float64, of ``wanted`` results, in times that of `direct`."""
    rng, padding = np.random.default_rng(9), taps // 2 if bordered else 0
    x = KINDS[kind](rng, (n, channels, side, side)).astype(np.float32)
    w = rng.standard_normal((channels, channels, taps, taps)).astype(np.float32)
    results = side + 2 * padding - taps + 1
    g = rng.standard_normal((n, channels, results, results)).astype(np.float32)
    wide = [a.astype(np.float64) for a in (g, x, w)]
    with config.algorithm("direct"):
        direct = F.conv2d(x, w, None, 1, padding), *F.conv2d_backward(g, x, w, 1, padding)[:2]
        exact = F.conv2d(*wide[1:], None, 1, padding), *F.conv2d_backward(*wide, 1, padding)[:2]
    ours = everything(x, w, g, padding)
    return [rms(ours[i] - exact[i]) / rms(direct[i] - exact[i]) for i in wanted]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("n", "channels", "side", "most"), [(8, 16, 16, 2.5), (4, 128, 8, 1.2), (4, 256, 8, 1.2)])
def test_results_and_input_gradients_are_as_accurate_as_direct_ones(kind, n, channels, side, most):
    assert max(errors(kind, n, channels, side, (0, 1))) <= most


@pytest.mark.parametrize(
    ("taps", "n", "channels", "side", "most"),
    [(3, 8, 16, 14, 2.5), (3, 4, 128, 10, 1.2), (3, 4, 256, 6, 1.2), (5, 8, 32, 14, 1.5), (5, 4, 128, 10, 1.2)],
)
def test_input_gradients_over_tiles_of_results_are_as_accurate_as_direct_ones(taps, n, channels, side, most):
    assert max(errors("normal", n, channels, side, (1,), taps, bordered=False)) <= most


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("n", "channels", "side", "most"),
    [(8, 16, 16, 2.5), (4, 128, 8, 2.5), (32, 32, 16, 2.5), (8, 64, 56, 1.2), (8, 256, 14, 1.2), (64, 128, 16, 1.2)],
)
def test_weight_gradients_are_as_accurate_as_direct_ones(kind, n, channels, side, most):
    """What counts here is how many pixels one chain of `direct` sums: it has shards of 256 where weights are few."""
    assert max(errors(kind, n, channels, side, (2,))) <= most


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("n", "channels", "side", "most"), [(8, 32, 16, (1.5, 3)), (4, 128, 8, (1.2, 3)), (32, 32, 16, (1.5, 2.5))]
)
def test_filters_of_5x5_are_as_accurate_as_direct_ones(kind, n, channels, side, most):
    """Weight gradients lose more than with 3x3: they go up to fourth powers of the points."""
    *results, weights = errors(kind, n, channels, side, (0, 1, 2), taps=5)
    assert max(results) <= most[0]
    assert weights <= most[1]


def test_nan_and_infinity_stay_within_their_tiles():
    """A pixel reaches all results of a tile, but that at the tile's rim reaches one row or column, as in `direct`."""
    x, w, _ = draw(10, 2, 8, 8, 16, 16, 1)
    clean = forward(x, w)

    def reached(pixel):
        """Return which of 16 positions a pixel reaches: it is the i-th of 6 that a tile reads."""
        tiles = [{0: [0], 5: [3]}.get(i, [0, 1, 2, 3]) if 0 <= i < 6 else [] for i in pixel + 1 - np.arange(0, 16, 4)]
        return [4 * tile + j for tile, positions in enumerate(tiles) for j in positions]

    for value in (np.nan, np.inf):
        for row, col in ((6, 6), (8, 12), (0, 15), (3, 4)):
            dirty = x.copy()
            dirty[1, 3, row, col] = value
            y, mark = forward(dirty, w), np.zeros((16, 16), bool)
            mark[np.ix_(reached(row), reached(col))] = True
            assert not np.isfinite(y[1][:, mark]).any()
            assert_array_equal(y[1][:, ~mark], clean[1][:, ~mark])
            assert_array_equal(y[0], clean[0])


@pytest.mark.parametrize("shape", [(2, 9, 69, 10, 7, 1), (1, 5, 40, 6, 6, 0), (20, 9, 12, 9, 9, 0)], ids=str)
def test_results_among_others_channels(shape, every_setting):
    """Pixels of a result may lie apart, as parts of a concatenation do; what lies between them stays as it is."""
    x, w, g = draw(11, *shape)
    add = np.random.default_rng(12).standard_normal(g.shape).astype(np.float32)
    geometry = convolution("winograd", x.shape, w.shape, 1, shape[-1], 1, 1)
    want = forward(x, w, shape[-1], activation="tanh", add=add), backward(g, x, w, shape[-1])[0]

    def run():
        wide = [np.full((*np.shape(memory(a))[:3], a.shape[1] + 5), 7, np.float32) for a in want]
        y, grad_x = (a[..., 2:-3] for a in wide)
        epilogue = epilogue_of("winograd", "tanh", g.shape, g.dtype, add=add)
        WINOGRAD.forward[4](memory(nhwc(x)), w, y, geometry, epilogue, scratch)
        WINOGRAD.input_gradient[4](memory(nhwc(g)), w, grad_x, geometry, NOTHING, scratch)
        return wide

    for results in every_setting(run).values():
        for wide, expected in zip(results, want, strict=True):
            assert_array_equal(wide[..., 2:-3].transpose(0, 3, 1, 2), expected)
            assert (wide[..., :2] == 7).all()
            assert (wide[..., -3:] == 7).all()
