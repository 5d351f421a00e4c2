"""Functions that began as operations, called with arrays: what they take for sizes and axes, and how large they get."""

import numpy as np
import pytest

from fastconv import functional as F
from fastconv import nn
from fastconv.functional import _scratch
from fastconv.functional._check import MOST_NUMBERS
from fastconv.graph.operation import check_count

RNG = np.random.default_rng(23)


def whole(*shape):
    """Whole numbers, the same for a shape."""
    return np.random.default_rng(shape).integers(-4, 5, shape).astype(np.float32)


X = whole(2, 3, 4)
# name: a call of which one number or several are left out, and a value that may stand there
SETTINGS = {
    "cat": (lambda value: F.cat([X, X], value), 1),
    "cat_backward": (lambda value: F.cat_backward(whole(2, 6, 4), [X, X], value), 1),
    "stack": (lambda value: F.stack([X, X], value), 1),
    "flatten": (lambda value: F.flatten(X, value), 1),
    "flatten to": (lambda value: F.flatten(X, 0, value), 1),
    "reshape": (lambda value: F.reshape(X, value), 24),
    "reshape several": (lambda value: F.reshape(X, (4, value)), 6),
    "permute": (lambda value: F.permute(X, value, 0, 1), 2),
    "pad": (lambda value: F.pad(X, (1, value)), 2),
    "pad_backward": (lambda value: F.pad_backward(whole(2, 3, 7), X, (1, value)), 2),
    "sum": (lambda value: F.sum(X, value), 1),
    "mean": (lambda value: F.mean(X, (0, value)), 1),
    "sum_backward": (lambda value: F.sum_backward(whole(2, 4), X, value), 1),
    "mean_backward": (lambda value: F.mean_backward(whole(2, 4), X, value), 1),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_sizes_and_axes_are_whole_numbers(name):
    """Anything else is refused by name; integers of NumPy and numbers of any length are numbers."""
    call, right = SETTINGS[name]
    own = name.split()[0].removesuffix("_backward")
    want = call(right)
    for value in (np.int64(right), np.uint8(right)):
        np.testing.assert_array_equal(call(value), want)
    for value in (right + 0.5, float(right), np.float32(right), float("nan"), str(right), b"x", 2j, {}, object()):
        with pytest.raises(TypeError, match=rf"^{own}(_backward)?: .* (whole number|an int)"):
            call(value)
    for value in (10**400, 2**63, -(2**63), -(10**400)):
        with pytest.raises(ValueError, match=rf"^{own}(_backward)?: "):
            call(value)


class Traced(nn.Module):
    """A model whose forward is given."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@pytest.mark.parametrize("function", [
    lambda x: F.stack([x, x], 4), lambda x: F.stack([x, x], -5), lambda x: F.cat([x, x], 3),
    lambda x: F.stack([x, F.flatten(x)]), lambda x: F.pad(x, (2**63, 0)), lambda x: F.pad(x, (0, 2**44)),
    lambda x: F.flatten(x, 3), lambda x: F.sum(x, -4),
])  # fmt: skip
def test_what_does_not_fit_is_refused_in_a_model_too(function):
    for call in (function, Traced(function)):
        with pytest.raises(ValueError, match=r"^(stack|cat|[pP]ad|flatten|sum): "):
            call(X)


@pytest.mark.parametrize("function", [
    lambda x: x.unsqueeze(4), lambda x: x.unsqueeze(-5), lambda x: x.squeeze(3), lambda x: x.transpose(0, 3),
])  # fmt: skip
def test_methods_of_values_take_no_axis_that_is_none(function):
    with pytest.raises(ValueError, match=r"^(unsqueeze|squeeze|transpose): axis -?\d is out of range for shape"):
        Traced(function)(X)


@pytest.mark.parametrize("function", [
    lambda x: F.softmax(x, 1.5), lambda x: F.log_softmax(x, "1"), lambda x: x[0.5:], lambda x: x.mean(1.0),
    lambda x: x.reshape(2, 12.0), lambda x: x.flatten("0"), lambda x: F.pad(x, (1, 0.5)), lambda x: x.unsqueeze(0.0),
])  # fmt: skip
def test_a_model_takes_whole_numbers_alone(function):
    with pytest.raises(TypeError, match=r"(whole number|an int), got "):
        Traced(function)(X)


def test_stacking_needs_arrays_of_one_shape():
    with pytest.raises(ValueError, match=r"stack: the arrays must have one shape, but got \(2, 3, 4\) and \(2, 3\)"):
        F.stack([X, X[..., 0]])
    with pytest.raises(TypeError, match="stack: arrays must be a tuple or list of them, got NoneType"):
        F.stack(None)
    with pytest.raises(ValueError, match="cat: there is no array"):
        F.cat([])


OPERANDS = {
    "sub": (F.sub, 2), "mul_backward": (lambda a, b: F.mul_backward(X, a, b), 2),
    "div": (F.div, 2), "cat": (lambda a, b: F.cat([a, b]), 2), "stack": (lambda a, b: F.stack([a, b]), 2),
    "mean": (F.mean, 1), "sum_backward": (lambda a: F.sum_backward(whole(), a), 1), "permute": (F.permute, 1),
    "conv_transpose1d": (lambda a, b: F.conv_transpose1d(a, b), 2), "flatten": (F.flatten, 1),
    "interpolate_backward": (lambda a: F.interpolate_backward(whole(1, 1, 2, 2), a, 2), 1),
}  # fmt: skip


@pytest.mark.parametrize("name", OPERANDS)
def test_no_operand_is_missing(name):
    call, count = OPERANDS[name]
    for place in range(count):
        operands = [whole(2, 3, 4) for _ in range(count)]
        operands[place] = None
        with pytest.raises(TypeError, match=rf"^{name}: .* must be a NumPy array"):
            call(*operands)


def wide(*shape):
    """An array of this shape over the memory of one number."""
    return np.broadcast_to(np.ones((), np.float32), shape)


def test_huge_arrays_are_refused_before_memory_is_asked_for():
    """Operands that would be copied, results, gradients and what an operation works in: shapes of any size drawn."""
    calls = [
        lambda a, b: F.sub(a, b), lambda a, b: F.mul_backward(a, a, b), lambda a, b: F.div_backward(a, b, a),
        lambda a, b: F.cat([a, a]), lambda a, b: F.cat_backward(F.cat([b, b]), [a, a]), lambda a, b: F.stack([a, b, a]),
        lambda a, b: F.pad(a, (1, 1)), lambda a, b: F.pad_backward(b, a, (0, 0)), lambda a, b: F.sum(a, -1),
        lambda a, b: F.mean_backward(F.mean(b, 0), a, 0), lambda a, b: F.flatten(a), lambda a, b: F.permute(a, 0, 1, 2),
    ]  # fmt: skip
    for _ in range(200):
        shape = [1, 2, 3]
        for axis in RNG.permutation(3)[: RNG.integers(1, 3)]:
            shape[axis] = int(RNG.choice([2**31, 2**40, 2**45 + 1]))
        if np.prod(shape, dtype=object) <= MOST_NUMBERS or np.prod(shape, dtype=object) >= 2**60:
            continue
        call = calls[RNG.integers(len(calls))]
        refused = r"^\w+: (an? \w+ of .* is larger than any memory|.* must have (one )?shape|shapes )"
        with pytest.raises(ValueError, match=refused):
            call(wide(*shape), wide(*shape) if RNG.random() < 0.5 else whole(1, 2, 3))


def test_numbers_beside_arrays_are_read_like_numbers():
    x = whole(3)
    np.testing.assert_array_equal(F.sub(np.float64(3), x), 3 - x)
    np.testing.assert_array_equal(F.mul(x, np.int16(2)), 2 * x)
    with pytest.raises(ValueError, match=r"^mul: operand 1 is larger than any float, got 1000"):
        F.mul(x, 10**400)
    with pytest.raises(TypeError, match=r"^mul: operand 1 must be a number, got .*2j"):
        F.mul(x, np.complex64(2j))


FLAGS = {
    "keepdims": (lambda x, flag: F.sum(x, 1, flag), lambda x, flag: F.mean(x, 1, flag)),
    "return_indices": (
        lambda x, flag: F.max_pool2d(x, 2, return_indices=flag), lambda x, flag: F.global_max_pool2d(x, flag),
    ),
    "ceil_mode": (
        lambda x, flag: F.max_pool2d(x, 2, ceil_mode=flag), lambda x, flag: F.avg_pool2d(x, 2, ceil_mode=flag),
    ),
    "count_include_pad": (lambda x, flag: F.avg_pool2d(x, 2, count_include_pad=flag),),
}  # fmt: skip


@pytest.mark.parametrize("shape", [(0,), (1,), (2,), (2, 2)])
@pytest.mark.parametrize("name", FLAGS)
def test_an_array_in_the_place_of_a_flag_is_named_now_and_in_a_forward(name, shape):
    class Net(nn.Module):
        def forward(self, input):
            return call(input, np.ones(shape, np.float32))

    for call in FLAGS[name]:
        for run in (lambda x: call(x, np.ones(shape, np.float32)), Net()):  # noqa: B023
            with pytest.raises(TypeError, match=rf"^\w+: {name} must be True or False"):
                run(np.ones((2, 3, 4, 4), np.float32))


def test_sizes_beyond_any_integer_are_named():
    with pytest.raises(ValueError, match="larger than any memory"):
        check_count("here", "an output", 10**80, np.int64(4))


@pytest.mark.parametrize("padding", [0, 1])
def test_gradients_without_room_for_scratch_memory_are_refused_before_any_is_written(padding, monkeypatch):
    rng = np.random.default_rng(padding)
    side = 4 + 2 * padding
    x, w, g = (rng.standard_normal(s).astype("f") for s in ((2, 3, 6, 6), (4, 3, 3, 3), (2, 4, side, side)))
    y = np.abs(g)
    written = {
        "grad_weight": np.ones_like(w), "grad_bias": np.ones(4, np.float32),
        "grad_input": F.conv2d(x, w[:3], padding=1), "grad_add": F.conv2d(x, w, padding=padding),
    }  # fmt: skip
    before = {name: a.copy() for name, a in written.items()}

    def no_room(nbytes, slot="kernel"):
        raise MemoryError("no room")

    monkeypatch.setattr(_scratch, "LITTLE", 0)
    F.release_scratch()
    monkeypatch.setattr(_scratch, "empty_aligned", lambda size, dtype: no_room(size))
    with pytest.raises(MemoryError, match="no room"):
        F.conv2d_backward(g, x, w, padding=padding, output=y, activation="relu", **written)
    assert all((written[name] == a).all() for name, a in before.items())
