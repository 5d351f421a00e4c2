"""Pooling of images (N, C, H, W), and the flattening that usually follows."""

import math
from collections.abc import Callable
from typing import Any, ClassVar

from fastconv import functional as F
from fastconv.functional._check import check_array, pair
from fastconv.functional._tape import spoil
from fastconv.nn.base import Array, Module, Plain

Size = int | tuple[int, int]


class MaxPool2d(Plain):
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

    fuses_as = "pool"
    _activation: str | None = None  # of the layers before, whose gradient is taken along

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

    def forward(self, input: Array) -> Array:
        return self.behind(input, None)

    def behind(self, input: Array, activation: str | None) -> Array:
        """Pool what `activation` gave; `backward` then goes through both.

        The largest element of a window decides for it: where ReLU made that 0, all are 0, and elsewhere it let the
        gradient through. So the pooled gradient is masked, which has fewer elements, to the same bits.
        """
        self._activation = activation
        return super().forward(input)

    def _settings(self) -> tuple[Any, ...]:
        return (*super()._settings(), self._activation)

    def _forward(self, input: Array) -> Array:
        input = self._accept(input)
        window = (self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)
        argmax = self._held("argmax", input)
        if argmax is None:
            argmax = self._hold("argmax", input, F.max_pool2d_argmax_like(input, *window))
        output = F.max_pool2d(input, *window, out=self._held("output", input), argmax=argmax)
        return self._save(self._hold("output", input, output), argmax, input, window, output, self._activation)

    def _backward(self, grad_output: Array) -> Array:
        grad_output, argmax, input, window, output, activation = self._recall(grad_output)
        if activation:
            masked = self._buffer("grad_masked", output.shape, grad_output.dtype)
            grad_output = F.relu_backward(grad_output, output, grad_input=masked)
        grad_input = self._buffer("grad_input", input.shape, grad_output.dtype)
        return F.max_pool2d_backward(grad_output, argmax, input.shape, *window, grad_input=grad_input)


class _Mean(Plain):
    """Means over windows: one functional call each way."""

    operation: ClassVar[Callable[..., Array]]
    gradient: ClassVar[Callable[..., Array]]

    def _forward(self, input: Array) -> Array:
        input = self._accept(input)
        output = self.operation(input, *self._settings(), out=self._held("output", input))
        return self._save(self._hold("output", input, output), input)

    def _backward(self, grad_output: Array) -> Array:
        grad_output, input = self._recall(grad_output)
        grad_input = self._buffer("grad_input", input.shape, grad_output.dtype)
        return self.gradient(grad_output, input.shape, *self._window(), grad_input=grad_input)

    def _window(self) -> tuple[Any, ...]:
        """What the gradient must be told beside the input's shape."""
        return ()


class AvgPool2d(_Mean):
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

    operation = staticmethod(F.avg_pool2d)
    gradient = staticmethod(F.avg_pool2d_backward)

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

    def _window(self) -> tuple[Any, ...]:
        return self._settings()


class AdaptiveAvgPool2d(_Mean):
    """Means over windows that divide the image into `output_size`, an int or a pair (None keeps a side)."""

    operation = staticmethod(F.adaptive_avg_pool2d)
    gradient = staticmethod(F.adaptive_avg_pool2d_backward)

    def __init__(self, output_size: int | tuple[int | None, int | None] | None) -> None:
        sides = output_size if isinstance(output_size, tuple | list) else (output_size, output_size)
        _size(self, "output_size", tuple(1 if side is None else side for side in sides))
        self.output_size = tuple(output_size) if isinstance(output_size, list) else output_size


class GlobalAvgPool2d(_Mean):
    """The mean of each plane: (N, C, H, W) to (N, C, 1, 1)."""

    operation = staticmethod(F.global_avg_pool2d)
    gradient = staticmethod(F.global_avg_pool2d_backward)


class Flatten(Plain):
    """(N, C, H, W) to (N, C·H·W), in C order of the shape as PyTorch flattens, whatever the memory order."""

    def _forward(self, input: Array) -> Array:
        check_array("Flatten", "input", input)
        shape = (len(input), math.prod(input.shape[1:]))
        if input.flags.c_contiguous and input.dtype.isnative:
            return self._save(input.reshape(shape), input.shape)
        output = self._buffer("output", shape, input.dtype.newbyteorder("="))
        output.reshape(input.shape)[...] = input
        spoil()
        return self._save(output, input.shape)

    def _backward(self, grad_output: Array) -> Array:
        grad_output, shape = self._recall(grad_output)
        return self._accept(grad_output.reshape(shape), "grad_input")


def _size(layer: Module, name: str, value: Any, minimum: int = 1) -> Size:
    """Check an int or a pair, and return it in the shorter form."""
    vertical, horizontal = pair(type(layer).__name__, name, value, minimum)
    return vertical if vertical == horizontal else (vertical, horizontal)
