"""Convolutions, linear layers and what adds a bias."""

import numpy as np
import reference as ref

from .drawing import Call, added, c_order, channels, draws, f64, gradients_of, rows_or_image, two
from .epilogue import before, epilogue, finish, masked, ulps_of

GRADIENTS = ("grad_input", "grad_weight", "grad_bias", "grad_add")


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


def algorithm(d):
    """Return an algorithm to ask for, and the ulps it may be off: winograd's weights are no whole numbers."""
    name = d.one_of(None, None, "direct", "auto", "winograd")
    return name, 0.0 if name == "direct" else 1000.0


@draws("conv2d")
def _(d):
    x, w, settings = geometry(d)
    y = output_shape(x, w, settings)
    name, ulps = algorithm(d)
    args = dict(input=d.whole(*x), weight=c_order(d.whole(*w)), bias=d.maybe(d.whole(w[0])), **settings,
                coefficients=d.maybe(d.whole(2, w[0]), 0.2), **epilogue(d, y), out=d.maybe(d.whole(*y)),
                algorithm=name)  # fmt: skip

    def twin(a):
        return finish(ref.conv2d(f64(a["input"]), f64(a["weight"]), f64(a["bias"]), **windows(a)), a)

    return Call(args, twin, ("out", "pre"), max(ulps, ulps_of(args["activation"])))


def image_gradients(a, settings):
    g, x, w = masked(a), f64(a["input"]), f64(a["weight"])
    return g, *ref.conv2d_backward(g, x, w, **settings)


@draws("conv2d_backward")
def _(d):
    x, w, settings = geometry(d)
    y = output_shape(x, w, settings)
    name, ulps = algorithm(d)
    args = dict(grad_output=d.whole(*y), input=d.whole(*x), weight=c_order(d.whole(*w)), **settings, bias=d.chance(),
                **before(d, y), need_input_grad=d.chance(0.8), grad_input=d.maybe(d.whole(*x)),
                grad_weight=d.maybe(c_order(d.whole(*w))), grad_bias=d.maybe(d.whole(w[0])),
                grad_add=d.maybe(d.whole(*y), 0.3), algorithm=name)  # fmt: skip
    return Call(args, lambda a: gradients_of(a, *image_gradients(a, windows(a))), GRADIENTS,
                max(ulps, ulps_of(args["activation"], 2000.0)))  # fmt: skip


@draws("conv2d_input_grad")
def _(d):
    x, w, settings = geometry(d)
    name, ulps = algorithm(d)
    args = dict(grad_output=d.whole(*output_shape(x, w, settings)), input_shape=x, weight=c_order(d.whole(*w)),
                **settings, out=d.maybe(d.whole(*x)), algorithm=name)  # fmt: skip

    def twin(a):
        gx = ref.conv2d_backward(f64(a["grad_output"]), np.zeros(tuple(a["input_shape"])), f64(a["weight"]),
                                 **windows(a))[0]  # fmt: skip
        return gx, {"out": gx}

    return Call(args, twin, ("out",), ulps)


def geometry_1d(d):
    x, w, settings = geometry(d)
    x, w = (x[0], x[1], 1, x[3]), (w[0], w[1], 1, w[3])
    settings |= {"stride": d.one_of(1, 2, (3,)), "dilation": d.one_of(1, 2), "padding": d.one_of(0, 1, (2, 1), "valid")}
    x = (*x[:3], x[3] + 3)
    return x, w, settings, output_shape(x, w, windows_1d(settings))


def signal(d, shape):
    return d.placed(shape[0], shape[1], shape[3])


def as_images(a):
    return {k: v[:, :, None] if isinstance(v, np.ndarray) and v.ndim == 3 else v for k, v in a.items()}


@draws("conv1d")
def _(d):
    x, w, settings, y = geometry_1d(d)
    args = dict(input=signal(d, x), weight=c_order(signal(d, w)), bias=d.maybe(d.whole(w[0])), **settings,
                coefficients=d.maybe(d.whole(2, w[0]), 0.2), **epilogue(d, (*y[:2], y[3])),
                out=d.maybe(signal(d, y)))  # fmt: skip

    def twin(a):
        b = as_images(a)
        y, contents = finish(ref.conv2d(f64(b["input"]), f64(b["weight"]), f64(b["bias"]), **windows_1d(a)), b)
        return y[:, :, 0], {name: value[:, :, 0] for name, value in contents.items()}

    return Call(args, twin, ("out", "pre"), ulps_of(args["activation"]))


@draws("conv1d_backward")
def _(d):
    x, w, settings, y = geometry_1d(d)
    args = dict(grad_output=signal(d, y), input=signal(d, x), weight=c_order(signal(d, w)), **settings, bias=d.chance(),
                **before(d, (*y[:2], y[3])), need_input_grad=d.chance(0.8), grad_input=d.maybe(signal(d, x)),
                grad_weight=d.maybe(c_order(signal(d, w))), grad_bias=d.maybe(d.whole(w[0])),
                grad_add=d.maybe(signal(d, y), 0.3))  # fmt: skip

    def twin(a):
        *gradients, gb = image_gradients(as_images(a), windows_1d(a))
        return gradients_of(a, *(g[:, :, 0] for g in gradients), gb)

    return Call(args, twin, GRADIENTS, ulps_of(args["activation"], 2000.0))


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
                coefficients=d.maybe(d.whole(2, k), 0.2), **epilogue(d, (n, k)),
                out=d.maybe(d.whole(n, k)))  # fmt: skip

    def twin(a):
        y = f64(a["input"]) @ f64(a["weight"]).T
        return finish(y if a["bias"] is None else y + f64(a["bias"]), a)

    return Call(args, twin, ("out", "pre"), ulps_of(args["activation"]))


@draws("linear_backward")
def _(d):
    n, c, k = d.batch(), d.channels(), d.channels()
    args = dict(grad_output=d.whole(n, k), input=d.whole(n, c), weight=d.whole(k, c), bias=d.chance(),
                **before(d, (n, k)), need_input_grad=d.chance(0.8), grad_input=d.maybe(d.whole(n, c)),
                grad_weight=d.maybe(d.whole(k, c)), grad_bias=d.maybe(d.whole(k)),
                grad_add=d.maybe(d.whole(n, k), 0.3))  # fmt: skip

    def twin(a):
        g = masked(a)
        return gradients_of(a, g, g @ f64(a["weight"]), g.T @ f64(a["input"]), g.sum(0))

    return Call(args, twin, GRADIENTS, ulps_of(args["activation"], 2000.0))


@draws("bias_add")
def _(d):
    shape = rows_or_image(d)
    args = dict(input=d.whole(*shape), bias=d.whole(shape[1]), **epilogue(d, shape), out=d.maybe(d.whole(*shape)))

    def twin(a):
        x = f64(a["input"])
        return finish(x + channels(f64(a["bias"]), x), a)

    return Call(args, twin, ("out", "pre"), ulps_of(args["activation"]))


@draws("bias_add_backward")
def _(d):
    shape = rows_or_image(d)
    args = dict(grad_output=d.whole(*shape), **before(d, shape), grad_input=d.maybe(d.whole(*shape)),
                grad_bias=d.maybe(d.whole(shape[1])))  # fmt: skip

    def twin(a):
        g = masked(a)
        gb = added(a, "grad_bias", ref._sum_channels(g))
        return (g, gb), {"grad_input": g, "grad_bias": gb}

    return Call(args, twin, ("grad_input", "grad_bias"), ulps_of(args["activation"], 2000.0))


@draws("release_scratch")
def _(d):
    return Call({}, lambda a: (None, {}))
