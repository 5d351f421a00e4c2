"""Images in the lanes of vectors, for layers of few channels: of no influence on any bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sharing import small_work_shared

import fastconv.functional as F
from fastconv import config

# The scalar table has one lane, so that it never lays images abreast.
VECTORS = [name for name in config.available_isas() if name != "scalar"]


def same(got, want):
    """Every bit but those of NaNs, which may be any."""
    nan = np.isnan(want)
    return (np.isnan(got) == nan).all() and np.where(nan, 0, got).tobytes() == np.where(nan, 0, want).tobytes()


@st.composite
def layers(draw):
    """Draw few channels, many images and any geometry."""
    groups = draw(st.sampled_from([1, 1, 1, 2]))
    c, k = groups * draw(st.integers(1, 4)), groups * draw(st.integers(1, 9))
    r, s = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    stride, dilation = (draw(st.tuples(st.integers(1, 2), st.integers(1, 2))) for _ in range(2))
    padding = draw(st.tuples(st.integers(0, 3), st.integers(0, 3)))
    h = draw(st.integers(max(1, (r - 1) * dilation[0] + 1 - 2 * padding[0]), 18))
    w = draw(st.integers(max(1, (s - 1) * dilation[1] + 1 - 2 * padding[1]), 18))
    n = draw(st.sampled_from([9, 15, 16, 17, 31, 32, 33, 48, 64]))
    return (n, c, h, w), (k, c // groups, r, s), (stride, padding, dilation, groups)


def numbers(rng, shape, dtype, odd):
    """Normal numbers; if ``odd``, zeros of both signs, denormal and infinite ones among them."""
    a = rng.standard_normal(shape).astype(dtype)
    if odd:
        for value in (0.0, -0.0, 1e-30, -1e-42, np.inf, np.nan):
            a[rng.random(shape) < 0.02] = value
    return a


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@settings(max_examples=60, deadline=None)
@given(
    layer=layers(), seed=st.integers(0, 999), odd=st.booleans(), tiny=st.booleans(), threads=st.integers(1, 3),
    last=st.booleans(),
)  # fmt: skip
def test_all_bits_are_those_of_one_image_at_a_time(dtype, layer, seed, odd, tiny, threads, last):
    x_shape, w_shape, options = layer
    rng = np.random.default_rng(seed)
    x, weight, bias = (numbers(rng, shape, dtype, odd) for shape in (x_shape, w_shape, w_shape[:1]))
    if tiny:  # products are about the smallest normal number: some of them, and sums, become zeros of either sign
        x, weight = (a * np.sqrt(np.finfo(dtype).tiny) for a in (x, weight))
        bias = np.full_like(bias, -0.0)
    if last:
        x = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    with config.isa("scalar"):
        want = F.conv2d(x, weight, bias, *options)
        grad = numbers(rng, want.shape, dtype, odd)
        if tiny:
            grad = grad * np.sqrt(np.finfo(dtype).tiny)
        gradients = F.conv2d_backward(grad, x, weight, *options)
    with small_work_shared():
        for name in VECTORS:
            with config.isa(name), config.threads(threads):
                assert same(F.conv2d(x, weight, bias, *options), want), name
                for got, gradient in zip(F.conv2d_backward(grad, x, weight, *options), gradients, strict=True):
                    assert same(got, gradient), name


@pytest.mark.parametrize("border", [0.0, np.inf, np.nan])
@pytest.mark.parametrize("sign", [1, -1])
def test_taps_beside_the_image_add_zeros(sign, border):
    """They are left out where that changes no bit: not with weights that are not finite, not of sums that are -0."""
    rng = np.random.default_rng(0)
    tiny = np.sqrt(np.finfo(np.float32).tiny) / 4  # a product of two is 0 with its sign
    weight = tiny * rng.choice([-1, 1], (4, 3, 3, 5)).astype(np.float32)
    weight[:, :, :, 0] = sign * tiny
    weight[0, 0, 0, 4] = border
    x = tiny * rng.choice([-1, 1], (16, 3, 6, 7)).astype(np.float32)
    with config.isa("scalar"):
        want = F.conv2d(x, weight, None, 1, 4)
        wanted = F.conv2d_backward(np.full_like(want, tiny), x, weight, 1, 4)[0]
    assert border or (np.signbit(want).any() and not np.signbit(want).all())
    for name in VECTORS:
        with config.isa(name):
            assert same(F.conv2d(x, weight, None, 1, 4), want), name
            assert same(F.conv2d_backward(np.full_like(want, tiny), x, weight, 1, 4)[0], wanted), name


@pytest.mark.parametrize("activation", [None, "relu", "gelu"])
@pytest.mark.parametrize("images", [16, 21])
def test_a_batch_has_the_bits_of_its_images(images, activation):
    rng = np.random.default_rng(1)
    x, weight = numbers(rng, (images, 1, 15, 13), np.float32, False), numbers(rng, (6, 1, 5, 5), np.float32, False)
    bias = numbers(rng, (6,), np.float32, False)

    def run(images):
        y = F.conv2d(images, weight, bias, 1, 2)
        return y if activation is None else getattr(F, activation)(y)

    whole = run(x)
    for n in range(images):
        assert same(run(x[n : n + 1])[0], whole[n])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@settings(max_examples=30, deadline=None)
@given(pixels=st.integers(1, 9000), channels=st.integers(1, 70), seed=st.integers(0, 99))
def test_a_bias_gradient_has_the_bits_of_its_shards(dtype, pixels, channels, seed):
    """Four shards go side by side: each is still one chain, and the shards are added in their tree."""
    grad = np.random.default_rng(seed).standard_normal((pixels, channels)).astype(dtype)
    count = max(1, min(16, pixels // 256))
    shards = []
    for i in range(count):
        part = grad[i * pixels // count : (i + 1) * pixels // count]
        shards.append(np.add.accumulate(part, axis=0)[-1])
    gap = 1
    while gap < count:
        for i in range(0, count - gap, 2 * gap):
            shards[i] = shards[i] + shards[i + gap]
        gap *= 2
    for name in config.available_isas():
        with config.isa(name):
            _, got = F.bias_add_backward(grad)
            assert np.array_equal(got, shards[0]), name
