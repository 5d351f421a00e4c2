"""Pooling of images."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from fastconv._ext import pool
from fastconv.functional import pooling
from fastconv.functional._check import by_dtype, check_rank, memory
from fastconv.functional._epilogue import activate_backward, alone
from fastconv.functional._geometry import Windows, adaptive_windows, sliding_windows
from fastconv.functional._ops._run import describes
from fastconv.graph.operation import Call, Frame, Operation, Spec, flat, one_dtype
from fastconv.graph.value import write

_max_pool = by_dtype(pool.max_pool)
_max_pool_backward = by_dtype(pool.max_pool_backward)
_avg_pool = by_dtype(pool.avg_pool)
_avg_pool_backward = by_dtype(pool.avg_pool_backward)


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


class _Pool(Operation):
    where: ClassVar[str]

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


@dataclass(frozen=True)
class MaxPool(_Pool):
    """The largest element of each window; where each was, is kept for backward."""

    window: tuple[Any, ...]
    where = "max_pool2d"
    takes = ("pool",)

    def windows(self, shape: tuple[int, ...]) -> Windows:
        return sliding_windows(self.where, tuple(shape), *self.window)

    def saved(self, inputs: tuple[Any, ...], outputs: tuple[Spec, ...]) -> tuple[Spec, ...]:
        return (Spec(outputs[0].shape, pooling._argmax_dtype(self.where, self.windows(inputs[0].shape))),)

    def forward(self, f: Frame) -> Iterator[Call]:
        [x], [y] = f.x, f.y
        positions, nbytes = pooling._bytes(f.saved[0] if f.saved else None)
        yield _max_pool[y.dtype], (memory(x), memory(y), positions, nbytes, self.geometry(f, x.shape))

    def backward(self, f: Frame) -> Iterator[Call]:
        [gy], [gx] = f.gy, f.gx
        positions, nbytes = pooling._bytes(f.saved[0])
        yield _max_pool_backward[gy.dtype], (memory(gy), positions, nbytes, memory(gx), self.geometry(f, gx.shape))

    def mask(self, f: Frame) -> Iterator[Call]:
        """Take the gradient through the ReLU before the pooling: where the largest element is 0, all are."""
        [gy], [y], [gx] = f.gy, f.y, f.gx
        columns = (flat(a).reshape(-1, 1) for a in (gy, y, gx))
        yield activate_backward[gy.dtype], (*columns, alone("relu", ()))


class _Mean(_Pool):
    def forward(self, f: Frame) -> Iterator[Call]:
        [x], [y] = f.x, f.y
        yield _avg_pool[y.dtype], (memory(x), memory(y), self.geometry(f, x.shape))

    def backward(self, f: Frame) -> Iterator[Call]:
        [gy], [gx] = f.gy, f.gx
        yield _avg_pool_backward[gy.dtype], (memory(gy), memory(gx), self.geometry(f, gx.shape))


@dataclass(frozen=True)
class AvgPool(_Mean):
    """The mean of each window."""

    kernel_size: Any
    stride: Any
    padding: Any
    ceil_mode: bool
    count_include_pad: bool
    where = "avg_pool2d"

    def windows(self, shape: tuple[int, ...]) -> Windows:
        window = (self.kernel_size, self.stride, self.padding, 1, self.ceil_mode, self.count_include_pad)
        return sliding_windows(self.where, tuple(shape), *window)


@dataclass(frozen=True)
class AdaptiveAvgPool(_Mean):
    """Means over windows that divide the image."""

    output_size: Any
    where = "adaptive_avg_pool2d"

    def windows(self, shape: tuple[int, ...]) -> Windows:
        return adaptive_windows(self.where, tuple(shape), self.output_size)


@describes("max_pool2d")
def max_pool2d(
    input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False
) -> Any:  # fmt: skip
    window = (*(_frozen(v) for v in (kernel_size, stride, padding, dilation)), bool(ceil_mode))
    return write(MaxPool(window), input)


@describes("avg_pool2d")
def avg_pool2d(
    input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Any:  # fmt: skip
    op = AvgPool(_frozen(kernel_size), _frozen(stride), _frozen(padding), bool(ceil_mode), bool(count_include_pad))
    return write(op, input)


@describes("adaptive_avg_pool2d")
def adaptive_avg_pool2d(input: Any, output_size: Any) -> Any:
    return write(AdaptiveAvgPool(_frozen(output_size)), input)


@describes("global_avg_pool2d")
def global_avg_pool2d(input: Any) -> Any:
    return write(AdaptiveAvgPool(1), input)


