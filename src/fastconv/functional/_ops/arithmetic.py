"""Arithmetic with broadcasting, sums and means over axes.

Sums over axes: the elements that go into one result are the rows of a matrix whose columns are the results, and the
rows are added as those of `bias_add_backward` are: in shards cut by the shape, added in a fixed tree.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from fastconv._ext.bias import bias_gradient
from fastconv.functional._check import by_dtype, scratch
from fastconv.functional._epilogue import Epilogue, finish
from fastconv.functional._ops._run import describes
from fastconv.graph.operation import (
    Array,
    Call,
    Frame,
    Operation,
    Spec,
    flag,
    flat,
    integers,
    layout,
    lies_in_rows,
    matrices,
    one_dtype,
    one_of,
    operation,
)
from fastconv.graph.value import Value, write

_sum_rows = by_dtype(bias_gradient)

_UFUNCS = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide}


@operation
class Arithmetic(Operation):
    """a + b, a - b, a * b or a / b, broadcast as by NumPy; gradients are summed back to each operand's shape."""

    kind: str
    spaced_inputs = (0, 1)
    spaced_output = True
    spaced_gradient = True

    def __post_init__(self) -> None:
        one_of("Arithmetic: kind", self.kind, _UFUNCS)

    @property
    def takes(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("activation",) if self.kind == "add" else ()

    @property
    def takes_part_as(self) -> str:  # type: ignore[override]
        return "add" if self.kind == "add" else ""

    @property
    def name(self) -> str:
        return self.kind

    def infer(self, *inputs: Any) -> tuple[Spec, ...]:
        a, b = inputs
        dtype = one_dtype(self.kind, a, b)
        try:
            return (Spec(np.broadcast_shapes(a.shape, b.shape), dtype),)
        except ValueError as error:
            raise ValueError(f"{self.kind}: shapes {a.shape} and {b.shape} cannot be broadcast together") from error

    def reads(self, wanted: tuple[bool, ...]) -> tuple[int, ...]:
        if self.kind == "mul":
            return tuple(i for i in (0, 1) if wanted[1 - i])
        return (1,) if self.kind == "div" else ()

    @property
    def reads_outputs(self) -> bool:  # type: ignore[override]
        return self.kind == "div"

    def passes(self, inputs: tuple[Any, ...], outputs: tuple[Spec, ...]) -> tuple[int, ...]:
        plain = {"add": (0, 1), "sub": (0,)}.get(self.kind, ())
        return tuple(i for i in plain if inputs[i] == outputs[0])

    def work(self, backward: bool, inputs: tuple[Any, ...], outputs: tuple[Spec, ...]) -> tuple[Spec, ...]:
        if not backward:
            return ()
        [y] = outputs
        if self.kind != "div" and all(spec == y for spec in inputs):
            return ()
        return y, Spec((max(_room(y.shape, spec.shape) for spec in inputs),), y.dtype)

    def forward(self, f: Frame) -> Iterator[Call]:
        a, b = f.x
        [y] = f.y
        name, params = f.activation
        if self.kind == "add" and a.shape == b.shape and lies_in_rows(a) and lies_in_rows(b):
            x, other, out, *pre = matrices(a, b, y, *([] if f.pre is None else [f.pre]))
            yield finish[y.dtype], (x, out, Epilogue(name, params, None, None, other, *pre))
            return
        yield _UFUNCS[self.kind], (a, b, y)
        if name is not None:
            out, *pre = matrices(y, *([] if f.pre is None else [f.pre]))
            yield finish[y.dtype], (out, out, Epilogue(name, params, None, None, None, *pre))

    def backward(self, f: Frame) -> Iterator[Call]:
        [gy] = f.gy
        for i, gx in enumerate(f.gx):
            if gx is None:
                continue
            part = gx if gx.shape == gy.shape else f.work[0]
            grad = gy
            if self.kind == "mul":
                yield np.multiply, (gy, f.x[1 - i], part)
                grad = part
            elif self.kind == "div":
                yield np.divide, (gy, f.x[1], part)
                if i == 1:
                    yield np.multiply, (part, f.y[0], part)
                    yield np.negative, (part, part)
                grad = part
            elif self.kind == "sub" and i == 1:
                yield np.negative, (gy, part)
                grad = part
            if grad.shape != gx.shape:
                yield from sum_into(grad, gx, _reduced(grad.shape, gx.shape), f.work[1])
            elif grad is not gx:
                yield np.copyto, (gx, grad)


def _reduced(shape: tuple[int, ...], to: tuple[int, ...]) -> tuple[int, ...]:
    """Return the axes that broadcasting from `to` made or stretched."""
    more = len(shape) - len(to)
    return (*range(more), *(more + i for i, n in enumerate(to) if n == 1 and shape[more + i] != 1))


def _room(shape: tuple[int, ...], to: tuple[int, ...]) -> int:
    """Return for how many elements `sum_into` needs memory: a copy, and sums whose order is not that of the result."""
    return math.prod(shape) + (math.prod(to) if len(to) != len(shape) and len(to) in (3, 4) else 0)


def sum_into(a: Array, out: Array, axes: tuple[int, ...], work: Array) -> Iterator[Call]:
    """Yield the calls that write the sums over axes to `out`, by way of the memory that `_room` tells."""
    kept = [axis for axis in range(a.ndim) if axis not in axes]
    if out.ndim == a.ndim:  # results in the order of out's memory
        kept = [axis for axis in layout(out.ndim) if axis in kept]
    rows = math.prod(a.shape[axis] for axis in axes)
    ordered = a.transpose((*axes, *kept))
    target = flat(out) if out.ndim == a.ndim or out.ndim not in (3, 4) else None
    copy = work[: a.size].reshape(ordered.shape)
    result = target if target is not None else work[a.size : a.size + out.size]
    yield np.copyto, (copy, ordered)
    yield result.fill, (0,)
    if a.size:
        yield _sum_rows[out.dtype], (copy.reshape(rows, -1), result, scratch)
    if target is None:
        yield np.copyto, (out, result.reshape(out.shape))


@operation
class Reduce(Operation):
    """The sum or the mean over axes."""

    kind: str
    axes: tuple[int, ...] | None
    keepdims: bool

    def __post_init__(self) -> None:
        one_of("Reduce: kind", self.kind, ("sum", "mean"))

    @property
    def name(self) -> str:
        return self.kind

    def _axes(self, x: Any) -> tuple[int, ...]:
        axes = range(x.ndim) if self.axes is None else self.axes
        if any(not -x.ndim <= axis < x.ndim for axis in axes) or len({axis % x.ndim for axis in axes}) < len(axes):
            raise ValueError(f"{self.kind}: axes {self.axes} do not fit an input of shape {x.shape}")
        return tuple(sorted(axis % x.ndim for axis in axes))

    def infer(self, *inputs: Any) -> tuple[Spec, ...]:
        [x] = inputs
        dtype, axes = one_dtype(self.kind, x), self._axes(x)
        if self.kind == "mean" and not all(x.shape[axis] for axis in axes):
            raise ValueError(f"mean: no elements along axes {axes} of shape {x.shape}")
        kept = ((1,) if axis in axes else (n,) for axis, n in enumerate(x.shape) if axis not in axes or self.keepdims)
        return (Spec(tuple(n for part in kept for n in part), dtype),)

    def work(self, backward: bool, inputs: tuple[Any, ...], outputs: tuple[Spec, ...]) -> tuple[Spec, ...]:
        return () if backward else (Spec((_room(inputs[0].shape, outputs[0].shape),), inputs[0].dtype),)

    def forward(self, f: Frame) -> Iterator[Call]:
        [x], [y] = f.x, f.y
        yield from sum_into(x, y, self._axes(x), f.work[0])
        if self.kind == "mean":
            yield np.divide, (y, self._count(x), y)

    def backward(self, f: Frame) -> Iterator[Call]:
        [gx], [gy] = f.gx, f.gy
        axes = self._axes(gx)
        spread = gy.reshape([1 if axis in axes else n for axis, n in enumerate(gx.shape)])
        if self.kind == "mean":
            yield np.divide, (spread, self._count(gx), gx)
        else:
            yield np.copyto, (gx, spread)

    def _count(self, x: Any) -> Any:
        return x.dtype.type(math.prod(x.shape[axis] for axis in self._axes(x)))


def _binary_of(kind: str) -> None:
    @describes(kind)
    def binary(a: Any, b: Any) -> Any:
        return write(Arithmetic(kind), a, b)


for _kind in _UFUNCS:
    _binary_of(_kind)


def reduction(kind: str, axis: Any, keepdims: Any) -> Reduce:
    """Return the operation of `sum` or `mean` over one axis, several, or all where it is None."""
    axes = None if axis is None else axis if isinstance(axis, tuple | list) else (axis,)
    axes = axes if axes is None else integers(f"{kind}: axis", axes)
    return Reduce(kind, axes, flag(f"{kind}: keepdims", keepdims))


@describes("mean")
def mean(input: Value, axis: Any = None, keepdims: bool = False) -> Any:
    return write(reduction("mean", axis, keepdims), input)


@describes("sum")
def sum_(input: Value, axis: Any = None, keepdims: bool = False) -> Any:
    return write(reduction("sum", axis, keepdims), input)
