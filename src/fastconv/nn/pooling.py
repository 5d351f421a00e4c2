"""Pooling of images (N, C, H, W) and signals (N, C, L), and the flattening that usually follows."""

from typing import Any

from fastconv import functional as F
from fastconv.functional._check import flag, pair
from fastconv.functional._geometry import length_1d, sides
from fastconv.nn.base import Module

Size = int | tuple[int, int]
Border = Size | tuple[tuple[int, int], tuple[int, int]]


class MaxPool2d(Module):
    """The largest element of each window of images (N, C, H, W): see :func:`fastconv.functional.max_pool2d`.

    Parameters
    ----------
    kernel_size : int or pair of int
    stride : int or pair of int, optional
        The kernel size by default.
    padding : int, pair of int, or ((top, bottom), (left, right))
        Smaller than the kernel; never chosen.
    dilation : int or pair of int
    ceil_mode : bool
        Round the output size up.
    return_indices : bool
        Return the indices ``h * W + w`` of the maxima, too, as :class:`MaxUnpool2d` takes them.

    Raises
    ------
    ValueError
        If a number is out of its range; in forward, if padding is not smaller than the kernel, the input has another
        rank, or a window is larger than the padded input.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> x = np.array([[[[1.0, 5.0], [4.0, 2.0]]]])
    >>> layer = nn.MaxPool2d(2)
    >>> layer(x), layer.backward(np.array([[[[8.0]]]]))
    (array([[[[5.]]]]), array([[[[0., 8.],
             [0., 0.]]]]))
    """

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Border = 0,
        dilation: Size = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> None:
        self.kernel_size = _size(self, "kernel_size", kernel_size)
        self.stride = self.kernel_size if stride is None else _size(self, "stride", stride)
        self.padding = _border(self, padding)
        self.dilation = _size(self, "dilation", dilation)
        self.ceil_mode = _flag(self, "ceil_mode", ceil_mode)
        self.return_indices = _flag(self, "return_indices", return_indices)

    def forward(self, input: Any) -> Any:
        window = (self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)
        return F.max_pool2d(input, *window, self.return_indices)


class AvgPool2d(Module):
    """The mean of each window of images (N, C, H, W): see :func:`fastconv.functional.avg_pool2d`.

    Parameters
    ----------
    kernel_size : int or pair of int
    stride : int or pair of int, optional
        The kernel size by default.
    padding : int, pair of int, or ((top, bottom), (left, right))
        Smaller than the kernel.
    ceil_mode : bool
        Round the output size up.
    count_include_pad : bool
        Whether padding counts in the divisor.
    dilation : int or pair of int

    Raises
    ------
    ValueError
        If a number is out of its range; in forward, if padding is not smaller than the kernel, the input has another
        rank, or a window is larger than the padded input.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> x = np.array([[[[1.0, 5.0], [4.0, 2.0]]]])
    >>> layer = nn.AvgPool2d(2)
    >>> layer(x), layer.backward(np.array([[[[8.0]]]]))
    (array([[[[3.]]]]), array([[[[2., 2.],
             [2., 2.]]]]))
    """

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Border = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        dilation: Size = 1,
    ) -> None:
        self.kernel_size = _size(self, "kernel_size", kernel_size)
        self.stride = self.kernel_size if stride is None else _size(self, "stride", stride)
        self.padding = _border(self, padding)
        self.ceil_mode = _flag(self, "ceil_mode", ceil_mode)
        self.count_include_pad = _flag(self, "count_include_pad", count_include_pad)
        self.dilation = _size(self, "dilation", dilation)

    def forward(self, input: Any) -> Any:
        window = (self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad)
        return F.avg_pool2d(input, *window, self.dilation)


class MaxUnpool2d(Module):
    """Images of zeros with each element where a max pooling found it: see :func:`fastconv.functional.max_unpool2d`.

    M. Zeiler and R. Fergus, "Visualizing and understanding convolutional networks", ECCV 2014.

    It is called with the elements and their indices, and with the size of the images where they may have several.

    Parameters
    ----------
    kernel_size : int or pair of int
    stride : int or pair of int, optional
        The kernel size by default.
    padding : int or pair of int

    Raises
    ------
    ValueError
        If a number is out of its range; in forward, if shapes do not fit, or an index lies outside of the image.
    TypeError
        In forward, if the indices are not int64.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> x = np.array([[[[1.0, 5.0], [4.0, 2.0]]]])
    >>> y, indices = nn.MaxPool2d(2, return_indices=True)(x)
    >>> nn.MaxUnpool2d(2)(y, indices)
    array([[[[0., 5.],
             [0., 0.]]]])
    """

    def __init__(self, kernel_size: Size, stride: Size | None = None, padding: Size = 0) -> None:
        self.kernel_size = _size(self, "kernel_size", kernel_size)
        self.stride = self.kernel_size if stride is None else _size(self, "stride", stride)
        self.padding = _size(self, "padding", padding, 0)

    def forward(self, input: Any, indices: Any) -> Any:
        return F.max_unpool2d(input, indices, self.kernel_size, self.stride, self.padding)


class MaxPool1d(Module):
    """The largest element of each window of signals (N, C, L): see :func:`fastconv.functional.max_pool1d`.

    Parameters
    ----------
    kernel_size : int
    stride : int, optional
        The kernel size by default.
    padding : int or (left, right)
        Smaller than the kernel; never chosen.
    dilation : int
    ceil_mode : bool
        Round the output size up.
    return_indices : bool
        Return the places of the maxima, too.

    Raises
    ------
    ValueError
        If a number is out of its range; in forward, if padding is not smaller than the kernel, the input has another
        rank, or a window is larger than the padded input.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> nn.MaxPool1d(2, return_indices=True)(np.array([[[1.0, 5.0, 2.0, 6.0]]]))
    (array([[[5., 6.]]]), array([[[1, 3]]]))
    """

    def __init__(
        self,
        kernel_size: int,
        stride: int | None = None,
        padding: Size = 0,
        dilation: int = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> None:
        self.kernel_size = _whole(self, "kernel_size", kernel_size)
        self.stride = self.kernel_size if stride is None else _whole(self, "stride", stride)
        self.padding = _size(self, "padding", padding, 0)
        self.dilation = _whole(self, "dilation", dilation)
        self.ceil_mode = _flag(self, "ceil_mode", ceil_mode)
        self.return_indices = _flag(self, "return_indices", return_indices)

    def forward(self, input: Any) -> Any:
        window = (self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)
        return F.max_pool1d(input, *window, self.return_indices)


class AvgPool1d(Module):
    """The mean of each window of signals (N, C, L): see :func:`fastconv.functional.avg_pool1d`.

    Parameters
    ----------
    kernel_size : int
    stride : int, optional
        The kernel size by default.
    padding : int or (left, right)
        Smaller than the kernel.
    ceil_mode : bool
        Round the output size up.
    count_include_pad : bool
        Whether padding counts in the divisor.

    Raises
    ------
    ValueError
        If a number is out of its range; in forward, if padding is not smaller than the kernel, the input has another
        rank, or a window is larger than the padded input.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> nn.AvgPool1d(2)(np.array([[[1.0, 5.0, 2.0, 6.0]]]))
    array([[[3., 4.]]])
    """

    def __init__(
        self,
        kernel_size: int,
        stride: int | None = None,
        padding: Size = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        self.kernel_size = _whole(self, "kernel_size", kernel_size)
        self.stride = self.kernel_size if stride is None else _whole(self, "stride", stride)
        self.padding = _size(self, "padding", padding, 0)
        self.ceil_mode = _flag(self, "ceil_mode", ceil_mode)
        self.count_include_pad = _flag(self, "count_include_pad", count_include_pad)

    def forward(self, input: Any) -> Any:
        window = (self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad)
        return F.avg_pool1d(input, *window)


class AdaptiveAvgPool2d(Module):
    """Means over windows that divide the images (N, C, H, W) into `output_size`.

    See :func:`fastconv.functional.adaptive_avg_pool2d`.

    Parameters
    ----------
    output_size : int or pair of int or None
        Rows and columns of the result; None keeps the input's.

    Raises
    ------
    ValueError
        If a size is below 1; in forward, if the input has another rank.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> layer = nn.AdaptiveAvgPool2d(7)
    >>> layer(np.ones((1, 8, 20, 30))).shape
    (1, 8, 7, 7)
    >>> nn.AdaptiveAvgPool2d((None, 1))(np.array([[[[1.0, 3.0], [5.0, 9.0]]]]))
    array([[[[2.],
             [7.]]]])
    """

    def __init__(self, output_size: int | tuple[int | None, int | None] | None) -> None:
        self.output_size = _sides(self, output_size)

    def forward(self, input: Any) -> Any:
        return F.adaptive_avg_pool2d(input, self.output_size)


class AdaptiveMaxPool2d(Module):
    """The largest elements of windows that divide the images (N, C, H, W) into `output_size`.

    See :func:`fastconv.functional.adaptive_max_pool2d`.

    Parameters
    ----------
    output_size : int or pair of int or None
        Rows and columns of the result; None keeps the input's.
    return_indices : bool
        Return the indices ``h * W + w`` of the maxima, too.

    Raises
    ------
    ValueError
        If a size is below 1; in forward, if the input has another rank.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> nn.AdaptiveMaxPool2d((None, 1))(np.array([[[[1.0, 3.0], [9.0, 5.0]]]]))
    array([[[[3.],
             [9.]]]])
    """

    def __init__(
        self, output_size: int | tuple[int | None, int | None] | None, return_indices: bool = False
    ) -> None:  # fmt: skip
        self.output_size = _sides(self, output_size)
        self.return_indices = _flag(self, "return_indices", return_indices)

    def forward(self, input: Any) -> Any:
        return F.adaptive_max_pool2d(input, self.output_size, self.return_indices)


class GlobalAvgPool2d(Module):
    """The mean of each plane: (N, C, H, W) to (N, C, 1, 1).

    M. Lin, Q. Chen and S. Yan, "Network in network", ICLR 2014.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> nn.GlobalAvgPool2d()(np.array([[[[1.0, 5.0], [4.0, 2.0]]]]))
    array([[[[3.]]]])
    """

    def forward(self, input: Any) -> Any:
        return F.global_avg_pool2d(input)


class GlobalMaxPool2d(Module):
    """The largest element of each plane: (N, C, H, W) to (N, C, 1, 1).

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> nn.GlobalMaxPool2d()(np.array([[[[1.0, 5.0], [4.0, 2.0]]]]))
    array([[[[5.]]]])
    """

    def forward(self, input: Any) -> Any:
        return F.global_max_pool2d(input)


class Flatten(Module):
    """(N, C, H, W) to (N, C·H·W), in C order of the shape as PyTorch flattens, whatever the memory order.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> nn.Flatten()(np.ones((8, 3, 4, 4))).shape
    (8, 48)
    """

    def forward(self, input: Any) -> Any:
        return F.flatten(input, 1)


def _size(layer: Module, name: str, value: Any, minimum: int = 1) -> Size:
    """Check an int or a pair, and return it in the shorter form."""
    vertical, horizontal = pair(type(layer).__name__, name, value, minimum)
    return vertical if vertical == horizontal else (vertical, horizontal)


def _border(layer: Module, padding: Any) -> Border:
    """Check the padding of images, and return it in the shortest form."""
    top, left = sides(type(layer).__name__, padding)
    if top[0] != top[1] or left[0] != left[1]:
        return top, left
    return top[0] if top == left else (top[0], left[0])


def _whole(layer: Module, name: str, value: Any) -> int:
    """Check a size, stride or dilation of signals: an int, or a tuple of one."""
    return length_1d(type(layer).__name__, name, value)[1]


def _flag(layer: Module, name: str, value: Any) -> bool:
    return flag(f"{type(layer).__name__}: {name}", value)


def _sides(layer: Module, output_size: Any) -> Any:
    """Check the output size of adaptive windows."""
    given = output_size if isinstance(output_size, tuple | list) else (output_size, output_size)
    _size(layer, "output_size", tuple(1 if side is None else side for side in given))
    return tuple(output_size) if isinstance(output_size, list) else output_size
