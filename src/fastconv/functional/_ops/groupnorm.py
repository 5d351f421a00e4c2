"""Normalisation of each sample by its own statistics: of groups of channels, of rows, of neighbouring channels."""

import math
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

import fastconv._ext.elementwise as elementwise
import fastconv._ext.groupnorm as groupnorm
from fastconv.functional._channels import check_eps
from fastconv.functional._check import by_dtype, check_count, check_rank, check_shape, scratch
from fastconv.functional._epilogue import Epilogue, finish
from fastconv.functional._ops._run import describes
from fastconv.functional._ops.convolution import ready
from fastconv.graph.operation import (
    Array,
    Call,
    Frame,
    Operation,
    Spec,
    flat,
    layout,
    one_dtype,
    operation,
    rows_of,
    short,
)
from fastconv.graph.value import write

_group_forward = by_dtype(groupnorm.group_forward)
_group_backward = by_dtype(groupnorm.group_backward)
_row_forward = by_dtype(groupnorm.row_forward)
_row_backward = by_dtype(groupnorm.row_backward)
_unary = by_dtype(elementwise.unary)


class _Own(Operation):
    """What both kinds share: inputs x, weight and bias, an activation behind, statistics kept for backward."""

    eps: float
    takes: ClassVar[tuple[str, ...]] = ("activation",)
    accumulates: ClassVar[tuple[int, ...]] = (1, 2)
    reads_inputs = (0, 1)
    optional = (1, 2)

    def __post_init__(self) -> None:
        check_eps(self.name, self.eps)

    def check_parameters(self, shape: tuple[int, ...], *inputs: Any) -> np.dtype[Any]:
        """Return the dtype of x, weight and bias, or raise where a parameter has not this shape."""
        dtype = one_dtype(self.name, *inputs)
        for name, a in zip(("weight", "bias"), inputs[1:], strict=True):
            if a is not None:
                check_shape(self.name, name, a, shape)
        return dtype


@operation
class GroupNorm(_Own):
    """Normalisation of groups of channels; 0 groups: each channel is one."""

    groups: int
    eps: float
    masks: ClassVar[tuple[str, ...]] = ("relu",)

    @property
    def name(self) -> str:
        return "group_norm" if self.groups else "instance_norm"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.groups < 0:
            raise ValueError(f"group_norm: num_groups must be at least 1, got {self.groups}")

    def infer(self, *inputs: Any) -> tuple[Spec, ...]:
        x = inputs[0]
        check_rank(self.name, "input", x, (2, 3, 4) if self.groups else (3, 4))
        channels = x.shape[1]
        dtype = self.check_parameters((channels,), *inputs)
        if self.groups and channels % self.groups:
            raise ValueError(f"{self.name}: num_groups must divide the channels, got {self.groups} and {channels}")
        if x.shape[0] and math.prod(x.shape[1:]) == (self.groups or channels):
            raise ValueError(f"{self.name}: a group needs more than 1 value, got input.shape={x.shape}")
        return (Spec(x.shape, dtype),)

    def saved(self, inputs: tuple[Any, ...], outputs: tuple[Spec, ...]) -> tuple[Spec, ...]:
        x = inputs[0]
        return (Spec((x.shape[0] * 2 * (self.groups or x.shape[1]),), outputs[0].dtype),)

    def work(self, backward: bool, inputs: tuple[Any, ...], outputs: tuple[Spec, ...]) -> tuple[Spec, ...]:
        return () if backward else self.saved(inputs, outputs)

    def _statistics(self, f: Frame, x: Array) -> tuple[int, Array]:
        groups = self.groups or x.shape[1]
        return groups, (f.saved or f.work)[0].reshape(x.shape[0], 2, groups)

    def forward(self, f: Frame) -> Iterator[Call]:
        (x, weight, bias), [y] = f.x, f.y
        weight, calls = _vector(weight)
        bias, more = _vector(bias)
        yield from (*calls, *more)
        groups, saved = self._statistics(f, x)
        epilogue = Epilogue(*f.activation, None, None, None, None if f.pre is None else rows_of(f.pre))
        yield _group_forward[y.dtype], (
            _samples(x), groups, weight, bias, self.eps, _samples(y), saved, epilogue, scratch,
        )  # fmt: skip

    def backward(self, f: Frame) -> Iterator[Call]:
        (x, weight), [gy], (gx, grad_weight, grad_bias) = f.x[:2], f.gy, f.gx
        weight, calls = _vector(weight)
        yield from calls
        groups, saved = self._statistics(f, x)
        y = _samples(f.y[0]) if f.activation[0] else None
        yield _group_backward[gy.dtype], (
            _samples(gy), y, _samples(x), groups, weight, saved, None if gx is None else _samples(gx), grad_weight,
            grad_bias, scratch,
        )  # fmt: skip


class _Rows(_Own):
    """What normalises rows: as they lie in memory, or by way of copies that do."""

    def row(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the sizes of a row's axes, which are a parameter's, for an input of this shape."""
        raise NotImplementedError

    def _order(self, ndim: int) -> tuple[int, ...]:
        """Return the axes in the order in which rows are read."""
        return layout(ndim)

    def _copied(self, shape: tuple[int, ...]) -> bool:
        """Return whether rows are no rows of memory."""
        return False

    def _size(self, shape: tuple[int, ...]) -> int:
        return math.prod(self.row(shape))

    def saved(self, inputs: tuple[Any, ...], outputs: tuple[Spec, ...]) -> tuple[Spec, ...]:
        return (Spec((2 * (math.prod(inputs[0].shape) // self._size(inputs[0].shape)),), outputs[0].dtype),)

    def work(self, backward: bool, inputs: tuple[Any, ...], outputs: tuple[Spec, ...]) -> tuple[Spec, ...]:
        [y] = outputs
        copy, row = ((Spec((size,), y.dtype),) for size in (math.prod(y.shape), self._size(y.shape)))
        if backward:  # rows for the weight, and the sums for it and the bias
            return copy * (2 if self._copied(y.shape) else 1) + row * 3
        return (*self.saved(inputs, outputs), *(copy if self._copied(y.shape) else ()), *row * 2)

    def _ordered(self, a: Array) -> Array:
        return a.transpose(self._order(a.ndim))

    def _parameter(self, a: Array) -> Array:
        """Return a parameter, or its gradient, with its axes in the order of a row."""
        count = a.ndim + 1
        return a.transpose([axis - 1 for axis in self._order(count)[1:]]) if layout(count) != tuple(range(count)) else a

    def _flattened(self, a: Array | None, missing: float, like: Array, row: Array) -> tuple[Array, list[Call]]:
        """Return a parameter as a row, or a row of this number, and the call that fills it."""
        if a is None:
            return row, [(row.fill, (missing,))]
        ordered = self._parameter(a) if a.ndim == like.ndim - 1 else a
        if ordered.flags.c_contiguous and ordered.flags.aligned and ordered.dtype.isnative:
            return ordered.reshape(-1), []
        return row, [(np.copyto, (row.reshape(ordered.shape), ordered))]

    def _row_memory(self, a: Array, memory: Array | None) -> tuple[Array, Array, bool]:
        """Return rows (M, D), the axes in their order over the same memory, and whether that is a copy."""
        ordered = self._ordered(a)
        if memory is not None:
            copy = memory.reshape(ordered.shape)
            return copy.reshape(-1, self._size(a.shape)), copy, True
        rows = flat(a).reshape(-1, self._size(a.shape))
        return rows, ordered, False

    def forward(self, f: Frame) -> Iterator[Call]:
        (x, weight, bias), [y] = f.x, f.y
        statistics, copy = f.saved[0] if f.saved else f.work[0], f.work[1] if self._copied(y.shape) else None
        scale, shift = None, None
        if weight is not None or bias is not None:
            scale, calls = self._flattened(weight, 1, y, f.work[-2])
            yield from calls
            shift, calls = self._flattened(bias, 0, y, f.work[-1])
            yield from calls
        rows, ordered, copied = self._row_memory(x, copy)
        if copied:
            yield np.copyto, (ordered, self._ordered(x))
        target = rows if copied else self._row_memory(y, None)[0]
        saved = statistics.reshape(2, -1)
        kept = None if f.pre is None else flat(f.pre)
        if not copied:
            epilogue = Epilogue(*f.activation, None, None, None, None if kept is None else kept.reshape(rows.shape))
            yield _row_forward[y.dtype], (rows, scale, shift, self.eps, target, saved, epilogue, scratch)
            return
        yield _row_forward[y.dtype], (rows, scale, shift, self.eps, target, saved, Epilogue(), scratch)
        yield np.copyto, (self._ordered(y), ordered)
        if f.activation[0] is not None:
            line = flat(y).reshape(-1, 1)
            epilogue = Epilogue(*f.activation, None, None, None, None if kept is None else kept.reshape(-1, 1))
            yield finish[y.dtype], (line, line, epilogue)

    def backward(self, f: Frame) -> Iterator[Call]:
        (x, weight), [gy], (gx, grad_weight, grad_bias) = f.x[:2], f.gy, f.gx
        copied = self._copied(gy.shape)
        scale = None
        if weight is not None:
            scale, calls = self._flattened(weight, 1, gy, f.work[-3])
            yield from calls
        g, ordered, _ = self._row_memory(gy, f.work[1] if copied else None)
        if copied:
            yield np.copyto, (ordered, self._ordered(gy))
        if copied:
            rows, ordered, _ = self._row_memory(x, f.work[0])
            yield np.copyto, (ordered, self._ordered(x))
            target = rows
        else:
            rows = self._row_memory(x, None)[0]
            target = f.work[0].reshape(rows.shape) if gx is None else self._row_memory(gx, None)[0]
        sums = [None if a is None else row for a, row in zip((grad_weight, grad_bias), f.work[-2:], strict=True)]
        for a in sums:
            if a is not None:
                yield a.fill, (0,)
        yield _row_backward[gy.dtype], (g, rows, scale, f.saved[0].reshape(2, -1), target, *sums, scratch)
        for grad, a in zip((grad_weight, grad_bias), sums, strict=True):
            if grad is not None and a is not None:
                into = self._parameter(grad) if grad.ndim == gy.ndim - 1 else grad
                yield np.add, (into, a.reshape(into.shape), into)
        if copied and gx is not None:
            yield np.copyto, (self._ordered(gx), ordered)


@operation
class LayerNorm(_Rows):
    """Normalisation over the last axes."""

    normalized_shape: tuple[int, ...]
    eps: float

    @property
    def name(self) -> str:
        return "layer_norm"

    def row(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return self.normalized_shape

    def infer(self, *inputs: Any) -> tuple[Spec, ...]:
        x, shape = inputs[0], self.normalized_shape
        dtype = self.check_parameters(shape, *inputs)
        if not shape or min(shape) < 1 or x.shape[-len(shape) :] != shape or len(shape) >= x.ndim:
            raise ValueError(f"{self.name}: normalized_shape {shape} must be the last axes, but not all, of an input "
                             f"of shape {x.shape}")  # fmt: skip
        return (Spec(x.shape, dtype),)

    def _order(self, ndim: int) -> tuple[int, ...]:
        """Return the axes in the order in which rows are read: that of memory where a row is a whole sample."""
        return layout(ndim) if len(self.normalized_shape) == ndim - 1 else tuple(range(ndim))

    def _copied(self, shape: tuple[int, ...]) -> bool:
        """Return whether rows are no rows of memory."""
        moved = [axis for axis in self._order(len(shape)) if shape[axis] != 1]
        return moved != [axis for axis in layout(len(shape)) if shape[axis] != 1]


@operation
class LayerNorm2d(_Rows):
    """Normalisation over the channels of each pixel: rows of memory, which is channels last."""

    eps: float

    @property
    def name(self) -> str:
        return "layer_norm2d"

    def row(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape[1:2]

    def infer(self, *inputs: Any) -> tuple[Spec, ...]:
        x = inputs[0]
        check_rank(self.name, "input", x, (3, 4))
        dtype = self.check_parameters(x.shape[1:2], *inputs)
        return (Spec(x.shape, dtype),)


@operation
class LocalResponseNorm(Operation):
    """Division by a power of the mean square of neighbouring channels."""

    size: int
    alpha: float
    beta: float
    k: float
    reads_inputs = (0,)

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"{self.name}: size must be at least 1, got {self.size}")
        check_count(self.name, "a window", self.size)

    @property
    def name(self) -> str:
        return "local_response_norm"

    def infer(self, *inputs: Any) -> tuple[Spec, ...]:
        [x] = inputs
        dtype = one_dtype(self.name, x)
        check_rank(self.name, "input", x, (3, 4))
        return (Spec(x.shape, dtype),)

    def work(self, backward: bool, inputs: tuple[Any, ...], outputs: tuple[Spec, ...]) -> tuple[Spec, ...]:
        return (Spec((math.prod(outputs[0].shape),), outputs[0].dtype),) * (4 if backward else 2)

    def _window(self, a: Array, out: Array, before: int) -> Iterator[Call]:
        """Write to each channel the sum over those of its window, from the first to the last; it begins `before`."""
        channels = a.shape[1]
        yield np.copyto, (out, 0)
        for shift in range(max(-before, 1 - channels), min(self.size - before, channels)):
            to = out[:, max(-shift, 0) : channels - max(shift, 0)]
            yield np.add, (to, a[:, max(shift, 0) : channels + min(shift, 0)], to)

    def _power(self, x: Array, square: Array, mean: Array, power: Array) -> Iterator[Call]:
        """Write k + alpha * mean square to ``mean``, and its power -beta to ``power``."""
        yield np.multiply, (x, x, square)
        yield from self._window(square, mean, self.size // 2)
        yield np.multiply, (mean, x.dtype.type(self.alpha / self.size), mean)
        yield np.add, (mean, x.dtype.type(self.k), mean)
        line = power.reshape(-1)
        yield _unary[x.dtype], (mean.reshape(-1), line, "log")
        yield np.multiply, (line, x.dtype.type(-self.beta), line)
        yield _unary[x.dtype], (line, line, "exp")

    def forward(self, f: Frame) -> Iterator[Call]:
        x, y = rows_of(f.x[0]), rows_of(f.y[0])
        square, mean = (a.reshape(x.shape) for a in f.work)
        yield from self._power(x, square, mean, square)
        yield np.multiply, (x, square, y)

    def backward(self, f: Frame) -> Iterator[Call]:
        """grad * s^-beta - 2 alpha beta / size * x * (sum over the windows that hold it of grad * x * s^(-beta-1))."""
        x, gy, gx = rows_of(f.x[0]), rows_of(f.gy[0]), rows_of(f.gx[0])
        square, mean, power, product = (a.reshape(x.shape) for a in f.work)
        yield from self._power(x, square, mean, power)
        yield np.multiply, (gy, power, product)
        yield np.multiply, (product, x, square)
        yield np.divide, (square, mean, square)
        yield from self._window(square, mean, (self.size - 1) // 2)
        yield np.multiply, (mean, x, mean)
        yield np.multiply, (mean, x.dtype.type(2 * self.alpha * self.beta / self.size), mean)
        yield np.subtract, (product, mean, gx)


def _samples(a: Array) -> Array:
    """Return an array that lies well as (N, pixels, C)."""
    return a[:, None] if a.ndim == 2 else np.moveaxis(a, 1, -1).reshape(a.shape[0], math.prod(a.shape[2:]), a.shape[1])


def _vector(a: Array | None) -> tuple[Array | None, list[Call]]:
    return (None, []) if a is None else ready(a)


def shape_of(normalized_shape: Any) -> tuple[int, ...]:
    """Return an int or a sequence of them as a tuple."""
    sizes = normalized_shape if isinstance(normalized_shape, tuple | list) else (normalized_shape,)
    if not sizes or not all(isinstance(n, int | np.integer) and not isinstance(n, bool) for n in sizes):
        raise ValueError(f"layer_norm: normalized_shape must be an int or several, got {short(normalized_shape)}")
    return tuple(map(int, sizes))


@describes("group_norm")
def group_norm(input: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Any:
    return write(grouped(num_groups, eps), input, weight, bias)


def grouped(num_groups: Any, eps: float) -> GroupNorm:
    """Return the operation of `group_norm`."""
    if not isinstance(num_groups, int | np.integer) or num_groups < 1:
        raise ValueError(f"group_norm: num_groups must be an int >= 1, got {short(num_groups)}")
    return GroupNorm(int(num_groups), float(eps))


@describes("instance_norm")
def instance_norm(input: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Any:
    return write(GroupNorm(0, float(eps)), input, weight, bias)


@describes("layer_norm")
def layer_norm(input: Any, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Any:
    return write(LayerNorm(shape_of(normalized_shape), float(eps)), input, weight, bias)


@describes("layer_norm2d")
def layer_norm2d(input: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Any:
    return write(LayerNorm2d(float(eps)), input, weight, bias)


@describes("local_response_norm")
def local_response_norm(
    input: Any, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Any:  # fmt: skip
    return write(LocalResponseNorm(int(size), float(alpha), float(beta), float(k)), input)
