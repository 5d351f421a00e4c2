"""Max and mean pooling of signals: that of images of one row."""

from typing import Any

from fastconv.functional._check import Array, OfSignals, as_image, check_rank, same_dtype, signal_shape
from fastconv.functional._geometry import length_1d, signal_window, sliding_windows
from fastconv.functional._pooling import largest, largest_found_again, mean, mean_backward


def max_pool1d(
    input: Array,
    kernel_size: int,
    stride: int | None = None,
    padding: int | tuple[int, int] = 0,
    dilation: int = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    *,
    out: Array | None = None,
) -> Any:
    """Return the largest element of each window: :func:`max_pool2d` in one dimension.

    Parameters
    ----------
    input : ndarray of shape (N, C, L), float32 or float64
    kernel_size : int
    stride : int, optional
        The kernel size by default.
    padding : int or (left, right)
    dilation, ceil_mode
        As in :func:`max_pool2d`.
    return_indices : bool
        Also return the places of the maxima.
    out : ndarray of shape (N, C, Q), optional
        Result buffer: a view over memory of shape (N, Q, C).

    Returns
    -------
    ndarray of shape (N, C, Q), or a pair with the int64 indices of the same shape

    Raises
    ------
    ValueError, TypeError
        As :func:`max_pool2d`.

    Examples
    --------
    >>> import numpy as np
    >>> max_pool1d(np.array([[[1.0, 5.0, 2.0, 6.0]]]), 2)
    array([[[5., 6.]]])
    """
    where = OfSignals("max_pool1d")
    x = _images(where, input)
    dilations = length_1d(where, "dilation", dilation)
    g = sliding_windows(where, x.shape, *signal_window(where, kernel_size, stride, padding), dilations, ceil_mode)
    found = largest(where, x, g, return_indices, as_image(where, "out", out))
    return tuple(a[:, :, 0] for a in found) if return_indices else found[:, :, 0]


def max_pool1d_backward(
    grad_output: Array,
    input: Array,
    kernel_size: int,
    stride: int | None = None,
    padding: int | tuple[int, int] = 0,
    dilation: int = 1,
    ceil_mode: bool = False,
    *,
    grad_input: Array | None = None,
) -> Array:
    """Return the gradient of :func:`max_pool1d`: each window's gradient goes to its maximum.

    Parameters
    ----------
    grad_output : ndarray of shape (N, C, Q), float32 or float64
    input : ndarray of shape (N, C, L)
        As in the forward call: the maxima are found once more.
    kernel_size, stride, padding, dilation, ceil_mode
        As in the forward call.
    grad_input : ndarray of shape (N, C, L), optional
        Written over; a view over memory of shape (N, L, C).

    Returns
    -------
    ndarray of shape (N, C, L)

    Raises
    ------
    ValueError, TypeError
        If shapes or dtypes do not fit together, or as :func:`max_pool2d`.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[[1.0, 5.0, 2.0, 6.0]]])
    >>> max_pool1d_backward(np.array([[[10.0, 20.0]]]), x, 2)
    array([[[ 0., 10.,  0., 20.]]])
    """
    where = OfSignals("max_pool1d_backward")
    x, gy = _images(where, input), _images(where, grad_output, "grad_output")
    dilations = length_1d(where, "dilation", dilation)
    g = sliding_windows(where, x.shape, *signal_window(where, kernel_size, stride, padding), dilations, ceil_mode)
    return largest_found_again(where, gy, x, g, as_image(where, "grad_input", grad_input))[:, :, 0]


def avg_pool1d(
    input: Array,
    kernel_size: int,
    stride: int | None = None,
    padding: int | tuple[int, int] = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    *,
    out: Array | None = None,
) -> Array:
    """Return the mean of each window: :func:`avg_pool2d` in one dimension.

    Parameters
    ----------
    input : ndarray of shape (N, C, L), float32 or float64
    kernel_size, stride, padding, ceil_mode
        As in :func:`max_pool1d`.
    count_include_pad : bool
        Whether padding counts in the divisor.
    out : ndarray of shape (N, C, Q), optional
        Result buffer: a view over memory of shape (N, Q, C).

    Returns
    -------
    ndarray of shape (N, C, Q)

    Raises
    ------
    ValueError, TypeError
        As :func:`avg_pool2d`.

    Examples
    --------
    >>> import numpy as np
    >>> avg_pool1d(np.array([[[1.0, 5.0, 2.0, 6.0]]]), 2)
    array([[[3., 4.]]])
    """
    where = OfSignals("avg_pool1d")
    x = _images(where, input)
    window = signal_window(where, kernel_size, stride, padding)
    g = sliding_windows(where, x.shape, *window, 1, ceil_mode, count_include_pad)
    return mean(where, x, g, as_image(where, "out", out))[:, :, 0]


def avg_pool1d_backward(
    grad_output: Array,
    input_shape: tuple[int, int, int],
    kernel_size: int,
    stride: int | None = None,
    padding: int | tuple[int, int] = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    *,
    grad_input: Array | None = None,
) -> Array:
    """Return the gradient of :func:`avg_pool1d`.

    Parameters
    ----------
    grad_output : ndarray of shape (N, C, Q), float32 or float64
    input_shape : (N, C, L)
    kernel_size, stride, padding, ceil_mode, count_include_pad
        As in the forward call.
    grad_input : ndarray of shape (N, C, L), optional
        Written over; a view over memory of shape (N, L, C).

    Returns
    -------
    ndarray of shape (N, C, L)

    Raises
    ------
    ValueError, TypeError
        If shapes or dtypes do not fit together, or as :func:`avg_pool2d`.

    Examples
    --------
    >>> import numpy as np
    >>> avg_pool1d_backward(np.array([[[2.0, 6.0]]]), (1, 1, 4), 2)
    array([[[1., 1., 3., 3.]]])
    """
    where = OfSignals("avg_pool1d_backward")
    gy, shape = _images(where, grad_output, "grad_output"), signal_shape(where, input_shape)
    window = signal_window(where, kernel_size, stride, padding)
    g = sliding_windows(where, shape, *window, 1, ceil_mode, count_include_pad)
    return mean_backward(where, gy, shape, g, as_image(where, "grad_input", grad_input))[:, :, 0]


def _images(where: str, a: Array, name: str = "input") -> Array:
    """Return signals, checked, as images of one row."""
    same_dtype(where, **{name: a})
    check_rank(where, name, a, 3)
    return a[:, :, None]
