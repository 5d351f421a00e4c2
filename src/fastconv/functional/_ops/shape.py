"""What moves elements and computes nothing: reshaping, permuting, slicing, padding, joining, repeating."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from fastconv._ext import elementwise
from fastconv.functional._check import by_dtype, number
from fastconv.functional._ops._run import describes
from fastconv.graph.operation import (
    Array,
    Call,
    Frame,
    Operation,
    Spec,
    axis_of,
    in_order,
    integer,
    integers,
    layout,
    lies_well,
    one_dtype,
    operation,
    same_order,
)
from fastconv.graph.value import Value, graph_of, refuse, write

_turn = by_dtype(elementwise.turn)


def _move(source: Array, target: Array, work: list[Array]) -> Iterator[Call]:
    """Yield the calls that copy an array to one of another shape, in the order in which C reads both.

    By way of ``work`` where neither lies in that order; a parameter may, whose data somebody laid out otherwise.
    """
    if target.flags.c_contiguous:
        yield _copy(source, target.reshape(source.shape))
    elif source.flags.c_contiguous:
        yield _copy(source.reshape(target.shape), target)
    else:
        between = work[0].reshape(source.shape) if work else np.empty(source.shape, source.dtype)
        yield np.copyto, (between, source)
        yield np.copyto, (target, between.reshape(target.shape))


def _lies_in_c_order(a: Array) -> bool:
    return bool(a.flags.c_contiguous and a.flags.aligned)


def _copy(source: Array, target: Array) -> Call:
    """Return the call that copies an array to one of its shape: a kernel turns channels last to C order, and back."""
    if source.ndim in (3, 4) and source.dtype == target.dtype and source.dtype in _turn:
        n, c, pixels = source.shape[0], source.shape[1], math.prod(source.shape[2:])
        if lies_well(source) and _lies_in_c_order(target):
            return _turn[source.dtype], (np.moveaxis(source, 1, -1).reshape(n, pixels, c), target.reshape(n, c, pixels))
        if lies_well(target) and _lies_in_c_order(source):
            return _turn[source.dtype], (source.reshape(n, c, pixels), np.moveaxis(target, 1, -1).reshape(n, pixels, c))
    return np.copyto, (target, source)


def _viewed(a: Array, shape: tuple[int, ...]) -> Array:
    """Return an array of another shape over memory that both read in one order."""
    flat = a.transpose(layout(a.ndim)).reshape(-1)
    order = layout(len(shape))
    return flat.reshape([shape[axis] for axis in order]).transpose(np.argsort(order))


class _Reshaping(Operation):
    """Another shape of the same elements: a view where no element moves in memory, else a copy."""

    def target(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        raise NotImplementedError

    def infer(self, *inputs: Any) -> tuple[Spec, ...]:
        [x] = inputs
        return (Spec(self.target(x.shape), x.dtype),)

    def is_view(self, inputs: tuple[Any, ...], outputs: tuple[Spec, ...]) -> bool:
        return same_order(inputs[0].shape, outputs[0].shape)

    def passes(self, inputs: tuple[Any, ...], outputs: tuple[Spec, ...]) -> tuple[int, ...]:
        return (0,) if self.is_view(inputs, outputs) else ()

    def view(self, x: Array, output: Spec) -> Array:
        return x if x.shape == output.shape else _viewed(x, output.shape)

    def view_back(self, gy: Array, inputs: tuple[Any, ...], position: int) -> Array:
        return _viewed(gy, inputs[0].shape)

    def work(self, backward: bool, inputs: tuple[Any, ...], outputs: tuple[Spec, ...]) -> tuple[Spec, ...]:
        x, y = inputs[0], outputs[0]
        if x.shape == y.shape or in_order(x.shape) or in_order(y.shape):
            return ()
        return (Spec((math.prod(x.shape),), x.dtype),)

    def forward(self, f: Frame) -> Iterator[Call]:
        yield from _move(f.x[0], f.y[0], f.work)

    def backward(self, f: Frame) -> Iterator[Call]:
        yield from _move(f.gy[0], f.gx[0], f.work)


@operation
class Reshape(_Reshaping):
    """To a given shape, in which one size may be -1."""

    shape: tuple[int, ...]

    def target(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        known = math.prod(n for n in self.shape if n != -1)
        free, size = self.shape.count(-1), math.prod(shape)
        bad = free > 1 or min(self.shape, default=0) < -1 or (free and not known)
        if bad or (size % known if free else size != known):
            raise ValueError(f"reshape: an array of shape {shape} cannot have shape {self.shape}")
        return tuple(size // known if n == -1 else n for n in self.shape)


@operation
class Flatten(_Reshaping):
    """Axes from one to another become one."""

    start_dim: int
    end_dim: int

    def target(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        n = len(shape)
        if not (-n <= self.start_dim < n and -n <= self.end_dim < n) or self.start_dim % n > self.end_dim % n:
            raise ValueError(f"flatten: axes {self.start_dim} to {self.end_dim} do not fit shape {shape}")
        start, end = self.start_dim % n, self.end_dim % n
        return (*shape[:start], math.prod(shape[start : end + 1]), *shape[end + 1 :])


@operation
class Permute(Operation):
    """Axes in another order."""

    axes: tuple[int, ...]
    spaced_inputs = (0,)
    spaced_output = True
    spaced_gradient = True

    def infer(self, *inputs: Any) -> tuple[Spec, ...]:
        [x] = inputs
        axes = [axis % x.ndim if -x.ndim <= axis < x.ndim else -1 for axis in self.axes]
        if sorted(axes) != list(range(x.ndim)):
            raise ValueError(f"permute: axes {self.axes} do not fit shape {x.shape}")
        return (Spec(tuple(x.shape[axis] for axis in axes), x.dtype),)

    def forward(self, f: Frame) -> Iterator[Call]:
        yield np.copyto, (f.y[0], f.x[0].transpose(self.axes))

    def backward(self, f: Frame) -> Iterator[Call]:
        yield np.copyto, (f.gx[0].transpose(self.axes), f.gy[0])


@operation
class Slice(Operation):
    """Slicing by constants: integers, slices, ... and None."""

    index: tuple[Any, ...]
    spaced_inputs = (0,)
    spaced_output = True
    spaced_gradient = True

    def key(self) -> tuple[Any, ...]:
        return tuple(slice(*part[1:]) if isinstance(part, tuple) else part for part in self.index)

    def infer(self, *inputs: Any) -> tuple[Spec, ...]:
        [x] = inputs
        try:
            shape = np.broadcast_to(np.empty((), x.dtype), x.shape)[self.key()].shape
        except IndexError as error:
            raise IndexError(f"slicing an array of shape {x.shape}: {error}") from error
        return (Spec(shape, x.dtype),)

    def cut(self, inputs: tuple[Any, ...], outputs: tuple[Spec, ...]) -> tuple[slice, ...]:
        [x], [y] = inputs, outputs
        key = self.key()
        if x.ndim != y.ndim or not all(isinstance(part, slice) or part is Ellipsis for part in key):
            return ()
        at = key.index(Ellipsis) if Ellipsis in key else len(key)
        whole = (slice(None),) * (x.ndim - len(key) + (Ellipsis in key))
        ends = [part.indices(n) for part, n in zip((*key[:at], *whole, *key[at + 1 :]), x.shape, strict=True)]
        return tuple(slice(first, last) for first, last, _ in ends) if all(step == 1 for _, _, step in ends) else ()

    def forward(self, f: Frame) -> Iterator[Call]:
        yield np.copyto, (f.y[0], f.x[0][self.key()])

    def backward(self, f: Frame) -> Iterator[Call]:
        [gx] = f.gx
        yield gx.fill, (0,)
        yield np.copyto, (gx[(*self.key(), ...) if Ellipsis not in self.key() else self.key()], f.gy[0])


@operation
class Pad(Operation):
    """A constant around the array: (before, after) for each axis."""

    widths: tuple[tuple[int, int], ...]
    value: float
    spaced_inputs = (0,)
    spaced_output = True
    spaced_gradient = True

    def infer(self, *inputs: Any) -> tuple[Spec, ...]:
        [x] = inputs
        if len(self.widths) != x.ndim:
            raise ValueError(f"pad: widths {self.widths} do not fit shape {x.shape}")
        shape = tuple(n + before + after for n, (before, after) in zip(x.shape, self.widths, strict=True))
        if min((*shape, *(n + min(w, default=0) for n, w in zip(x.shape, self.widths, strict=True))), default=0) < 0:
            raise ValueError(f"pad: widths {self.widths} take away more than there is of shape {x.shape}")
        return (Spec(shape, x.dtype),)

    def _parts(self, small: Array, large: Array) -> tuple[Array, Array]:
        """Return what both hold; negative widths cut."""
        inner = tuple(slice(max(b, 0), n - max(a, 0)) for n, (b, a) in zip(large.shape, self.widths, strict=True))
        cut = tuple(slice(max(-b, 0), n - max(-a, 0)) for n, (b, a) in zip(small.shape, self.widths, strict=True))
        return small[cut], large[inner]

    def forward(self, f: Frame) -> Iterator[Call]:
        small, large = self._parts(f.x[0], f.y[0])
        yield f.y[0].fill, (self.value,)
        yield np.copyto, (large, small)

    def backward(self, f: Frame) -> Iterator[Call]:
        small, large = self._parts(f.gx[0], f.gy[0])
        if small.shape != f.gx[0].shape:
            yield f.gx[0].fill, (0,)
        yield np.copyto, (small, large)


@operation
class Cat(Operation):
    """Arrays one behind the other along an axis."""

    axis: int
    spaced_output = True
    spaced_gradient = True

    def infer(self, *inputs: Any) -> tuple[Spec, ...]:
        dtype, first = one_dtype("cat", *inputs), inputs[0]
        axis = axis_of("cat", self.axis, first.shape)
        for other in inputs:
            if other.ndim != first.ndim or any(
                a != b for i, (a, b) in enumerate(zip(first.shape, other.shape, strict=True)) if i != axis
            ):
                shapes = ", ".join(str(spec.shape) for spec in inputs)
                raise ValueError(f"cat: shapes differ elsewhere than along axis {axis}: {shapes}")
        total = sum(spec.shape[axis] for spec in inputs)
        return (Spec((*first.shape[:axis], total, *first.shape[axis + 1 :]), dtype),)

    def passes(self, inputs: tuple[Any, ...], outputs: tuple[Spec, ...]) -> tuple[int, ...]:
        return tuple(range(len(inputs)))

    def view_back(self, gy: Array, inputs: tuple[Any, ...], position: int) -> Array:
        return gy[self.parts(inputs, ())[position]]

    def parts(self, inputs: tuple[Any, ...], outputs: tuple[Spec, ...]) -> tuple[tuple[slice, ...], ...]:
        axis, at, found = self.axis % len(inputs[0].shape), 0, []
        for part in inputs:
            size = part.shape[axis]
            found.append(tuple(slice(at, at + size) if i == axis else slice(0, n) for i, n in enumerate(part.shape)))
            at += size
        return tuple(found)

    def forward(self, f: Frame) -> Iterator[Call]:
        for part, key in zip(f.x, self.parts(tuple(f.x), ()), strict=True):
            if not isinstance(part, Spec):
                yield np.copyto, (f.y[0][key], part)


def shape_of(what: str, shape: tuple[Any, ...]) -> tuple[int, ...]:
    """Return sizes or axes that were given as one tuple or as several numbers."""
    return integers(what, shape[0] if len(shape) == 1 and isinstance(shape[0], tuple | list) else shape)


def index_of(index: Any) -> tuple[Any, ...]:
    """Return a constant index as a hashable tuple; anything that is computed is refused."""
    parts = index if isinstance(index, tuple) else (index,)
    found: list[Any] = []
    for part in parts:
        if isinstance(part, slice):
            bounds = (part.start, part.stop, part.step)
            found.append(("slice", *(None if n is None else integer("slicing: a bound", n) for n in bounds)))
        elif part is None or part is Ellipsis:
            found.append(part)
        elif isinstance(part, int | np.integer) and not isinstance(part, bool):
            found.append(int(part))
        else:
            refuse(f"indexing by a {type(part).__name__}")
    return tuple(found)


def widths_of(ndim: int, padding: Any) -> tuple[tuple[int, int], ...]:
    """Return padding as torch orders it, (left, right, top, bottom, ...) from the last axis on, for each axis."""
    sides = integers("pad: padding", padding)
    if len(sides) % 2 or len(sides) > 2 * ndim:
        raise ValueError(f"pad: padding must be pairs for at most {ndim} axes, got {padding}")
    pairs = [(sides[i], sides[i + 1]) for i in range(0, len(sides), 2)]
    return (*((0, 0) for _ in range(ndim - len(pairs))), *reversed(pairs))


@describes("reshape")
def reshape(input: Any, *shape: Any) -> Any:
    return write(Reshape(shape_of("reshape: shape", shape)), input)


def flattening(start_dim: Any, end_dim: Any) -> Flatten:
    """Return the operation of `flatten`."""
    return Flatten(integer("flatten: start_dim", start_dim), integer("flatten: end_dim", end_dim))


@describes("flatten")
def flatten(input: Any, start_dim: int = 0, end_dim: int = -1) -> Any:
    return write(flattening(start_dim, end_dim), input)


@describes("permute")
def permute(input: Any, *axes: Any) -> Any:
    return write(Permute(shape_of("permute: axes", axes)), input)


@describes("getitem")
def getitem(input: Any, index: Any) -> Any:
    parts = index_of(index)
    at = next((i for i, part in enumerate(parts) if part is Ellipsis), None)
    if at is not None:  # as the slices that it stands for: settings have a JSON form
        left = input.ndim - sum(part is not None and part is not Ellipsis for part in parts)
        parts = (*parts[:at], *(("slice", None, None, None),) * left, *parts[at + 1 :])
    return write(Slice(parts), input)


def padding_of(ndim: int, padding: Any, value: Any = 0.0) -> Pad:
    """Return the operation of `pad`."""
    return Pad(widths_of(ndim, padding), number("pad", "value", value))


@describes("pad")
def pad(input: Any, padding: Any, value: float = 0.0) -> Any:
    return write(padding_of(input.ndim, padding, value), input)


@describes("cat")
def cat(arrays: Any, axis: int = 0) -> Any:
    return write(Cat(integer("cat: axis", axis)), *several("cat", arrays))


@describes("stack")
def stack(arrays: Any, axis: int = 0) -> Any:
    several("stack", arrays)
    graph = graph_of(arrays)
    assert graph is not None
    dtype = next(a.dtype for a in arrays if isinstance(a, Value))
    values: list[Any] = [graph.operand(a, dtype) for a in arrays]
    if None in values:
        raise TypeError(f"stack: array {values.index(None)} is missing (None)")
    at = stacked("stack", values, axis)
    # What is not computed here, a parameter say, may lie in memory as it likes: it is no view of that.
    key = (*(slice(None),) * at, None)
    return write(Cat(at), *(value[key] if value.node is None else value.unsqueeze(at) for value in values))


def several(where: str, arrays: Any) -> Sequence[Any]:
    """Return the arrays or values of a sequence, or raise TypeError or ValueError if it is no such, or empty."""
    if not isinstance(arrays, tuple | list):
        raise TypeError(f"{where}: arrays must be a tuple or list of them, got {type(arrays).__name__}")
    if not arrays:
        raise ValueError(f"{where}: there is no array")
    return arrays


def stacked(where: str, arrays: Sequence[Any], axis: Any) -> int:
    """Return the new axis of arrays of one shape, or raise ValueError where they have several."""
    for a in arrays[1:]:
        if a.shape != arrays[0].shape:
            raise ValueError(f"{where}: the arrays must have one shape, but got {arrays[0].shape} and {a.shape}")
    return axis_of(where, axis, arrays[0].shape, 1)
