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
    """Every pixel of the output is a pixel of the input: row ``p`` is row ``floor(p * H / P)``, columns alike."""

    size: tuple[int, int] | None
    scale_factor: tuple[float, float] | None

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

    def forward(self, f: Frame) -> Iterator[Call]:
        [x], [y] = f.x, f.y
        rows, columns = (_source(x.shape[i], y.shape[i]) for i in (2, 3))
        yield _gather, (x, rows, columns, y)

    def backward(self, f: Frame) -> Iterator[Call]:
        """Add the gradients of a pixel's copies row by row, from left to right."""
        [gx], [gy] = f.gx, f.gy
        rows, columns = (_copies(gx.shape[i], gy.shape[i]) for i in (2, 3))
        yield gx.fill, (0,)
        for to_row, from_row in rows:
            for to_column, from_column in columns:
                yield _scatter, (gx, to_row, to_column, gy, from_row, from_column)


def _source(inputs: int, outputs: int) -> Array:
    return np.arange(outputs) * inputs // outputs


def _copies(inputs: int, outputs: int) -> list[tuple[Array, Array]]:
    """Return, for the first copy of each pixel, the second and so on: which pixels have one, and where it is."""
    source = _source(inputs, outputs)
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
    one_of(mode, ("nearest",))
    if (size is None) == (scale_factor is None):
        raise ValueError(f"interpolate: either size or scale_factor, got {size!r} and {scale_factor!r}")
    if size is not None:
        return Nearest(pair("interpolate", "size", size), None)
    factors = scale_factor if isinstance(scale_factor, tuple | list) else (scale_factor, scale_factor)
    if len(factors) != 2 or not all(math.isfinite(factor) and factor > 0 for factor in factors):
        raise ValueError(f"interpolate: scale_factor must be a positive number or two, got {scale_factor!r}")
    return Nearest(None, (float(factors[0]), float(factors[1])))


@describes("interpolate")
def interpolate(input: Any, size: Any = None, scale_factor: Any = None, mode: str = "nearest") -> Any:
    return write(resampling(size, scale_factor, mode), input)
