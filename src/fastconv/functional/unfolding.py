"""The windows of images as columns of a matrix, and back: im2col and its adjoint."""

from typing import Any

import numpy as np

from fastconv._ext.conv.geometry import Geometry
from fastconv.functional._check import Array, check_count, check_rank, check_shape, pair, same_dtype
from fastconv.functional._geometry import Padding, convolution


def im2col(
    input: Array,
    kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int] = 1,
    padding: Padding = 0,
    dilation: int | tuple[int, int] = 1,
) -> Array:
    """Lay out the window of every output pixel as a column, as ``torch.nn.functional.unfold``.

    With it a convolution is one matrix product: ``weight.reshape(K, -1) @ im2col(x, (R, S))``. The kernels here
    never store this matrix; it is for seeing, teaching and testing.

    Parameters
    ----------
    input : ndarray of shape (N, C, H, W)
    kernel_size, stride, padding, dilation
        As :func:`conv2d`.

    Returns
    -------
    ndarray of shape (N, C*R*S, P*Q)

    Raises
    ------
    ValueError, TypeError
        As :func:`conv2d`.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.arange(9.0).reshape(1, 1, 3, 3)
    >>> im2col(x, 2)[0]
    array([[0., 1., 3., 4.],
           [1., 2., 4., 5.],
           [3., 4., 6., 7.],
           [4., 5., 7., 8.]])
    """
    same_dtype("im2col", input=input)
    check_rank("im2col", "input", input, 4)
    r, s = pair("im2col", "kernel_size", kernel_size)
    g, padded = _unfolded("im2col", input.shape, (r, s), stride, padding, dilation)
    n, c, h, w = input.shape
    if n == 0:
        return np.empty((n, c * r * s, g.p * g.q), input.dtype.newbyteorder("="))
    image = np.zeros(padded, input.dtype.newbyteorder("="))
    image[:, :, g.top : g.top + h, g.left : g.left + w] = input
    columns = np.empty((n, c, r, s, g.p, g.q), image.dtype)
    for i in range(r):
        for j in range(s):
            columns[:, :, i, j] = image[_window(g, i, j)]
    return columns.reshape(n, c * r * s, g.p * g.q)


def col2im(
    columns: Array,
    output_size: tuple[int, int],
    kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int] = 1,
    padding: Padding = 0,
    dilation: int | tuple[int, int] = 1,
) -> Array:
    """Add columns back into images: the adjoint of :func:`im2col`, as ``torch.nn.functional.fold``.

    Overlapping windows add in the order (r, s).

    Parameters
    ----------
    columns : ndarray of shape (N, C*R*S, P*Q)
    output_size : pair of int
        (H, W) of the images.
    kernel_size, stride, padding, dilation
        As :func:`im2col`.

    Returns
    -------
    ndarray of shape (N, C, H, W)

    Raises
    ------
    ValueError, TypeError
        As :func:`im2col`, and if the columns do not fit the output size.

    Examples
    --------
    >>> import numpy as np
    >>> col2im(np.ones((1, 4, 4)), (3, 3), 2)[0, 0]
    array([[1., 2., 1.],
           [2., 4., 2.],
           [1., 2., 1.]])
    """
    same_dtype("col2im", columns=columns)
    check_rank("col2im", "columns", columns, 3)
    r, s = pair("col2im", "kernel_size", kernel_size)
    h, w = pair("col2im", "output_size", output_size)
    n, rows, _ = columns.shape
    if rows % (r * s):
        raise ValueError(f"col2im: columns have {rows} rows, not a multiple of the kernel's {r}x{s}")
    c = rows // (r * s)
    g, padded = _unfolded("col2im", (n, c, h, w), (r, s), stride, padding, dilation)
    check_shape("col2im", "columns", columns, (n, rows, g.p * g.q))
    if n == 0:
        return np.empty((n, c, h, w), columns.dtype.newbyteorder("="))
    image = np.zeros(padded, columns.dtype.newbyteorder("="))
    blocks = columns.reshape(n, c, r, s, g.p, g.q)
    for i in range(r):
        for j in range(s):
            image[_window(g, i, j)] += blocks[:, :, i, j]
    return np.ascontiguousarray(image[:, :, g.top : g.top + h, g.left : g.left + w])


def _unfolded(where: str, shape: tuple[int, ...], kernel: tuple[int, int], stride: Any, padding: Any, dilation: Any
              ) -> tuple[Geometry, tuple[int, int, int, int]]:  # fmt: skip
    """Return the geometry of an unfolding and the shape of its padded input."""
    n, c, h, w = shape
    g = convolution(where, shape, (1, c, *kernel), stride, padding, dilation, 1)
    check_count(where, "columns", n, c, *kernel, g.p, g.q)
    height = max(g.top + h, (g.p - 1) * g.sh + (g.r - 1) * g.dh + 1)
    width = max(g.left + w, (g.q - 1) * g.sw + (g.s - 1) * g.dw + 1)
    return g, (n, c, height, width)


def _window(g: Geometry, i: int, j: int) -> tuple[slice, ...]:
    """Return the pixels of a padded image that meet kernel position (i, j)."""
    top, left = i * g.dh, j * g.dw
    return (
        slice(None),
        slice(None),
        slice(top, top + (g.p - 1) * g.sh + 1, g.sh),
        slice(left, left + (g.q - 1) * g.sw + 1, g.sw),
    )
