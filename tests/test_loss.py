"""Losses: against the oracles, labels checked, equal bits everywhere, gradients by central differences."""

import math

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import fastconv.functional as F
from fastconv import nn

FLOATS = [np.float32, np.float64]
REDUCTIONS = ["mean", "sum", "none"]
INTEGERS = [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64]
inf, nan = np.inf, np.nan

# name: function, oracle of the single losses, gradient; all take scores and labels
LOSSES = {
    "cross_entropy": (F.cross_entropy, reference.cross_entropy, F.cross_entropy_backward),
    "multi_margin_loss": (F.multi_margin_loss, reference.multi_margin_loss, F.multi_margin_loss_backward),
}
losses = pytest.mark.parametrize("name", LOSSES)
floats = pytest.mark.parametrize("dtype", FLOATS)


def call(name, x, target, reduction="mean", **kwargs):
    return LOSSES[name][0](x, target, reduction=reduction, **kwargs)


def gradient(name, g, x, target, reduction="mean", **kwargs):
    return LOSSES[name][2](g, x, target, reduction=reduction, **kwargs)


def draw(rows, classes, dtype=np.float64, seed=0, scale=3.0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(rows, classes)) * scale).astype(dtype), rng.integers(0, classes, rows)


def rounding(x):
    """Bound the rounding errors of one row's loss: of differences, and of a sum over the classes."""
    return np.finfo(x.dtype).eps * (8 * max(1.0, np.abs(x).max()) + x.shape[1] / 16 + 10)


problems = st.builds(
    draw,
    st.integers(1, 20),
    st.integers(1, 70),
    st.sampled_from(FLOATS),
    st.integers(0, 2**16),
    st.sampled_from([0.1, 3.0, 50.0]),
)

# --- forward ----------------------------------------------------------------------------------------------


@losses
@given(problem=problems)
@settings(max_examples=60, deadline=None)
def test_losses_match_the_oracle(name, problem):
    x, target = problem
    exact = LOSSES[name][1](x, target)
    result = call(name, x, target, "none")
    assert result.dtype == x.dtype
    assert_allclose(result, exact, rtol=0, atol=rounding(x))
    total, mean = call(name, x, target, "sum"), call(name, x, target)
    assert type(total) is float
    assert type(mean) is float
    # the single losses as they are, summed in double
    assert_allclose(total, result.astype(np.float64).sum(), rtol=1e-14)
    assert mean == total / len(x)


def test_a_margin_loss_by_hand():
    x = np.array([[1.0, 2.0, 4.0, 0.0], [3.0, 0.0, 0.0, 0.0]], np.float32)
    target = np.array([1, 0])
    assert_array_equal(F.multi_margin_loss(x, target, reduction="none"), [(0 + 3 + 0) / 4, 0])
    assert_array_equal(F.multi_margin_loss(x, target, 4.0, "none"), [(3 + 6 + 2) / 4, 3 / 4])
    # class 0 stands on the kink (1 - 2 + 1 == 0) and has no gradient
    expected = [[0, -0.25, 0.25, 0], [0, 0, 0, 0]]
    assert_array_equal(F.multi_margin_loss_backward(1.0, x, target, reduction="sum"), expected)
    assert_array_equal(F.multi_margin_loss_backward(1.0, x, target), np.array(expected) / 2)


def test_cross_entropy_of_equal_scores_is_the_logarithm_of_their_number():
    for classes in (2, 10, 1000):
        x = np.full((4, classes), 7.0)
        assert_allclose(F.cross_entropy(x, np.arange(4) % classes), math.log(classes), rtol=1e-15)


@floats
def test_cross_entropy_does_not_overflow(isa, dtype):
    x = np.array([[1e4, -1e4, 0], [0, -1e4, 1e4]], dtype)
    assert_array_equal(F.cross_entropy(x, np.array([0, 0]), "none"), [0, 1e4])


@losses
@pytest.mark.parametrize("spatial", [(7,), (3, 4)])
def test_classes_of_pixels_are_rows(name, spatial):
    """(N, C, H, W) with labels (N, H, W) is the loss of N * H * W rows."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(2, 5, *spatial)).astype(np.float32)
    target = rng.integers(0, 5, (2, *spatial))
    g = rng.normal(size=target.shape).astype(np.float32)
    rows = np.moveaxis(x, 1, -1).reshape(-1, 5)
    single = call(name, x, target, "none")
    assert_array_equal(single.ravel(), call(name, rows, target.ravel(), "none"))
    assert call(name, x, target) == call(name, rows, target.ravel())
    for reduction, scale in (("mean", 1.0), ("none", g)):
        flat_scale = scale.ravel() if reduction == "none" else scale
        dx = gradient(name, scale, x, target, reduction)
        expected = gradient(name, flat_scale, rows, target.ravel(), reduction)
        assert_array_equal(np.moveaxis(dx, 1, -1).reshape(-1, 5), expected)
    if len(spatial) == 2:
        assert dx.transpose(0, 2, 3, 1).flags.c_contiguous


@given(
    shape=st.lists(st.integers(1, 12), min_size=1, max_size=4).map(tuple),
    dtype=st.sampled_from(FLOATS),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=40, deadline=None)
def test_mse_matches_the_oracle(shape, dtype, seed):
    rng = np.random.default_rng(seed)
    x, y, g = (rng.normal(size=shape).astype(dtype) for _ in range(3))
    eps = np.finfo(dtype).eps
    difference = x.astype(np.float64) - y
    square = difference**2
    assert_allclose(F.mse_loss(x, y, "none"), square, rtol=4 * eps)
    assert_allclose(F.mse_loss(x, y, "sum"), square.sum(), rtol=(x.size / 16 + 20) * eps)
    assert F.mse_loss(x, y) == F.mse_loss(x, y, "sum") / x.size
    assert_allclose(
        F.mse_loss_backward(3.0, x, y), 6 * difference / x.size, rtol=4 * eps, atol=4 * eps / x.size
    )
    assert_allclose(F.mse_loss_backward(3.0, x, y, "sum"), 6 * difference, rtol=4 * eps, atol=4 * eps)
    assert_allclose(F.mse_loss_backward(g, x, y, "none"), 2 * difference * g, rtol=4 * eps, atol=4 * eps)


def test_mse_of_integers_is_exact():
    rng = np.random.default_rng(2)
    x, y = (rng.integers(-8, 9, (3, 5, 40, 40)).astype(np.float32) for _ in range(2))
    assert F.mse_loss(x, y, "sum") == ((x - y) ** 2).sum(dtype=np.float64)


# --- special values ---------------------------------------------------------------------------------------


@floats
def test_nan_and_infinity_go_through_cross_entropy(isa, dtype):
    x = np.array([[nan, 0, 1], [inf, 0, 1], [-inf] * 3, [-inf, 0, 0], [0, -inf, -inf]], dtype)
    target = np.array([1, 1, 0, 0, 0])
    single = F.cross_entropy(x, target, "none")
    assert np.isnan(single[:3]).all()
    assert_array_equal(single[3:], [inf, 0])
    assert math.isnan(F.cross_entropy(x, target))
    dx = F.cross_entropy_backward(1.0, x, target, "sum")
    assert np.isnan(dx[:3]).all()
    assert_array_equal(dx[3:], [[-1, 0.5, 0.5], [0, 0, 0]])


@floats
def test_nan_and_infinity_go_through_the_hinge(isa, dtype):
    x = np.array([[nan, 0, 1], [0, nan, 1], [inf, 0, 1], [0, inf, 1], [-inf, 0, 1], [inf, inf, 0]], dtype)
    target = np.zeros(6, np.int64)
    assert_array_equal(F.multi_margin_loss(x, target, reduction="none"), [nan, nan, 0, inf, inf, nan])
    dx = F.multi_margin_loss_backward(3.0, x, target, reduction="sum")
    expected = [[nan] * 3, [-1, nan, 1], [0, 0, 0], [-2, 1, 1], [-2, 1, 1], [0, nan, 0]]
    assert_array_equal(dx, np.array(expected, dtype))


def test_nan_goes_through_mse():
    x = np.array([1.0, nan, inf])
    assert_array_equal(F.mse_loss(x, np.zeros(3), "none"), [1, nan, inf])
    assert math.isnan(F.mse_loss(x, np.zeros(3)))


@losses
@pytest.mark.parametrize("shape", [(0, 3), (0, 3, 2, 2)])
def test_empty_batch(name, shape):
    x, target = np.empty(shape, np.float32), np.empty((0, *shape[2:]), np.int64)
    assert math.isnan(call(name, x, target))
    assert call(name, x, target, "sum") == 0.0
    assert call(name, x, target, "none").shape == target.shape
    assert gradient(name, 1.0, x, target).shape == shape


def test_mse_of_an_empty_batch():
    x = np.empty((0, 3))
    assert math.isnan(F.mse_loss(x, x))
    assert F.mse_loss(x, x, "sum") == 0.0
    assert F.mse_loss(x, x, "none").shape == F.mse_loss_backward(1.0, x, x).shape == (0, 3)


# --- equal bits -------------------------------------------------------------------------------------------


@floats
@losses
@pytest.mark.parametrize("classes", [1, 10, 16, 37, 300])
def test_same_bits_on_every_table_and_thread_count(every_setting, name, dtype, classes):
    x, target = draw(30_000 // classes, classes, dtype)
    g = np.random.default_rng(3).normal(size=len(x)).astype(dtype)

    def run():
        parts = [
            call(name, x, target, "none"),
            np.array([call(name, x, target), call(name, x, target, "sum")]),
        ]
        return b"".join(
            a.tobytes()
            for a in (*parts, gradient(name, 1.0, x, target), gradient(name, g, x, target, "none"))
        )

    assert len(set(every_setting(run).values())) == 1


@floats
def test_mse_has_the_same_bits_on_every_table_and_thread_count(every_setting, dtype):
    rng = np.random.default_rng(4)
    x, y = (rng.normal(size=(7, 3, 101, 100)).astype(dtype) for _ in range(2))

    def run():
        return F.mse_loss(x, y), F.mse_loss(x, y, "sum"), F.mse_loss_backward(1.0, x, y).tobytes()

    assert len(set(every_setting(run).values())) == 1


@losses
def test_layout_and_label_type_never_change_a_result(name):
    x, target = draw(33, 12, np.float32)
    read_only = x.copy()
    read_only.flags.writeable = False
    wide = np.zeros((33, 24), np.float32)
    wide[:, ::2] = x
    expected = call(name, x, target), gradient(name, 1.0, x, target)
    for xs in (np.asfortranarray(x), x.astype(">f4"), read_only, wide[:, ::2], x[::-1].copy()[::-1]):
        assert call(name, xs, target) == expected[0]
        assert_array_equal(gradient(name, 1.0, xs, target), expected[1])
    types = [np.dtype(t) for t in INTEGERS]
    spread = np.zeros(66, np.int32)
    spread[::2] = target
    read_only = target.copy()
    read_only.flags.writeable = False
    for t in [
        *(target.astype(t) for t in types),
        *(target.astype(t.newbyteorder()) for t in types),
        spread[::2],
        read_only,
    ]:
        assert call(name, x, t) == expected[0]
        assert_array_equal(gradient(name, 1.0, x, t), expected[1])


def test_mse_does_not_depend_on_layout():
    rng = np.random.default_rng(5)
    x, y = (rng.normal(size=(3, 5, 40, 41)).astype(np.float32) for _ in range(2))
    channels_last = x.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)
    for xs in (channels_last, np.asfortranarray(x), x.astype(">f4")):
        assert F.mse_loss(xs, y) == F.mse_loss(x, y)


def test_a_row_has_the_same_loss_in_any_batch():
    x, target = draw(50, 10, np.float32)
    whole = F.cross_entropy(x, target, "none")
    for n in (1, 7, 49):
        assert_array_equal(F.cross_entropy(x[n:], target[n:], "none"), whole[n:])


# --- gradients --------------------------------------------------------------------------------------------


def step_error(value, g, h=1e-6):
    """Bound what central differences get wrong: the rounding of the value over h, and h**2."""
    return 16 * np.finfo(float).eps * max(1.0, abs(value)) / h + 20 * h * h * max(1.0, np.abs(g).max())


@pytest.mark.gradients
@losses
@pytest.mark.parametrize("reduction", REDUCTIONS)
@given(rows=st.integers(1, 4), classes=st.integers(1, 20), seed=st.integers(0, 2**16))
@settings(max_examples=20, deadline=None)
def test_gradients(name, reduction, rows, classes, seed):
    x, target = draw(rows, classes, seed=seed)
    rng = np.random.default_rng(seed)
    g = rng.normal(size=rows) if reduction == "none" else float(rng.normal())

    def value(x):
        return float(np.sum(g * call(name, x, target, reduction)))

    dx = gradient(name, g, x, target, reduction)
    magnitude = np.abs(g).max() * call(name, x, target, "sum")
    assert_allclose(dx, reference.numerical_gradient(value, x), rtol=0, atol=step_error(magnitude, g))


@pytest.mark.gradients
@pytest.mark.parametrize("reduction", REDUCTIONS)
@given(shape=st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple), seed=st.integers(0, 2**16))
@settings(max_examples=20, deadline=None)
def test_gradient_of_mse(reduction, shape, seed):
    rng = np.random.default_rng(seed)
    x, y = (rng.normal(size=shape) for _ in range(2))
    g = rng.normal(size=shape) if reduction == "none" else float(rng.normal())
    numerical = reference.numerical_gradient(lambda x: float(np.sum(g * F.mse_loss(x, y, reduction))), x)
    bound = step_error(np.abs(g).max() * F.mse_loss(x, y, "sum"), g)
    assert_allclose(F.mse_loss_backward(g, x, y, reduction), numerical, rtol=0, atol=bound)


@pytest.mark.gradients
@floats
def test_probabilities_save_the_exponentials_and_change_no_bit(dtype):
    x, target = draw(200, 10, dtype)
    p = np.empty_like(x)
    assert F.cross_entropy(x, target, probabilities=p) == F.cross_entropy(x, target)
    assert_array_equal(p, F.softmax(x))
    expected = F.cross_entropy_backward(1.0, x, target)
    assert_array_equal(F.cross_entropy_backward(1.0, x, target, probabilities=p), expected)
    onehot = np.eye(10)[target]
    bound = 8 * np.finfo(dtype).eps / 200
    assert_allclose(expected, (reference.softmax(x) - onehot) / 200, rtol=rounding(x), atol=bound)
    # each row's gradient sums to zero
    assert_allclose(expected.sum(1, dtype=np.float64), 0, atol=10 * bound)
    assert F.cross_entropy_backward(1.0, x, target, probabilities=p, grad_input=p) is p
    assert_array_equal(p, expected)
    assert F.cross_entropy_backward(1.0, x, target, grad_input=x) is x
    assert_array_equal(x, expected)


def test_probabilities_of_pixels_lie_in_nhwc_memory():
    rng = np.random.default_rng(6)
    x = rng.normal(size=(2, 5, 3, 4)).transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)
    p = np.empty_like(x)
    F.cross_entropy(x, rng.integers(0, 5, (2, 3, 4)), probabilities=p)
    assert_array_equal(p, F.softmax(x))


# --- the boundary -----------------------------------------------------------------------------------------


@losses
@pytest.mark.parametrize("dtype", INTEGERS)
def test_labels_out_of_range(name, dtype):
    x, target = draw(6, 4)
    target = target.astype(dtype)
    target[3] = 4
    for f in (call, lambda *a: gradient(a[0], 1.0, *a[1:])):
        with pytest.raises(ValueError, match=r"target\[3\] is 4, but labels must lie in \[0, 4\)"):
            f(name, x, target)
    top = np.iinfo(dtype).max
    target[3], target[1] = 0, top
    with pytest.raises(ValueError, match=rf"target\[1\] is {top}, but"):
        call(name, x, target)
    if np.iinfo(dtype).min < 0:
        target[1] = -1
        with pytest.raises(ValueError, match=r"target\[1\] is -1, but"):
            call(name, x, target)


def test_the_place_of_a_wrong_label_in_an_image():
    target = np.zeros((2, 3, 4), np.int32)
    target[1, 2, 3] = 9
    with pytest.raises(ValueError, match=r"target\[1, 2, 3\] is 9"):
        F.cross_entropy(np.zeros((2, 5, 3, 4)), target)


@losses
def test_wrong_arguments(name):
    x, target = draw(6, 4)
    for wrong, kind in (
        (target.astype(bool), "bool"),
        (target.astype(float), "float64"),
        (list(target), "list"),
    ):
        with pytest.raises(TypeError, match=f"array of integer labels, got {kind}"):
            call(name, x, wrong)
    with pytest.raises(ValueError, match=r"target must have shape \(6,\), got \(5,\)"):
        call(name, x, target[:5])
    with pytest.raises(ValueError, match=r"target must have shape \(6,\), got \(6, 1\)"):
        call(name, x, target[:, None])
    with pytest.raises(ValueError, match="input must have 2 or 3 or 4 dimensions"):
        call(name, x[0], target)
    with pytest.raises(ValueError, match=r"empty dimension, shape \(6, 0\)"):
        call(name, x[:, :0], target)
    with pytest.raises(TypeError, match="float16"):
        call(name, x.astype(np.float16), target)
    with pytest.raises(ValueError, match="reduction must be 'mean', 'sum' or 'none', got 'median'"):
        call(name, x, target, "median")
    with pytest.raises(ValueError, match="out is for reduction='none'; 'mean' returns a float"):
        call(name, x, target, out=np.empty(6))
    with pytest.raises(ValueError, match=r"out must have shape \(6,\)"):
        call(name, x, target, "none", out=np.empty(5))
    with pytest.raises(ValueError, match=r"grad_input must have shape \(6, 4\)"):
        gradient(name, 1.0, x, target, grad_input=np.empty((4, 6)))
    with pytest.raises(TypeError, match="grad_output must be an array"):
        gradient(name, 1.0, x, target, "none")
    with pytest.raises(ValueError, match=r"grad_output must have shape \(6,\), got \(4,\)"):
        gradient(name, np.ones(4), x, target, "none")
    with pytest.raises(TypeError, match="grad_output is float32, input is float64"):
        gradient(name, np.ones(6, np.float32), x, target, "none")


def test_wrong_probabilities():
    x, target = draw(6, 4, np.float32)
    with pytest.raises(ValueError, match=r"probabilities must have shape \(6, 4\) and dtype float32"):
        F.cross_entropy(x, target, probabilities=np.empty((6, 4)))
    with pytest.raises(TypeError, match="probabilities is float64"):
        F.cross_entropy_backward(1.0, x, target, probabilities=np.empty((6, 4)))
    with pytest.raises(ValueError, match=r"probabilities must have shape \(6, 4\), got \(6, 5\)"):
        F.cross_entropy_backward(1.0, x, target, probabilities=np.empty((6, 5), np.float32))


def test_wrong_arguments_of_mse():
    x = np.zeros((3, 4))
    with pytest.raises(ValueError, match=r"target must have shape \(3, 4\), got \(4, 3\)"):
        F.mse_loss(x, x.T)
    with pytest.raises(TypeError, match="input is float64, target is float32"):
        F.mse_loss(x, x.astype(np.float32))
    with pytest.raises(ValueError, match="reduction must be"):
        F.mse_loss_backward(1.0, x, x, "average")
    with pytest.raises(ValueError, match="out is for reduction='none'"):
        F.mse_loss(x, x, out=x)


def test_out_takes_the_single_losses():
    x, target = draw(6, 4)
    out = np.empty(6)
    assert F.cross_entropy(x, target, "none", out=out) is out
    assert_array_equal(out, F.cross_entropy(x, target, "none"))
    difference = np.empty_like(x)
    assert F.mse_loss(x, np.zeros_like(x), "none", out=difference) is difference
    assert_array_equal(difference, x * x)


@given(st.integers(2, 5), st.integers(-9, 9), st.booleans())
def test_labels_that_change_between_the_loss_and_its_gradient(classes, label, pixels):
    """They are looked at once, in the loss; what is out of range by the gradient is refused, not read."""
    shape = (3, classes, 2, 2) if pixels else (3, classes)
    x, y, loss = np.zeros(shape, np.float32), np.ones((3, *shape[2:]), np.int64), nn.CrossEntropyLoss()
    loss(x, y)
    first = loss.backward().copy()
    y.reshape(-1)[1] = label
    if 0 <= label < classes:
        np.testing.assert_array_equal(loss.backward(), F.cross_entropy_backward(1.0, x, y))
    else:
        with pytest.raises(ValueError, match=rf"a label is {label} by now, but labels must lie in \[0, {classes}\)"):
            loss.backward()
    assert np.isfinite(first).all()


@settings(deadline=None)
@given(st.integers(0, 40), st.integers(1, 20), st.sampled_from([np.float32, np.float64]), st.integers(0, 2**32 - 1))
def test_labels_as_kernels_read_them_cost_what_others_cost(rows, classes, dtype, seed):
    """The short way of scores and int64 labels that lie well has the bits, and the errors, of the long one."""
    rng = np.random.default_rng(seed)
    scores, labels = rng.standard_normal((rows, classes)).astype(dtype), rng.integers(0, classes, rows)
    found = []
    for given_labels in (labels, labels.astype(np.int32), np.repeat(labels, 2)[::2]):
        loss = nn.CrossEntropyLoss()
        found.append((np.float64(loss(scores, given_labels)).tobytes(), loss.backward(0.7).tobytes()))
    assert found[0] == found[1] == found[2]
    if rows:
        labels[rng.integers(rows)] = classes
        with pytest.raises(ValueError, match=f"labels must lie in .0, {classes}"):
            nn.CrossEntropyLoss()(scores, labels)
        labels[labels == classes] = -100
        ignored = nn.CrossEntropyLoss()(scores, labels)
        assert np.isnan(ignored) if rows == 1 else np.isfinite(ignored) or (labels == -100).all()
