"""A function has the same bits on arrays and written into a graph: every function, rank and memory layout."""

import operator
import os
import sys

import numpy as np
import pytest
from layers import LAYOUTS
from numpy.testing import assert_array_equal

from fastconv import functional as F
from fastconv import nn
from fastconv.graph.operation import Spec
from fastconv.graph.value import functions

RANKS = (2, 3, 4)


def shape_of(rng, rank):
    return (int(rng.integers(1, 4)), int(rng.integers(1, 9)), *map(int, rng.integers(3, 7, rank - 2)))


def broadcast(rng, shape):
    """Return a shape that broadcasts to this one."""
    kept = [n if rng.random() < 0.6 else 1 for n in shape]
    return tuple(kept[int(rng.integers(len(kept))) :]) if rng.random() < 0.4 else tuple(kept)


def axes(rng, rank):
    """Return None, an axis, or several."""
    some = tuple(int(a) for a in rng.permutation(rank)[: rng.integers(1, rank + 1)])
    return [None, some, some[0], some[0] - rank][rng.integers(4)]


# ---- each function: (rng, rank) to the shapes of its arrays and a call with those, or None where it has no such rank


def of_one(name, *options):
    return lambda rng, rank: ([shape_of(rng, rank)], lambda F, x: getattr(F, name)(x, *options))


def of_two(name):
    def draw(rng, rank):
        shape = shape_of(rng, rank)
        shapes = [shape, broadcast(rng, shape)]
        return shapes[:: 1 if rng.random() < 0.5 else -1], lambda F, a, b: getattr(F, name)(a, b)

    return draw


def along(name):
    def draw(rng, rank):
        axis = int(rng.integers(-rank, rank))
        return [shape_of(rng, rank)], lambda F, x: getattr(F, name)(x, axis)

    return draw


def reduced(name):
    def draw(rng, rank):
        axis, keepdims = axes(rng, rank), bool(rng.random() < 0.5)
        return [shape_of(rng, rank)], lambda F, x: getattr(F, name)(x, axis, keepdims)

    return draw


def reshape(rng, rank):
    shape = shape_of(rng, rank)
    new = [(-1,), (shape[0], -1), (-1, *shape[:0:-1]), (1, *shape), tuple(rng.permutation(shape).tolist())]
    to = new[rng.integers(len(new))]
    return [shape], lambda F, x: F.reshape(x, to)


def flatten(rng, rank):
    first = int(rng.integers(rank))
    last = int(rng.integers(first, rank))
    return [shape_of(rng, rank)], lambda F, x: F.flatten(x, first, last)


def permute(rng, rank):
    order = tuple(int(a) for a in rng.permutation(rank))
    return [shape_of(rng, rank)], lambda F, x: F.permute(x, order)


def pad(rng, rank):
    widths = tuple(int(n) for n in rng.integers(-1, 3, 2 * int(rng.integers(1, rank))))
    value = float(rng.normal())
    return [(3, 4, 5, 6)[:rank]], lambda F, x: F.pad(x, widths, value=value)


def cat(rng, rank):
    shape, axis, count = shape_of(rng, rank), int(rng.integers(rank)), int(rng.integers(1, 4))
    shapes = [(*shape[:axis], int(rng.integers(1, 5)), *shape[axis + 1 :]) for _ in range(count)]
    return shapes, lambda F, *arrays: F.cat(arrays, axis - rank)


def stack(rng, rank):
    axis = int(rng.integers(-rank - 1, rank + 1))
    return [shape_of(rng, rank)] * int(rng.integers(1, 4)), lambda F, *arrays: F.stack(arrays, axis)


def prelu(rng, rank):
    shape = shape_of(rng, rank)
    return [shape, (shape[1] if rng.random() < 0.5 else 1,)], lambda F, x, weight: F.prelu(x, weight)


def linear(rng, rank):
    if rank > 2:
        return None
    n, c = shape_of(rng, 2)
    k = int(rng.integers(1, 9))
    return [(n, c), (k, c), (k,)][: 2 + int(rng.integers(2))], lambda F, *arrays: F.linear(*arrays)


def by_channels(function, x, *rest, **named):
    """Call a function that takes arrays of two or four dimensions, and values of three as well."""
    if isinstance(x, np.ndarray) and x.ndim == 3:
        return function(x[:, :, None], *rest, **named)[:, :, 0]
    return function(x, *rest, **named)


def bias_add(rng, rank):
    shape = shape_of(rng, rank)
    return [shape, shape[1:2]], lambda F, x, bias: by_channels(F.bias_add, x, bias)


def convolution(name, rank, turned=False):
    def draw(rng, given):
        if given != rank:
            return None
        n, c, *sizes = shape_of(rng, rank)
        k, side = int(rng.integers(1, 9)), int(rng.integers(1, 4))
        window = ((c, k) if turned else (k, c)) + (side,) * len(sizes)
        count, stride = 2 + int(rng.integers(2)), int(rng.integers(1, 3))
        shapes = [(n, c, *sizes), window, (k,)][:count]
        return shapes, lambda F, *arrays: getattr(F, name)(*arrays, stride=stride, padding=side // 2)

    return draw


def batch_norm(rng, rank):
    shape = shape_of(rng, rank)
    mean, var = rng.normal(size=shape[1]), rng.uniform(0.5, 2, shape[1])

    def call(F, x, weight, bias):
        kept = [a.astype(x.dtype) for a in (mean, var)]
        return by_channels(F.batch_norm, x, *kept, weight, bias, training=False)

    return [shape, shape[1:2], shape[1:2]], call


def group_norm(rng, rank):
    n, _, *sizes = shape_of(rng, rank)
    groups = int(rng.integers(1, 4))
    shape = (n, 2 * groups, *sizes)
    return [shape, shape[1:2], shape[1:2]], lambda F, x, *learned: F.group_norm(x, groups, *learned)


def instance_norm(rng, rank):
    shape = shape_of(rng, rank)
    learned = [shape[1:2]] * (2 * int(rng.integers(2)))
    return None if rank == 2 else ([shape, *learned], lambda F, x, *learned: F.instance_norm(x, *learned))


def layer_norm(rng, rank):
    shape = shape_of(rng, rank)
    last = shape[int(rng.integers(1, rank)) :]
    return [shape, last, last], lambda F, x, *learned: F.layer_norm(x, last, *learned)


def layer_norm2d(rng, rank):
    shape = shape_of(rng, rank)
    return None if rank == 2 else ([shape, shape[1:2], shape[1:2]], lambda F, x, *learned: F.layer_norm2d(x, *learned))


def of_rank(wanted, name, *options, **named):
    return lambda rng, rank: (
        None if rank != wanted else ([shape_of(rng, rank)], lambda F, x: getattr(F, name)(x, *options, **named))
    )


def shuffled(name, channels, *options):
    def draw(rng, rank):
        n, _, *sizes = shape_of(rng, rank)
        return None if rank != 4 else ([(n, channels, *sizes)], lambda F, x: getattr(F, name)(x, *options))

    return draw


def unpool(rng, rank):
    def call(F, x):
        found, indices = F.max_pool2d(x, 2, return_indices=True)
        return F.max_unpool2d(found, indices, 2, output_size=x.shape[2:])

    return None if rank != 4 else ([shape_of(rng, rank)], call)


CASES = {
    **{
        name: of_one(name)
        for name in (
            "relu", "leaky_relu", "relu6", "hardtanh", "elu", "silu", "mish", "hardswish", "hardsigmoid", "softplus",
            "tanh", "sigmoid", "softsign", "exp", "log", "sqrt", "erf",
        )
    },
    **{name: of_two(name) for name in ("add", "sub", "mul", "div")},
    **{name: reduced(name) for name in ("sum", "mean")},
    **{name: along(name) for name in ("softmax", "log_softmax")},
    "gelu": of_one("gelu", "tanh"),
    "prelu": prelu, "reshape": reshape, "flatten": flatten, "permute": permute, "pad": pad, "cat": cat,
    "stack": stack, "linear": linear, "bias_add": bias_add, "batch_norm": batch_norm,
    "group_norm": group_norm, "instance_norm": instance_norm, "layer_norm": layer_norm,
    "layer_norm2d": layer_norm2d,
    "local_response_norm": lambda rng, rank: None if rank == 2 else of_one("local_response_norm", 3)(rng, rank),
    "conv1d": convolution("conv1d", 3), "conv2d": convolution("conv2d", 4),
    "conv_transpose1d": convolution("conv_transpose1d", 3, True),
    "conv_transpose2d": convolution("conv_transpose2d", 4, True),
    "pixel_shuffle": shuffled("pixel_shuffle", 8, 2), "channel_shuffle": shuffled("channel_shuffle", 6, 3),
    "reflection_pad2d": of_rank(4, "reflection_pad2d", (1, 2, 0, 1)),
    "max_pool1d": of_rank(3, "max_pool1d", 2, 1), "avg_pool1d": of_rank(3, "avg_pool1d", 2),
    "max_pool2d": of_rank(4, "max_pool2d", 2), "avg_pool2d": of_rank(4, "avg_pool2d", 2, padding=1),
    "adaptive_avg_pool2d": of_rank(4, "adaptive_avg_pool2d", (2, 3)),
    "adaptive_max_pool2d": of_rank(4, "adaptive_max_pool2d", (3, 2)),
    "global_avg_pool2d": of_rank(4, "global_avg_pool2d"), "global_max_pool2d": of_rank(4, "global_max_pool2d"),
    "interpolate": of_rank(4, "interpolate", scale_factor=2), "max_unpool2d": unpool,
}  # fmt: skip
BACKWARD = {"sub", "mul", "div", "sum", "mean", "pad", "cat"}  # called as the function itself, behind the gradient


def test_every_function_that_takes_values_is_here():
    assert CASES.keys() == functions.keys() - {"getitem"}


class Call(nn.Module):
    """One call; arrays behind the first may be parameters."""

    def __init__(self, call, *parameters):
        self.call, self.names = call, [f"p{i}" for i in range(len(parameters))]
        for name, array in zip(self.names, parameters, strict=True):
            setattr(self, name, nn.Parameter(array))

    def forward(self, *inputs):
        return self.call(F, *inputs, *(getattr(self, name) for name in self.names))


class Backward:
    """`functional`, each function being its own backward; what `pad` fills with has no part in that."""

    def __init__(self, grad_output):
        self.grad_output = grad_output

    def __getattr__(self, name):
        return lambda *args, value=None: getattr(F, f"{name}_backward")(self.grad_output, *args)


def zeros(shape, dtype, layout):
    return LAYOUTS[layout if len(shape) > 1 else "C"](np.zeros(shape, dtype))


def as_tuple(found):
    return found if isinstance(found, tuple) else (found,)


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("name", CASES)
def test_arrays_and_values_have_the_same_bits_in_every_layout(name, rank):
    for number, layout in enumerate(LAYOUTS):
        rng = np.random.default_rng([rank, number])
        drawn = CASES[name](rng, rank)
        if drawn is None:
            pytest.skip(f"{name} takes no arrays of rank {rank}")
        shapes, call = drawn
        dtype = rng.choice([np.float32, np.float64])
        what = f"{name} of {shapes}, {layout}, {np.dtype(dtype)}"
        held = [zeros(shape, dtype, layout) for shape in shapes]
        alone, learned, grad = Call(call), None, None
        for _ in range(3):  # the same arrays with other contents
            for a in held:
                a[...] = rng.normal(size=a.shape)
            wanted = call(F, *(np.array(a, dtype, order="C") for a in held))
            assert_array_equal(call(F, *held), wanted, err_msg=f"{what}, on arrays")
            assert_array_equal(alone(*held), wanted, err_msg=what)
            grad = zeros(wanted.shape, dtype, layout) if grad is None else grad
            grad[...] = rng.normal(size=grad.shape)
            back = [np.array(g) for g in as_tuple(alone.backward(grad))]
            if name in BACKWARD:
                eager = as_tuple(call(Backward(grad), *held))
                for ours, theirs in zip(back, eager, strict=True):
                    assert_array_equal(ours, theirs, err_msg=f"gradient of {what}")
            if learned is None:
                learned = Call(call, *(np.array(a, dtype, order="C") for a in held[1:]))
            for parameter, a in zip(learned.parameters(), held[1:], strict=True):
                parameter.data[...] = a
            learned.zero_grad()
            assert_array_equal(learned(held[0]), wanted, err_msg=f"{what}, with parameters")
            first = learned.backward(grad)
            for ours, theirs in zip((first, *(p.grad for p in learned.parameters())), back, strict=True):
                assert_array_equal(ours, theirs, err_msg=f"gradient of {what}, with parameters")


@pytest.mark.parametrize("name", CASES)
def test_what_a_step_needs_is_booked_and_not_taken_when_it_is_bound(name, monkeypatch):
    """So the plan knows of it; a bound step allocates nothing either."""
    taken = []
    made = {made: getattr(np, made) for made in ("empty", "zeros", "full")}

    def watching(made, allocate):
        def call(*args, **kwargs):
            where = sys._getframe(1).f_code.co_filename
            if f"functional{os.sep}_ops" in where and not where.endswith("_run.py"):
                taken.append((made, args))
            return allocate(*args, **kwargs)

        return call

    for rank in RANKS:
        rng = np.random.default_rng(rank)
        for _ in range(4):
            drawn = CASES[name](rng, rank)
            if drawn is None:
                break
            shapes, call = drawn
            arrays = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
            model = Call(call, *arrays[1:])
            for training in (True, False):
                model.train(training)
                model.plan(arrays[0].shape, training)
                run = model._running()
                run.schedule(type(model).forward.raw, (Spec(arrays[0].shape, np.dtype(np.float32)),), None)
                with monkeypatch.context() as patched:
                    for made_by, allocate in made.items():
                        patched.setattr(np, made_by, watching(made_by, allocate))
                    y = model(arrays[0])
                    if training:
                        model.backward(np.array(y))
                assert not taken, f"{name} of {shapes}"


def test_a_parameter_of_another_memory_order_is_stacked_as_it_is_now():
    x = np.zeros((2, 3), np.float32)
    held = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))
    model = Call(lambda F, x, p: F.stack([x, p], -1).reshape(-1, 2), held)
    for _ in range(3):
        assert_array_equal(model(x)[:, 1], model.p0.data.reshape(-1))
        model.p0.data += 1


# ---- operators and methods of a value, beside NumPy's

METHODS = {
    "negative": (lambda x: -x, operator.neg),
    "positive": (lambda x: +x, operator.pos),
    "number before": (lambda x: 2.5 - x, lambda a: a.dtype.type(2.5) - a),
    "number behind": (lambda x: x / 3, lambda a: a / a.dtype.type(3)),
    "divided by": (lambda x: 1 / (x * x + 1), lambda a: a.dtype.type(1) / (a * a + a.dtype.type(1))),
    "numpy's number": (lambda x: np.float64(3) * x, lambda a: a.dtype.type(3) * a),
    "an array": (lambda x: x + np.full(x.shape[-1], 3, x.dtype), lambda a: a + a.dtype.type(3)),
    "an array before": (lambda x: np.full(x.shape, 2, x.dtype) - x, lambda a: a.dtype.type(2) - a),
    "first": (lambda x: x[0], lambda a: a[0]),
    "last row": (lambda x: x[:, -1], lambda a: a[:, -1]),
    "steps back": (lambda x: x[:, ::-2], lambda a: a[:, ::-2]),
    "ellipsis": (lambda x: x[..., 1:], lambda a: a[..., 1:]),
    "new axis": (lambda x: x[:, None], lambda a: a[:, None]),
    "flatten": (lambda x: x.flatten(1), lambda a: a.reshape(len(a), -1)),
    "reshape": (lambda x: x.reshape(x.shape[0], -1), lambda a: a.reshape(len(a), -1)),
    "view": (lambda x: x.view(-1), lambda a: a.reshape(-1)),
    "transpose": (lambda x: x.transpose(0, -1), lambda a: a.swapaxes(0, -1)),
    "permute": (lambda x: x.permute(*range(x.dim())[::-1]), lambda a: a.transpose()),
    "unsqueeze": (lambda x: x.unsqueeze(-1), lambda a: a[..., None]),
    "squeeze": (lambda x: x[:, :1].squeeze(1), lambda a: a[:, 0]),
    "squeeze of more than one": (lambda x: x.squeeze(1), lambda a: a),
    "relu": (lambda x: x.relu(), F.relu),
    "sigmoid": (lambda x: x.sigmoid(), F.sigmoid),
    "tanh": (lambda x: x.tanh(), F.tanh),
    "mean": (lambda x: x.mean(dim=1, keepdim=True), lambda a: F.mean(a, 1, True)),
    "sum": (lambda x: x.sum(-1), lambda a: F.sum(a, -1)),
    "unpacked": (lambda x: F.stack(list(x)), lambda a: a),
}


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("name", METHODS)
def test_operators_and_methods_are_numpys(name, rank):
    ours, theirs = METHODS[name]
    for number, layout in enumerate(LAYOUTS):
        rng = np.random.default_rng([rank, number])
        dtype = rng.choice([np.float32, np.float64])
        shape = (3, 4, 5, 6)[:rank]
        model, x = Call(lambda F, x: ours(x)), zeros(shape, dtype, layout)
        for _ in range(2):
            x[...] = rng.normal(size=shape)
            assert_array_equal(model(x), theirs(np.array(x, dtype, order="C")), err_msg=f"{shape}, {layout}")


@pytest.mark.parametrize("axis", [-4, 3, 7])
def test_an_axis_beyond_the_shape_is_refused_and_not_counted_round(axis):
    x = np.zeros((2, 3), np.float32)
    for call in (
        lambda x: F.stack([x, x], axis), lambda x: x.unsqueeze(axis), lambda x: x.squeeze(axis),
        lambda x: x.transpose(0, axis), lambda x: F.cat([x, x], axis), lambda x: F.softmax(x, axis),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=rf"axis {axis} is out of range for shape \(2, 3\)"):
            Call(lambda F, x, call=call: call(x))(x)
    with pytest.raises(ValueError, match=rf"axis {axis} is out of range"):
        F.stack([x, x], axis)


NEEDS_TWO = {
    **dict.fromkeys(
        ("add", "sub", "mul", "div", "prelu", "bias_add", "conv1d", "conv_transpose1d"), lambda f, x: f(x, None)
    ),
    **dict.fromkeys(("conv2d", "conv_transpose2d"), lambda f, x: f(x[..., None], None)),
    **dict.fromkeys(("cat", "stack"), lambda f, x: f([x, None])),
    "linear": lambda f, x: f(x[..., 0], None),
}  # fmt: skip


@pytest.mark.parametrize("name", NEEDS_TWO)
def test_an_array_that_is_missing_is_named(name):
    x = np.zeros((2, 3, 4), np.float32)
    with pytest.raises(TypeError, match=r"None"):
        NEEDS_TWO[name](getattr(F, name), x)
    with pytest.raises(TypeError, match=r"array 1 is missing \(None\)"):
        Call(lambda F, x: NEEDS_TWO[name](getattr(F, name), x))(x)


@pytest.mark.parametrize("number", [3, 3.0, np.float32(3), np.float64(3), np.int64(3)], ids=lambda n: type(n).__name__)
def test_numbers_take_the_dtype_of_the_array(number):
    x = np.ones((2, 3), np.float32)
    for name in ("add", "sub", "mul", "div"):
        f = getattr(F, name)
        for a, b in ((f(x, number), Call(lambda F, x, f=f: f(x, number))(x)),
                     (f(number, x), Call(lambda F, x, f=f: f(number, x))(x))):  # fmt: skip
            assert a.dtype == b.dtype == np.float32
            assert_array_equal(a, b)
