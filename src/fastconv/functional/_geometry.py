"""Sizes of convolutions and poolings: worked out, checked and kept here, for kernels that trust them.

A pooling is described axis by axis: which taps of which window lie inside the input. The kernels walk that
description, so kernels, strides, padding, dilation, ceil mode and adaptive windows are all one case to them.

Sizes come as Python's integers of any length. What leaves this file is bounded: no image with its padding and no
window has more than `MOST_NUMBERS` numbers, and no stride and no dilation reaches far beyond, so that nothing that the
kernels work out of these overflows.
"""

from collections.abc import Callable
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np

from fastconv._ext import pool
from fastconv._ext.conv.geometry import Geometry
from fastconv.functional._check import Array, OfSignals, as_given, check_count, pair
from fastconv.graph.operation import flag, short

Padding = int | str | tuple[int, int] | tuple[tuple[int, int], tuple[int, int]]


def area(where: str, height: int, width: int) -> str:
    """Return a size for an error message; signals have a length alone."""
    return f"{width}" if isinstance(where, OfSignals) else f"{height}x{width}"


def _borders(where: str, padding: Any, kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int]
             ) -> tuple[int, int, int, int]:  # fmt: skip
    """Return padding as (top, bottom, left, right)."""
    if isinstance(padding, str):
        if padding == "valid":
            return 0, 0, 0, 0
        if padding != "same":
            raise ValueError(f"{where}: padding must be 'same', 'valid' or numbers, got {short(padding)}")
        if stride != (1, 1):
            raise ValueError(f"{where}: padding='same' needs stride 1, got stride {stride}")
        total = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        return total[0] // 2, total[0] - total[0] // 2, total[1] // 2, total[1] - total[1] // 2
    (top, bottom), (left, right) = sides(where, padding)
    return top, bottom, left, right


def sides(where: str, padding: Any) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return padding, an int, a pair or a pair of pairs, as ((top, bottom), (left, right))."""
    if isinstance(padding, tuple | list) and len(padding) == 2 and any(isinstance(v, tuple | list) for v in padding):
        return pair(where, "padding", padding[0], 0), pair(where, "padding", padding[1], 0)
    vertical, horizontal = pair(where, "padding", padding, 0)
    return (vertical, vertical), (horizontal, horizontal)


def padding_1d(where: str, padding: Any) -> Any:
    """Return the padding of signals, a word, an int or (left, right), as that of images of one row."""
    return padding if isinstance(padding, str) else ((0, 0), pair(where, "padding", padding, 0))


def length_1d(where: str, name: str, value: Any) -> tuple[int, int]:
    """Return a one-dimensional size, stride or dilation (an int, or a tuple of one) as a pair."""
    if isinstance(value, tuple | list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{where}: {name} must be an int >= 1, got {short(value)}")
    return 1, int(value)


@lru_cache(maxsize=512)
def _convolution(where: str, x_shape: tuple[int, ...], w_shape: tuple[int, ...], stride: tuple[int, int],
                 borders: tuple[int, int, int, int], dilation: tuple[int, int], groups: int
                 ) -> Geometry:  # fmt: skip
    """Check the sizes of a convolution (cached: a layer sees few shapes)."""
    (n, c, h, w), (k, cg, r, s) = x_shape, w_shape
    shapes = f"input.shape={as_given(where, x_shape)}, weight.shape={as_given(where, w_shape)}"
    if k < 1:
        raise ValueError(f"{where}: weight has an empty dimension, shape {as_given(where, w_shape)}")
    if groups < 1 or c % groups or k % groups:
        raise ValueError(f"{where}: groups must divide both channel counts, got groups={groups}, {c} input and "
                         f"{k} output channels")  # fmt: skip
    if cg * groups != c:
        raise ValueError(f"{where}: weight expects {cg * groups} input channels, input has {c} "
                         f"({shapes}, groups={groups})")  # fmt: skip
    top, bottom, left, right = borders
    height, width = h + top + bottom, w + left + right
    reach_h, reach_w = (r - 1) * dilation[0] + 1, (s - 1) * dilation[1] + 1
    if reach_h > height or reach_w > width:
        raise ValueError(f"{where}: kernel of {area(where, reach_h, reach_w)} (dilation included) is larger than the "
                         f"padded input of {area(where, height, width)} ({shapes})")  # fmt: skip
    check_count(where, "a padded input", max(n, 1), max(c, k), height, width)
    p, q = (height - reach_h) // stride[0] + 1, (width - reach_w) // stride[1] + 1
    # a stride beyond the image, which takes no second step, is as good as one to its end; 1 says something else
    sh, sw = min(stride[0], max(height, 2)), min(stride[1], max(width, 2))
    dh, dw = dilation[0] if r > 1 else 1, dilation[1] if s > 1 else 1
    return Geometry(n, c, h, w, k, r, s, p, q, sh, sw, top, left, dh, dw, groups)


def check_groups(where: str, groups: Any) -> None:
    if not isinstance(groups, int | np.integer) or groups < 1:
        raise ValueError(f"{where}: groups must be an int >= 1, got {short(groups)}")


def convolution(where: str, x_shape: tuple[int, ...], w_shape: tuple[int, ...], stride: Any, padding: Any,
                dilation: Any, groups: Any) -> Geometry:  # fmt: skip
    """Return the geometry of a convolution whose settings are as the caller gave them."""
    steps, dilations = pair(where, "stride", stride), pair(where, "dilation", dilation)
    check_groups(where, groups)
    borders = _borders(where, padding, (w_shape[2], w_shape[3]), steps, dilations)
    return _convolution(where, x_shape, w_shape, steps, borders, dilations, int(groups))


def signal_window(where: str, kernel_size: Any, stride: Any, padding: Any) -> tuple[Any, Any, Any]:
    """Return kernel, stride and padding of a pooling of signals as those of images of one row."""
    if isinstance(padding, str):
        raise ValueError(f"{where}: padding must be an int or a pair, got {short(padding)}")
    kernel = length_1d(where, "kernel_size", kernel_size)
    return kernel, kernel if stride is None else length_1d(where, "stride", stride), padding_1d(where, padding)


class Windows:
    """The windows of a pooling: checked, and described for the kernels when they are asked for.

    A description has a line a window. So it waits until there is an output, or a gradient of one, of that size.

    Parameters
    ----------
    shape : (N, C, P, Q)
        Of the output.
    taps : int
        Of a window.
    describe : callable
        Returns the geometry.
    """

    def __init__(self, shape: tuple[int, int, int, int], taps: int, describe: Callable[[], pool.Geometry]) -> None:
        self.shape, self.taps, self._describe = shape, taps, describe

    @cached_property
    def geometry(self) -> pool.Geometry:
        return self._describe()


def _axis(inputs: int, first: Array, count: Array, tap: Array, sizes: Array, kernel: int, step: int) -> pool.Axis:
    """Return the axis on which ``count`` taps of each window lie inside the input: ``tap`` at ``first``, and so on."""
    before = np.concatenate([[0], np.maximum.accumulate(first + count)])  # covered by earlier windows
    dense = (step == 1 or kernel == 1) and bool((first <= before[:-1]).all())
    old = np.clip(before[:-1] - first, 0, count) if dense else count
    spans = np.stack([first, count, tap, sizes, old], 1).astype(np.intp)
    return pool.Axis(inputs, kernel, step, before[-1] if dense else 0, spans)


class _Slide(NamedTuple):
    """Windows that slide along one axis."""

    inputs: int
    kernel: int
    stride: int
    padding: tuple[int, int]  # before and behind
    dilation: int

    def outputs(self, where: str, side: str, ceil_mode: bool) -> int:
        """Return the number of windows, as PyTorch: in ceil mode none starts behind the input; or raise ValueError."""
        reach, (before, behind) = self.dilation * (self.kernel - 1) + 1, self.padding
        shown = before if before == behind else self.padding
        settings = f"kernel_size={self.kernel}, stride={self.stride}, padding={shown}, dilation={self.dilation}"
        if max(before, behind) >= reach:
            raise ValueError(f"{where}: padding must be smaller than the kernel, got {max(before, behind)} for {side} "
                             f"{reach} ({settings})")  # fmt: skip
        padded = self.inputs + before + behind
        found = (padded - reach + (self.stride - 1 if ceil_mode else 0)) // self.stride + 1
        if ceil_mode and (found - 1) * self.stride >= self.inputs + before:
            found -= 1
        if found < 1:
            raise ValueError(f"{where}: kernel of {side} {reach} (dilation included) is larger than the padded "
                             f"input of {side} {padded} ({settings})")  # fmt: skip
        _, count = self.inside(self.starts(min(found, -(-before // self.stride))))  # others begin in the input
        empty = np.flatnonzero(count < 1)
        if empty.size:
            raise ValueError(f"{where}: window {empty[0]} of {side} {self.inputs} sees only padding ({settings})")
        return found

    def starts(self, outputs: int) -> Array:
        return np.arange(outputs) * self.stride - self.padding[0]

    def inside(self, start: Array) -> tuple[Array, Array]:
        """Return the first tap inside the input of each window, and how many are."""
        tap = -(np.minimum(start, 0) // self.dilation)
        return tap, np.minimum((self.inputs - 1 - start) // self.dilation, self.kernel - 1) - tap + 1

    def axis(self, outputs: int, count_include_pad: bool) -> pool.Axis:
        start = self.starts(outputs)
        tap, count = self.inside(start)
        padded = np.minimum((self.inputs + self.padding[1] - 1 - start) // self.dilation + 1, self.kernel)
        sizes = padded if count_include_pad else count
        return _axis(self.inputs, start + tap * self.dilation, count, tap, sizes, self.kernel, self.dilation)


@lru_cache(maxsize=512)
def _sliding(where: str, shape: tuple[int, ...], kernel: tuple[int, int], stride: tuple[int, int],
             padding: tuple[tuple[int, int], tuple[int, int]], dilation: tuple[int, int], ceil_mode: bool,
             count_include_pad: bool) -> Windows:  # fmt: skip
    """Check the sizes of a pooling (cached: a layer sees few shapes)."""
    n, c, *size = shape
    steps = [d if k > 1 else 1 for d, k in zip(dilation, kernel, strict=True)]  # a single tap has none
    extents = [max(h + sum(p), d * (k - 1) + 1) for h, k, p, d in zip(size, kernel, padding, steps, strict=True)]
    check_count(where, "a padded input", max(n, 1), c, *extents)
    reaches = [min(s, 2 * e) for s, e in zip(stride, extents, strict=True)]  # beyond the image there is no second step
    h, w = slides = [_Slide(*sizes) for sizes in zip(size, kernel, reaches, padding, steps, strict=True)]
    p, q = (s.outputs(where, side, ceil_mode) for s, side in zip(slides, ("height", "width"), strict=True))
    return Windows((n, c, p, q), kernel[0] * kernel[1],
                   lambda: pool.Geometry(h.axis(p, count_include_pad), w.axis(q, count_include_pad)))  # fmt: skip


def sliding_windows(where: str, shape: tuple[int, ...], kernel_size: Any, stride: Any, padding: Any, dilation: Any,
                    ceil_mode: bool, count_include_pad: bool = True) -> Windows:  # fmt: skip
    """Return the windows of a pooling whose settings are as the caller gave them."""
    kernel = pair(where, "kernel_size", kernel_size)
    steps = kernel if stride is None else pair(where, "stride", stride)
    borders, dilations = sides(where, padding), pair(where, "dilation", dilation)
    flags = flag(f"{where}: ceil_mode", ceil_mode), flag(f"{where}: count_include_pad", count_include_pad)
    return _sliding(where, shape, kernel, steps, borders, dilations, *flags)


def _adaptive_axis(inputs: int, outputs: int) -> pool.Axis:
    window = np.arange(outputs)
    start, end = window * inputs // outputs, -((window + 1) * inputs // -outputs)
    count = end - start
    return _axis(inputs, start, count, np.zeros_like(start), count, int(count.max()), 1)


@lru_cache(maxsize=512)
def _adaptive(where: str, shape: tuple[int, ...], output_size: tuple[int, int]) -> Windows:
    (n, c, h, w), (p, q) = shape, output_size
    check_count(where, "an output", max(n, 1), c, p, q)
    check_count(where, "windows", h, p)
    check_count(where, "windows", w, q)
    taps = (-(-h // p) + 1) * (-(-w // q) + 1)
    return Windows((n, c, p, q), taps, lambda: pool.Geometry(_adaptive_axis(h, p), _adaptive_axis(w, q)))


def adaptive_windows(where: str, shape: tuple[int, ...], output_size: Any) -> Windows:
    """Return the windows that divide an input of this (N, C, H, W) evenly; None keeps a side of the input."""
    wanted = output_size if isinstance(output_size, tuple | list) else (output_size, output_size)
    if len(wanted) == 2:
        wanted = tuple(n if o is None else o for n, o in zip(shape[2:], wanted, strict=True))
    return _adaptive(where, shape, pair(where, "output_size", wanted))
