"""Poolings."""

import numpy as np
import reference as ref

from .drawing import Call, Unchecked, draws, f64, nhwc, two


def pool_axis(size, kernel, stride, padding, dilation, ceil_mode):
    """As the reference's, for kernels of any length: only taps inside the input are looked at."""
    (before, behind), reach, found = padding, dilation * (kernel - 1) + 1, []
    start = -before
    if size > 4096:
        raise Unchecked
    while start + reach <= size + behind or (
        ceil_mode and start < size and (not found or start - stride + reach < size + behind)
    ):
        inside = range(max(0, -(start // dilation)), min(kernel - 1, (size - 1 - start) // dilation) + 1)
        padded = min(kernel, (size + behind - 1 - start) // dilation + 1)
        found.append(([(r, start + r * dilation) for r in inside], padded))
        start += stride
    return found


def sides(padding):
    if isinstance(padding, tuple | list) and any(isinstance(n, tuple | list) for n in padding):
        return two(padding[0]), two(padding[1])
    return tuple((n, n) for n in two(padding))


def pool_axes(shape, a):
    kernel = two(a["kernel_size"])
    stride = kernel if a.get("stride") is None else two(a["stride"])
    padding, dilation = sides(a.get("padding", 0)), two(a.get("dilation", 1))
    return kernel, *(
        pool_axis(shape[2 + i], kernel[i], stride[i], padding[i], dilation[i], bool(a.get("ceil_mode")))
        for i in range(2)
    )


def pooling(d):
    kernel = (d.size(3), d.size(3))
    borders = tuple((d.size(k) - 1, d.size(k) - 1) for k in kernel)
    settings = {"kernel_size": d.one_of(kernel, kernel, 2), "stride": d.one_of(None, 1, 2, (2, 1)),
                "padding": d.one_of(0, tuple(k - 1 for k in kernel), borders),
                "ceil_mode": d.chance()}  # fmt: skip
    if settings["kernel_size"] == 2:
        settings["padding"] = d.one_of(0, 1, ((0, 1), (1, 0)))
    settings["dilation"] = d.one_of(1, 1, 2)
    if settings["dilation"] == 2:
        settings["padding"] = d.one_of(0, tuple(k // 2 for k in two(settings["kernel_size"])))
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
    x, settings = pooling(d)
    args = dict(input=d.whole(*x), **settings, count_include_pad=d.chance(), out=d.maybe(d.whole(*pooled(x, settings))))

    def twin(a):
        _, rows, cols = pool_axes(a["input"].shape, a)
        y = ref.avg_pool2d(f64(a["input"]), rows, cols, a["count_include_pad"])
        return y, {"out": y}

    return Call(args, twin, ("out",), ulps=2)


@draws("avg_pool2d_backward")
def _(d):
    x, settings = pooling(d)
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


def row(shape, a):
    """A pooling of signals as one of images of one row."""
    def one(value):
        return int(value[0]) if isinstance(value, tuple | list) else int(value)

    kernel = one(a["kernel_size"])
    settings = {"kernel_size": (1, kernel), "stride": (1, kernel if a.get("stride") is None else one(a["stride"])),
                "padding": ((0, 0), two(a.get("padding", 0))), "dilation": (1, one(a.get("dilation", 1))),
                "ceil_mode": a.get("ceil_mode")}  # fmt: skip
    return pool_axes((shape[0], shape[1], 1, shape[2]), settings)


def signal_pooling(d):
    kernel = d.size(4)
    settings = {"kernel_size": kernel, "stride": d.one_of(None, 1, 2), "ceil_mode": d.chance(),
                "padding": d.one_of(0, kernel - 1, (0, kernel - 1))}  # fmt: skip
    x = (d.batch(), d.channels(), 4 + d.size())
    _, _, cols = row(x, settings)
    return x, settings, (*x[:2], len(cols))


def signal(a):
    """Memory (N, L, C), as results have it."""
    return np.ascontiguousarray(a.transpose(0, 2, 1)).transpose(0, 2, 1)


@draws("max_pool1d")
def _(d):
    x, settings, y = signal_pooling(d)
    settings["return_indices"] = d.chance(0.3)
    args = dict(input=d.real(*x), **settings, out=d.maybe(signal(d.whole(*y))))

    def twin(a):
        kernel, rows, cols = row(a["input"].shape, a)
        best, _, index = (r[:, :, 0] for r in ref.max_pool2d(f64(a["input"])[:, :, None], rows, cols, kernel[1]))
        return (best, index) if a["return_indices"] else best, {"out": best}

    return Call(args, twin, ("out",))


@draws("max_pool1d_backward")
def _(d):
    x, settings, y = signal_pooling(d)
    args = dict(grad_output=d.whole(*y), input=d.whole(*x), **settings, grad_input=d.maybe(signal(d.whole(*x))))

    def twin(a):
        image = f64(a["input"])[:, :, None]
        kernel, rows, cols = row(a["input"].shape, a)
        _, position, _ = ref.max_pool2d(image, rows, cols, kernel[1])
        gy = f64(a["grad_output"])[:, :, None]
        gx = ref.max_pool2d_backward(gy, position, image.shape, rows, cols, kernel[1])[:, :, 0]
        return gx, {"grad_input": gx}

    return Call(args, twin, ("grad_input",))


@draws("avg_pool1d")
def _(d):
    x, settings, y = signal_pooling(d)
    args = dict(input=d.whole(*x), **settings, count_include_pad=d.chance(), out=d.maybe(signal(d.whole(*y))))

    def twin(a):
        _, rows, cols = row(a["input"].shape, a)
        y = ref.avg_pool2d(f64(a["input"])[:, :, None], rows, cols, a["count_include_pad"])[:, :, 0]
        return y, {"out": y}

    return Call(args, twin, ("out",), ulps=2)


@draws("avg_pool1d_backward")
def _(d):
    x, settings, y = signal_pooling(d)
    args = dict(grad_output=d.whole(*y), input_shape=x, **settings, count_include_pad=d.chance(),
                grad_input=d.maybe(signal(d.whole(*x))))  # fmt: skip

    def twin(a):
        n, c, length = map(int, a["input_shape"])
        _, rows, cols = row((n, c, length), a)
        gy = f64(a["grad_output"])[:, :, None]
        gx = ref.avg_pool2d_backward(gy, (n, c, 1, length), rows, cols, a["count_include_pad"])[:, :, 0]
        return gx, {"grad_input": gx}

    return Call(args, twin, ("grad_input",), ulps=16)


@draws("max_unpool2d")
def _(d):
    x, size = (d.batch(), d.channels(), d.size(4), d.size(4)), (d.size(), d.size())
    args = dict(input=d.whole(*x), indices=d.rng.integers(0, size[0] * size[1], x), kernel_size=d.size(3),
                output_size=size, out=d.maybe(d.whole(*x[:2], *size)))  # fmt: skip

    def twin(a):
        size = a["output_size"] if isinstance(a["output_size"], tuple) else None
        if size is None or len(size) != 2:
            raise Unchecked
        x, indices = f64(a["input"]), a["indices"]
        y = np.zeros((*x.shape[:2], int(size[0]) * int(size[1])))
        for n, c, p, q in np.ndindex(*x.shape):
            y[n, c, indices[n, c, p, q]] = x[n, c, p, q]
        y = y.reshape(*x.shape[:2], *map(int, size))
        return y, {"out": y}

    return Call(args, twin, ("out",))


@draws("max_unpool2d_backward")
def _(d):
    x, size = (d.batch(), d.channels(), d.size(4), d.size(4)), (d.size(), d.size())
    args = dict(grad_output=d.whole(*x[:2], *size), indices=d.rng.integers(0, size[0] * size[1], x),
                grad_input=d.maybe(d.whole(*x)))  # fmt: skip

    def twin(a):
        g, indices = f64(a["grad_output"]), a["indices"]
        gx = np.zeros(indices.shape)
        for n, c in np.ndindex(*indices.shape[:2]):
            last = {int(i): at for at, i in np.ndenumerate(indices[n, c])}
            for index, at in last.items():
                gx[n, c][at] = g[n, c].ravel()[index]
        return gx, {"grad_input": gx}

    return Call(args, twin, ("grad_input",))


def max_twin(axes_of):
    def twin(a):
        rows, cols = axes_of(a["input"].shape, a)
        width = max(len(taps) for taps, _ in cols)
        best, _, index = ref.max_pool2d(f64(a["input"]), rows, cols, width)
        return (best, index) if a["return_indices"] else best, {"out": best}

    return twin


def max_backward_twin(axes_of):
    def twin(a):
        rows, cols = axes_of(a["input"].shape, a)
        width = max(len(taps) for taps, _ in cols)
        _, position, _ = ref.max_pool2d(f64(a["input"]), rows, cols, width)
        gx = ref.max_pool2d_backward(f64(a["grad_output"]), position, a["input"].shape, rows, cols, width)
        return gx, {"grad_input": gx}

    return twin


@draws("adaptive_max_pool2d")
def _(d):
    x, size = (d.batch(), d.channels(), d.size(), d.size()), (d.size(), d.size())
    args = dict(input=d.real(*x), output_size=d.one_of(size, size, 3), return_indices=d.chance(0.3))
    args["out"] = d.maybe(d.whole(*x[:2], *two(args["output_size"])))
    return Call(args, max_twin(lambda shape, a: adaptive_axes(shape, a["output_size"])), ("out",))


@draws("adaptive_max_pool2d_backward")
def _(d):
    x = (d.batch(), d.channels(), d.size(), d.size())
    args = dict(grad_output=d.whole(*x[:2], d.size(), d.size()), input=d.whole(*x), grad_input=d.maybe(d.whole(*x)))
    twin = max_backward_twin(lambda shape, a: adaptive_axes(shape, a["grad_output"].shape[2:]))
    return Call(args, twin, ("grad_input",))


@draws("global_max_pool2d")
def _(d):
    x = (d.batch(), d.channels(), d.size(), d.size())
    args = dict(input=d.real(*x), return_indices=d.chance(0.3), out=d.maybe(d.whole(*x[:2], 1, 1)))
    return Call(args, max_twin(lambda shape, a: adaptive_axes(shape, 1)), ("out",))


@draws("global_max_pool2d_backward")
def _(d):
    x = (d.batch(), d.channels(), d.size(), d.size())
    args = dict(grad_output=d.whole(*x[:2], 1, 1), input=d.whole(*x), grad_input=d.maybe(d.whole(*x)))
    return Call(args, max_backward_twin(lambda shape, a: adaptive_axes(shape, 1)), ("grad_input",))


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
