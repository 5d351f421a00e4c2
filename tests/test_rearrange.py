"""Shuffles, borders, whole channels and samples dropped, squeeze and excitation."""

import math

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from layers import LAYOUTS
from numpy.testing import assert_allclose, assert_array_equal
from vision import torchvision

import fastconv
import fastconv.functional as F
from fastconv import nn, serialize

seeds = st.integers(0, 2**32 - 1)
small = st.integers(1, 4)
layouts = st.sampled_from(sorted(LAYOUTS))


def integers(rng, shape, dtype=np.float32):
    return rng.integers(-9, 10, shape).astype(dtype)


def pixel_shuffle(x, r):
    n, c, h, w = x.shape
    return x.reshape(n, c // (r * r), r, r, h, w).transpose(0, 1, 4, 2, 5, 3).reshape(n, c // (r * r), h * r, w * r)


def channel_shuffle(x, groups):
    n, c, *sizes = x.shape
    return x.reshape(n, groups, c // groups, *sizes).swapaxes(1, 2).reshape(x.shape)


def check_adjoint(forward, backward, x, y, rng, layout):
    """Exact for small integers: <forward(x), g> == <x, backward(g)>."""
    g = integers(rng, y.shape)
    gx = backward(LAYOUTS[layout](g), LAYOUTS[layout](x))
    assert gx.shape == x.shape
    assert (y * g).sum(dtype=np.float64) == (x * gx).sum(dtype=np.float64)
    one = np.zeros_like(x)  # and the gradient of one element, so that no other sum makes up for it
    at = tuple(int(rng.integers(n)) for n in x.shape)
    one[at] = 1
    assert (forward(one) * g).sum() == gx[at]


@given(n=small, c=small, h=small, w=small, r=st.integers(1, 3), seed=seeds, layout=layouts)
@settings(max_examples=50, deadline=None)
def test_pixel_shuffle_is_its_twin(n, c, h, w, r, seed, layout):
    rng = np.random.default_rng(seed)
    x = integers(rng, (n, c * r * r, h, w))
    y = F.pixel_shuffle(LAYOUTS[layout](x), r)
    assert_array_equal(y, pixel_shuffle(x, r))
    check_adjoint(lambda a: F.pixel_shuffle(a, r), lambda g, a: F.pixel_shuffle_backward(g, a, r), x, y, rng, layout)


@given(n=small, depth=small, groups=small, sizes=st.lists(small, max_size=2), seed=seeds, layout=layouts)
@settings(max_examples=50, deadline=None)
def test_channel_shuffle_is_its_twin(n, depth, groups, sizes, seed, layout):
    rng = np.random.default_rng(seed)
    x = integers(rng, (n, depth * groups, *sizes))
    y = F.channel_shuffle(LAYOUTS[layout](x), groups)
    assert_array_equal(y, channel_shuffle(x, groups))
    check_adjoint(
        lambda a: F.channel_shuffle(a, groups), lambda g, a: F.channel_shuffle_backward(g, a, groups), x, y, rng, layout
    )


@given(shape=st.tuples(small, small, st.integers(1, 6), st.integers(1, 6)), data=st.data(), seed=seeds, layout=layouts)
@settings(max_examples=100, deadline=None)
def test_reflection_is_that_of_numpy(shape, data, seed, layout):
    rng = np.random.default_rng(seed)
    top, bottom = data.draw(st.tuples(*[st.integers(0, shape[2] - 1)] * 2))
    left, right = data.draw(st.tuples(*[st.integers(0, shape[3] - 1)] * 2))
    x, padding = integers(rng, shape), (left, right, top, bottom)
    y = F.reflection_pad2d(LAYOUTS[layout](x), padding)
    assert_array_equal(y, np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), mode="reflect"))
    check_adjoint(
        lambda a: F.reflection_pad2d(a, padding), lambda g, a: F.reflection_pad2d_backward(g, a, padding), x, y, rng,
        layout,
    )  # fmt: skip


LAYERS = [
    (lambda: nn.PixelShuffle(2), (2, 8, 3, 4)), (lambda: nn.ChannelShuffle(3), (2, 6, 3, 4)),
    (lambda: nn.ChannelShuffle(2), (2, 6, 5)), (lambda: nn.ZeroPad2d((1, 0, 2, 1)), (2, 3, 4, 5)),
    (lambda: nn.ZeroPad2d(-1), (2, 3, 4, 5)), (lambda: nn.ReflectionPad2d((1, 2, 3, 0)), (2, 3, 4, 5)),
    (lambda: nn.SqueezeExcitation(4, 2), (3, 4, 5, 6)),
    (lambda: nn.SqueezeExcitation(4, 2, nn.SiLU, nn.Hardsigmoid), (3, 4, 5, 6)),
]  # fmt: skip


def step(model, x, g):
    model.need_input_grad = True
    for p in model.parameters():
        p.grad[...] = 0
    y = model(x).copy()
    return y, model.backward(g).copy(), *(p.grad.copy() for p in model.parameters())


@pytest.mark.parametrize(("make", "shape"), LAYERS)
def test_layers_saved_and_loaded_equal_bits_everywhere(make, shape, tmp_path, every_setting):
    rng, layer = np.random.default_rng(2), make()
    x = rng.standard_normal(shape).astype(np.float32)
    y = layer(x).copy()
    g = rng.standard_normal(y.shape).astype(np.float32)
    results = every_setting(lambda: [a.tobytes() for a in step(layer, x, g)])
    assert all(found == next(iter(results.values())) for found in results.values())
    serialize.save(layer, tmp_path / "layer.safetensors")
    again = serialize.load(tmp_path / "layer.safetensors")
    assert_array_equal(again(x), y)
    assert repr(again) == repr(layer)


@pytest.mark.parametrize(("make", "shape"), LAYERS)
def test_pytorch_gives_the_same(make, shape):
    torch = pytest.importorskip("torch")
    rng, ours = np.random.default_rng(3), make()
    config, name = ours.config(), type(ours).__name__
    if name == "SqueezeExcitation":
        for key in ("activation", "scale_activation"):
            config[key] = getattr(torch.nn, type(config[key]).__name__)
    theirs = getattr(torchvision().ops if name == "SqueezeExcitation" else torch.nn, name)(**config)
    state = {key: torch.tensor(np.asarray(a)) for key, a in ours.state_dict().items()}
    assert list(state) == list(theirs.state_dict())
    theirs.load_state_dict(state)
    x = rng.standard_normal(shape).astype(np.float32)
    leaf = torch.tensor(x, requires_grad=True)
    want = theirs(leaf)
    g = rng.standard_normal(tuple(want.shape)).astype(np.float32)
    want.backward(torch.tensor(g))
    y, gx, *grads = step(ours, x, g)
    if not grads and name != "ReflectionPad2d":
        assert_array_equal(y, want.detach().numpy())
        assert_array_equal(gx, leaf.grad.numpy())
        return
    # sums of at most 64 products of numbers below 5, through slopes of at most 1
    bound = 64 * np.finfo(np.float32).eps * (1 + np.abs(x).max()) ** 2 * (1 + np.abs(g).max()) * math.prod(shape[2:])
    for a, b in zip((y, gx, *grads), (want, leaf.grad, *(p.grad for p in theirs.parameters())), strict=True):
        assert_allclose(a, b.detach().numpy(), rtol=0, atol=bound)


@pytest.mark.gradients
def test_the_gradient_of_squeeze_and_excitation():
    rng, layer = np.random.default_rng(4), nn.SqueezeExcitation(3, 2, nn.Tanh).astype(np.float64)
    layer.need_input_grad = True
    x, g = rng.standard_normal((2, 3, 3, 2)), rng.standard_normal((2, 3, 3, 2))
    numerical = reference.numerical_gradient(lambda a: float((layer(a) * g).sum()), x)
    layer(x)
    scale = np.abs(g).sum() * np.abs(x).max()
    assert_allclose(layer.backward(g), numerical, rtol=0, atol=1e-9 * scale + 8 * np.finfo(float).eps * scale / 1e-6)


WHOLE = [
    (lambda: nn.Dropout2d(0.4), (2, 3)), (lambda: nn.StochasticDepth(0.4), (1, 2, 3)),
    (lambda: nn.StochasticDepth(0.4, "batch"), (0, 1, 2, 3)),
]  # fmt: skip


@pytest.mark.parametrize(("make", "together"), WHOLE)
def test_what_is_dropped_is_dropped_whole_by_the_key_alone(make, together, tmp_path, every_setting):
    fastconv.manual_seed(5)
    layer = make()
    layer.need_input_grad = True
    x, seen = np.random.default_rng(6).standard_normal((8, 6, 3, 4)).astype(np.float32), set()
    start = layer.step
    for _ in range(40):
        key = dict(seed=layer.seed, stream=layer.stream, step=layer.step)
        y = layer(x).copy()
        ratio = y / x
        kept = ratio.max(together, keepdims=True)
        assert_allclose(ratio, np.broadcast_to(kept, x.shape), rtol=1e-6)
        shape = tuple(1 if axis in together else n for axis, n in enumerate(x.shape))
        flat = (shape[0], shape[1])
        want = F.dropout(np.ones(flat, np.float32), 0.4, True, **key)
        assert_array_equal(y, x * want.reshape(shape))
        seen.update(np.unique(want).tolist())
        assert_array_equal(layer.backward(x), y)  # the same factors
    assert seen == {0.0, float(np.float32(1 / 0.6))}
    assert layer.step == start + 40

    def again():
        layer.step = 3
        return layer(x).tobytes()

    assert len(set(every_setting(again).values())) == 1
    serialize.save(layer, tmp_path / "layer.safetensors")
    loaded = serialize.load(tmp_path / "layer.safetensors").train()
    assert_array_equal(loaded(x), layer(x))
    layer.eval()
    assert_array_equal(layer(x), x)


def test_what_is_dropped_is_the_same_when_computed_twice():
    fastconv.manual_seed(7)
    x = np.random.default_rng(8).standard_normal((4, 3, 5, 5)).astype(np.float32)
    net = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.Dropout2d(0.5), nn.ReLU(), nn.StochasticDepth(0.5), nn.Tanh())
    found = []
    for checkpoint in (False, True):
        net.checkpoint = checkpoint
        for layer in (net[1], net[3]):
            layer.step = 0
        found.append([a.tobytes() for a in step(net, x, np.ones((4, 6, 5, 5), np.float32))])
    assert found[0] == found[1]


X = np.zeros((2, 6, 3, 2), np.float32)


@pytest.mark.parametrize(
    ("error", "call", "message"),
    [
        (ValueError, lambda: F.pixel_shuffle(X, 2), "needs a multiple of 4 channels, got 6"),
        (ValueError, lambda: F.pixel_shuffle(X, 0), "upscale_factor must be at least 1, got 0"),
        (ValueError, lambda: F.channel_shuffle(X, 4), "groups must divide the channels, got 4 and 6"),
        (ValueError, lambda: F.reflection_pad2d(X, 2), r"smaller than the image, got \(2, 2\) for width 2"),
        (ValueError, lambda: F.reflection_pad2d(X, (1, 1, -1, 0)), r"got \(-1, 0\) for height 3"),
        (ValueError, lambda: F.reflection_pad2d(X, (1, 1)), r"an int or \(left, right, top, bottom\), got \(1, 1\)"),
        (ValueError, lambda: nn.StochasticDepth(0.5, "rows"), "mode must be 'row' or 'batch', got 'rows'"),
        (ValueError, lambda: nn.Dropout2d(1.5), r"p must be in \[0, 1\], got 1.5"),
        (ValueError, lambda: nn.Dropout2d()(X[:, :, 0, 0]), "needs 3 or 4 dimensions"),
        (ValueError, lambda: nn.ReflectionPad2d(-1), "padding must be at least 0"),
        (TypeError, lambda: nn.SqueezeExcitation(4, 2, "relu"), "activation must be a Module .* got str"),
        (ValueError, lambda: nn.SqueezeExcitation(4, 2)(X), "4 input channels"),
    ],
)
def test_wrong_arguments_are_refused_with_their_numbers(error, call, message):
    with pytest.raises(error, match=message):
        call()


@settings(deadline=None)
@given(st.integers(0, 4), st.integers(1, 37), st.lists(st.integers(1, 9), min_size=1, max_size=2),
       st.sampled_from([np.float32, np.float64]))  # fmt: skip
def test_flatten_moves_every_element_and_its_gradient_back(n, channels, sizes, dtype):
    """Channels last to C order and back, whatever fills the vectors; denormals, NaN and -0 are moved as they are."""
    shape = (n, channels, *sizes)
    x = np.arange(math.prod(shape), dtype=dtype).reshape(shape)
    flat = x.reshape(-1)
    flat[:4] = [np.nan, -0.0, np.finfo(dtype).smallest_subnormal, -np.inf][: flat.size]
    layer = nn.Flatten()
    y = layer.forward(x)
    assert y.tobytes() == x.tobytes()
    back = layer.backward(y.copy())
    assert np.ascontiguousarray(back).tobytes() == x.tobytes()
