"""Channels in another order or as pixels, and borders that mirror the image."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from fastconv.functional._check import check_count, check_rank, whole
from fastconv.functional._ops._run import describes
from fastconv.graph.operation import Array, Call, Frame, Operation, Spec, one_dtype, operation, short
from fastconv.graph.value import write


class _Moved(Operation):
    """Every element of the output is one of the input, and the other way round."""

    def views(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Return both, over the memory they lie in, so that elements at one index belong together."""
        raise NotImplementedError

    def forward(self, f: Frame) -> Iterator[Call]:
        x, y = self.views(f.x[0], f.y[0])
        yield np.copyto, (y, x)

    def backward(self, f: Frame) -> Iterator[Call]:
        gx, gy = self.views(f.gx[0], f.gy[0])
        yield np.copyto, (gx, gy)


@operation
class PixelShuffle(_Moved):
    """Channel ``c * r * r + i * r + j`` becomes pixel (i, j) of each block of r by r pixels of channel c."""

    upscale_factor: int

    @property
    def name(self) -> str:
        return "pixel_shuffle"

    def infer(self, *inputs: Any) -> tuple[Spec, ...]:
        [x] = inputs
        r, dtype = whole(f"{self.name}: upscale_factor", self.upscale_factor), one_dtype(self.name, x)
        check_rank(self.name, "input", x, 4)
        n, c, h, w = x.shape
        if c % (r * r):
            raise ValueError(f"{self.name}: upscale_factor {r} needs a multiple of {r * r} channels, got {c} "
                             f"(input.shape={x.shape})")  # fmt: skip
        return (Spec((n, c // (r * r), h * r, w * r), dtype),)

    def views(self, x: Array, y: Array) -> tuple[Array, Array]:
        (n, c, h, w), r = x.shape, self.upscale_factor
        blocks = x.transpose(0, 2, 3, 1).reshape(n, h, w, c // (r * r), r, r)
        return blocks.transpose(0, 1, 4, 2, 5, 3), y.transpose(0, 2, 3, 1).reshape(n, h, r, w, r, c // (r * r))


@operation
class ChannelShuffle(_Moved):
    """The channels of several groups, dealt out in turns: first the first of each group, then the second."""

    groups: int

    @property
    def name(self) -> str:
        return "channel_shuffle"

    def infer(self, *inputs: Any) -> tuple[Spec, ...]:
        [x] = inputs
        groups, dtype = whole(f"{self.name}: groups", self.groups), one_dtype(self.name, x)
        check_rank(self.name, "input", x, (2, 3, 4))
        if x.shape[1] % groups:
            raise ValueError(f"{self.name}: groups must divide the channels, got {groups} and {x.shape[1]}")
        return (Spec(x.shape, dtype),)

    def views(self, x: Array, y: Array) -> tuple[Array, Array]:
        x, y, c = np.moveaxis(x, 1, -1), np.moveaxis(y, 1, -1), x.shape[1]
        dealt = x.reshape(*x.shape[:-1], self.groups, c // self.groups)
        return dealt.swapaxes(-1, -2), y.reshape(*y.shape[:-1], c // self.groups, self.groups)


@operation
class ReflectionPad(Operation):
    """A border that mirrors the image, whose outermost pixels are not repeated: ((top, bottom), (left, right))."""

    borders: tuple[tuple[int, int], tuple[int, int]]

    @property
    def name(self) -> str:
        return "reflection_pad2d"

    def infer(self, *inputs: Any) -> tuple[Spec, ...]:
        [x] = inputs
        dtype = one_dtype(self.name, x)
        check_rank(self.name, "input", x, 4)
        for size, side, border in zip(x.shape[2:], ("height", "width"), self.borders, strict=True):
            if min(border) < 0 or max(border) >= size:
                raise ValueError(f"{self.name}: padding must be at least 0 and smaller than the image, got {border} "
                                 f"for {side} {size}")  # fmt: skip
        sizes = [size + sum(border) for size, border in zip(x.shape[2:], self.borders, strict=True)]
        check_count(self.name, "an output", max(x.shape[0], 1), x.shape[1], *sizes)
        return (Spec((*x.shape[:2], *sizes), dtype),)

    def work(self, backward: bool, inputs: tuple[Any, ...], outputs: tuple[Spec, ...]) -> tuple[Spec, ...]:
        return outputs if backward else ()

    def _center(self, y: Array, axes: tuple[int, ...]) -> Array:
        """Return what of the padded image is no border along these axes."""
        index = [slice(None)] * 4
        for axis in axes:
            before, behind = self.borders[axis - 2]
            index[axis] = slice(before, y.shape[axis] - behind)
        return y[tuple(index)]

    def _mirrored(self, y: Array) -> Iterator[tuple[Array, Array]]:
        """Yield borders and what they mirror: columns of the rows that are no border, then rows."""
        for axis, part in ((3, self._center(y, (2,))), (2, y)):
            before, behind = self.borders[axis - 2]
            lines = np.moveaxis(part, axis, 0)
            end = len(lines) - behind  # where the border behind begins
            if before:
                yield lines[:before], lines[2 * before : before : -1]
            if behind:
                yield lines[end:], lines[end - 2 : (end - 2 - behind) if end - 2 - behind >= 0 else None : -1]

    def forward(self, f: Frame) -> Iterator[Call]:
        [x], [y] = f.x, f.y
        yield np.copyto, (self._center(y, (2, 3)), x)
        for border, inside in self._mirrored(y):
            yield np.copyto, (border, inside)

    def backward(self, f: Frame) -> Iterator[Call]:
        """Add the borders' gradients to what they mirror: rows first, then columns; the one before, the one behind."""
        [gx], [gy], [grad] = f.gx, f.gy, f.work
        yield np.copyto, (grad, gy)
        columns_then_rows = list(self._mirrored(grad))
        split = sum(border > 0 for border in self.borders[1])
        for border, inside in (*columns_then_rows[split:], *columns_then_rows[:split]):
            yield np.add, (inside, border, inside)
        yield np.copyto, (gx, self._center(grad, (2, 3)))


def borders_of(where: str, padding: Any) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return padding, an int or (left, right, top, bottom), as ((top, bottom), (left, right))."""
    sides = padding if isinstance(padding, tuple | list) else (padding,) * 4
    if len(sides) != 4 or not all(isinstance(n, int | np.integer) and not isinstance(n, bool) for n in sides):
        raise ValueError(f"{where}: padding must be an int or (left, right, top, bottom), got {short(padding)}")
    left, right, top, bottom = map(int, sides)
    return (top, bottom), (left, right)


@describes("pixel_shuffle")
def pixel_shuffle(input: Any, upscale_factor: int) -> Any:
    return write(PixelShuffle(whole("pixel_shuffle: upscale_factor", upscale_factor)), input)


@describes("channel_shuffle")
def channel_shuffle(input: Any, groups: int) -> Any:
    return write(ChannelShuffle(whole("channel_shuffle: groups", groups)), input)


@describes("reflection_pad2d")
def reflection_pad2d(input: Any, padding: Any) -> Any:
    return write(ReflectionPad(borders_of("reflection_pad2d", padding)), input)
