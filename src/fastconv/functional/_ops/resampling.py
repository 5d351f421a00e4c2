"""Images in another size."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastconv.functional._check import check_count, check_rank, pair
from fastconv.functional._ops._run import describes
from fastconv.graph.operation import Array, Call, Frame, Operation, Spec, one_dtype, one_of
from fastconv.graph.value import write


@dataclass(frozen=True)
class Nearest(Operation):
    """Every pixel of the output is a pixel of the input: row ``p`` is row ``floor(p * step)``, columns alike.

    The step is H / P, or one over the scale factor, and counts as PyTorch's do: in float32 arithmetic.
    """

    size: tuple[int, int] | None
    scale_factor: tuple[float, float] | None

    def __post_init__(self) -> None:
        if (self.size is None) == (self.scale_factor is None):
            raise ValueError(f"interpolate: either size or scale_factor, got {self.size!r} and {self.scale_factor!r}")
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

    def _sources(self, x: Array, y: Array) -> Iterator[Array]:
        """Yield the rows of x that the rows of y are, then the columns."""
        for axis, factor in zip((2, 3), self.scale_factor or (None, None), strict=True):
            yield _source(x.shape[axis], y.shape[axis], factor)

    def forward(self, f: Frame) -> Iterator[Call]:
        [x], [y] = f.x, f.y
        rows, columns = self._sources(x, y)
        yield _gather, (x, rows, columns, y)

    def backward(self, f: Frame) -> Iterator[Call]:
        """Add the gradients of a pixel's copies row by row, from left to right."""
        [gx], [gy] = f.gx, f.gy
        rows, columns = (
            _copies(source, inputs) for source, inputs in zip(self._sources(gx, gy), gx.shape[2:], strict=True)
        )
        yield gx.fill, (0,)
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


def resampling(size: Any, scale_factor: Any, mode: str) -> Nearest:
    """Return the operation of `interpolate`."""
    one_of("interpolate: mode", mode, ("nearest",))
    size, scale_factor = (
        tuple(value) if isinstance(value, tuple | list) else None if value is None else (value, value)
        for value in (size, scale_factor)
    )
    return Nearest(size, scale_factor)


@describes("interpolate")
def interpolate(input: Any, size: Any = None, scale_factor: Any = None, mode: str = "nearest") -> Any:
    return write(resampling(size, scale_factor, mode), input)
