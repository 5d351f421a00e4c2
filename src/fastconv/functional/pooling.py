"""Max and mean pooling of images by windows that slide, and max pooling undone."""

from typing import Any

import numpy as np

from fastconv.functional._check import (
    Array,
    as_nhwc,
    check_apart,
    check_array,
    check_out,
    check_rank,
    check_shape,
    empty_nhwc,
    image_shape,
    memory,
    same_dtype,
)
from fastconv.functional._geometry import Padding, sliding_windows
from fastconv.functional._pooling import (
    argmax_dtype,
    check_images,
    largest,
    largest_backward,
    mean,
    mean_backward,
)
from fastconv.functional._unpooling import check_indices, flat_places, put, take, unpooled_shape

Pair = int | tuple[int, int]


def pool2d_output_shape(
    input_shape: tuple[int, int, int, int],
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Padding = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
) -> tuple[int, int, int, int]:
    """Return the shape (N, C, P, Q) that pooling an input of this shape gives.

    Along each axis ``P = floor((H + top + bottom - dilation*(kernel_size - 1) - 1) / stride) + 1``;
    ``ceil_mode`` rounds up, but drops a window that would start behind the input. Other parameters are those of
    :func:`max_pool2d`.

    Parameters
    ----------
    input_shape : tuple of int
        (N, C, H, W).

    Returns
    -------
    (N, C, P, Q) : tuple of int

    Raises
    ------
    ValueError
        As :func:`max_pool2d`.

    Examples
    --------
    >>> pool2d_output_shape((8, 64, 112, 112), 3, 2, 1)
    (8, 64, 56, 56)
    """
    shape = image_shape("pool2d_output_shape", input_shape)
    return sliding_windows("pool2d_output_shape", shape, kernel_size, stride, padding, dilation, ceil_mode).shape


def max_pool2d_argmax_like(
    input: Array,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Padding = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
) -> Array:
    """Return a buffer for the positions of the maxima of ``max_pool2d(input, ...)``, uninitialised.

    A position counts the taps of the window row by row, padding included: ``r * kernel_width + s``.

    Parameters
    ----------
    input : ndarray of shape (N, C, H, W)
    kernel_size, stride, padding, dilation, ceil_mode
        As in :func:`max_pool2d`.

    Returns
    -------
    ndarray of shape (N, C, P, Q)
        uint8 where the kernel has at most 255 taps, else int32; over NHWC memory.

    Raises
    ------
    ValueError
        As :func:`max_pool2d`.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[[[1.0, 5.0], [4.0, 3.0]]]])
    >>> argmax = max_pool2d_argmax_like(x, 2)
    >>> _ = max_pool2d(x, 2, argmax=argmax)
    >>> argmax
    array([[[[1]]]], dtype=uint8)
    """
    where = "max_pool2d"  # whose arguments these are
    check_array(where, "input", input)
    check_rank(where, "input", input, 4)
    g = sliding_windows(where, input.shape, kernel_size, stride, padding, dilation, ceil_mode)
    return empty_nhwc(g.shape, argmax_dtype(where, g))


def max_pool2d(
    input: Array,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Padding = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    *,
    out: Array | None = None,
    argmax: Array | None = None,
) -> Any:
    """Return the largest element of each window.

    Of equal elements the first in the order (row, column) counts; NaN is larger than all else, and the first
    NaN counts (PyTorch reports the index of the last). A window of minus infinities gives its first element.

    Parameters
    ----------
    input : ndarray of shape (N, C, H, W), float32 or float64
    kernel_size : int or pair of int
        Vertical, horizontal, as all pairs here.
    stride : int or pair of int, optional
        The kernel size by default.
    padding : int, pair of int, or ((top, bottom), (left, right))
        Smaller than the kernel (dilation included). Padding is never chosen.
    dilation : int or pair of int
        Distance between the taps of a window.
    ceil_mode : bool
        Round the output size up: see :func:`pool2d_output_shape`.
    return_indices : bool
        Also return the indices ``h * W + w`` of the maxima.
    out : ndarray of shape (N, C, P, Q), optional
        Result buffer: NCHW shape over NHWC memory.
    argmax : ndarray of shape (N, C, P, Q), optional
        From :func:`max_pool2d_argmax_like`: receives the positions that :func:`max_pool2d_backward` needs.

    Returns
    -------
    ndarray of shape (N, C, P, Q), or a pair with the int64 indices of the same shape

    Raises
    ------
    ValueError
        If the input is not 4-d or empty but for the batch, a parameter is out of range, padding is not smaller
        than the kernel, the kernel is larger than the padded input or a window would see only padding.
    TypeError
        If the input is not float32 or float64.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[[[1.0, 5.0, 2.0], [4.0, 3.0, 6.0]]]])
    >>> max_pool2d(x, 2, stride=1)
    array([[[[5., 6.]]]])
    """
    where = "max_pool2d"
    check_images(where, input)
    g = sliding_windows(where, input.shape, kernel_size, stride, padding, dilation, ceil_mode)
    return largest(where, input, g, return_indices, out, argmax)


def max_pool2d_backward(
    grad_output: Array,
    argmax: Array,
    input_shape: tuple[int, int, int, int],
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Padding = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
    *,
    grad_input: Array | None = None,
) -> Array:
    """Return the gradient of :func:`max_pool2d`: each window's gradient goes to its maximum.

    Where windows overlap, an element adds its windows in the order (p, q).

    Parameters
    ----------
    grad_output : ndarray of shape (N, C, P, Q), float32 or float64
    argmax : ndarray of shape (N, C, P, Q), uint8 or int32
        As the forward call filled it.
    input_shape : (N, C, H, W)
    kernel_size, stride, padding, dilation, ceil_mode
        As in the forward call.
    grad_input : ndarray of shape (N, C, H, W), optional
        Written over; NCHW shape over NHWC memory.

    Returns
    -------
    ndarray of shape (N, C, H, W)

    Raises
    ------
    ValueError
        If shapes do not fit together, or as :func:`max_pool2d`.
    TypeError
        If ``grad_output`` is not float32 or float64, or ``argmax`` not of the type for that kernel size.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[[[1.0, 5.0], [4.0, 3.0]]]])
    >>> argmax = max_pool2d_argmax_like(x, 2)
    >>> y = max_pool2d(x, 2, argmax=argmax)
    >>> max_pool2d_backward(np.array([[[[7.0]]]]), argmax, x.shape, 2)
    array([[[[0., 7.],
             [0., 0.]]]])
    """
    where = "max_pool2d_backward"
    same_dtype(where, grad_output=grad_output)
    shape = image_shape(where, input_shape)
    g = sliding_windows(where, shape, kernel_size, stride, padding, dilation, ceil_mode)
    check_shape(where, "grad_output", grad_output, g.shape)
    check_array(where, "argmax", argmax)
    check_shape(where, "argmax", argmax, g.shape)
    if argmax.dtype != argmax_dtype(where, g):
        raise TypeError(f"{where}: argmax must be {argmax_dtype(where, g)} for windows of {g.taps} taps, "
                        f"got {argmax.dtype}")  # fmt: skip
    return largest_backward(where, grad_output, argmax, shape, g, grad_input)


def avg_pool2d(
    input: Array,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    dilation: Pair = 1,
    *,
    out: Array | None = None,
) -> Array:
    """Return the mean of each window.

    The rows of a window are summed from left to right, the row sums from top to bottom, and the sum is
    divided (not multiplied by a reciprocal).

    Parameters
    ----------
    input : ndarray of shape (N, C, H, W), float32 or float64
    kernel_size, stride, padding, ceil_mode
        As in :func:`max_pool2d`.
    count_include_pad : bool
        Divide by all elements of the window within the padded input; else only by those within the input.
        What reaches beyond the padding (in ceil mode) never counts.
    dilation : int or pair of int
        As in :func:`max_pool2d`.
    out : ndarray of shape (N, C, P, Q), optional
        Result buffer: NCHW shape over NHWC memory.

    Returns
    -------
    ndarray of shape (N, C, P, Q)

    Raises
    ------
    ValueError, TypeError
        As :func:`max_pool2d`.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[[[1.0, 5.0, 2.0], [4.0, 2.0, 7.0]]]])
    >>> avg_pool2d(x, 2, stride=1)
    array([[[[3., 4.]]]])
    """
    where = "avg_pool2d"
    check_images(where, input)
    g = sliding_windows(where, input.shape, kernel_size, stride, padding, dilation, ceil_mode, count_include_pad)
    return mean(where, input, g, out)


def avg_pool2d_backward(
    grad_output: Array,
    input_shape: tuple[int, int, int, int],
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    dilation: Pair = 1,
    *,
    grad_input: Array | None = None,
) -> Array:
    """Return the gradient of :func:`avg_pool2d`: each window's gradient, divided, goes to all its elements.

    Where windows overlap, an element adds its windows in the order (p, q).

    Parameters
    ----------
    grad_output : ndarray of shape (N, C, P, Q), float32 or float64
    input_shape : (N, C, H, W)
    kernel_size, stride, padding, ceil_mode, count_include_pad, dilation
        As in the forward call.
    grad_input : ndarray of shape (N, C, H, W), optional
        Written over; NCHW shape over NHWC memory.

    Returns
    -------
    ndarray of shape (N, C, H, W)

    Raises
    ------
    ValueError, TypeError
        If shapes do not fit together, or as :func:`max_pool2d`.

    Examples
    --------
    >>> import numpy as np
    >>> avg_pool2d_backward(np.array([[[[4.0, 8.0]]]]), (1, 1, 1, 3), (1, 2), stride=1)
    array([[[[2., 6., 4.]]]])
    """
    where = "avg_pool2d_backward"
    shape = image_shape(where, input_shape)
    g = sliding_windows(where, shape, kernel_size, stride, padding, dilation, ceil_mode, count_include_pad)
    return mean_backward(where, grad_output, shape, g, grad_input)


def max_unpool2d(
    input: Array,
    indices: Array,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    output_size: tuple[int, ...] | None = None,
    *,
    out: Array | None = None,
) -> Array:
    """Return an image of zeros in which each element stands where :func:`max_pool2d` found it.

    Of elements of one plane with equal indices the last in the order (p, q) counts.

    Parameters
    ----------
    input : ndarray of shape (N, C, P, Q), float32 or float64
    indices : ndarray of shape (N, C, P, Q), int64
        ``h * W + w``, as ``max_pool2d(..., return_indices=True)`` returns them.
    kernel_size, stride, padding
        As in the pooling; they say the output's size, ``(P - 1) * stride - 2 * padding + kernel_size``, unless
        `output_size` does.
    output_size : (H, W) or (N, C, H, W), optional
    out : ndarray of shape (N, C, H, W), optional
        Result buffer: NCHW shape over NHWC memory.

    Returns
    -------
    ndarray of shape (N, C, H, W)

    Raises
    ------
    ValueError
        If shapes do not fit together, there would be no pixel, or an index lies outside of the image.
    TypeError
        If the input is not float32 or float64, or the indices are not int64.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[[[1.0, 5.0, 2.0, 3.0]]]])
    >>> max_unpool2d(*max_pool2d(x, (1, 2), return_indices=True), (1, 2))
    array([[[[0., 5., 0., 3.]]]])
    """
    where = "max_unpool2d"
    dtype = check_images(where, input)
    check_array(where, "indices", indices)
    shape = unpooled_shape(where, input, indices, kernel_size, stride, padding, output_size)
    out = check_out(where, "out", out, shape, dtype)
    check_apart(where, {"out": out}, {"input": input, "indices": indices})
    places = np.empty(input.size, np.int64)
    flat_places(where, as_nhwc(indices), shape, places)
    put(memory(as_nhwc(input)).reshape(-1), places, memory(out).reshape(-1))
    return out


def max_unpool2d_backward(grad_output: Array, indices: Array, *, grad_input: Array | None = None) -> Array:
    """Return the gradient of :func:`max_unpool2d`: that of the place where an element stands, 0 where it is lost.

    Of equal indices the last alone has a gradient (PyTorch gives it to each of them).

    Parameters
    ----------
    grad_output : ndarray of shape (N, C, H, W), float32 or float64
    indices : ndarray of shape (N, C, P, Q), int64
        As in the forward call.
    grad_input : ndarray of shape (N, C, P, Q), optional
        Written over; NCHW shape over NHWC memory.

    Returns
    -------
    ndarray of shape (N, C, P, Q)

    Raises
    ------
    ValueError, TypeError
        As :func:`max_unpool2d`.

    Examples
    --------
    >>> import numpy as np
    >>> indices = np.array([[[[1, 3]]]])
    >>> max_unpool2d_backward(np.array([[[[10.0, 20.0, 30.0, 40.0]]]]), indices)
    array([[[[20., 40.]]]])
    """
    where = "max_unpool2d_backward"
    dtype = same_dtype(where, grad_output=grad_output)
    check_rank(where, "grad_output", grad_output, 4)
    check_array(where, "indices", indices)
    check_indices(where, indices, (*grad_output.shape[:2], *indices.shape[2:]))
    grad_input = check_out(where, "grad_input", grad_input, indices.shape, dtype)
    check_apart(where, {"grad_input": grad_input}, {"grad_output": grad_output, "indices": indices})
    places, last = np.empty(indices.size, np.int64), np.empty(grad_output.size, np.int64)
    flat_places(where, as_nhwc(indices), grad_output.shape, places)
    take(memory(as_nhwc(grad_output)).reshape(-1), places, last, memory(grad_input).reshape(-1))
    return grad_input
