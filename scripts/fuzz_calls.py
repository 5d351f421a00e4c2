"""One right call of every public function of fastconv.functional, drawn, with the twin that says what it must return.

A draw is a function from `Draw` to `Call`, registered under the operation's name. A twin takes the arguments as they
were and returns (what the function returns, {written argument: what it holds afterwards, or ...}), in float64; it
raises `Unchecked` where arguments are so far out that float64 says nothing of float32. Shapes are small and numbers
whole, so that the sums of convolutions are exact.
"""

from dataclasses import dataclass

import numpy as np
import reference as ref

from fastconv import random
from fastconv.functional import residual

DRAWS = {}


class Unchecked(Exception):
    """The twin has nothing to say."""


@dataclass
class Call:
    args: dict
    twin: object
    written: tuple = ()
    ulps: float = 0.0


class Draw:
    """Sizes and arrays of one call, all of one dtype."""

    def __init__(self, rng):
        self.rng = rng
        self.dtype = np.float32 if rng.random() < 0.7 else np.float64

    def size(self, most=6):
        return int(self.rng.integers(1, most + 1))

    def batch(self):
        return int(self.rng.integers(0, 4))

    def channels(self):
        return int(self.rng.choice([1, 2, 3, 4, 8, 17, 33]))

    def chance(self, p=0.5):
        return bool(self.rng.random() < p)

    def one_of(self, *values):
        return values[self.rng.integers(len(values))]

    def whole(self, *shape, most=4):
        """Whole numbers, 4-d ones over NHWC memory."""
        a = self.rng.integers(-most, most + 1, shape).astype(self.dtype)
        return nhwc(a) if len(shape) == 4 else a

    def real(self, *shape):
        """Any numbers, some of them special."""
        a = self.rng.normal(size=shape).astype(self.dtype) * self.one_of(1, 1, 30, 1000)
        if self.chance(0.2) and a.size:
            a.flat[self.rng.integers(a.size)] = self.one_of(np.nan, np.inf, -np.inf, 0.0, -0.0)
        return nhwc(a) if len(shape) == 4 else a

    def positive(self, *shape):
        return np.abs(self.whole(*shape)) + self.dtype(1)

    def maybe(self, array, p=0.5):
        return array if self.chance(p) else None

    def shape(self):
        """Any number of dimensions, none but the first empty."""
        rank = int(self.rng.integers(1, 6))
        return (self.batch(), *(self.size(5) for _ in range(rank - 1)))


def nhwc(a):
    return np.ascontiguousarray(a.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


def draws(name):
    def register(function):
        DRAWS[name] = function
        return function

    return register


def f64(a):
    return None if a is None else np.asarray(a, np.float64)


def channels(values, like):
    return np.reshape(values, (1, -1) + (1,) * (like.ndim - 2))


# --- convolution and linear -------------------------------------------------------------------------------


def two(value):
    return tuple(map(int, value)) if isinstance(value, tuple | list) else (int(value), int(value))


def padding_of(value):
    if isinstance(value, str):
        return value
    if isinstance(value, tuple | list) and any(isinstance(v, tuple | list) for v in value):
        return tuple(two(v) for v in value)
    return two(value)


def windows(a):
    """stride, padding, dilation and groups of a two-dimensional convolution, as the twins take them."""
    settings = a.get("stride", 1), a.get("dilation", 1)
    stride, dilation = map(two, settings)
    return {"stride": stride, "padding": padding_of(a.get("padding", 0)), "dilation": dilation,
            "groups": int(a.get("groups", 1))}  # fmt: skip


def windows_1d(a):
    def length(v):
        return 1, int(v[0] if isinstance(v, tuple | list) else v)

    padding = a.get("padding", 0)
    return {"stride": length(a.get("stride", 1)), "dilation": length(a.get("dilation", 1)),
            "padding": padding if isinstance(padding, str) else ((0, 0), two(padding)),
            "groups": int(a.get("groups", 1))}  # fmt: skip


def finished(y, a):
    """Batch normalisation by coefficients, and the activation."""
    if a.get("coefficients") is not None:
        scale, shift = f64(a["coefficients"])
        y = y * channels(scale, y) + channels(shift, y)
    return np.maximum(y, 0) if a.get("activation") == "relu" else y


def masked(a):
    g = f64(a["grad_output"])
    return np.where(f64(a["output"]) <= 0, 0, g) if a.get("activation") == "relu" else g


def added(a, name, gradient):
    return gradient if a.get(name) is None else f64(a[name]) + gradient


def gradients_of(a, gx, gw, gb):
    gx = gx if a.get("need_input_grad", True) else None
    gw = added(a, "grad_weight", gw)
    gb = added(a, "grad_bias", gb) if a.get("bias", True) else None
    contents = {"grad_input": gx, "grad_weight": gw}
    if gb is not None:
        contents["grad_bias"] = gb
    if gx is None:
        del contents["grad_input"]
    return (gx, gw, gb), contents


def geometry(d):
    """Shapes and settings of a convolution that fit together."""
    groups = d.one_of(1, 1, 1, 2, 3)
    c, k = groups * d.size(4), groups * d.size(4)
    if d.chance(0.15):
        groups = c = k = d.channels()
    elif d.chance(0.2):
        groups, c, k = 1, d.channels(), d.channels()
    r, s = d.size(3), d.size(3)
    settings = {"stride": d.one_of(1, 2, (1, 2), 3), "dilation": d.one_of(1, 1, 2, (2, 1)), "groups": groups,
                "padding": d.one_of(0, 1, (1, 2), ((0, 1), (2, 0)), "valid")}  # fmt: skip
    if d.chance(0.1):
        settings |= {"padding": "same", "stride": 1}
    dilation = two(settings["dilation"])
    h, w = (dilation[i] * (n - 1) + d.size() for i, n in enumerate((r, s)))
    return (d.batch(), c, h, w), (k, c // groups, r, s), settings


def output_shape(x_shape, w_shape, settings):
    pad = ref.borders(padding_of(settings["padding"]), w_shape[2:], two(settings["dilation"]))
    stride, dilation = two(settings["stride"]), two(settings["dilation"])
    size = [(x_shape[2 + i] + sum(pad[i]) - dilation[i] * (w_shape[2 + i] - 1) - 1) // stride[i] + 1 for i in range(2)]
    return (x_shape[0], w_shape[0], *size)


@draws("conv2d")
def _(d):
    x, w, settings = geometry(d)
    y = output_shape(x, w, settings)
    args = dict(input=d.whole(*x), weight=c_order(d.whole(*w)), bias=d.maybe(d.whole(w[0])), **settings,
                coefficients=d.maybe(d.whole(2, w[0]), 0.2), activation=d.one_of(None, "relu"),
                out=d.maybe(d.whole(*y)))  # fmt: skip

    def twin(a):
        y = finished(ref.conv2d(f64(a["input"]), f64(a["weight"]), f64(a["bias"]), **windows(a)), a)
        return y, {"out": y}

    return Call(args, twin, ("out",))


def image_gradients(a, settings):
    g, x, w = masked(a), f64(a["input"]), f64(a["weight"])
    return ref.conv2d_backward(g, x, w, **settings)


@draws("conv2d_backward")
def _(d):
    x, w, settings = geometry(d)
    y = output_shape(x, w, settings)
    args = dict(grad_output=d.whole(*y), input=d.whole(*x), weight=c_order(d.whole(*w)), **settings, bias=d.chance(),
                output=d.whole(*y), activation=d.one_of(None, "relu"), need_input_grad=d.chance(0.8),
                grad_input=d.maybe(d.whole(*x)), grad_weight=d.maybe(c_order(d.whole(*w))),
                grad_bias=d.maybe(d.whole(w[0])))  # fmt: skip
    return Call(args, lambda a: gradients_of(a, *image_gradients(a, windows(a))),
                ("grad_input", "grad_weight", "grad_bias"))  # fmt: skip


def c_order(a):
    return np.array(a, order="C")


@draws("conv2d_input_grad")
def _(d):
    x, w, settings = geometry(d)
    args = dict(grad_output=d.whole(*output_shape(x, w, settings)), input_shape=x, weight=c_order(d.whole(*w)),
                **settings, out=d.maybe(d.whole(*x)))  # fmt: skip

    def twin(a):
        gx = ref.conv2d_backward(f64(a["grad_output"]), np.zeros(tuple(a["input_shape"])), f64(a["weight"]),
                                 **windows(a))[0]  # fmt: skip
        return gx, {"out": gx}

    return Call(args, twin, ("out",))


def geometry_1d(d):
    x, w, settings = geometry(d)
    x, w = (x[0], x[1], 1, x[3]), (w[0], w[1], 1, w[3])
    settings |= {"stride": d.one_of(1, 2, (3,)), "dilation": d.one_of(1, 2), "padding": d.one_of(0, 1, (2, 1), "valid")}
    x = (*x[:3], x[3] + 3)
    return x, w, settings, output_shape(x, w, windows_1d(settings))


def signal(d, shape):
    return d.whole(*shape)[:, :, 0]


def as_images(a):
    return {k: v[:, :, None] if isinstance(v, np.ndarray) and v.ndim == 3 else v for k, v in a.items()}


@draws("conv1d")
def _(d):
    x, w, settings, y = geometry_1d(d)
    args = dict(input=signal(d, x), weight=c_order(signal(d, w)), bias=d.maybe(d.whole(w[0])), **settings,
                coefficients=d.maybe(d.whole(2, w[0]), 0.2), activation=d.one_of(None, "relu"),
                out=d.maybe(signal(d, y)))  # fmt: skip

    def twin(a):
        b = as_images(a)
        y = finished(ref.conv2d(f64(b["input"]), f64(b["weight"]), f64(b["bias"]), **windows_1d(a)), b)[:, :, 0]
        return y, {"out": y}

    return Call(args, twin, ("out",))


@draws("conv1d_backward")
def _(d):
    x, w, settings, y = geometry_1d(d)
    args = dict(grad_output=signal(d, y), input=signal(d, x), weight=c_order(signal(d, w)), **settings, bias=d.chance(),
                output=signal(d, y), activation=d.one_of(None, "relu"), need_input_grad=d.chance(0.8),
                grad_input=d.maybe(signal(d, x)), grad_weight=d.maybe(c_order(signal(d, w))),
                grad_bias=d.maybe(d.whole(w[0])))  # fmt: skip

    def twin(a):
        b = as_images(a)
        gx, gw, gb = image_gradients(b, windows_1d(a))
        return gradients_of(a, gx[:, :, 0], gw[:, :, 0], gb)

    return Call(args, twin, ("grad_input", "grad_weight", "grad_bias"))


@draws("im2col")
def _(d):
    x, w, settings = geometry(d)
    del settings["groups"]
    args = dict(input=d.whole(*x), kernel_size=w[2:], **settings)

    def twin(a):
        x = f64(a["input"])
        n, c = x.shape[:2]
        kernel = two(a["kernel_size"])
        settings = {k: v for k, v in windows(a).items() if k != "groups"}
        stride, dilation, _, padded, out = ref._prepare(x, np.empty((1, c, *kernel)), **settings)
        columns = np.empty((n, c, *kernel, *out))
        for r, s, rows, cols in ref._taps((1, c, *kernel), stride, dilation, out):
            columns[:, :, r, s] = padded[:, :, rows, cols]
        return columns.reshape(n, c * kernel[0] * kernel[1], -1) if n else np.empty(
            (0, c * kernel[0] * kernel[1], out[0] * out[1])), {}  # fmt: skip

    return Call(args, twin)


@draws("col2im")
def _(d):
    x, w, settings = geometry(d)
    del settings["groups"]
    _, _, p, q = output_shape(x, (1, x[1], *w[2:]), settings)
    args = dict(columns=d.whole(x[0], x[1] * w[2] * w[3], p * q), output_size=x[2:], kernel_size=w[2:], **settings)

    def twin(a):
        kernel, size, columns = two(a["kernel_size"]), two(a["output_size"]), f64(a["columns"])
        c = columns.shape[1] // (kernel[0] * kernel[1])
        settings = {k: v for k, v in windows(a).items() if k != "groups"}
        stride, dilation, pad, padded, out = ref._prepare(
            np.zeros((len(columns), c, *size)), np.empty((1, c, *kernel)), **settings
        )
        blocks = columns.reshape(len(columns), c, *kernel, *out)
        for r, s, rows, cols in ref._taps((1, c, *kernel), stride, dilation, out):
            padded[:, :, rows, cols] += blocks[:, :, r, s]
        (top, _), (left, _) = pad
        return padded[:, :, top : top + size[0], left : left + size[1]], {}

    return Call(args, twin)


@draws("linear")
def _(d):
    n, c, k = d.batch(), d.channels(), d.channels()
    args = dict(input=d.whole(n, c), weight=d.whole(k, c), bias=d.maybe(d.whole(k)),
                coefficients=d.maybe(d.whole(2, k), 0.2), activation=d.one_of(None, "relu"),
                out=d.maybe(d.whole(n, k)))  # fmt: skip

    def twin(a):
        y = f64(a["input"]) @ f64(a["weight"]).T
        y = finished(y if a["bias"] is None else y + f64(a["bias"]), a)
        return y, {"out": y}

    return Call(args, twin, ("out",))


@draws("linear_backward")
def _(d):
    n, c, k = d.batch(), d.channels(), d.channels()
    args = dict(grad_output=d.whole(n, k), input=d.whole(n, c), weight=d.whole(k, c), bias=d.chance(),
                output=d.whole(n, k), activation=d.one_of(None, "relu"), need_input_grad=d.chance(0.8),
                grad_input=d.maybe(d.whole(n, c)), grad_weight=d.maybe(d.whole(k, c)),
                grad_bias=d.maybe(d.whole(k)))  # fmt: skip

    def twin(a):
        g = masked(a)
        return gradients_of(a, g @ f64(a["weight"]), g.T @ f64(a["input"]), g.sum(0))

    return Call(args, twin, ("grad_input", "grad_weight", "grad_bias"))


def rows_or_image(d):
    c = d.channels()
    return (d.batch(), c) if d.chance() else (d.batch(), c, d.size(), d.size())


@draws("bias_add")
def _(d):
    shape = rows_or_image(d)
    args = dict(input=d.whole(*shape), bias=d.whole(shape[1]), activation=d.one_of(None, "relu"),
                out=d.maybe(d.whole(*shape)))  # fmt: skip

    def twin(a):
        x = f64(a["input"])
        y = finished(x + channels(f64(a["bias"]), x), a)
        return y, {"out": y}

    return Call(args, twin, ("out",))


@draws("bias_add_backward")
def _(d):
    shape = rows_or_image(d)
    args = dict(grad_output=d.whole(*shape), output=d.whole(*shape), activation=d.one_of(None, "relu"),
                grad_input=d.maybe(d.whole(*shape)), grad_bias=d.maybe(d.whole(shape[1])))  # fmt: skip

    def twin(a):
        g = masked(a)
        gb = added(a, "grad_bias", ref._sum_channels(g))
        return (g, gb), {"grad_input": g, "grad_bias": gb}

    return Call(args, twin, ("grad_input", "grad_bias"))


# --- pooling ----------------------------------------------------------------------------------------------


def pool_axis(size, kernel, stride, padding, dilation, ceil_mode):
    """As the reference's, for kernels of any length: only taps inside the input are looked at."""
    reach, found, start = dilation * (kernel - 1) + 1, [], -padding
    if size > 4096:
        raise Unchecked
    while start + reach <= size + padding or (
        ceil_mode and start < size and (not found or start - stride + reach < size + padding)
    ):
        inside = range(max(0, -(start // dilation)), min(kernel - 1, (size - 1 - start) // dilation) + 1)
        found.append(([(r, start + r * dilation) for r in inside], min(start + kernel, size + padding) - start))
        start += stride
    return found


def pool_axes(shape, a):
    kernel = two(a["kernel_size"])
    stride = kernel if a.get("stride") is None else two(a["stride"])
    padding, dilation = two(a.get("padding", 0)), two(a.get("dilation", 1))
    return kernel, *(
        pool_axis(shape[2 + i], kernel[i], stride[i], padding[i], dilation[i], bool(a.get("ceil_mode")))
        for i in range(2)
    )


def pooling(d, dilated=True):
    kernel = (d.size(3), d.size(3))
    settings = {"kernel_size": d.one_of(kernel, kernel, 2), "stride": d.one_of(None, 1, 2, (2, 1)),
                "padding": d.one_of(0, 0, tuple(k // 2 for k in kernel)), "ceil_mode": d.chance()}  # fmt: skip
    if settings["kernel_size"] == 2:
        settings["padding"] = d.one_of(0, 1)
    if dilated:
        settings["dilation"] = d.one_of(1, 1, 2)
    x = (d.batch(), d.channels(), 5 + d.size(), 5 + d.size())
    return x, settings


def pooled(x, settings):
    _, rows, cols = pool_axes(x, settings)
    return (*x[:2], len(rows), len(cols))


def positions(d, y, settings):
    taps = int(np.prod(two(settings["kernel_size"])))
    return nhwc(d.rng.integers(0, taps, y).astype(np.uint8))


@draws("max_pool2d")
def _(d):
    x, settings = pooling(d)
    y = pooled(x, settings)
    args = dict(input=d.real(*x), **settings, return_indices=d.chance(0.3), out=d.maybe(d.whole(*y)),
                argmax=d.maybe(positions(d, y, settings)))  # fmt: skip

    def twin(a):
        kernel, rows, cols = pool_axes(a["input"].shape, a)
        best, position, index = ref.max_pool2d(f64(a["input"]), rows, cols, kernel[1])
        return (best, index) if a["return_indices"] else best, {"out": best, "argmax": position}

    return Call(args, twin, ("out", "argmax"))


@draws("max_pool2d_argmax_like")
def _(d):
    x, settings = pooling(d)
    return Call(dict(input=d.whole(*x), **settings), None)


@draws("max_pool2d_backward")
def _(d):
    x, settings = pooling(d)
    y = pooled(x, settings)
    args = dict(grad_output=d.whole(*y), argmax=positions(d, y, settings), input_shape=x, **settings,
                grad_input=d.maybe(d.whole(*x)))  # fmt: skip

    def twin(a):
        shape = tuple(map(int, a["input_shape"]))
        kernel, rows, cols = pool_axes(shape, a)
        gx = ref.max_pool2d_backward(f64(a["grad_output"]), a["argmax"], shape, rows, cols, kernel[1])
        return gx, {"grad_input": gx}

    return Call(args, twin, ("grad_input",))


@draws("avg_pool2d")
def _(d):
    x, settings = pooling(d, dilated=False)
    args = dict(input=d.whole(*x), **settings, count_include_pad=d.chance(), out=d.maybe(d.whole(*pooled(x, settings))))

    def twin(a):
        _, rows, cols = pool_axes(a["input"].shape, a)
        y = ref.avg_pool2d(f64(a["input"]), rows, cols, a["count_include_pad"])
        return y, {"out": y}

    return Call(args, twin, ("out",), ulps=2)


@draws("avg_pool2d_backward")
def _(d):
    x, settings = pooling(d, dilated=False)
    args = dict(grad_output=d.whole(*pooled(x, settings)), input_shape=x, **settings, count_include_pad=d.chance(),
                grad_input=d.maybe(d.whole(*x)))  # fmt: skip

    def twin(a):
        shape = tuple(map(int, a["input_shape"]))
        _, rows, cols = pool_axes(shape, a)
        gx = ref.avg_pool2d_backward(f64(a["grad_output"]), shape, rows, cols, a["count_include_pad"])
        return gx, {"grad_input": gx}

    return Call(args, twin, ("grad_input",), ulps=16)


def adaptive_axes(shape, output_size):
    wanted = output_size if isinstance(output_size, tuple | list) else (output_size, output_size)
    wanted = [shape[2 + i] if n is None else int(n) for i, n in enumerate(wanted)]
    if max(*wanted, *shape[2:]) > 512:
        raise Unchecked
    return tuple(ref.adaptive_axis(shape[2 + i], wanted[i]) for i in range(2))


def mean_twin(axes_of):
    def twin(a):
        y = ref.avg_pool2d(f64(a["input"]), *axes_of(a["input"].shape, a))
        return y, {"out": y}

    return twin


def mean_backward_twin(axes_of):
    def twin(a):
        shape = tuple(map(int, a["input_shape"]))
        gx = ref.avg_pool2d_backward(f64(a["grad_output"]), shape, *axes_of(shape, a))
        return gx, {"grad_input": gx}

    return twin


@draws("adaptive_avg_pool2d")
def _(d):
    x = (d.batch(), d.channels(), d.size(), d.size())
    size = d.one_of((d.size(), d.size()), (None, d.size()), 1, 7)
    wanted = [x[2 + i] if n is None else n for i, n in enumerate(size if isinstance(size, tuple) else (size, size))]
    args = dict(input=d.whole(*x), output_size=size, out=d.maybe(d.whole(*x[:2], *wanted)))
    return Call(args, mean_twin(lambda shape, a: adaptive_axes(shape, a["output_size"])), ("out",), ulps=2)


@draws("adaptive_avg_pool2d_backward")
def _(d):
    x = (d.batch(), d.channels(), d.size(), d.size())
    args = dict(grad_output=d.whole(*x[:2], d.size(), d.size()), input_shape=x, grad_input=d.maybe(d.whole(*x)))
    twin = mean_backward_twin(lambda shape, a: adaptive_axes(shape, a["grad_output"].shape[2:]))
    return Call(args, twin, ("grad_input",), ulps=32)


@draws("global_avg_pool2d")
def _(d):
    x = (d.batch(), d.channels(), d.size(), d.size())
    args = dict(input=d.whole(*x), out=d.maybe(d.whole(*x[:2], 1, 1)))
    return Call(args, mean_twin(lambda shape, a: adaptive_axes(shape, 1)), ("out",), ulps=2)


@draws("global_avg_pool2d_backward")
def _(d):
    x = (d.batch(), d.channels(), d.size(), d.size())
    args = dict(grad_output=d.whole(*x[:2], 1, 1), input_shape=x, grad_input=d.maybe(d.whole(*x)))
    return Call(args, mean_backward_twin(lambda shape, a: adaptive_axes(shape, 1)), ("grad_input",), ulps=2)


@draws("pool2d_output_shape")
def _(d):
    x, settings = pooling(d)

    def twin(a):
        shape = tuple(map(int, a["input_shape"]))
        _, rows, cols = pool_axes(shape, a)
        return (*shape[:2], len(rows), len(cols)), {}

    return Call(dict(input_shape=x, **settings), twin)


# --- activations ------------------------------------------------------------------------------------------


def unary(name, function, ulps=4.0, draw=Draw.real):
    def make(d):
        shape = d.shape()
        args = dict(input=draw(d, *shape), out=d.maybe(d.whole(*shape)))

        def twin(a):
            y = function(f64(a["input"]))
            return y, {"out": y}

        return Call(args, twin, ("out",), ulps)

    DRAWS[name] = make


def binary_backward(name, known, function, draw=Draw.whole, ulps=8.0):
    def make(d):
        shape = d.shape()
        args = {"grad_output": d.whole(*shape), known: draw(d, *shape), "grad_input": d.maybe(d.whole(*shape))}

        def twin(a):
            gx = function(f64(a["grad_output"]), f64(a[known]))
            return gx, {"grad_input": gx}

        return Call(args, twin, ("grad_input",), ulps)

    DRAWS[name] = make


def softsign(x):
    return np.where(np.isinf(x), np.sign(x), x / (1 + abs(x)))


def clipped(function, ranges):
    def make(d):
        shape = d.shape()
        args = dict(input=d.real(*shape), out=d.maybe(d.whole(*shape)))

        def twin(a):
            low, high = ranges[a["input"].dtype.type]
            y = function(np.clip(f64(a["input"]), low, high))
            return y, {"out": y}

        return Call(args, twin, ("out",), 16.0)

    return make


unary("relu", lambda x: np.where(x < 0, 0, x), 0)
unary("tanh", np.tanh)
unary("sigmoid", ref.sigmoid)
unary("softsign", softsign)
EXP = {np.float32: (-87.33654, 88.72283), np.float64: (-708.3964185322641, 709.782712893384)}
DRAWS["safe_exp"] = clipped(np.exp, EXP)
DRAWS["safe_log"] = clipped(np.log, {t: (np.finfo(t).tiny, np.finfo(t).max) for t in (np.float32, np.float64)})
binary_backward("relu_backward", "output", lambda g, y: np.where(y <= 0, 0, g), ulps=0)
binary_backward("tanh_backward", "output", lambda g, y: g * (1 - y * y))
binary_backward("sigmoid_backward", "output", lambda g, y: g * (1 - y) * y)
binary_backward("softsign_backward", "input", lambda g, x: g / (1 + abs(x)) ** 2)


def sized(a, **defaults):
    """The settings of an activation as numbers, none so large that float32 has another answer."""
    values = [float(a.get(name, default)) for name, default in defaults.items()]
    if not all(abs(value) < 2**24 for value in values):
        raise Unchecked
    return values


def with_settings(name, known, function, slope, ulps=16.0, **defaults):
    """An activation that takes numbers, and its gradient made from what is known; both twins take them last."""

    def settings(d):
        return {setting: d.one_of(default, default / 2) for setting, default in defaults.items()}

    def make(d):
        shape = d.shape()
        args = dict(input=d.real(*shape), **settings(d), out=d.maybe(d.whole(*shape)))

        def twin(a):
            y = function(f64(a["input"]), *sized(a, **defaults))
            return y, {"out": y}

        return Call(args, twin, ("out",), ulps)

    def make_backward(d):
        shape = d.shape()
        args = {"grad_output": d.whole(*shape), known: d.whole(*shape), **settings(d),
                "grad_input": d.maybe(d.whole(*shape))}  # fmt: skip

        def twin(a):
            gx = f64(a["grad_output"]) * slope(f64(a[known]), *sized(a, **defaults))
            return gx, {"grad_input": gx}

        return Call(args, twin, ("grad_input",), ulps)

    DRAWS[name], DRAWS[f"{name}_backward"] = make, make_backward


def near(x):
    """Where every smooth slope has its limit already; the limits of products are those of numbers there."""
    return np.clip(x, -1e3, 1e3)


def between(y, low, high):
    return ~((y <= low) | (high <= y))


def gelu_slope(x):
    return ref.normal(near(x)).astype(np.float64) + near(x) * np.exp(-near(x) ** 2 / 2) / np.sqrt(2 * np.pi)


def gelu_tanh_slope(x):
    p, q = np.sqrt(8 / np.pi), np.sqrt(8 / np.pi) * 0.044715
    x = np.clip(x, -100, 100)
    s, rest = (ref.sigmoid(sign * x * (p + q * x * x)) for sign in (1, -1))
    return s + x * s * rest * (p + 3 * q * x * x)


def silu_slope(x):
    return ref.sigmoid(near(x)) * (1 + near(x) * ref.sigmoid(-near(x)))


def mish_slope(x):
    w = np.tanh(ref.softplus(near(x), 1.0, np.inf))
    return w + near(x) * (1 - w * w) * ref.sigmoid(near(x))


with_settings("leaky_relu", "input", ref.leaky_relu, lambda x, a: np.where(x > 0, 1, a), 2.0, negative_slope=0.01)
with_settings("relu6", "output", lambda x: ref.hardtanh(x, 0, 6), lambda y: between(y, 0, 6), 0.0)
with_settings("hardtanh", "output", ref.hardtanh, between, 0.0, min_val=-1.0, max_val=1.0)
with_settings("elu", "output", ref.elu, lambda y, a: np.where(y <= 0, y + a, 1), alpha=1.0)
with_settings("silu", "input", ref.silu, silu_slope)
with_settings("mish", "input", ref.mish, mish_slope)
with_settings("hardswish", "input", ref.hardswish,
              lambda x: np.where(x <= -3, 0, np.where(x < 3, x / 3 + 0.5, 1)))  # fmt: skip
with_settings("hardsigmoid", "input", ref.hardsigmoid, lambda x: between(x, -3, 3) / 6)
with_settings("softplus", "input", ref.softplus,
              lambda x, beta, most: np.where(beta * x > most, 1, ref.sigmoid(beta * x)),
              beta=1.0, threshold=20.0)  # fmt: skip


@draws("gelu")
def _(d):
    shape = d.shape()
    args = dict(input=d.real(*shape), approximate=d.one_of("none", "tanh"), out=d.maybe(d.whole(*shape)))

    def twin(a):
        y = (ref.gelu_tanh if a.get("approximate") == "tanh" else ref.gelu)(f64(a["input"]))
        return y, {"out": y}

    return Call(args, twin, ("out",), 16.0)


@draws("gelu_backward")
def _(d):
    shape = d.shape()
    args = dict(grad_output=d.whole(*shape), input=d.whole(*shape), approximate=d.one_of("none", "tanh"),
                grad_input=d.maybe(d.whole(*shape)))  # fmt: skip

    def twin(a):
        slope = (gelu_tanh_slope if a.get("approximate") == "tanh" else gelu_slope)(f64(a["input"]))
        return f64(a["grad_output"]) * slope, {"grad_input": f64(a["grad_output"]) * slope}

    return Call(args, twin, ("grad_input",), 16.0)


def slopes_of(d, shape):
    """A weight of PReLU: one number, or one a channel."""
    return d.whole(1 if len(shape) < 2 or d.chance(0.3) else shape[1]) / d.dtype(4)


@draws("prelu")
def _(d):
    shape = d.shape()
    args = dict(input=d.real(*shape), weight=slopes_of(d, shape), out=d.maybe(d.whole(*shape)))

    def twin(a):
        x = f64(a["input"])
        y = ref.prelu(x, f64(a["weight"])).reshape(x.shape)  # of an array without axes, too
        return y, {"out": y}

    return Call(args, twin, ("out",), 2.0)


@draws("prelu_backward")
def _(d):
    shape = d.shape()
    weight = slopes_of(d, shape)
    args = dict(grad_output=d.whole(*shape), input=d.whole(*shape), weight=weight,
                grad_input=d.maybe(d.whole(*shape)), grad_weight=d.maybe(d.whole(*weight.shape)))  # fmt: skip

    def twin(a):
        g, x, weight = (f64(a[name]) for name in ("grad_output", "input", "weight"))
        gx = np.where(x > 0, g, ref.prelu(-np.ones_like(x), weight).reshape(x.shape) * -g)
        sums = (g * np.minimum(x, 0)).sum(tuple(i for i in range(x.ndim) if i != 1))
        before = 0 if a.get("grad_weight") is None else f64(a["grad_weight"])
        gw = before + (sums if weight.size == np.size(sums) else np.sum(sums)) * np.ones(weight.shape)
        return (gx, gw), {"grad_input": gx, "grad_weight": gw}

    return Call(args, twin, ("grad_input", "grad_weight"), 8.0)


@draws("add")
def _(d):
    shape = d.shape()

    def twin(a):
        y = f64(a["a"]) + f64(a["b"])
        return y, {"out": y}

    return Call(dict(a=d.whole(*shape), b=d.whole(*shape), out=d.maybe(d.whole(*shape))), twin, ("out",))


def along_axis(name, function):
    def make(d):
        shape = d.shape()
        args = dict(input=d.real(*shape), axis=int(d.rng.integers(-len(shape), len(shape))),
                    out=d.maybe(d.whole(*shape)))  # fmt: skip

        def twin(a):
            x = f64(a["input"])
            y = function(x, int(a["axis"])) if x.size else x
            return y, {"out": y}

        return Call(args, twin, ("out",), 64.0)

    def make_backward(d):
        shape = d.shape()
        args = dict(grad_output=d.whole(*shape), output=-np.abs(d.whole(*shape)),
                    axis=int(d.rng.integers(-len(shape), len(shape))), grad_input=d.maybe(d.whole(*shape)))  # fmt: skip

        def twin(a):
            g, y, axis = f64(a["grad_output"]), f64(a["output"]), int(a["axis"])
            if not y.size:
                return y, {"grad_input": y}
            if name == "softmax":
                gx = y * (g - (g * y).sum(axis, keepdims=True))
            else:
                gx = g - np.exp(y) * g.sum(axis, keepdims=True)
            return gx, {"grad_input": gx}

        return Call(args, twin, ("grad_input",), 64.0)

    DRAWS[name], DRAWS[f"{name}_backward"] = make, make_backward


along_axis("softmax", ref.softmax)
along_axis("log_softmax", ref.log_softmax)


# --- losses -----------------------------------------------------------------------------------------------


def classes(d):
    shape = (d.batch(), d.size(9), *(d.size(4) for _ in range(d.rng.integers(0, 3))))
    rows = (shape[0], *shape[2:])
    target = d.rng.integers(0, shape[1], rows).astype(d.one_of(np.int64, np.int32, np.uint8, np.int8, np.uint64))
    return shape, rows, target


def reduced(losses, a, out="out"):
    how = a.get("reduction", "mean")
    if how == "none":
        return losses, {out: losses}
    if how == "sum":
        return losses.sum(), {}
    return losses.mean() if losses.size else np.nan, {}


def row_scale(a, count):
    """What the gradients of the rows are multiplied by."""
    how, g = a.get("reduction", "mean"), a["grad_output"]
    if how == "none":
        return np.expand_dims(f64(g), 1)
    if not abs(float(g)) < 2**24:  # what cancels before it would be magnified
        raise Unchecked
    return float(g) / (max(count, 1) if how == "mean" else 1)


def loss_draw(d):
    shape, rows, target = classes(d)
    return shape, rows, dict(input=d.whole(*shape), target=target, reduction=d.one_of("mean", "sum", "none"))


@draws("cross_entropy")
def _(d):
    shape, rows, args = loss_draw(d)
    out = d.maybe(d.whole(*rows)) if args["reduction"] == "none" else None
    args |= dict(probabilities=d.maybe(d.whole(*shape)), out=out)

    def twin(a):
        x, target = f64(a["input"]), a["target"].astype(np.int64)
        result, contents = reduced(ref.cross_entropy(x, target), a)
        return result, {**contents, "probabilities": ref.softmax(x)}

    return Call(args, twin, ("out", "probabilities"), 256.0)


@draws("cross_entropy_backward")
def _(d):
    shape, rows, args = loss_draw(d)
    args = dict(grad_output=d.whole(*rows) if args["reduction"] == "none" else d.one_of(1.0, 2.5), **args,
                probabilities=d.maybe(d.whole(*shape)), grad_input=d.maybe(d.whole(*shape)))  # fmt: skip

    def twin(a):
        x, target = f64(a["input"]), a["target"].astype(np.int64)
        p = ref.softmax(x) if a["probabilities"] is None else f64(a["probabilities"])
        if x.shape[1] > 4096:
            raise Unchecked
        hot = np.moveaxis(np.eye(x.shape[1])[target], -1, 1)
        gx = (p - hot) * row_scale(a, target.size)
        return gx, {"grad_input": gx}

    return Call(args, twin, ("grad_input",), 64.0)


def margin_of(a):
    margin = float(a.get("margin", 1.0))
    if not abs(margin) < 1e20:
        raise Unchecked
    return margin


def by_rows(a):
    return np.moveaxis(a, 1, -1).reshape(-1, a.shape[1])


@draws("multi_margin_loss")
def _(d):
    _, rows, args = loss_draw(d)
    args |= dict(margin=d.one_of(1.0, 0.5), out=d.maybe(d.whole(*rows)) if args["reduction"] == "none" else None)

    def twin(a):
        target = a["target"].astype(np.int64)
        losses = ref.multi_margin_loss(by_rows(f64(a["input"])), target.reshape(-1), margin_of(a))
        return reduced(losses.reshape(target.shape), a)

    return Call(args, twin, ("out",), 256.0)


@draws("multi_margin_loss_backward")
def _(d):
    shape, rows, args = loss_draw(d)
    args = dict(grad_output=d.whole(*rows) if args["reduction"] == "none" else d.one_of(1.0, 2.5), **args,
                margin=d.one_of(1.0, 0.5), grad_input=d.maybe(d.whole(*shape)))  # fmt: skip

    def twin(a):
        target, x, margin = a["target"].astype(np.int64), f64(a["input"]), margin_of(a)
        flat, labels = by_rows(x), target.reshape(-1)
        every = np.arange(len(flat))
        over = (margin - flat[every, labels][:, None] + flat > 0).astype(np.float64)
        over[every, labels] = 0
        over[every, labels] = -over.sum(1)
        gx = over / x.shape[1]
        gx = np.moveaxis(gx.reshape(x.shape[0], *x.shape[2:], x.shape[1]), -1, 1) * row_scale(a, target.size)
        return gx, {"grad_input": gx}

    return Call(args, twin, ("grad_input",), 64.0)


@draws("mse_loss")
def _(d):
    shape, how = d.shape(), d.one_of("mean", "sum", "none")
    args = dict(input=d.whole(*shape), target=d.whole(*shape), reduction=how,
                out=d.maybe(d.whole(*shape)) if how == "none" else None)  # fmt: skip
    return Call(args, lambda a: reduced((f64(a["input"]) - f64(a["target"])) ** 2, a), ("out",), 64.0)


@draws("mse_loss_backward")
def _(d):
    shape, how = d.shape(), d.one_of("mean", "sum", "none")
    args = dict(grad_output=d.whole(*shape) if how == "none" else d.one_of(1.0, 2.5), input=d.whole(*shape),
                target=d.whole(*shape), reduction=how, grad_input=d.maybe(d.whole(*shape)))  # fmt: skip

    def twin(a):
        difference = 2 * (f64(a["input"]) - f64(a["target"]))
        g = f64(a["grad_output"]) if a["reduction"] == "none" else row_scale(a, difference.size)
        return difference * g, {"grad_input": difference * g}

    return Call(args, twin, ("grad_input",), 16.0)


# --- normalisation, dropout -------------------------------------------------------------------------------


def eps_of(a):
    eps = float(a.get("eps", 1e-5))
    if not 1e-3 <= eps < 1e6:
        raise Unchecked
    return eps


def statistic(a, name, like, default):
    return np.full(like.shape[1], default) if a.get(name) is None else f64(a[name])


@draws("batch_norm")
def _(d):
    shape = rows_or_image(d)
    c, training = shape[1], d.chance()
    args = dict(input=d.whole(*shape), running_mean=d.whole(c), running_var=d.positive(c), weight=d.maybe(d.whole(c)),
                bias=d.maybe(d.whole(c)), training=training, momentum=0.25, eps=d.one_of(0.5, 1.0),
                activation=d.one_of(None, "relu"), out=d.maybe(d.whole(*shape)),
                saved=d.maybe(d.whole(2, c)))  # fmt: skip
    if training and d.chance(0.3):
        args["running_mean"] = args["running_var"] = None

    def twin(a):
        x, eps, contents = f64(a["input"]), eps_of(a), {}
        mean, var = f64(a["running_mean"]), f64(a["running_var"])
        if a["training"]:
            m = x.size // x.shape[1]
            over = (0, *range(2, x.ndim))
            momentum, batch = float(a["momentum"]), (x.mean(over), x.var(over))
            if mean is not None:
                contents["running_mean"] = (1 - momentum) * mean + momentum * batch[0]
            if var is not None:
                contents["running_var"] = (1 - momentum) * var + momentum * batch[1] * m / (m - 1)
            mean, var = batch
        if (var + eps < 1e-3).any():
            raise Unchecked
        y = ref.batch_norm(x, mean, var, statistic(a, "weight", x, 1.0), statistic(a, "bias", x, 0.0), eps)
        y = np.maximum(y, 0) if a["activation"] == "relu" else y
        return y, {**contents, "out": y, "saved": np.stack([mean, 1 / np.sqrt(var + eps)])}

    return Call(args, twin, ("out", "saved", "running_mean", "running_var"), 1000.0)


@draws("batch_norm_coefficients")
def _(d):
    c = d.channels()
    args = dict(running_mean=d.whole(c), running_var=d.positive(c), weight=d.maybe(d.whole(c)),
                bias=d.maybe(d.whole(c)), eps=d.one_of(0.5, 1.0), out=d.maybe(d.whole(2, c)),
                saved=d.maybe(d.whole(2, c)))  # fmt: skip

    def twin(a):
        mean, var = f64(a["running_mean"]), f64(a["running_var"]) + eps_of(a)
        if (var < 1e-3).any():
            raise Unchecked
        inverse = 1 / np.sqrt(var)
        like = mean[None]
        scale = inverse * statistic(a, "weight", like, 1.0)
        both = np.stack([scale, statistic(a, "bias", like, 0.0) - mean * scale])
        return both, {"out": both, "saved": np.stack([mean, inverse])}

    return Call(args, twin, ("out", "saved"), 16.0)


@draws("batch_norm_backward")
def _(d):
    shape = rows_or_image(d)
    c = shape[1]
    args = dict(grad_output=d.whole(*shape), input=d.whole(*shape), weight=d.maybe(d.whole(c), 0.8),
                saved=d.whole(2, c) / d.dtype(4), training=d.chance(), bias=d.chance(0.8), output=d.whole(*shape),
                activation=d.one_of(None, "relu"), need_input_grad=d.chance(0.8), grad_input=d.maybe(d.whole(*shape)),
                grad_weight=d.maybe(d.whole(c)), grad_bias=d.maybe(d.whole(c)))  # fmt: skip

    def twin(a):
        g, x = masked(a), f64(a["input"])
        mean, inverse = f64(a["saved"])
        m = max(x.size // x.shape[1], 1)
        xhat = (x - channels(mean, x)) * channels(inverse, x)
        gw, gb = ref._sum_channels(g * xhat), ref._sum_channels(g)
        gx = g - channels(gb / m, x) - xhat * channels(gw / m, x) if a["training"] else g
        gx = gx * channels(inverse * statistic(a, "weight", x, 1.0), x)
        if a["weight"] is None:
            (gx, _, gb), contents = gradients_of({**a, "grad_weight": None}, gx, gw, gb)
            del contents["grad_weight"]
            return (gx, None, gb), contents
        return gradients_of(a, gx, gw, gb)

    return Call(args, twin, ("grad_input", "grad_weight", "grad_bias"), 1000.0)


@draws("dropout")
def _(d):
    shape = d.shape()
    mask = np.zeros(shape, np.uint8)
    args = dict(input=d.whole(*shape), p=d.one_of(0.0, 0.25, 0.5, 1.0), training=d.chance(0.8), seed=d.size(1000),
                stream=d.one_of(3, "dropout"), step=d.size(1000), mask=d.maybe(nhwc(mask) if mask.ndim == 4 else mask),
                out=d.maybe(d.whole(*shape)))  # fmt: skip

    def twin(a):
        x, p = f64(a["input"]), float(a["p"])
        if not a["training"]:
            return x, {"out": x}
        keep = ref.dropout_mask(x.shape, p, random.generator(a["seed"], a["stream"], a["step"]))
        y = x * (keep / (1 - p) if p < 1 else 0.0)
        return y, {"out": y, "mask": keep}

    return Call(args, twin, ("out", "mask"), 4.0)


@draws("dropout_backward")
def _(d):
    shape = d.shape()
    mask = d.rng.integers(0, 2, shape).astype(np.uint8)
    args = dict(grad_output=d.whole(*shape), mask=nhwc(mask) if mask.ndim == 4 else mask, p=d.one_of(0.25, 0.5),
                grad_input=d.maybe(d.whole(*shape)))  # fmt: skip

    def twin(a):
        p = float(a["p"])
        gx = f64(a["grad_output"]) * (f64(a["mask"]) / (1 - p) if p < 1 else 0.0)
        return gx, {"grad_input": gx}

    return Call(args, twin, ("grad_input",), 4.0)


@draws("dropout_mask_like")
def _(d):
    return Call(dict(input=d.whole(*d.shape())), None)


# --- optimiser steps --------------------------------------------------------------------------------------


def sane(a, *names):
    """Settings as floats, if they are of a size for which float32 and float64 agree."""
    values = {name: float(a[name]) for name in names}
    if not all(0 <= v < 100 for v in values.values()) or ("eps" in values and values["eps"] < 1e-8):
        raise Unchecked
    return values


def stepping(name, states, settings, twin, optional=()):
    def make(d):
        shape = d.shape()
        args = {"param": c_order(d.whole(*shape)), "grad": c_order(d.whole(*shape))}
        args |= {state: c_order(d.positive(*shape)) for state in states}
        for state in optional:
            args[state] = d.maybe(args[state])
        args |= {key: draw(d) for key, draw in settings.items()}
        return Call(args, twin, ("param", *states), 2000.0)

    DRAWS[name] = make


def number(*values):
    return lambda d: d.one_of(*values)


def results(names, values):
    return None, {name: value for name, value in zip(names, values, strict=True) if value is not None}


def sgd_twin(a):
    s = sane(a, "lr", "momentum", "dampening", "weight_decay")
    values = ref.sgd(f64(a["param"]), f64(a["grad"]), f64(a["momentum_buffer"]), nesterov=bool(a["nesterov"]),
                     first_step=bool(a["first_step"]), **s)  # fmt: skip
    return results(("param", "momentum_buffer"), values)


def adam_twin(a):
    s = sane(a, "lr", "beta1", "beta2", "eps", "weight_decay")
    values = ref.adam(f64(a["param"]), f64(a["grad"]), f64(a["m"]), f64(a["v"]), step=int(a["step"]),
                      decoupled=bool(a["decoupled"]), **s)  # fmt: skip
    return results(("param", "m", "v"), values)


def rmsprop_twin(a):
    s = sane(a, "lr", "alpha", "eps", "weight_decay", "momentum")
    states = ("square_avg", "momentum_buffer", "grad_avg")
    values = ref.rmsprop(f64(a["param"]), f64(a["grad"]), *(f64(a[k]) for k in states), **s)
    if a["grad_avg"] is not None:
        raise Unchecked  # the spread cancels, and its root has no digits left
    return results(("param", *states), values)


def adagrad_twin(a):
    s = sane(a, "lr", "lr_decay", "eps", "weight_decay")
    values = ref.adagrad(f64(a["param"]), f64(a["grad"]), f64(a["state_sum"]), step=int(a["step"]), **s)
    return results(("param", "state_sum"), values)


STEP = {"step": number(1, 2, 10)}
stepping("sgd_step", ("momentum_buffer",), {
    "lr": number(0.5, 0.1), "momentum": number(0.0, 0.5), "dampening": number(0.0, 0.5),
    "weight_decay": number(0.0, 0.5), "nesterov": number(False, False, True),
    "first_step": number(False, True)}, sgd_twin, ("momentum_buffer",))
stepping("adam_step", ("m", "v"), {
    "lr": number(0.5, 0.1), "beta1": number(0.5, 0.9), "beta2": number(0.5, 0.75), "eps": number(0.5, 1e-8),
    "weight_decay": number(0.0, 0.5), **STEP, "decoupled": number(False, True)}, adam_twin)
stepping("rmsprop_step", ("square_avg", "momentum_buffer", "grad_avg"), {
    "lr": number(0.5, 0.1), "alpha": number(0.5, 0.75), "eps": number(0.5, 1e-8), "weight_decay": number(0.0, 0.5),
    "momentum": number(0.0, 0.5)}, rmsprop_twin, ("momentum_buffer", "grad_avg"))
stepping("adagrad_step", ("state_sum",), {
    "lr": number(0.5, 0.1), "lr_decay": number(0.0, 0.5), "eps": number(0.5, 1e-8), "weight_decay": number(0.0, 0.5),
    **STEP}, adagrad_twin)  # fmt: skip


# --- residual cores ---------------------------------------------------------------------------------------


def core_of(d):
    layers, width = d.size(3), d.one_of(1, 2, 3, 4, 5, 8)
    core = residual.ResidualCore(width, layers, 0.5, d.one_of(*residual.ACTIVATIONS))
    weights = (d.whole(layers, core.row, most=2) / d.dtype(4)).copy()
    state = (d.whole(d.size(3), width, 16, most=2) / d.dtype(2)).copy()
    return core, weights, state


def unblocked(h):
    return h.transpose(0, 2, 1).reshape(-1, h.shape[1])


def blocked(x, shape):
    return x.reshape(shape[0], 16, shape[1]).transpose(0, 2, 1)


@draws("residual_forward")
def _(d):
    core, weights, h = core_of(d)
    chunk = d.one_of(1, 2, core.layers)
    marks = np.zeros((-(-core.layers // chunk), *h.shape), d.dtype)
    args = dict(core=core, weights=weights, h=h, chunk=chunk, marks=d.maybe(marks))

    def twin(a):
        core, x = a["core"], unblocked(f64(a["h"]))
        w = f64(a["weights"])
        after = ref.residual_core(w, x, x, core.factor, core.activation, 0.0)[0]
        y = blocked(after, a["h"].shape)
        contents = {"h": y}
        if isinstance(a["marks"], np.ndarray):
            if a["chunk"] is None:
                raise Unchecked
            chunk = min(int(a["chunk"]), max(len(w), 1))
            starts = range(0, len(w), chunk)
            states = [ref.residual_core(w[:i], x, x, core.factor, core.activation, 0.0)[0] for i in starts]
            contents["marks"] = np.array([blocked(s, a["h"].shape) for s in states]).reshape(a["marks"].shape)
        return y, contents

    return Call(args, twin, ("h", "marks"), 256.0)


@draws("residual_backward")
def _(d):
    core, weights, h = core_of(d)
    chunk = d.one_of(1, 2, core.layers)
    marks = np.zeros((-(-core.layers // chunk), *h.shape), d.dtype)
    residual.residual_forward(core, weights, h, chunk=chunk, marks=marks)
    args = dict(core=core, weights=weights, g=(d.whole(*h.shape, most=2) / d.dtype(2)).copy(), marks=marks,
                rate=d.one_of(0.0, 0.5), chunk=chunk, updated=d.maybe(np.zeros_like(weights)),
                workspace=d.maybe(residual.backward_workspace(core, h.shape[0] * 16, chunk, d.dtype)))  # fmt: skip

    def twin(a):
        core, marks, w, rate = a["core"], f64(a["marks"]), f64(a["weights"]), float(a["rate"])
        g = unblocked(f64(a["g"]))
        if not abs(rate) < 1e6:
            raise Unchecked
        new, chunk = w.copy(), min(int(a["chunk"]), max(len(w), 1))
        for i in reversed(range(len(marks))):
            part = slice(i * chunk, (i + 1) * chunk)
            _, new[part], g = ref.residual_core(w[part], unblocked(marks[i]), g, core.factor, core.activation, rate)
        before = blocked(g, a["g"].shape)
        contents = {"g": before, "weights" if a["updated"] is None else "updated": new, "workspace": ...}
        return before, contents

    return Call(args, twin, ("g", "updated", "weights"), 1000.0)


@draws("to_blocks")
def _(d):
    args = dict(x=d.whole(d.batch() * d.size(9), d.size(9)), pad=d.one_of("repeat", "zero"))

    def twin(a):
        x = f64(a["x"])
        n = len(x)
        rows = np.zeros((-(-n // 16) * 16, x.shape[1]))
        rows[:n] = x
        if n and a["pad"] == "repeat":
            rows[n:] = x[-1]
        return rows.reshape(-1, 16, x.shape[1]).transpose(0, 2, 1), {}

    return Call(args, twin)


@draws("from_blocks")
def _(d):
    blocks = d.size(3)
    args = dict(h=d.whole(blocks, d.size(9), 16), samples=int(d.rng.integers(0, 16 * blocks + 1)))
    return Call(args, lambda a: (unblocked(f64(a["h"]))[: int(a["samples"])], {}))


@draws("release_scratch")
def _(d):
    return Call({}, lambda a: (None, {}))
