"""Poolings beside the sliding ones of images: adaptive and global maxima, signals, and max pooling undone."""

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from layers import LAYOUTS
from numpy.testing import assert_allclose, assert_array_equal

import fastconv.functional as F
from fastconv import nn, serialize

seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(1, 7)


def normals(rng, shape, dtype=np.float32):
    return rng.standard_normal(shape).astype(dtype)


def distinct(rng, shape):
    """Numbers of which no two lie within a step of each other, so that maxima stay where they are."""
    return rng.permutation(int(np.prod(shape))).reshape(shape) / 8.0


def check_gradient(function, x, g, got):
    numerical = reference.numerical_gradient(lambda a: float((function(a) * g).sum()), x)
    bound = 8 * np.finfo(np.float64).eps * (1 + np.abs(g).sum() * np.abs(x).max()) / 1e-6
    assert_allclose(got, numerical, rtol=0, atol=bound)


# --- adaptive and global maxima


def adaptive(x, size):
    rows, cols = (reference.adaptive_axis(n, o) for n, o in zip(x.shape[2:], size, strict=True))
    return rows, cols, max(len(taps) for taps, _ in cols)


@pytest.mark.parametrize("size", [(1, 1), (3, 3), (4, 7), (9, 8), (12, 3), (2, 9)])
def test_adaptive_maxima_are_the_oracle(size, every_setting):
    rng = np.random.default_rng(3)
    x, g = normals(rng, (2, 19, 9, 8)), normals(rng, (2, 19, *size))
    rows, cols, width = adaptive(x, size)
    y, position, index = reference.max_pool2d(x, rows, cols, width)
    gx = reference.max_pool2d_backward(g, position, x.shape, rows, cols, width)

    def run():
        return *F.adaptive_max_pool2d(x, size, True), F.adaptive_max_pool2d_backward(g, x)

    for got in every_setting(run).values():
        for a, b in zip(got, (y, index, gx), strict=True):
            assert_array_equal(a, b)


@given(shape=st.tuples(st.integers(0, 2), sizes, sizes, sizes), size=st.tuples(sizes, sizes), seed=seeds)
@settings(max_examples=60, deadline=None)
def test_drawn_adaptive_maxima_are_the_oracle(shape, size, seed):
    rng = np.random.default_rng(seed)
    x = rng.choice(np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1, -1]), shape) if seed % 2 else normals(rng, shape)
    rows, cols, width = adaptive(x, size)
    want, _, index = reference.max_pool2d(x, rows, cols, width)
    y, indices = F.adaptive_max_pool2d(x, size, return_indices=True)
    assert_array_equal(y, want)
    assert_array_equal(indices, index)
    if size == (1, 1):
        assert_array_equal(F.global_max_pool2d(x, True)[0], want)
        assert_array_equal(F.global_max_pool2d(x, True)[1], index)


@pytest.mark.gradients
@given(shape=st.tuples(sizes, sizes), size=st.tuples(sizes, sizes), seed=seeds)
@settings(max_examples=30, deadline=None)
def test_gradients_of_adaptive_maxima(shape, size, seed):
    rng = np.random.default_rng(seed)
    x, g = distinct(rng, (2, 3, *shape)), normals(rng, (2, 3, *size), np.float64)
    check_gradient(lambda a: F.adaptive_max_pool2d(a, size), x, g, F.adaptive_max_pool2d_backward(g, x))
    one = g[:, :, :1, :1]
    check_gradient(F.global_max_pool2d, x, one, F.global_max_pool2d_backward(one, x))


# --- signals


@st.composite
def signals(draw):
    """Return the shape of a signal and a window, dilated or not, that always sees the signal."""
    kernel, dilation = draw(st.integers(1, 4)), draw(st.integers(1, 2))
    reach = dilation * (kernel - 1) + 1
    padding = draw(st.tuples(*[st.integers(0, max(reach - dilation, 0))] * 2)) if dilation == 1 else (0, 0)
    length = draw(st.integers(max(1, reach - sum(padding)), 9))
    shape = (draw(st.integers(1, 2)), draw(st.sampled_from([1, 3, 8, 17])), length)
    return shape, (kernel, draw(st.integers(1, 4)), padding, dilation, draw(st.booleans()))


@given(drawn=signals(), include=st.booleans(), seed=seeds, layout=st.sampled_from(sorted(LAYOUTS)))
@settings(max_examples=80, deadline=None)
def test_signals_are_images_of_one_row(drawn, include, seed, layout):
    shape, (kernel, stride, padding, dilation, ceil) = drawn
    rng = np.random.default_rng(seed)
    x = normals(rng, shape)
    image, laid = x[:, :, None], LAYOUTS[layout](x)
    window = ((1, kernel), (1, stride), ((0, 0), padding), (1, dilation), ceil)
    y, indices = F.max_pool2d(image, *window, True)
    got, places = F.max_pool1d(laid, kernel, stride, padding, dilation, ceil, True)
    assert got.tobytes() == y[:, :, 0].tobytes()
    assert_array_equal(places, indices[:, :, 0])
    g = normals(rng, got.shape)
    argmax = F.max_pool2d_argmax_like(image, *window)
    F.max_pool2d(image, *window, argmax=argmax)
    want = F.max_pool2d_backward(g[:, :, None], argmax, image.shape, *window)[:, :, 0]
    assert_array_equal(F.max_pool1d_backward(g, laid, kernel, stride, padding, dilation, ceil), want)
    if dilation == 1:
        mean = F.avg_pool2d(image, *window[:3], ceil, include)[:, :, 0]
        assert_array_equal(F.avg_pool1d(laid, kernel, stride, padding, ceil, include), mean)
        back = F.avg_pool2d_backward(g[:, :, None], image.shape, *window[:3], ceil, include)[:, :, 0]
        assert_array_equal(F.avg_pool1d_backward(g, shape, kernel, stride, padding, ceil, include), back)


# --- max pooling undone


def unpooled(x, indices, size):
    """The slow twin: element by element, the last of equal indices stays."""
    y = np.zeros((*x.shape[:2], size[0] * size[1]), x.dtype)
    for n, c, p, q in np.ndindex(*x.shape):
        y[n, c, indices[n, c, p, q]] = x[n, c, p, q]
    return y.reshape(*x.shape[:2], *size)


def unpooled_backward(g, indices):
    gx, flat = np.zeros(indices.shape, g.dtype), g.reshape(*g.shape[:2], g.shape[2] * g.shape[3])
    for n, c in np.ndindex(*indices.shape[:2]):
        for value, at in {int(i): at for at, i in np.ndenumerate(indices[n, c])}.items():
            gx[n, c][at] = flat[n, c, value]
    return gx


@given(
    shape=st.tuples(st.integers(0, 2), st.sampled_from([1, 3, 9]), st.integers(1, 4), st.integers(1, 4)),
    size=st.tuples(st.integers(1, 6), st.integers(1, 6)), seed=seeds, layout=st.sampled_from(sorted(LAYOUTS)),
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_unpooling_is_its_twin_for_any_indices(shape, size, seed, layout):
    rng = np.random.default_rng(seed)
    x = rng.integers(-9, 10, shape).astype(np.float32)
    indices = rng.integers(0, size[0] * size[1], shape)
    got = F.max_unpool2d(LAYOUTS[layout](x), LAYOUTS[layout](indices), 2, output_size=size)
    assert_array_equal(got, unpooled(x, indices, size))
    g = rng.integers(-9, 10, got.shape).astype(np.float32)
    gx = F.max_unpool2d_backward(LAYOUTS[layout](g), LAYOUTS[layout](indices))
    assert_array_equal(gx, unpooled_backward(g, indices))
    assert (got * g).sum() == (x * gx).sum()  # adjoint, exactly: small integers


def test_unpooling_undoes_pooling():
    x = np.abs(normals(np.random.default_rng(2), (2, 5, 6, 8))) + 1
    y, indices = F.max_pool2d(x, 2, return_indices=True)
    back = F.max_unpool2d(y, indices, 2)
    assert_array_equal(F.max_pool2d(back, 2), y)
    assert_array_equal(back[back != 0], x[back != 0])
    assert F.max_unpool2d(y, indices, 2, output_size=(2, 5, 7, 9)).shape == (2, 5, 7, 9)


@pytest.mark.parametrize(
    ("error", "change", "message"),
    [
        (ValueError, dict(indices=np.full((1, 1, 2, 2), 16)), "index 16 lies outside of an image of 4x4 pixels"),
        (ValueError, dict(indices=np.full((1, 1, 2, 2), -1)), "index -1 lies outside"),
        (TypeError, dict(indices=np.zeros((1, 1, 2, 2), np.int32)), "indices must be int64, got int32"),
        (ValueError, dict(indices=np.zeros((1, 1, 2, 1), int)), r"indices must have shape \(1, 1, 2, 2\)"),
        (ValueError, dict(kernel_size=1, padding=3), "an image of -4x-4 pixels would come out, from 2x2"),
        (ValueError, dict(output_size=(1, 2, 3)), r"output_size must be .*\(1, 2, 3\)"),
        (TypeError, dict(input=np.zeros((1, 1, 2, 2), int)), "float32 or float64"),
    ],
)
def test_unpooling_refuses_what_does_not_fit(error, change, message):
    call = dict(input=np.zeros((1, 1, 2, 2)), indices=np.zeros((1, 1, 2, 2), int), kernel_size=2)
    with pytest.raises(error, match=message):
        F.max_unpool2d(**{**call, **change})


# --- in models


class Autoencoder(nn.Module):
    """Pools and unpools by the same indices, as SegNet does."""

    def __init__(self):
        self.first = nn.Conv2d(2, 3, 3, padding=1)
        self.pool = nn.MaxPool2d(2, return_indices=True)
        self.middle = nn.Conv2d(3, 3, 3, padding=1)
        self.unpool = nn.MaxUnpool2d(2)
        self.last = nn.Conv2d(3, 1, 3, padding=1)

    def forward(self, x):
        y, indices = self.pool(F.relu(self.first(x)))
        return self.last(self.unpool(self.middle(y), indices))


def test_indices_go_from_layer_to_layer(tmp_path, every_setting):
    rng = np.random.default_rng(5)
    model, x, g = Autoencoder(), normals(rng, (2, 2, 6, 8)), normals(rng, (2, 1, 6, 8))
    model.need_input_grad = True

    def run():
        for p in model.parameters():
            p.grad[...] = 0
        y = model(x).copy()
        gx = model.backward(g).copy()
        return y.tobytes(), gx.tobytes(), *(p.grad.tobytes() for p in model.parameters())

    assert len(set(every_setting(run).values())) == 1
    by_hand = F.relu(F.conv2d(x, model.first.weight.data, model.first.bias.data, padding=1))
    y, indices = F.max_pool2d(by_hand, 2, return_indices=True)
    y = F.max_unpool2d(F.conv2d(y, model.middle.weight.data, model.middle.bias.data, padding=1), indices, 2)
    y = F.conv2d(y, model.last.weight.data, model.last.bias.data, padding=1)
    assert_array_equal(model(x), y)
    serialize.save(model, tmp_path / "model.safetensors")
    again = serialize.load(tmp_path / "model.safetensors")
    assert_array_equal(again.predict(x), y)


@pytest.mark.gradients
def test_the_gradient_of_pooling_and_unpooling():
    rng = np.random.default_rng(6)

    class Both(nn.Module):
        def forward(self, x):
            y, indices = F.max_pool2d(x, 3, 1, 1, return_indices=True)  # windows overlap: indices are met twice
            return F.max_unpool2d(y * y, indices, 3, 1, 1)

    model, x, g = Both(), distinct(rng, (1, 2, 4, 5)), normals(rng, (1, 2, 4, 5), np.float64)
    model.need_input_grad = True

    def forward(a):
        y, indices = F.max_pool2d(a, 3, 1, 1, return_indices=True)
        return F.max_unpool2d(y * y, indices, 3, 1, 1)

    assert_array_equal(model(x), forward(x))
    numerical = reference.numerical_gradient(lambda a: float((forward(a) * g).sum()), x)
    bound = 8 * np.finfo(np.float64).eps * (1 + np.abs(g).sum() * (x * x).max()) / 1e-6
    assert_allclose(model.backward(g), numerical, rtol=0, atol=bound)


def test_a_model_may_return_indices():
    model, x = nn.MaxPool1d(2, return_indices=True), normals(np.random.default_rng(7), (2, 3, 8))
    model.need_input_grad = True
    y, indices = model(x)
    assert indices.dtype == np.int64
    for got, want in zip((y, indices), F.max_pool1d(x, 2, return_indices=True), strict=True):
        assert_array_equal(got, want)
    gx = model.backward(np.ones_like(y), np.zeros_like(indices))
    assert_array_equal(gx, F.max_pool1d_backward(np.ones_like(y), x, 2))


KINDS = [
    (nn.MaxPool1d, (3, 2, 1), (2, 3, 9)), (nn.AvgPool1d, (3, 2, 1, True, False), (2, 3, 9)),
    (nn.AdaptiveMaxPool2d, ((2, 3),), (2, 3, 7, 8)), (nn.MaxPool2d, (3, 2, 1, 1), (2, 3, 8, 8)),
    (nn.AvgPool2d, (3, 2, 1, True), (2, 3, 8, 8)), (nn.MaxPool2d, (2, 1, 1, 2), (2, 3, 8, 8)),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "settings", "shape"), KINDS)
def test_pytorch_gives_the_same(kind, settings, shape):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(8)
    x = normals(rng, shape)
    ours, theirs = kind(*settings), getattr(torch.nn, kind.__name__)(*settings)
    if kind is nn.MaxPool2d:
        ours.ceil_mode = theirs.ceil_mode = True
    ours.need_input_grad = True
    leaf = torch.tensor(x, requires_grad=True)
    want, got = theirs(leaf), ours(x)
    bound = 4 * np.finfo(np.float32).eps * 9 * np.abs(x).max()
    assert_allclose(got, want.detach().numpy(), rtol=0, atol=bound)
    g = normals(rng, got.shape)
    want.backward(torch.tensor(g))
    bound = 4 * np.finfo(np.float32).eps * 9 * np.abs(g).max()
    assert_allclose(ours.backward(g), leaf.grad.numpy(), rtol=0, atol=bound)


def test_pytorch_unpools_the_same():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(9)
    x = normals(rng, (2, 3, 6, 8))
    leaf = torch.tensor(x, requires_grad=True)
    y, indices = torch.nn.functional.max_pool2d(leaf, 2, return_indices=True)
    want = torch.nn.functional.max_unpool2d(y, indices, 2)
    found = F.max_pool2d(x, 2, return_indices=True)
    assert_array_equal(found[1], indices.numpy())
    assert_array_equal(F.max_unpool2d(*found, 2), want.detach().numpy())
