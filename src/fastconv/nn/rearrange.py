"""Channels in another order or as pixels, and borders around images."""

from typing import Any

from fastconv import functional as F
from fastconv.functional._ops.rearrange import borders_of
from fastconv.nn.base import Module, size

Sides = int | tuple[int, int, int, int]


class PixelShuffle(Module):
    """Blocks of pixels out of channels, (N, C·r², H, W) to (N, C, H·r, W·r): see `functional.pixel_shuffle`.

    Parameters
    ----------
    upscale_factor : int
        r; its square divides the number of channels.

    Raises
    ------
    ValueError
        If the factor is below 1; in forward, if its square does not divide the channels.
    TypeError
        If it is no whole number.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> nn.PixelShuffle(2)(np.ones((1, 12, 8, 8))).shape
    (1, 3, 16, 16)
    >>> nn.PixelShuffle(2)(np.arange(4.0).reshape(1, 4, 1, 1))
    array([[[[0., 1.],
             [2., 3.]]]])
    """

    def __init__(self, upscale_factor: int) -> None:
        self.upscale_factor = size("PixelShuffle", "upscale_factor", upscale_factor)

    def forward(self, input: Any) -> Any:
        return F.pixel_shuffle(input, self.upscale_factor)


class ChannelShuffle(Module):
    """The channels of several groups, dealt out in turns: see :func:`fastconv.functional.channel_shuffle`.

    Inputs are (N, C), (N, C, L) or (N, C, H, W).

    Parameters
    ----------
    groups : int
        Divides the number of channels.

    Raises
    ------
    ValueError
        If `groups` is below 1; in forward, if it does not divide the channels.
    TypeError
        If it is no whole number.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> nn.ChannelShuffle(2)(np.arange(6.0).reshape(1, 6))
    array([[0., 3., 1., 4., 2., 5.]])
    """

    def __init__(self, groups: int) -> None:
        self.groups = size("ChannelShuffle", "groups", groups)

    def forward(self, input: Any) -> Any:
        return F.channel_shuffle(input, self.groups)


class ZeroPad2d(Module):
    """Zeros around images (N, C, H, W): see :func:`fastconv.functional.pad`.

    Parameters
    ----------
    padding : int or (left, right, top, bottom)
        Pixels; negative numbers cut off.

    Raises
    ------
    ValueError
        If `padding` is no int or four; in forward, if the input has another rank, or more is cut than there is.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> nn.ZeroPad2d((1, 0, 0, 1))(np.array([[[[1.0, 2.0]]]]))
    array([[[[0., 1., 2.],
             [0., 0., 0.]]]])
    >>> nn.ZeroPad2d((-1, 0, 0, 0))(np.array([[[[1.0, 2.0]]]]))
    array([[[[2.]]]])
    """

    def __init__(self, padding: Sides) -> None:
        self.padding = _sides(self, padding)

    def forward(self, input: Any) -> Any:
        if input.ndim != 4:
            raise ValueError(f"ZeroPad2d: input needs 4 dimensions, got {input.shape}")
        return F.pad(input, self.padding)


class ReflectionPad2d(Module):
    """A border that mirrors the images (N, C, H, W): see :func:`fastconv.functional.reflection_pad2d`.

    Parameters
    ----------
    padding : int or (left, right, top, bottom)
        Pixels, fewer than the image has.

    Raises
    ------
    ValueError
        If `padding` is no int or four, or negative.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> nn.ReflectionPad2d((2, 1, 0, 0))(np.array([[[[1.0, 2.0, 3.0]]]]))
    array([[[[3., 2., 1., 2., 3., 2.]]]])
    """

    def __init__(self, padding: Sides) -> None:
        self.padding = _sides(self, padding)
        if min(self.padding) < 0:
            raise ValueError(f"ReflectionPad2d: padding must be at least 0, got {padding}")

    def forward(self, input: Any) -> Any:
        return F.reflection_pad2d(input, self.padding)


def _sides(layer: Module, padding: Any) -> tuple[int, int, int, int]:
    (top, bottom), (left, right) = borders_of(type(layer).__name__, padding)
    return left, right, top, bottom
