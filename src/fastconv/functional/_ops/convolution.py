"""Convolutions, linear layers and biases."""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, cast

import numpy as np

from fastconv import config
from fastconv._ext.bias import bias_gradient
from fastconv._ext.conv.algorithms import choose, instances, kernel
from fastconv._ext.conv.strips import strips
from fastconv.functional import linear
from fastconv.functional._algorithm import NAMES, asked
from fastconv.functional._check import OfSignals, by_dtype, check_grad, check_rank, check_shape, memory, scratch
from fastconv.functional._epilogue import NOTHING, Epilogue, finish
from fastconv.functional._geometry import convolution as geometry_of
from fastconv.functional._geometry import length_1d, padding_1d
from fastconv.functional._ops._run import describes
from fastconv.graph.operation import Array, Call, Frame, Operation, Spec, one_dtype, one_of, operation, rows_of
from fastconv.graph.value import write

_bias_gradient = by_dtype(bias_gradient)
_strips = instances(strips)


def _lies_ready(a: Array) -> bool:
    """Return whether an array is in C order, native and aligned."""
    return bool(a.flags.c_contiguous and a.flags.aligned and a.dtype.isnative)


def _checked(grad: Array) -> Array:
    return check_grad("backward", "the gradient", grad, grad.shape, grad.dtype)


def ready(a: Array) -> tuple[Array, list[Call]]:
    """Return an array in C order, native and aligned: itself, or a copy and the call that fills it."""
    if _lies_ready(a):
        return a, []
    copy = np.empty(a.shape, a.dtype.newbyteorder("="))
    return copy, [(np.copyto, (copy, a))]


class _Products(Operation):
    """What convolutions and linear layers share: x, weight and bias in; one kernel forward, three backward."""

    takes = ("bias", "scale", "add", "activation", "slopes")
    optional = (2,)
    accumulates = (1, 2)
    reads_inputs = (0, 1)
    spaced_output = True
    algorithm = "direct"

    def reads(self, wanted: tuple[bool, ...]) -> tuple[int, ...]:
        return tuple(i for i in (0, 1) if wanted[1 - i])

    def geometry(self, x: Any, weight: Any) -> Any:
        raise NotImplementedError

    def _known(self, f: Frame, x: Any, weight: Any) -> Any:
        if "geometry" not in f.memo:
            f.memo["geometry"] = self.geometry(x, weight)
        return f.memo["geometry"]

    def images(self, a: Array) -> Array:
        """Return an input, output or gradient as the kernels take it: (N, H, W, C)."""
        raise NotImplementedError

    def filters(self, a: Array) -> Array:
        """Return a weight as (K, C, R, S)."""
        raise NotImplementedError

    def _bound(self, f: Frame) -> tuple[list[Call], Array, Any, Epilogue]:
        """Return the calls before a forward, and its filters, sizes and epilogue."""
        x, weight, bias = f.x
        weight, calls = ready(weight)
        if bias is not None:
            bias, more = ready(bias)
            calls = [*calls, *more]
        add, pre = (None if a is None else self.images(a) for a in (f.add, f.pre))
        epilogue = Epilogue(*f.activation, bias, f.coefficients, add, pre)
        return calls, self.filters(weight), self._known(f, x, weight), epilogue

    def forward(self, f: Frame) -> Iterator[Call]:
        calls, filters, g, epilogue = self._bound(f)
        yield from calls
        run = kernel("forward", g, filters.itemsize, self.algorithm)
        yield run, (self.images(f.x[0]), filters, self.images(f.y[0]), g, epilogue, scratch)

    def backward(self, f: Frame) -> Iterator[Call]:
        x, weight, _ = f.x
        gx, grad_weight, grad_bias = f.gx
        gy = self.images(f.gy[0])
        g = self._known(f, x, weight)
        if grad_weight is not None:
            run, along = kernel("weight_gradient", g, gy.itemsize, self.algorithm), None
            if grad_bias is not None and _lies_ready(grad_bias):
                along, grad_bias = _checked(grad_bias), None
            yield from _into(grad_weight, lambda to: (run, (self.images(x), gy, self.filters(to), g, scratch, along)))
        if grad_bias is not None:
            rows = gy.reshape(-1, gy.shape[3])
            yield from _into(grad_bias, lambda to: (_bias_gradient[gy.dtype], (rows, to, scratch)))
        if gx is not None:
            weight, calls = ready(weight)
            yield from calls
            run = kernel("input_gradient", g, gy.itemsize, self.algorithm)
            yield run, (gy, self.filters(weight), self.images(gx), g, NOTHING, scratch)

    def flops(self, inputs: tuple[Any, ...], outputs: tuple[Spec, ...]) -> float:
        g = self.geometry(inputs[0], inputs[1])
        return 2.0 * g.n * g.p * g.q * g.k * (g.c // g.groups) * g.r * g.s

    def way(self, inputs: tuple[Any, ...], outputs: tuple[Spec, ...]) -> str:
        name = choose("forward", self.geometry(inputs[0], inputs[1]), inputs[0].dtype.itemsize, self.algorithm).name
        return "" if name == "direct" else name


def _into(grad: Array, call: Any) -> Iterator[Call]:
    """Yield the call that adds to a parameter's gradient, by way of a copy where that does not lie in C order."""
    if _lies_ready(grad):
        yield call(_checked(grad))
        return
    copy = np.empty(grad.shape, grad.dtype.newbyteorder("="))
    yield copy.fill, (0,)
    yield call(copy)
    yield np.add, (grad, copy, grad)


@operation
class Convolution(_Products):
    """A convolution in one or two dimensions."""

    dimensions: int
    stride: Any
    padding: Any
    dilation: Any
    groups: int
    algorithm: str = "direct"

    def __post_init__(self) -> None:
        one_of("Convolution: dimensions", self.dimensions, (1, 2))
        one_of("Convolution: algorithm", self.algorithm, NAMES)

    @property
    def where(self) -> str:
        return OfSignals("conv1d") if self.dimensions == 1 else "conv2d"

    def infer(self, *inputs: Any) -> tuple[Spec, ...]:
        x, weight, bias = inputs
        dtype = one_dtype(self.where, x, weight, bias)
        check_rank(self.where, "input", x, self.dimensions + 2)
        check_rank(self.where, "weight", weight, self.dimensions + 2)
        g = self.geometry(x, weight)
        asked(self.where, g, dtype.itemsize, self.algorithm)
        if bias is not None:
            check_shape(self.where, "bias", bias, (g.k,))
        return (Spec((g.n, g.k, g.p, g.q) if self.dimensions == 2 else (g.n, g.k, g.q), dtype),)

    def geometry(self, x: Any, weight: Any) -> Any:
        where = self.where
        if self.dimensions == 2:
            sizes = (self.stride, self.padding, self.dilation)
            return geometry_of(where, tuple(x.shape), tuple(weight.shape), *sizes, self.groups)
        (n, c, length), (k, depth, taps) = x.shape, weight.shape
        sizes = (
            length_1d(where, "stride", self.stride), padding_1d(where, self.padding),
            length_1d(where, "dilation", self.dilation),
        )  # fmt: skip
        return geometry_of(where, (n, c, 1, length), (k, depth, 1, taps), *sizes, self.groups)

    def in_strips(self, inputs: tuple[Any, ...], outputs: tuple[Spec, ...]) -> str:
        g = self.geometry(inputs[0], inputs[1])
        if self.dimensions != 2:
            return ""
        if g.depthwise:
            return "rows"
        alone = (g.r, g.s, g.sh, g.sw, g.top, g.left, g.groups) == (1, 1, 1, 1, 0, 0, 1)
        return "pixels" if alone and (g.p, g.q) == (g.h, g.w) else ""

    def forward_in_strips(self, middle: int, ops: Sequence[Operation], frames: Sequence[Frame]) -> Iterator[Call]:
        calls, filters, geometries, epilogues = zip(
            *(op._bound(f) for op, f in zip(cast(Sequence[Convolution], ops), frames, strict=True)), strict=True
        )
        for some in calls:
            yield from some
        x, y = self.images(frames[0].x[0]), self.images(frames[-1].y[0])
        projects = middle < len(ops) - 1
        yield _strips[y.itemsize], (x, filters, y, geometries, epilogues, bool(middle), projects, scratch)

    def images(self, a: Array) -> Array:
        return memory(a) if a.ndim == 4 else memory(a[:, :, None])

    def filters(self, a: Array) -> Array:
        return a if a.ndim == 4 else a[:, :, None]


@operation
class Linear(_Products):
    """``x @ weight.T + bias``."""

    def infer(self, *inputs: Any) -> tuple[Spec, ...]:
        x, weight, bias = inputs
        dtype = one_dtype("linear", x, weight, bias)
        linear._check_sizes("linear", x, weight)
        if bias is not None:
            check_shape("linear", "bias", bias, (weight.shape[0],))
        return (Spec((x.shape[0], weight.shape[0]), dtype),)

    def geometry(self, x: Any, weight: Any) -> Any:
        return linear._geometry(*x.shape, weight.shape[0])

    def images(self, a: Array) -> Array:
        return a[:, None, None]

    def filters(self, a: Array) -> Array:
        return a[:, :, None, None]


@operation
class Bias(Operation):
    """One number per channel, added along axis 1."""

    takes: ClassVar[tuple[str, ...]] = ("add", "activation", "slopes")
    takes_part_as = "bias"
    accumulates: ClassVar[tuple[int, ...]] = (1,)
    inplace = True
    spaced_inputs: ClassVar[tuple[int, ...]] = (0,)
    spaced_output: ClassVar[bool] = True

    def infer(self, *inputs: Any) -> tuple[Spec, ...]:
        x, bias = inputs
        dtype = one_dtype("bias_add", x, bias)
        check_rank("bias_add", "input", x, (2, 3, 4))
        check_shape("bias_add", "bias", bias, (x.shape[1],))
        return (Spec(x.shape, dtype),)

    def passes(self, inputs: tuple[Any, ...], outputs: tuple[Spec, ...]) -> tuple[int, ...]:
        return (0,)

    def forward(self, f: Frame) -> Iterator[Call]:
        bias, calls = ready(f.x[1])
        yield from calls
        [y] = f.y
        add, pre = (None if a is None else rows_of(a) for a in (f.add, f.pre))
        yield finish[y.dtype], (rows_of(f.x[0]), rows_of(y), Epilogue(*f.activation, bias, None, add, pre))

    def backward(self, f: Frame) -> Iterator[Call]:
        rows = rows_of(f.gy[0])
        yield from _into(f.gx[1], lambda to: (_bias_gradient[rows.dtype], (rows, to, scratch)))


@describes("conv2d")
def conv2d(
    input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1, *,
    algorithm: str | None = None,
) -> Any:  # fmt: skip
    name = config.algorithm() if algorithm is None else algorithm
    return write(Convolution(2, _fixed(stride), _fixed(padding), _fixed(dilation), groups, name), input, weight, bias)


@describes("conv1d")
def conv1d(
    input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Any:  # fmt: skip
    return write(Convolution(1, _fixed(stride), _fixed(padding), _fixed(dilation), groups), input, weight, bias)


@describes("linear")
def linear_(input: Any, weight: Any, bias: Any = None) -> Any:
    return write(Linear(), input, weight, bias)


@describes("bias_add")
def bias_add(input: Any, bias: Any) -> Any:
    return write(Bias(), input, bias)


def _fixed(value: Any) -> Any:
    """Return a setting with tuples in the place of lists, so that it can be compared."""
    return tuple(map(_fixed, value)) if isinstance(value, list | tuple) else value
