"""Pooling of images (N, C, H, W), and the flattening that usually follows."""

from typing import Any

from fastconv import functional as F
from fastconv.functional._check import pair
from fastconv.nn.base import Module

Size = int | tuple[int, int]


class MaxPool2d(Module):
    """The largest element of each window: see :func:`fastconv.functional.max_pool2d`.

    Parameters
    ----------
    kernel_size : int or pair of int
    stride : int or pair of int, optional
        The kernel size by default.
    padding : int or pair of int
        At most half the kernel; never chosen.
    dilation : int or pair of int
    ceil_mode : bool
        Round the output size up.
    """

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        ceil_mode: bool = False,
    ) -> None:
        self.kernel_size = _size(self, "kernel_size", kernel_size)
        self.stride = self.kernel_size if stride is None else _size(self, "stride", stride)
        self.padding = _size(self, "padding", padding, 0)
        self.dilation = _size(self, "dilation", dilation)
        self.ceil_mode = ceil_mode

    def forward(self, input: Any) -> Any:
        return F.max_pool2d(input, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)


class AvgPool2d(Module):
    """The mean of each window: see :func:`fastconv.functional.avg_pool2d`.

    Parameters
    ----------
    kernel_size : int or pair of int
    stride : int or pair of int, optional
        The kernel size by default.
    padding : int or pair of int
    ceil_mode : bool
        Round the output size up.
    count_include_pad : bool
        Whether padding counts in the divisor.
    """

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        self.kernel_size = _size(self, "kernel_size", kernel_size)
        self.stride = self.kernel_size if stride is None else _size(self, "stride", stride)
        self.padding = _size(self, "padding", padding, 0)
        self.ceil_mode, self.count_include_pad = ceil_mode, count_include_pad

    def forward(self, input: Any) -> Any:
        window = (self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad)
        return F.avg_pool2d(input, *window)


class AdaptiveAvgPool2d(Module):
    """Means over windows that divide the image into `output_size`, an int or a pair (None keeps a side)."""

    def __init__(self, output_size: int | tuple[int | None, int | None] | None) -> None:
        sides = output_size if isinstance(output_size, tuple | list) else (output_size, output_size)
        _size(self, "output_size", tuple(1 if side is None else side for side in sides))
        self.output_size = tuple(output_size) if isinstance(output_size, list) else output_size

    def forward(self, input: Any) -> Any:
        return F.adaptive_avg_pool2d(input, self.output_size)


class GlobalAvgPool2d(Module):
    """The mean of each plane: (N, C, H, W) to (N, C, 1, 1)."""

    def forward(self, input: Any) -> Any:
        return F.global_avg_pool2d(input)


class Flatten(Module):
    """(N, C, H, W) to (N, C·H·W), in C order of the shape as PyTorch flattens, whatever the memory order."""

    def forward(self, input: Any) -> Any:
        return F.flatten(input, 1)


def _size(layer: Module, name: str, value: Any, minimum: int = 1) -> Size:
    """Check an int or a pair, and return it in the shorter form."""
    vertical, horizontal = pair(type(layer).__name__, name, value, minimum)
    return vertical if vertical == horizontal else (vertical, horizontal)
