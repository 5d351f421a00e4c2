"""Arithmetic with broadcasting, sums over axes, and what moves elements: the functions that began as operations."""

import operator

import numpy as np
import reference as ref

from .drawing import DRAWS, Call, Unchecked, c_order, draws, f64, two


def sequence(*names):
    """Arguments of which several go into one sequence."""

    def given(args):
        rest = {name: value for name, value in args.items() if name not in names}
        return (), {"arrays": [args[name] for name in names], **rest}

    return given


def after_input(name):
    """Arguments of which one follows the input by place, a tuple's elements one by one."""

    def given(args):
        value = args[name]
        return (args["input"], *(value if isinstance(value, tuple) else (value,))), {}

    return given


def whole(value):
    """One number or several as NumPy takes them: it refuses True as an axis, which is 1 to Python."""
    return tuple(map(operator.index, value)) if isinstance(value, tuple | list) else operator.index(value)


# --- arithmetic -------------------------------------------------------------------------------------------


def broadcast(d):
    """Two shapes that fit together, and the one that they make."""
    shape = d.shape()

    def part():
        kept = shape[d.rng.integers(len(shape)) :] if d.chance(0.3) else shape
        return tuple(1 if d.chance(0.3) else n for n in kept)

    shapes = [shape, part()] if d.chance(0.8) else [part(), part()]
    if d.chance():
        shapes.reverse()
    return *shapes, np.broadcast_shapes(*shapes)


def operands(a):
    """Both operands, numbers in the precision of the other; none that makes quotients which float32 has not."""
    dtype = next(x.dtype for x in (a["a"], a["b"]) if isinstance(x, np.ndarray))
    left, right = (f64(x if isinstance(x, np.ndarray) else dtype.type(float(x))) for x in (a["a"], a["b"]))
    if ((right != 0) & (abs(right) < 1e-6)).any():
        raise Unchecked
    return left, right


def unbroadcast(g, shape):
    more = g.ndim - len(shape)
    stretched = tuple(more + i for i, n in enumerate(shape) if n == 1)
    return g.sum((*range(more), *stretched)).reshape(shape)


def binary(name, function, gradients, ulps):
    def make(d):
        a, b, y = broadcast(d)
        draw = d.positive if name == "div" else d.whole
        args = dict(a=d.whole(*a), b=draw(*b), out=d.maybe(d.placed(*y)))
        if d.chance(0.2):
            args[d.one_of("a", "b")] = d.one_of(2, -3.0, 0.5)
            args["out"] = None

        def twin(a):
            y = function(*operands(a))
            return y, {"out": y}

        return Call(args, twin, ("out",), ulps)

    def make_backward(d):
        a, b, y = broadcast(d)
        draw = d.positive if name == "div" else d.whole
        args = dict(grad_output=d.whole(*y), a=d.whole(*a), b=draw(*b))

        def twin(a):
            left, right = operands(a)
            parts = gradients(f64(a["grad_output"]), left, right)
            return tuple(unbroadcast(g, x.shape) for g, x in zip(parts, (left, right), strict=True)), {}

        return Call(args, twin, ulps=16 * ulps, repeats=name)

    DRAWS[name] = make
    if gradients is not None:
        DRAWS[f"{name}_backward"] = make_backward


binary("add", np.add, None, 1.0)
binary("sub", np.subtract, lambda g, a, b: (g, -g), 1.0)
binary("mul", np.multiply, lambda g, a, b: (g * b, g * a), 1.0)
binary("div", np.divide, lambda g, a, b: (g / b, -(g / b * (a / b))), 4.0)


def reduction(name, ulps):
    def axes(d, rank):
        axis = int(d.rng.integers(-rank, rank))
        some = tuple(map(int, d.rng.permutation(rank)[: d.rng.integers(rank + 1)]))
        return d.one_of(None, axis, axis, some)

    def settings(a):
        axis = a["axis"]
        return None if axis is None else whole(axis), bool(a["keepdims"])

    def make(d):
        shape = d.shape()
        args = dict(input=d.whole(*shape), axis=axes(d, len(shape)), keepdims=d.chance())

        def twin(a):
            axis, keepdims = settings(a)
            return getattr(np, name)(f64(a["input"]), axis, keepdims=keepdims), {}

        return Call(args, twin, ulps=ulps)

    def make_backward(d):
        shape = d.shape()
        axis, keepdims = axes(d, len(shape)), d.chance()
        y = np.zeros(shape).sum(axis, keepdims=keepdims).shape
        args = dict(grad_output=d.whole(*y), input=d.whole(*shape), axis=axis, keepdims=keepdims)

        def twin(a):
            axis, _ = settings(a)
            x, g = f64(a["input"]), f64(a["grad_output"])
            g = g.reshape(x.sum(axis, keepdims=True).shape)
            if name == "mean":
                g = g / (x.size // max(g.size, 1))
            return np.broadcast_to(g, x.shape), {}

        return Call(args, twin, ulps=ulps, repeats=name)

    DRAWS[name], DRAWS[f"{name}_backward"] = make, make_backward


reduction("sum", 0.0)
reduction("mean", 4.0)


# --- what moves elements ----------------------------------------------------------------------------------


def parts_of(a):
    return [f64(a[name]) for name in ("first", "second", "third") if name in a]


def joined(d):
    """Arrays that fit together along an axis, by name, and the axis."""
    shape = d.shape()
    axis = int(d.rng.integers(-len(shape), len(shape)))
    names = ("first", "second", "third")[: d.size(3)]
    arrays = {}
    for name in names:
        own = list(shape)
        own[axis] = d.batch() if axis % len(shape) == 0 else d.size(4)
        arrays[name] = d.whole(*own)
    return arrays, axis


@draws("cat")
def _(d):
    arrays, axis = joined(d)

    def twin(a):
        return np.concatenate(parts_of(a), operator.index(a["axis"])), {}

    return Call(dict(**arrays, axis=axis), twin, given=sequence(*arrays))


@draws("cat_backward")
def _(d):
    arrays, axis = joined(d)
    y = np.concatenate(list(arrays.values()), axis).shape

    def twin(a):
        ends = np.cumsum([x.shape[a["axis"]] for x in parts_of(a)])[:-1]
        gradients = np.split(f64(a["grad_output"]), ends, operator.index(a["axis"]))
        return tuple(gradients), {}

    args = dict(grad_output=d.whole(*y), **arrays, axis=axis)
    return Call(args, twin, given=sequence(*arrays), repeats="cat")


@draws("stack")
def _(d):
    shape = d.shape()
    arrays = {name: d.whole(*shape) for name in ("first", "second", "third")[: d.size(3)]}
    axis = int(d.rng.integers(-len(shape) - 1, len(shape) + 1))

    def twin(a):
        return np.stack(parts_of(a), operator.index(a["axis"])), {}

    return Call(dict(**arrays, axis=axis), twin, given=sequence(*arrays))


def widths(d, shape):
    """Padding from the last axis on, now and then one that cuts."""
    sides = []
    for n in reversed(shape[d.rng.integers(len(shape)) :]):
        sides += [int(d.rng.integers(0 if d.chance(0.7) else -((n - 1) // 2) if n else 0, 4)) for _ in range(2)]
    return tuple(sides)


def padded(x, sides, value):
    """Put a constant around an array, or cut it."""
    pairs = [(0, 0)] * (x.ndim - len(sides) // 2)
    pairs += [(int(sides[i]), int(sides[i + 1])) for i in reversed(range(0, len(sides), 2))]
    y = np.pad(x, [(max(b, 0), max(a, 0)) for b, a in pairs], constant_values=value)
    return y[tuple(slice(max(-b, 0), n - max(-a, 0)) for n, (b, a) in zip(y.shape, pairs, strict=True))]


@draws("pad")
def _(d):
    shape = d.shape()

    def twin(a):
        return padded(f64(a["input"]), a["padding"], a["input"].dtype.type(float(a["value"]))), {}

    return Call(dict(input=d.whole(*shape), padding=widths(d, shape), value=d.one_of(0.0, 1.0, -0.5)), twin)


@draws("pad_backward")
def _(d):
    shape = d.shape()
    sides = widths(d, shape)
    y = padded(np.zeros(shape), sides, 0).shape

    def twin(a):
        x = np.arange(1, a["input"].size + 1.0).reshape(a["input"].shape)  # where an element came from
        sources = padded(x, a["padding"], 0).reshape(-1).astype(int)
        grad = np.zeros(x.size + 1)
        grad[sources] = f64(a["grad_output"]).reshape(-1)
        return grad[1:].reshape(x.shape), {}

    return Call(dict(grad_output=d.whole(*y), input=d.whole(*shape), padding=sides), twin, repeats="pad")


@draws("flatten")
def _(d):
    shape = d.shape()
    first, last = sorted(map(int, d.rng.integers(0, len(shape), 2)))
    args = dict(input=d.whole(*shape), start_dim=first, end_dim=d.one_of(last, last - len(shape)))

    def twin(a):
        x = f64(a["input"])
        n = x.ndim
        first, last = (operator.index(a[name]) % n for name in ("start_dim", "end_dim"))
        middle = int(np.prod(x.shape[first : last + 1], dtype=object))
        return c_order(x).reshape((*x.shape[:first], middle, *x.shape[last + 1 :])), {}

    return Call(args, twin)


@draws("reshape")
def _(d):
    shape = d.shape()
    factors = [n for n in shape if n != 1]
    d.rng.shuffle(factors)
    target = [int(n) for n in factors]
    while len(target) > 1 and d.chance(0.4):
        target.append(target.pop() * target.pop())
    if target and d.chance(0.3) and 0 not in target:
        target[d.rng.integers(len(target))] = -1

    def twin(a):
        return c_order(f64(a["input"])).reshape(whole(a["shape"])), {}

    return Call(dict(input=d.whole(*shape), shape=tuple(target)), twin, given=after_input("shape"))


@draws("permute")
def _(d):
    shape = d.shape()
    axes = tuple(int(axis) - d.one_of(0, 0, len(shape)) for axis in d.rng.permutation(len(shape)))

    def twin(a):
        return f64(a["input"]).transpose(whole(a["axes"])), {}

    return Call(dict(input=d.whole(*shape), axes=axes), twin, given=after_input("axes"))


# --- images in another size -------------------------------------------------------------------------------


def sources(shape, a):
    """The rows and columns of an image that those of its other size are."""
    size, factor = a.get("size"), a.get("scale_factor")
    factors = (None, None) if factor is None else factor if isinstance(factor, tuple | list) else (factor, factor)
    sizes = two(size) if size is not None else [int(np.floor(shape[2 + i] * factors[i])) for i in range(2)]
    if max(sizes) > 4096:
        raise Unchecked
    lines = [(shape[2 + i], sizes[i], factors[i]) for i in range(2)]
    if a["mode"] == "bilinear":  # positions are worked out in the arrays' own precision
        dtype = a["input"].dtype.newbyteorder("=").type if isinstance(a["input"], np.ndarray) else np.float32
        return [ref.between(*line, a["align_corners"], dtype) for line in lines]
    return [ref.nearest(*line) for line in lines]


def native(a):
    return np.asarray(a, a.dtype.newbyteorder("="))


def resized(d):
    x = (d.batch(), d.channels(), d.size(), d.size())
    how = {"size": (d.size(9), d.size(9)), "scale_factor": None}
    if d.chance():
        how = {"size": None, "scale_factor": d.one_of(1, 2, 2.5, 1.0, (1.5, 3), (2.0, 1.25))}
    how |= {"mode": "nearest", "align_corners": None}
    if d.chance():
        how |= {"mode": "bilinear", "align_corners": d.one_of(None, False, True)}
    return x, how


@draws("interpolate")
def _(d):
    x, how = resized(d)

    def twin(a):
        if a["mode"] == "bilinear":  # in the arrays' precision too, and so exact
            return ref.bilinear(native(a["input"]), *sources(a["input"].shape, a)), {}
        x = f64(a["input"])
        return ref.interpolate(x, *sources(x.shape, a)), {}

    return Call(dict(input=d.whole(*x), **how), twin)


@draws("interpolate_backward")
def _(d):
    x, how = resized(d)
    y = [len(line) for line in sources(x, {**how, "input": None})]

    def twin(a):
        x = f64(a["input"])
        if a["mode"] == "bilinear":
            return ref.bilinear_backward(native(a["grad_output"]), native(a["input"]), *sources(x.shape, a)), {}
        return ref.interpolate_backward(f64(a["grad_output"]), x, *sources(x.shape, a)), {}

    args = dict(grad_output=d.whole(*x[:2], *y), input=d.whole(*x), **how)
    return Call(args, twin, repeats="interpolate")


# --- transposed convolutions ------------------------------------------------------------------------------

SETTINGS = ("stride", "padding", "output_padding", "dilation")


def plane(a, dimensions):
    """Settings as the twins take them, of two dimensions whatever they were."""

    def pair(name):
        value, least = a[name], int(name in ("stride", "dilation"))
        if dimensions == 2:
            return two(value)
        return least, int(value[0] if isinstance(value, tuple | list) else value)

    return {**{name: pair(name) for name in SETTINGS}, "groups": int(a["groups"])}


def as_image(a, dimensions):
    return a if a is None or dimensions == 2 else a[:, :, None]


def as_signal(a, dimensions):
    return a if dimensions == 2 else a[:, :, 0]


def transposed(d, dimensions):
    """Arguments of a transposed convolution that fit together, and the shape of its result."""
    groups = d.one_of(1, 1, 1, 2, 3)
    c, k = groups * d.size(4), d.size(4)
    if d.chance(0.2):
        groups, c, k = 1, d.channels(), d.channels()
    elif d.chance(0.15):
        groups = c = d.channels()
        k = 1
    kernel, size = [d.size(3) for _ in range(dimensions)], [d.size() for _ in range(dimensions)]
    several = dimensions == 2
    stride = d.one_of(1, 2, (1, 2) if several else 2, 3)
    dilation = d.one_of(1, 1, 2, (2, 1) if several else 1)
    args = dict(input=d.placed(d.batch(), c, *size), weight=c_order(d.placed(c, k, *kernel)),
                bias=d.maybe(d.whole(groups * k)), stride=stride, padding=0, output_padding=0, groups=groups,
                dilation=dilation)  # fmt: skip
    most = max(min(two(stride)), min(two(dilation)))
    args["output_padding"] = int(d.rng.integers(most)) if min(two(stride)) == max(two(stride)) else 0
    reach = transposed_shape(args, dimensions)[2:]
    args["padding"] = d.one_of(0, min(1, (min(reach) - 1) // 2), tuple((n - 1) // 2 for n in reach) if several else 0)
    return args, transposed_shape(args, dimensions)


def transposed_shape(args, dimensions):
    x, w = (as_image(args[name], dimensions).shape for name in ("input", "weight"))
    s = plane(args, dimensions)
    size = [(x[2 + i] - 1) * s["stride"][i] - 2 * s["padding"][i] + s["dilation"][i] * (w[2 + i] - 1)
            + s["output_padding"][i] + 1 for i in range(2)]  # fmt: skip
    return (x[0], w[1] * s["groups"], *size[2 - dimensions :])


def transposing(dimensions):
    @draws(f"conv_transpose{dimensions}d")
    def _(d):
        args, y = transposed(d, dimensions)
        args["out"] = d.maybe(d.placed(*y))

        def twin(a):
            x, w = (as_image(f64(a[name]), dimensions) for name in ("input", "weight"))
            y = as_signal(ref.conv_transpose2d(x, w, f64(a["bias"]), **plane(a, dimensions)), dimensions)
            return y, {"out": y}

        return Call(args, twin, ("out",))

    @draws(f"conv_transpose{dimensions}d_backward")
    def _(d):
        args, y = transposed(d, dimensions)

        def twin(a):
            g, x, w = (as_image(f64(a[name]), dimensions) for name in ("grad_output", "input", "weight"))
            gx, gw, gb = ref.conv_transpose2d_backward(g, x, w, **plane(a, dimensions))
            gradients = as_signal(gx, dimensions), as_signal(gw, dimensions)
            return (*gradients, None if a["bias"] is None else gb), {}

        return Call(dict(grad_output=d.placed(*y), **args), twin, repeats=f"conv_transpose{dimensions}d")


for dimensions in (1, 2):
    transposing(dimensions)
