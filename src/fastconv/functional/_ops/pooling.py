"""Pooling of images and of signals."""

import math
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from fastconv.functional import _pooling, _unpooling
from fastconv.functional._check import OfSignals, check_rank, memory
from fastconv.functional._epilogue import activate_backward, alone
from fastconv.functional._geometry import Windows, adaptive_windows, length_1d, signal_window, sliding_windows
from fastconv.functional._ops._run import describes
from fastconv.functional._ops.convolution import _fixed
from fastconv.graph.operation import Call, Frame, Operation, Spec, flag, flat, matrices, one_dtype, operation
from fastconv.graph.value import write


class _Pool(Operation):
    where: ClassVar[str]
    spaced_inputs: ClassVar[tuple[int, ...]] = (0,)
    spaced_output: ClassVar[bool] = True
    spaced_gradient: ClassVar[bool] = True

    def windows(self, shape: tuple[int, ...]) -> Windows:
        raise NotImplementedError

    def geometry(self, f: Frame, shape: tuple[int, ...]) -> Any:
        if "geometry" not in f.memo:
            f.memo["geometry"] = self.windows(shape).geometry
        return f.memo["geometry"]

    def infer(self, *inputs: Any) -> tuple[Spec, ...]:
        [x] = inputs
        dtype = one_dtype(self.where, x)
        check_rank(self.where, "input", x, 4)
        return (Spec(self.windows(x.shape).shape, dtype),)


class _Max(_Pool):
    """The largest element of each window; where each was, is kept for backward."""

    takes = ("pool",)

    def indices(self) -> bool:
        """Return whether the indices of the maxima are a second output."""
        raise NotImplementedError

    @property
    def results(self) -> int:  # type: ignore[override]
        return 2 if self.indices() else 1

    def infer(self, *inputs: Any) -> tuple[Spec, ...]:
        [y] = super().infer(*inputs)
        return (y, Spec(y.shape, np.dtype(np.int64))) if self.indices() else (y,)

    def saved(self, inputs: tuple[Any, ...], outputs: tuple[Spec, ...]) -> tuple[Spec, ...]:
        return (Spec(outputs[0].shape, _pooling.argmax_dtype(self.where, self.windows(inputs[0].shape))),)

    def work(self, backward: bool, inputs: tuple[Any, ...], outputs: tuple[Spec, ...]) -> tuple[Spec, ...]:
        return self.saved(inputs, outputs) if self.indices() and not backward else ()

    def forward(self, f: Frame) -> Iterator[Call]:
        [x], y = f.x, f.y[0]
        argmax = next(iter((*f.saved, *f.work)), None)
        positions, nbytes = _pooling.as_bytes(argmax)
        geometry = self.geometry(f, x.shape)
        yield _pooling.run_max[y.dtype], (memory(x), memory(y), positions, nbytes, geometry)
        if self.indices():
            yield _pooling.flat_indices, (argmax, geometry, x.shape[3], f.y[1])

    def backward(self, f: Frame) -> Iterator[Call]:
        gy, [gx] = f.gy[0], f.gx
        positions, nbytes = _pooling.as_bytes(f.saved[0])
        geometry = self.geometry(f, gx.shape)
        yield _pooling.run_max_backward[gy.dtype], (memory(gy), positions, nbytes, memory(gx), geometry)

    def mask(self, f: Frame) -> Iterator[Call]:
        """Take the gradient through the ReLU before the pooling: where the largest element is 0, all are."""
        [gy], [y], [gx] = f.gy, f.y, f.gx
        yield activate_backward[gy.dtype], (*matrices(gy, y, gx), alone("relu", ()))


@operation
class MaxPool(_Max):
    """By windows that slide."""

    window: tuple[Any, ...]
    return_indices: bool = False
    where = "max_pool2d"

    def indices(self) -> bool:
        return self.return_indices

    def windows(self, shape: tuple[int, ...]) -> Windows:
        return sliding_windows(self.where, tuple(shape), *self.window)


@operation
class AdaptiveMaxPool(_Max):
    """By windows that divide the image."""

    output_size: Any
    return_indices: bool = False
    where = "adaptive_max_pool2d"

    def indices(self) -> bool:
        return self.return_indices

    def windows(self, shape: tuple[int, ...]) -> Windows:
        return adaptive_windows(self.where, tuple(shape), self.output_size)


class _Mean(_Pool):
    takes = ("pool",)
    takes_along = True

    def forward(self, f: Frame) -> Iterator[Call]:
        [x], [y] = f.x, f.y
        yield _pooling.run_mean[y.dtype], (memory(x), memory(y), self.geometry(f, x.shape))

    def backward(self, f: Frame) -> Iterator[Call]:
        [gy], [gx], name = f.gy, f.gx, f.activation[0]
        behind = () if name is None else (memory(f.x[0]), alone(name, ()))
        yield _pooling.run_mean_backward[gy.dtype], (memory(gy), memory(gx), self.geometry(f, gx.shape), *behind)


@operation
class AvgPool(_Mean):
    """The mean of each window."""

    kernel_size: Any
    stride: Any
    padding: Any
    ceil_mode: bool
    count_include_pad: bool
    dilation: Any = 1
    where = "avg_pool2d"

    def windows(self, shape: tuple[int, ...]) -> Windows:
        window = (self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode, self.count_include_pad)
        return sliding_windows(self.where, tuple(shape), *window)


@operation
class AdaptiveAvgPool(_Mean):
    """Means over windows that divide the image."""

    output_size: Any
    where = "adaptive_avg_pool2d"

    def windows(self, shape: tuple[int, ...]) -> Windows:
        return adaptive_windows(self.where, tuple(shape), self.output_size)


@operation
class MaxUnpool(Operation):
    """Zeros, and each element where its index says: the inputs are elements and indices."""

    kernel_size: Any
    stride: Any
    padding: Any
    output_size: Any
    reads_inputs = (1,)

    def infer(self, *inputs: Any) -> tuple[Spec, ...]:
        x, indices = inputs
        where, dtype = "max_unpool2d", one_dtype("max_unpool2d", x)
        check_rank(where, "input", x, 4)
        window = (self.kernel_size, self.stride, self.padding, self.output_size)
        return (Spec(_unpooling.unpooled_shape(where, x, indices, *window), dtype),)

    def work(self, backward: bool, inputs: tuple[Any, ...], outputs: tuple[Spec, ...]) -> tuple[Spec, ...]:
        sizes = (inputs[0].shape, outputs[0].shape)[: 1 + backward]
        return tuple(Spec((math.prod(size),), np.dtype(np.int64)) for size in sizes)

    def forward(self, f: Frame) -> Iterator[Call]:
        (x, indices), [y], [places] = f.x, f.y, f.work
        yield _unpooling.flat_places, ("max_unpool2d", indices, y.shape, places)
        yield _unpooling.put, (flat(x), places, flat(y))

    def backward(self, f: Frame) -> Iterator[Call]:
        indices, [gy], gx, (places, last) = f.x[1], f.gy, f.gx[0], f.work
        yield _unpooling.flat_places, ("max_unpool2d", indices, gy.shape, places)
        yield _unpooling.take, (flat(gy), places, last, flat(gx))


@describes("max_pool2d")
def max_pool2d(
    input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:  # fmt: skip
    window = (*map(_fixed, (kernel_size, stride, padding, dilation)), flag("max_pool2d: ceil_mode", ceil_mode))
    return write(MaxPool(window, flag("max_pool2d: return_indices", return_indices)), input)


@describes("max_pool1d")
def max_pool1d(
    input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:  # fmt: skip
    where = OfSignals("max_pool1d")
    check_rank(where, "input", input, 3)
    kernel, steps, borders = signal_window(where, kernel_size, stride, padding)
    window = (kernel, steps, borders, length_1d(where, "dilation", dilation), flag("max_pool1d: ceil_mode", ceil_mode))
    sliding_windows(where, (*input.shape[:2], 1, input.shape[2]), *window)  # whose errors are of signals
    found = write(MaxPool(window, flag("max_pool1d: return_indices", return_indices)), input.unsqueeze(2))
    return tuple(value.squeeze(2) for value in found) if isinstance(found, tuple) else found.squeeze(2)


@describes("adaptive_max_pool2d")
def adaptive_max_pool2d(input: Any, output_size: Any, return_indices: bool = False) -> Any:
    return_indices = flag("adaptive_max_pool2d: return_indices", return_indices)
    return write(AdaptiveMaxPool(_fixed(output_size), return_indices), input)


@describes("global_max_pool2d")
def global_max_pool2d(input: Any, return_indices: bool = False) -> Any:
    return write(AdaptiveMaxPool(1, flag("global_max_pool2d: return_indices", return_indices)), input)


@describes("max_unpool2d")
def max_unpool2d(
    input: Any, indices: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, output_size: Any = None
) -> Any:
    return write(MaxUnpool(*map(_fixed, (kernel_size, stride, padding, output_size))), input, indices)


@describes("avg_pool2d")
def avg_pool2d(
    input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, dilation: Any = 1,
) -> Any:  # fmt: skip
    kernel, steps, borders, dilations = map(_fixed, (kernel_size, stride, padding, dilation))
    flags = flag("avg_pool2d: ceil_mode", ceil_mode), flag("avg_pool2d: count_include_pad", count_include_pad)
    return write(AvgPool(kernel, steps, borders, *flags, dilations), input)


@describes("avg_pool1d")
def avg_pool1d(
    input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Any:  # fmt: skip
    where = OfSignals("avg_pool1d")
    check_rank(where, "input", input, 3)
    window = signal_window(where, kernel_size, stride, padding)
    flags = flag("avg_pool1d: ceil_mode", ceil_mode), flag("avg_pool1d: count_include_pad", count_include_pad)
    sliding_windows(where, (*input.shape[:2], 1, input.shape[2]), *window, 1, *flags)  # whose errors are of signals
    return write(AvgPool(*window, *flags), input.unsqueeze(2)).squeeze(2)


@describes("adaptive_avg_pool2d")
def adaptive_avg_pool2d(input: Any, output_size: Any) -> Any:
    return write(AdaptiveAvgPool(_fixed(output_size)), input)


@describes("global_avg_pool2d")
def global_avg_pool2d(input: Any) -> Any:
    return write(AdaptiveAvgPool(1), input)
