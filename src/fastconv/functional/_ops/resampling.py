"""Images in another size."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from fastconv.functional._check import check_count, check_rank, memory, pair
from fastconv.functional._ops._run import describes
from fastconv.graph.operation import Array, Call, Frame, Operation, Spec, flag, one_dtype, one_of, operation, short
from fastconv.graph.value import write


@operation
class _Resampling(Operation):
    """What both share: sizes from sizes or factors."""

    size: tuple[int, int] | None
    scale_factor: tuple[float, float] | None

    def __post_init__(self) -> None:
        if (self.size is None) == (self.scale_factor is None):
            got = f"{short(self.size)} and {short(self.scale_factor)}"
            raise ValueError(f"interpolate: either size or scale_factor, got {got}")
        if self.size is not None:
            pair(self.name, "size", self.size)
            return
        factors: Any = self.scale_factor
        if (
            not isinstance(factors, tuple | list)
            or len(factors) != 2
            or not all(isinstance(f, int | float | np.number) and 1e-9 < f < 1e9 for f in factors)
        ):
            raise ValueError(
                f"interpolate: scale_factor must be a number in (1e-9, 1e9) or two, got {str(factors)[:80]}"
            )

    @property
    def name(self) -> str:
        return "interpolate"

    def infer(self, *inputs: Any) -> tuple[Spec, ...]:
        [x] = inputs
        dtype = one_dtype(self.name, x)
        check_rank(self.name, "input", x, 4)
        size = self.sizes(x.shape)
        if min(size) < 1:
            raise ValueError(f"interpolate: an image of {x.shape[2:]} pixels would have {size}")
        check_count(self.name, "an output", max(x.shape[0], 1), x.shape[1], *size)
        return (Spec((*x.shape[:2], *size), dtype),)

    def sizes(self, shape: tuple[int, ...]) -> tuple[int, int]:
        if self.size is not None:
            return pair(self.name, "size", self.size)
        assert self.scale_factor is not None
        return math.floor(shape[2] * self.scale_factor[0]), math.floor(shape[3] * self.scale_factor[1])


@operation
class Nearest(_Resampling):
    """Every pixel of the output is a pixel of the input: row ``p`` is row ``floor(p * step)``, columns alike.

    The step is H / P, or one over the scale factor, and counts as PyTorch's do: in float32 arithmetic.
    """

    spaced_inputs = (0,)
    spaced_output = True
    spaced_gradient = True

    def _sources(self, x: Array, y: Array) -> Iterator[Array]:
        """Yield the rows of x that the rows of y are, then the columns."""
        for axis, factor in zip((2, 3), self.scale_factor or (None, None), strict=True):
            yield _source(x.shape[axis], y.shape[axis], factor)

    def _parts(self, x: Array, y: Array) -> list[Array] | None:
        """Return the parts of the output that are the whole input, row by row, where it is made of such: views."""
        steps = []
        for source, inputs in zip(self._sources(x, y), x.shape[2:], strict=True):
            step = len(source) // inputs
            if not np.array_equal(source, np.repeat(np.arange(inputs), step)):
                return None
            steps.append(step)
        rows, columns = steps
        return [y[:, :, i::rows, j::columns] for i in range(rows) for j in range(columns)]

    def forward(self, f: Frame) -> Iterator[Call]:
        [x], [y] = f.x, f.y
        parts = self._parts(x, y)
        if parts is None:
            yield _gather, (x, *self._sources(x, y), y)
            return
        for part in parts:
            yield np.copyto, (part, x)

    def backward(self, f: Frame) -> Iterator[Call]:
        """Add the gradients of a pixel's copies row by row, from left to right."""
        [gx], [gy] = f.gx, f.gy
        yield gx.fill, (0,)
        parts = self._parts(gx, gy)
        if parts is not None:
            for part in parts:
                yield np.add, (gx, part, gx)
            return
        rows, columns = (
            _copies(source, inputs) for source, inputs in zip(self._sources(gx, gy), gx.shape[2:], strict=True)
        )
        for to_row, from_row in rows:
            for to_column, from_column in columns:
                yield _scatter, (gx, to_row, to_column, gy, from_row, from_column)


def _source(inputs: int, outputs: int, factor: float | None) -> Array:
    if outputs in (inputs, 2 * inputs):
        return np.arange(outputs) * inputs // outputs
    step = np.float32(inputs) / np.float32(outputs) if factor is None else np.float32(1 / factor)
    return np.minimum(np.floor(np.arange(outputs, dtype=np.float32) * step), inputs - 1).astype(np.intp)


def _copies(source: Array, inputs: int) -> list[tuple[Array, Array]]:
    """Return, for the first copy of each pixel, the second and so on: which pixels have one, and where it is."""
    first, count = np.searchsorted(source, np.arange(inputs)), np.bincount(source, minlength=inputs)
    found = []
    for k in range(int(count.max(initial=0))):
        pixels = np.flatnonzero(count > k)
        found.append((pixels, first[pixels] + k))
    return found


def _gather(x: Array, rows: Array, columns: Array, y: Array) -> None:
    y[...] = x[:, :, rows[:, None], columns]


def _scatter(gx: Array, to_row: Array, to_column: Array, gy: Array, from_row: Array, from_column: Array) -> None:
    gx[:, :, to_row[:, None], to_column] += gy[:, :, from_row[:, None], from_column]


@operation
class Bilinear(_Resampling):
    """Every pixel of the output lies between four of the input, and is their mean weighted by nearness.

    Row ``p`` lies at ``(p + 1/2) * step - 1/2`` of the input's rows, at least 0, or with `align_corners` at
    ``p * (H - 1) / (P - 1)``; columns alike. Positions are worked out in the arrays' precision, as PyTorch's. Columns
    are weighted first, ``a * (1 - w) + b * w``, then rows.
    """

    align_corners: bool

    def _places(self, axis: int, x: Array, y: Array) -> tuple[Array, Array, Array, Array]:
        """Return, for each row of the output, the two rows of the input and their weights; columns with axis 3."""
        inputs, outputs, one = x.shape[axis], y.shape[axis], x.dtype.type(1)
        at = np.arange(outputs, dtype=x.dtype)
        if self.align_corners:
            place = at * (one * (inputs - 1) / (outputs - 1) if outputs > 1 else x.dtype.type(0))
        else:
            factor = self.scale_factor[axis - 2] if self.scale_factor is not None else None
            step = one * inputs / outputs if factor is None else x.dtype.type(1 / factor)
            place = np.maximum((at + one / 2) * step - one / 2, 0)
        first = np.minimum(place.astype(np.intp), inputs - 1)
        weight = np.clip(place - first.astype(x.dtype), 0, 1)
        shape = (1, outputs, 1, 1) if axis == 2 else (1, 1, outputs, 1)
        return first, np.minimum(first + 1, inputs - 1), (one - weight).reshape(shape), weight.reshape(shape)

    def work(self, backward: bool, inputs: tuple[Any, ...], outputs: tuple[Spec, ...]) -> tuple[Spec, ...]:
        [x], [y] = inputs, outputs
        between = Spec((*x.shape[:3], y.shape[3]), x.dtype)
        return (between,) if backward else (between, between, y)

    def forward(self, f: Frame) -> Iterator[Call]:
        [x], [y] = f.x, f.y
        between, other, last = (memory(a) for a in f.work)
        columns, rows = self._places(3, x, y), self._places(2, x, y)
        yield _blend, (memory(x), 2, columns, between, other)
        yield _blend, (between, 1, rows, memory(y), last)

    def backward(self, f: Frame) -> Iterator[Call]:
        """Add what a pixel gives its neighbours, in the order of the rows and columns that it gave to."""
        [gx], [gy] = f.gx, f.gy
        [between] = (memory(a) for a in f.work)
        for axis, source, target in ((2, memory(gy), between), (3, between, memory(gx))):
            parts = _shares(*self._places(axis, gx, gy), gx.shape[axis])
            yield target.fill, (0,)
            for to, start, weight in parts:
                yield _share, (target, source, axis - 1, to, start, weight)


def _blend(x: Array, axis: int, places: tuple[Array, Array, Array, Array], y: Array, work: Array) -> None:
    """Write ``x[first] * (1 - w) + x[second] * w`` along an axis."""
    first, second, near, far = places
    np.take(x, first, axis, y, "clip")
    np.multiply(y, near, y)
    np.take(x, second, axis, work, "clip")
    np.multiply(work, far, work)
    np.add(y, work, y)


def _shares(
    first: Array, second: Array, near: Array, far: Array, inputs: int
) -> list[tuple[Array, Array, Array]]:  # fmt: skip
    """Return, for the first share that each pixel has, the second and so on: which pixels, of whom, and how much."""
    owner = np.stack([first, second], 1).reshape(-1)
    weight = np.stack([near.reshape(-1), far.reshape(-1)], 1).reshape(-1)
    order = np.argsort(owner, kind="stable")
    found = []
    for pixels, at in _copies(owner[order], inputs):
        chosen = order[at]
        found.append((pixels, chosen // 2, weight[chosen].reshape(-1, 1)))
    return found


def _share(target: Array, source: Array, axis: int, to: Array, start: Array, weight: Array) -> None:
    if axis == 1:
        target[:, to] += source[:, start] * weight[:, None]
    else:
        target[:, :, to] += source[:, :, start] * weight


def resampling(size: Any, scale_factor: Any, mode: str, align_corners: bool | None = None) -> _Resampling:
    """Return the operation of `interpolate`."""
    one_of("interpolate: mode", mode, ("nearest", "bilinear"))
    corners = align_corners is not None and flag("interpolate: align_corners", align_corners)
    size, scale_factor = (
        tuple(value) if isinstance(value, tuple | list) else None if value is None else (value, value)
        for value in (size, scale_factor)
    )
    if mode == "bilinear":
        return Bilinear(size, scale_factor, corners)
    if align_corners is not None:
        raise ValueError(f"interpolate: align_corners={corners} is for mode='bilinear' alone")
    return Nearest(size, scale_factor)


@describes("interpolate")
def interpolate(
    input: Any, size: Any = None, scale_factor: Any = None, mode: str = "nearest", align_corners: bool | None = None
) -> Any:  # fmt: skip
    return write(resampling(size, scale_factor, mode, align_corners), input)
