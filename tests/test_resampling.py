"""Images in another size: the pixels PyTorch takes, bit by bit, those between, and the gradients."""

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from layers import LAYOUTS
from numpy.testing import assert_array_equal

import fastconv.functional as F
from fastconv import nn
from fastconv.testing import gradcheck

FACTORS = st.one_of(st.sampled_from((0.5, 1, 1.5, 2, 3, 1.0, 0.9999)), st.floats(0.2, 4))


@st.composite
def drawn(draw):
    """Return a shape, arguments of `interpolate`, and which rows and columns come out."""
    shape = (draw(st.integers(0, 2)), draw(st.integers(1, 3)), draw(st.integers(1, 9)), draw(st.integers(1, 9)))
    if draw(st.booleans()):
        size = draw(st.tuples(st.integers(1, 20), st.integers(1, 20)))
        return shape, {"size": size}, [reference.nearest(n, m) for n, m in zip(shape[2:], size, strict=True)]
    factors = draw(st.tuples(FACTORS, FACTORS).filter(lambda f: shape[2] * f[0] >= 1 and shape[3] * f[1] >= 1))
    sources = [reference.nearest(n, int(n * f), f) for n, f in zip(shape[2:], factors, strict=True)]
    return shape, {"scale_factor": factors}, sources


@st.composite
def between(draw):
    """Return a shape, arguments of `interpolate` for "bilinear", and a function of the dtype to rows and columns."""
    shape = (draw(st.integers(0, 2)), draw(st.integers(1, 3)), draw(st.integers(1, 9)), draw(st.integers(1, 9)))
    align = draw(st.sampled_from((None, False, True)))
    options = {"mode": "bilinear", "align_corners": align}
    factors = (None, None)
    if draw(st.booleans()):
        size = options["size"] = draw(st.tuples(st.integers(1, 20), st.integers(1, 20)))
    else:
        fits = lambda f: shape[2] * f[0] >= 1 and shape[3] * f[1] >= 1  # noqa: E731
        factors = options["scale_factor"] = draw(st.tuples(FACTORS, FACTORS).filter(fits))
        size = tuple(int(n * f) for n, f in zip(shape[2:], factors, strict=True))
    lines = list(zip(shape[2:], size, factors, strict=True))
    return shape, options, lambda dtype: [reference.between(*line, align, dtype) for line in lines]


def normals(shape, dtype, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


@given(case=drawn(), dtype=st.sampled_from([np.float32, np.float64]))
@settings(max_examples=100, deadline=None)
def test_every_pixel_is_the_one_it_copies_and_its_gradient_the_sum_of_the_copies(case, dtype):
    shape, options, sources = case
    x = normals(shape, dtype)
    y = F.interpolate(x, **options)
    assert y.dtype == dtype
    assert_array_equal(y, reference.interpolate(x, *sources))
    g = normals(y.shape, dtype, 1)
    found = F.interpolate_backward(g, x, **options)
    assert found.dtype == dtype
    assert_array_equal(found, reference.interpolate_backward(g, x, *sources))


@given(case=between(), dtype=st.sampled_from([np.float32, np.float64]))
@settings(max_examples=100, deadline=None)
def test_every_pixel_between_others_is_their_weighted_mean_and_its_gradient_goes_to_them(case, dtype):
    shape, options, lines = case
    x = normals(shape, dtype)
    y = F.interpolate(x, **options)
    assert y.dtype == dtype
    assert_array_equal(y, reference.bilinear(x, *lines(dtype)))
    g = normals(y.shape, dtype, 1)
    found = F.interpolate_backward(g, x, **options)
    assert found.dtype == dtype
    assert_array_equal(found, reference.bilinear_backward(g, x, *lines(dtype)))
    layer = nn.Upsample(**options)
    assert_array_equal(layer(x), y)
    assert_array_equal(layer.backward(g), found)


@pytest.mark.gradients
@given(case=between(), seed=st.integers(0, 2**16))
@settings(max_examples=30, deadline=None)
def test_pixels_between_others_pass_the_gradient_check(case, seed):
    shape, options, _ = case
    gradcheck(nn.Upsample(**options), (2, *shape[1:]), seed=seed)


@given(case=between(), seed=st.integers(0, 2**16), dtype=st.sampled_from([np.float32, np.float64]))
@settings(max_examples=60, deadline=None)
def test_pixels_between_others_and_their_gradients_are_torch_s(case, seed, dtype):
    torch = pytest.importorskip("torch")
    shape, options, _ = case
    x = normals((2, *shape[1:]), dtype, seed)
    theirs = torch.from_numpy(x).requires_grad_()
    wanted = torch.nn.Upsample(**options)(theirs)
    g = normals(wanted.shape, dtype, seed + 1)
    wanted.backward(torch.from_numpy(g))
    # positions are rounded relative to 9 rows, and so are weights; a pixel's gradient adds up at most all of them
    eps = np.finfo(dtype).eps
    tolerance = 40 * eps * np.abs(x).max(initial=1)
    np.testing.assert_allclose(F.interpolate(x, **options), wanted.detach(), rtol=0, atol=tolerance)
    tolerance = 40 * eps * np.abs(g).sum(axis=(2, 3)).max(initial=1)
    np.testing.assert_allclose(F.interpolate_backward(g, x, **options), theirs.grad, rtol=0, atol=tolerance)


def test_every_isa_and_thread_count_gives_the_same_bits(every_setting):
    x = normals((2, 5, 7, 6), np.float32)
    g = normals((2, 5, 16, 9), np.float32)
    for mode in ("nearest", "bilinear"):
        how = {"size": (16, 9), "mode": mode}
        results = every_setting(
            lambda how=how: (F.interpolate(x, **how).tobytes(), F.interpolate_backward(g, x, **how).tobytes())
        )
        assert len(set(results.values())) == 1


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_layout_never_changes_a_result(name, mode):
    x, g = normals((2, 5, 7, 6), np.float32), normals((2, 5, 16, 9), np.float32)
    laid, how = LAYOUTS[name], {"size": (16, 9), "mode": mode}
    assert_array_equal(F.interpolate(laid(x), **how), F.interpolate(x, **how))
    assert_array_equal(F.interpolate_backward(laid(g), laid(x), **how), F.interpolate_backward(g, x, **how))
    layer = nn.Upsample(**how)
    assert_array_equal(layer(laid(x)), F.interpolate(x, **how))
    assert_array_equal(layer.backward(laid(g)), F.interpolate_backward(g, x, **how))


@pytest.mark.gradients
@given(case=drawn(), seed=st.integers(0, 2**16))
@settings(max_examples=30, deadline=None)
def test_the_layer_passes_the_gradient_check(case, seed):
    shape, options, _ = case
    gradcheck(nn.Upsample(**options), (2, *shape[1:]), seed=seed)


def image(*shape, dtype=np.float32):
    return np.ones(shape, dtype)


@pytest.mark.parametrize(
    ("error", "words", "call"),
    [
        (ValueError, "either size or scale_factor, got None and None", lambda: F.interpolate(image(1, 1, 2, 2))),
        (ValueError, r"either size or scale_factor, got \(3, 3\) and \(2, 2\)", lambda: nn.Upsample(3, 2)),
        (ValueError, "size must be an int >= 1 or a pair of them, got .*0", lambda: nn.Upsample(0)),
        (ValueError, "size must be an int >= 1 or a pair of them, got .*1, 2, 3", lambda: nn.Upsample((1, 2, 3))),
        *(
            (ValueError, f"scale_factor must be a number .*{shown}", lambda factor=factor: nn.Upsample(None, factor))
            for factor, shown in ((0, "0"), (-2, "-2"), (np.nan, "nan"), (np.inf, "inf"), ("2", "2"), ((1, 2, 3), "3"))
        ),
        (ValueError, "interpolate: mode must be 'nearest' or 'bilinear', got 'area'",
         lambda: nn.Upsample(2, mode="area")),
        (ValueError, "align_corners=True is for mode='bilinear'", lambda: nn.Upsample(2, align_corners=True)),
        (ValueError, r"an image of \(2, 2\) pixels would have \(0, 0\)",
         lambda: F.interpolate(image(1, 1, 2, 2), scale_factor=0.4)),
        (ValueError, "larger than any memory", lambda: F.interpolate(image(1, 1, 2, 2), scale_factor=1e8 * 9)),
        (ValueError, "input must have 4 dimensions, got shape", lambda: F.interpolate(image(1, 2, 2), 4)),
        (TypeError, "int64", lambda: F.interpolate(image(1, 1, 2, 2, dtype=np.int64), 4)),
        (ValueError, r"grad_output must have shape \(1, 1, 4, 4\), got \(1, 1, 3, 4\)",
         lambda: F.interpolate_backward(image(1, 1, 3, 4), image(1, 1, 2, 2), 4)),
    ],
)  # fmt: skip
def test_bad_input_is_an_error_with_the_values(error, words, call):
    with pytest.raises(error, match=words):
        call()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_pixels_are_torch_s_for_all_small_sizes(dtype):
    torch = pytest.importorskip("torch")
    for inputs in range(1, 50):
        ours = np.arange(inputs, dtype=dtype).reshape(1, 1, inputs, 1)
        theirs = torch.from_numpy(ours.copy())
        for outputs in range(1, 80):
            wanted = torch.nn.functional.interpolate(theirs, size=(outputs, 1))
            assert_array_equal(F.interpolate(ours, (outputs, 1)), wanted.numpy(), err_msg=f"{inputs} to {outputs}")


@given(case=drawn(), seed=st.integers(0, 2**16))
@settings(max_examples=60, deadline=None)
def test_values_and_gradients_are_torch_s(case, seed):
    torch = pytest.importorskip("torch")
    shape, options, _ = case
    x = np.random.default_rng(seed).integers(-8, 9, (2, *shape[1:])).astype(np.float32)
    theirs = torch.from_numpy(x).requires_grad_()
    wanted = torch.nn.Upsample(**options)(theirs)
    layer = nn.Upsample(**options)
    assert_array_equal(layer(x), wanted.detach().numpy())
    g = np.random.default_rng(seed).integers(-8, 9, wanted.shape).astype(np.float32)
    wanted.backward(torch.from_numpy(g))
    assert_array_equal(layer.backward(g), theirs.grad.numpy())
