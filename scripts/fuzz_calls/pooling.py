"""Poolings."""

import numpy as np
import reference as ref

from .drawing import Call, Unchecked, draws, f64, nhwc, two


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
