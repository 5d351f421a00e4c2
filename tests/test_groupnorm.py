"""Group, instance, layer and local response normalisation: values, gradients, bits, layouts, PyTorch's names."""

import math

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
EPS32 = np.finfo(np.float32).eps


def normals(rng, shape, dtype=np.float64):
    return rng.standard_normal(shape).astype(dtype)


@st.composite
def groups(draw):
    """Return a shape, a number of groups and whether there are weight and bias."""
    count, depth = draw(st.integers(1, 4)), draw(st.sampled_from([1, 2, 3, 8, 17]))
    pixels = draw(st.sampled_from([(), (1,), (5,), (3, 4), (2, 1), (1, 1)]))
    if depth * math.prod(pixels) == 1:
        depth = 2
    return (draw(st.integers(1, 3)), count * depth, *pixels), count, draw(st.booleans()), draw(st.booleans())


def parameters(rng, shape, has_weight, has_bias, dtype=np.float64):
    return (normals(rng, shape, dtype) if has else None for has in (has_weight, has_bias))


def bound(x, count, *factors):
    """Return what rounding may do to results that are sums of so many terms, made by these factors."""
    sizes = [1.0, *(np.abs(f).max(initial=0) for f in factors if f is not None)]
    largest = 1 + np.abs(x).max(initial=0)
    return 8 * np.finfo(x.dtype).eps * (count + 8) * largest**2 * math.prod(1 + s for s in sizes)


@given(drawn=groups(), seed=seeds, layout=st.sampled_from(sorted(LAYOUTS)))
@settings(max_examples=120, deadline=None)
def test_drawn_groups_are_the_oracle(drawn, seed, layout):
    (shape, count, *has), rng = drawn, np.random.default_rng(seed)
    x, (weight, bias) = normals(rng, shape), parameters(rng, shape[1], *has)
    laid = LAYOUTS[layout](x) if x.ndim > 2 or layout != "channels last" else x
    got = F.group_norm(laid, count, weight, bias, 0.1)
    want = reference.group_norm(x, count, weight, bias, 0.1)
    limit = bound(x, x[0].size, weight, bias) / math.sqrt(0.1)
    assert_allclose(got, want, rtol=0, atol=limit)
    g = normals(rng, shape)
    found = F.group_norm_backward(g, laid, count, weight, bias, 0.1)
    wanted = reference.group_norm(x, count, weight, bias, 0.1, grad=g)
    for a, b, has_it in zip(found, wanted, (True, *has), strict=True):
        assert (a is not None) == has_it
        if has_it:
            assert_allclose(a, b, rtol=0, atol=limit * (1 + np.abs(g).max()) * x.size)
    if count == shape[1] and x.ndim > 2:
        assert_array_equal(F.instance_norm(laid, weight, bias, 0.1), got)
        assert_array_equal(F.instance_norm_backward(g, laid, weight, bias, 0.1)[0], found[0])


@st.composite
def rows(draw):
    """Return a shape, how many of its last axes are normalised, and whether there are weight and bias."""
    shape = tuple(draw(st.lists(st.sampled_from([1, 2, 3, 5, 8]), min_size=2, max_size=5)))
    has_weight = draw(st.booleans())
    return shape, draw(st.integers(1, len(shape) - 1)), has_weight, draw(st.booleans())


@given(drawn=rows(), seed=seeds, layout=st.sampled_from(sorted(LAYOUTS)))
@settings(max_examples=120, deadline=None)
def test_drawn_rows_are_the_oracle(drawn, seed, layout):
    (shape, axes, *has), rng = drawn, np.random.default_rng(seed)
    tail = shape[-axes:]
    x, (weight, bias) = normals(rng, shape), parameters(rng, tail, *has)
    laid = LAYOUTS[layout](x)
    got, want = F.layer_norm(laid, tail, weight, bias, 0.1), reference.layer_norm(x, tail, weight, bias, 0.1)
    limit = bound(x, math.prod(tail), weight, bias) / math.sqrt(0.1)
    assert_allclose(got, want, rtol=0, atol=limit)
    g = normals(rng, shape)
    found = F.layer_norm_backward(g, laid, tail, weight, bias, 0.1)
    wanted = reference.layer_norm(x, tail, weight, bias, 0.1, grad=g)
    for a, b, has_it in zip(found, wanted, (True, *has), strict=True):
        assert (a is not None) == has_it
        if has_it:
            assert_allclose(a, b, rtol=0, atol=limit * (1 + np.abs(g).max()) * x.size)


@given(
    shape=st.lists(st.integers(1, 6), min_size=3, max_size=4), has=st.tuples(st.booleans(), st.booleans()), seed=seeds,
    layout=st.sampled_from(sorted(LAYOUTS)), dtype=st.sampled_from([np.float32, np.float64]),
)  # fmt: skip
@settings(max_examples=120, deadline=None)
def test_channels_of_a_pixel_are_rows(shape, has, seed, layout, dtype):
    """The bits, forward and backward, are those of rows with the channels moved to the end."""
    rng = np.random.default_rng(seed)
    x, g = normals(rng, shape, dtype), normals(rng, shape, dtype)
    weight, bias = (normals(rng, shape[1], dtype) if it else None for it in has)

    def rows(a):
        return np.ascontiguousarray(np.moveaxis(a, 1, -1).reshape(-1, shape[1]))

    def alike(got, want):
        assert_array_equal(rows(got), want)

    channels = shape[1]
    alike(F.layer_norm2d(LAYOUTS[layout](x), weight, bias, 0.1), F.layer_norm(rows(x), channels, weight, bias, 0.1))
    got = F.layer_norm2d_backward(LAYOUTS[layout](g), LAYOUTS[layout](x), weight, bias, 0.1)
    want = F.layer_norm_backward(rows(g), rows(x), channels, weight, bias, 0.1)
    alike(got[0], want[0])
    for a, b, it in zip(got[1:], want[1:], has, strict=True):
        assert (a is not None) == it
        if it:
            assert_array_equal(a, b)


@given(
    shape=st.tuples(st.integers(0, 2), st.integers(1, 9), st.integers(1, 4), st.integers(1, 4)), size=st.integers(1, 7),
    beta=st.sampled_from([0.75, 0.5, 1.0]), seed=seeds, layout=st.sampled_from(sorted(LAYOUTS)),
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_drawn_neighbours_are_the_oracle(shape, size, beta, seed, layout):
    rng = np.random.default_rng(seed)
    x, g = normals(rng, shape), normals(rng, shape)
    got, want = (f(x, size, 0.7, beta, 1.5) for f in (F.local_response_norm, reference.local_response_norm))
    assert_allclose(got, want, rtol=0, atol=bound(x, size))
    back = F.local_response_norm_backward(LAYOUTS[layout](g), LAYOUTS[layout](x), size, 0.7, beta, 1.5)
    assert_allclose(back, reference.local_response_norm(x, size, 0.7, beta, 1.5, g), rtol=0, atol=bound(x, size, g, x))


CALLS = {
    "group_norm": lambda x, w, b: F.group_norm(x, 2, w, b),
    "instance_norm": lambda x, w, b: F.instance_norm(x, w, b),
    "layer_norm": lambda x, w, b: F.layer_norm(x, x.shape[1:], w, b),
    "layer_norm2d": lambda x, w, b: F.layer_norm2d(x, w, b),
    "layer_norm of one axis": lambda x, w, b: F.layer_norm(x, x.shape[3:], w, b),
}


@pytest.mark.gradients
@pytest.mark.parametrize("name", CALLS)
def test_gradients_match_central_differences(name):
    rng = np.random.default_rng(4)
    x = normals(rng, (2, 4, 3, 2))
    shape = (4,) if "layer" not in name or "2d" in name else (2,) if "one" in name else x.shape[1:]
    weight, bias, g = normals(rng, shape), normals(rng, shape), normals(rng, x.shape)
    settings = {"group_norm": (2,), "instance_norm": (), "layer_norm2d": ()}.get(name, (shape,))
    backward = getattr(F, f"{name.split()[0]}_backward")
    found = backward(g, x, *settings, weight, bias)
    operands = [x, weight, bias]
    for i, got in enumerate(found):

        def loss(a, i=i):
            return float((CALLS[name](*operands[:i], a, *operands[i + 1 :]) * g).sum())

        numerical = reference.numerical_gradient(loss, operands[i])
        # differences of step 1e-6: the third derivative's share, and the rounding of the two sums
        scale = np.abs(g).sum() * (1 + np.abs(weight).max()) * 10
        assert_allclose(got, numerical, rtol=0, atol=1e-6**2 * scale * 1e3 + 8 * np.finfo(float).eps * scale / 1e-6)


@pytest.mark.gradients
def test_the_gradient_of_local_responses_matches_central_differences():
    rng = np.random.default_rng(5)
    x, g = normals(rng, (2, 7, 2, 2)), normals(rng, (2, 7, 2, 2))
    numerical = reference.numerical_gradient(lambda a: float((F.local_response_norm(a, 3, 0.9) * g).sum()), x)
    scale = np.abs(g).sum() * np.abs(x).max()
    got = F.local_response_norm_backward(g, x, 3, 0.9)
    assert_allclose(got, numerical, rtol=0, atol=1e-6**2 * scale * 1e3 + 8 * np.finfo(float).eps * scale / 1e-6)


SHAPES = [(3, 6, 5, 4), (1, 8, 40, 50), (2, 64, 16, 16), (5, 96), (4, 12, 33), (1, 4, 130, 130), (70, 2, 3)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equal_bits_on_every_table_and_thread_count(shape, every_setting):
    rng = np.random.default_rng(6)
    x, g = normals(rng, shape, np.float32), normals(rng, shape, np.float32)
    weight, bias = (normals(rng, shape[1], np.float32) for _ in range(2))
    row = [normals(rng, shape[1:], np.float32) for _ in range(2)]

    def run():
        found = [F.group_norm(x, 2, weight, bias), *F.group_norm_backward(g, x, 2, weight, bias)]
        found += [F.layer_norm(x, shape[1:], *row), *F.layer_norm_backward(g, x, shape[1:], *row)]
        found += [F.layer_norm(x, shape[-1]), F.layer_norm_backward(g, x, shape[-1])[0]]
        if len(shape) > 2:
            found += [F.layer_norm2d(x, weight, bias), *F.layer_norm2d_backward(g, x, weight, bias)]
            found += [F.instance_norm(x, weight), *F.instance_norm_backward(g, x, weight)[:2]]
            found += [F.local_response_norm(x, 5), F.local_response_norm_backward(g, x, 5)]
        return [a.tobytes() for a in found]

    results = list(every_setting(run).values())
    assert all(result == results[0] for result in results)
    want = reference.group_norm(*(x.astype(float), 2), *(a.astype(float) for a in (weight, bias)))
    assert_allclose(F.group_norm(x, 2, weight, bias), want, rtol=0, atol=bound(x, 64, weight, bias))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("width", [1, 3, 16, 31, 63, 64, 65, 100, 128, 129, 1000, 16384, 16385])
def test_a_row_is_summed_as_a_column_of_one_channel(width, dtype, every_setting):
    """Rows are taken many a call, in the order of sums of batch normalisation, whatever block they are in."""
    rng = np.random.default_rng(width)
    rows = 3 if width > 1000 else 600
    x, g = (rng.standard_normal((rows, width)).astype(dtype) for _ in range(2))

    def run():
        return F.layer_norm(x, (width,), None, None, 0.01), *F.layer_norm_backward(g, x, (width,), None, None, 0.01)[:1]

    want_y, want_gx = np.empty_like(x), np.empty_like(x)
    for i in (0, 1, rows // 2, rows - 1):
        alone, grad = x[i : i + 1], g[i : i + 1]
        want_y[i] = F.layer_norm(alone, (width,), None, None, 0.01)[0]
        want_gx[i] = F.layer_norm_backward(grad, alone, (width,), None, None, 0.01)[0][0]
        if width > 1:
            column = np.ascontiguousarray(alone.T)
            assert_array_equal(F.batch_norm(column, None, None, training=True, eps=0.01)[:, 0], want_y[i])
    for found_y, found_gx in every_setting(run).values():
        for i in (0, 1, rows // 2, rows - 1):
            assert_array_equal(found_y[i], want_y[i])
            assert_array_equal(found_gx[i], want_gx[i])


def test_whole_numbers_are_exact():
    x = np.array([[1, -1, 3, -3], [2, -2, 2, -2]], np.float32)
    assert_array_equal(F.group_norm(x, 2, eps=0.0), np.sign(x))
    got = F.layer_norm(x[1:], 4, np.float32([1, 2, 3, 4]), np.float32([1, 1, 1, 1]), 0.0)
    assert_array_equal(got, [[2, -1, 4, -3]])
    signs = np.sign(x).reshape(2, 2, 2)
    assert_array_equal(F.instance_norm(signs * np.float32(4), eps=0.0), signs)
    assert_array_equal(F.local_response_norm(np.full((1, 3, 1), 3.0), 1, 1.0, 0.0), np.full((1, 3, 1), 3.0))


def test_results_do_not_depend_on_other_samples():
    rng = np.random.default_rng(7)
    x = normals(rng, (9, 8, 6, 5), np.float32)
    for f in (lambda a: F.group_norm(a, 4), F.instance_norm, F.layer_norm2d, lambda a: F.layer_norm(a, (8, 6, 5))):
        assert f(x)[3:4].tobytes() == f(x[3:4]).tobytes()


LAYERS = [
    (lambda: nn.GroupNorm(2, 4), (3, 4, 5, 6)), (lambda: nn.GroupNorm(4, 4, affine=False), (3, 4, 7)),
    (lambda: nn.InstanceNorm2d(4), (3, 4, 5, 6)), (lambda: nn.InstanceNorm2d(4, affine=True), (3, 4, 5, 6)),
    (lambda: nn.InstanceNorm1d(4, affine=True), (3, 4, 7)), (lambda: nn.LayerNorm((4, 5, 6)), (3, 4, 5, 6)),
    (lambda: nn.LayerNorm(6), (3, 4, 5, 6)), (lambda: nn.LayerNorm(6, bias=False), (3, 6)),
    (lambda: nn.LayerNorm((5, 6), elementwise_affine=False), (3, 4, 5, 6)),
    (lambda: nn.LocalResponseNorm(3, 0.5), (3, 8, 5, 6)),
    (lambda: nn.LayerNorm2d(4), (3, 4, 5, 6)), (lambda: nn.LayerNorm2d(5, affine=False), (3, 5, 7)),
    (lambda: nn.LayerNorm2d(4, bias=False), (3, 4, 6)),
]  # fmt: skip


# One whose gradient is made from the output, one from the input, and one that the normalisation's backward masks.
BEHIND = [nn.ReLU, nn.Tanh, nn.SiLU]


@pytest.mark.parametrize("behind", BEHIND)
@pytest.mark.parametrize(("make", "shape"), LAYERS)
def test_layers_fused_saved_and_loaded(make, shape, behind, tmp_path):
    rng, layer = np.random.default_rng(8), make()
    for p in layer.parameters():
        p.data[...] = normals(rng, p.shape, np.float32)
    x, g = normals(rng, shape, np.float32), normals(rng, shape, np.float32)

    def run(fuse):
        model = nn.Sequential(layer, behind())
        model.fuse = fuse
        model.need_input_grad = True
        for p in model.parameters():
            p.grad[...] = 0
        y = model(x).copy()
        return y.tobytes(), model.backward(g).tobytes(), *(p.grad.tobytes() for p in model.parameters())

    assert run(True) == run(False)
    want = layer(x).copy()
    serialize.save(layer, tmp_path / "layer.safetensors")
    again = serialize.load(tmp_path / "layer.safetensors")
    assert_array_equal(again(x), want)
    assert repr(again) == repr(layer)


@pytest.mark.parametrize(("make", "shape"), LAYERS)
def test_pytorch_gives_the_same(make, shape):
    torch = pytest.importorskip("torch")
    rng, ours = np.random.default_rng(9), make()
    config = ours.config()

    class LayerNorm2d(torch.nn.LayerNorm):  # as torchvision has it
        def __init__(self, num_channels, eps, affine, bias):
            super().__init__(num_channels, eps, affine, bias)

        def forward(self, input):
            return super().forward(input.movedim(1, -1)).movedim(-1, 1)

    theirs = (LayerNorm2d if type(ours) is nn.LayerNorm2d else getattr(torch.nn, type(ours).__name__))(**config)
    state = {name: normals(rng, p.shape, np.float32) for name, p in ours.named_parameters()}
    assert list(theirs.state_dict()) == list(state)
    for name, p in ours.named_parameters():
        p.data[...] = state[name]
    theirs.load_state_dict({name: torch.tensor(a) for name, a in state.items()})
    x, g = normals(rng, shape, np.float32), normals(rng, shape, np.float32)
    leaf = torch.tensor(x, requires_grad=True)
    want = theirs(leaf)
    want.backward(torch.tensor(g))
    ours.need_input_grad = True
    limit = bound(x, x[0].size, *state.values())
    assert_allclose(ours(x), want.detach().numpy(), rtol=0, atol=limit)
    assert_allclose(ours.backward(g), leaf.grad.numpy(), rtol=0, atol=limit * np.abs(g).max())
    for (name, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert_allclose(p.grad, q.grad.numpy(), rtol=0, atol=limit * np.abs(g).max() * x.size, err_msg=name)


X = np.zeros((2, 4, 3, 2), np.float32)


@pytest.mark.parametrize(
    ("error", "call", "message"),
    [
        (ValueError, lambda: F.group_norm(X, 3), "num_groups must divide the channels, got 3 and 4"),
        (ValueError, lambda: F.group_norm(X, 0), "num_groups must be an int >= 1, got 0"),
        (ValueError, lambda: F.group_norm(X[:, :, 0, 0], 4), "a group needs more than 1 value"),
        (ValueError, lambda: F.group_norm(X, 2, np.zeros(3, np.float32)), r"weight must have shape \(4,\), got \(3,\)"),
        (TypeError, lambda: F.group_norm(X, 2, np.zeros(4)), "float32 and float64"),
        (ValueError, lambda: F.group_norm(X, 2, eps=-1.0), "eps must be >= 0, got -1.0"),
        (ValueError, lambda: F.instance_norm(X[:, :, 0, 0]), "dimensions"),
        (ValueError, lambda: F.instance_norm(X[:, :, :1, :1]), "a group needs more than 1 value"),
        (ValueError, lambda: F.layer_norm(X, 3), r"normalized_shape \(3,\) must be the last axes"),
        (ValueError, lambda: F.layer_norm(X, X.shape), "but not all"),
        (ValueError, lambda: F.layer_norm(X, 2.0), "normalized_shape must be an int or several, got 2.0"),
        (ValueError, lambda: F.layer_norm2d(X[:, :, 0, 0]), "dimensions"),
        (ValueError, lambda: F.layer_norm2d(X, np.zeros(3, np.float32)), r"weight must have shape \(4,\), got \(3,\)"),
        (ValueError, lambda: F.layer_norm2d(X[:, :0]), r"empty dimension, shape \(2, 0, 3, 2\)"),
        (ValueError, lambda: nn.LayerNorm2d(3)(X), r"needs 3 channels, got \(2, 4, 3, 2\)"),
        (ValueError, lambda: F.local_response_norm(X, 0), "size must be at least 1, got 0"),
        (ValueError, lambda: nn.GroupNorm(3, 4), "num_groups must divide num_channels, got 3 and 4"),
        (ValueError, lambda: nn.GroupNorm(2, 6)(X), r"needs 6 channels, got \(2, 4, 3, 2\)"),
        (ValueError, lambda: nn.InstanceNorm1d(4)(X), r"needs 3 dimensions, got \(2, 4, 3, 2\)"),
        (ValueError, lambda: nn.LayerNorm(0), "normalized_shape"),
    ],
)
def test_wrong_arguments_are_refused_with_their_numbers(error, call, message):
    with pytest.raises(error, match=message):
        call()


def test_the_batch_may_be_empty():
    x = np.zeros((0, 4, 3, 2), np.float32)
    for got in (
        F.group_norm(x, 2), F.instance_norm(x), F.layer_norm(x, 2), F.layer_norm(x, (4, 3, 2)), F.layer_norm2d(x),
        F.local_response_norm(x, 3), F.group_norm_backward(x, x, 2)[0], F.layer_norm_backward(x, x, 2)[0],
    ):  # fmt: skip
        assert got.shape == x.shape
