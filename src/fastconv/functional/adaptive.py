"""Pooling over windows that divide the image, or are all of it."""

from typing import Any

from fastconv.functional._check import Array, check_rank, image_shape, same_dtype
from fastconv.functional._geometry import adaptive_windows
from fastconv.functional._pooling import check_images, largest, largest_found_again, mean, mean_backward

Sizes = int | tuple[int | None, int | None] | None


def adaptive_avg_pool2d(
    input: Array, output_size: int | tuple[int | None, int | None] | None, *, out: Array | None = None
) -> Array:
    """Return means over windows that divide the input evenly into ``output_size``.

    Window p covers the rows from ``floor(p * H / P)`` to ``ceil((p + 1) * H / P)``: neighbours may share
    rows. Sums run as in :func:`avg_pool2d`.

    Parameters
    ----------
    input : ndarray of shape (N, C, H, W), float32 or float64
    output_size : int, or pair of int or None
        (P, Q); None keeps the input's size.
    out : ndarray of shape (N, C, P, Q), optional
        Result buffer: NCHW shape over NHWC memory.

    Returns
    -------
    ndarray of shape (N, C, P, Q)

    Raises
    ------
    ValueError
        If the input is not 4-d or empty but for the batch, or an output size is smaller than 1.
    TypeError
        If the input is not float32 or float64.

    Examples
    --------
    >>> import numpy as np
    >>> adaptive_avg_pool2d(np.array([[[[1.0, 2.0, 6.0]]]]), (1, 2))
    array([[[[1.5, 4. ]]]])
    """
    where = "adaptive_avg_pool2d"
    check_images(where, input)
    return mean(where, input, adaptive_windows(where, input.shape, output_size), out)


def adaptive_avg_pool2d_backward(
    grad_output: Array, input_shape: tuple[int, int, int, int], *, grad_input: Array | None = None
) -> Array:
    """Return the gradient of :func:`adaptive_avg_pool2d`.

    Parameters
    ----------
    grad_output : ndarray of shape (N, C, P, Q), float32 or float64
    input_shape : (N, C, H, W)
    grad_input : ndarray of shape (N, C, H, W), optional
        Written over; NCHW shape over NHWC memory.

    Returns
    -------
    ndarray of shape (N, C, H, W)

    Raises
    ------
    ValueError, TypeError
        If shapes or dtypes do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> adaptive_avg_pool2d_backward(np.array([[[[2.0, 4.0]]]]), (1, 1, 1, 3))
    array([[[[1., 3., 2.]]]])
    """
    where = "adaptive_avg_pool2d_backward"
    same_dtype(where, grad_output=grad_output)
    shape = image_shape(where, input_shape)
    check_rank(where, "grad_output", grad_output, 4)
    g = adaptive_windows(where, shape, grad_output.shape[2:])
    return mean_backward(where, grad_output, shape, g, grad_input)


def global_avg_pool2d(input: Array, *, out: Array | None = None) -> Array:
    """Return the mean of each plane: :func:`adaptive_avg_pool2d` to one pixel.

    Parameters
    ----------
    input : ndarray of shape (N, C, H, W), float32 or float64
    out : ndarray of shape (N, C, 1, 1), optional

    Returns
    -------
    ndarray of shape (N, C, 1, 1)

    Raises
    ------
    ValueError, TypeError
        As :func:`adaptive_avg_pool2d`.

    Examples
    --------
    >>> import numpy as np
    >>> global_avg_pool2d(np.array([[[[1.0, 2.0], [3.0, 6.0]]]]))
    array([[[[3.]]]])
    """
    where = "global_avg_pool2d"
    check_images(where, input)
    return mean(where, input, adaptive_windows(where, input.shape, 1), out)


def global_avg_pool2d_backward(
    grad_output: Array, input_shape: tuple[int, int, int, int], *, grad_input: Array | None = None
) -> Array:
    """Return the gradient of :func:`global_avg_pool2d`.

    Parameters
    ----------
    grad_output : ndarray of shape (N, C, 1, 1), float32 or float64
    input_shape : (N, C, H, W)
    grad_input : ndarray of shape (N, C, H, W), optional
        Written over; NCHW shape over NHWC memory.

    Returns
    -------
    ndarray of shape (N, C, H, W)

    Raises
    ------
    ValueError, TypeError
        If shapes or dtypes do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> global_avg_pool2d_backward(np.array([[[[8.0]]]]), (1, 1, 2, 2))
    array([[[[2., 2.],
             [2., 2.]]]])
    """
    where = "global_avg_pool2d_backward"
    shape = image_shape(where, input_shape)
    return mean_backward(where, grad_output, shape, adaptive_windows(where, shape, 1), grad_input)


def adaptive_max_pool2d(
    input: Array, output_size: Sizes, return_indices: bool = False, *, out: Array | None = None
) -> Any:
    """Return the largest elements of windows that divide the input evenly into ``output_size``.

    Windows as of :func:`adaptive_avg_pool2d`; which element counts, as of :func:`max_pool2d`.

    Parameters
    ----------
    input : ndarray of shape (N, C, H, W), float32 or float64
    output_size : int, or pair of int or None
        (P, Q); None keeps the input's size.
    return_indices : bool
        Also return the indices ``h * W + w`` of the maxima.
    out : ndarray of shape (N, C, P, Q), optional
        Result buffer: NCHW shape over NHWC memory.

    Returns
    -------
    ndarray of shape (N, C, P, Q), or a pair with the int64 indices of the same shape

    Raises
    ------
    ValueError, TypeError
        As :func:`adaptive_avg_pool2d`.

    Examples
    --------
    >>> import numpy as np
    >>> adaptive_max_pool2d(np.array([[[[1.0, 2.0, 6.0]]]]), (1, 2))
    array([[[[2., 6.]]]])
    """
    where = "adaptive_max_pool2d"
    check_images(where, input)
    return largest(where, input, adaptive_windows(where, input.shape, output_size), return_indices, out)


def adaptive_max_pool2d_backward(grad_output: Array, input: Array, *, grad_input: Array | None = None) -> Array:
    """Return the gradient of :func:`adaptive_max_pool2d`: each window's gradient goes to its maximum.

    Parameters
    ----------
    grad_output : ndarray of shape (N, C, P, Q), float32 or float64
    input : ndarray of shape (N, C, H, W)
        As in the forward call: the maxima are found once more.
    grad_input : ndarray of shape (N, C, H, W), optional
        Written over; NCHW shape over NHWC memory.

    Returns
    -------
    ndarray of shape (N, C, H, W)

    Raises
    ------
    ValueError, TypeError
        If shapes or dtypes do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[[[1.0, 2.0, 6.0]]]])
    >>> adaptive_max_pool2d_backward(np.array([[[[0.5, 4.0]]]]), x)
    array([[[[0. , 0.5, 4. ]]]])
    """
    where = "adaptive_max_pool2d_backward"
    check_images(where, input)
    same_dtype(where, grad_output=grad_output)
    check_rank(where, "grad_output", grad_output, 4)
    g = adaptive_windows(where, input.shape, grad_output.shape[2:])
    return largest_found_again(where, grad_output, input, g, grad_input)


def global_max_pool2d(input: Array, return_indices: bool = False, *, out: Array | None = None) -> Any:
    """Return the largest element of each plane: :func:`adaptive_max_pool2d` to one pixel.

    Parameters
    ----------
    input : ndarray of shape (N, C, H, W), float32 or float64
    return_indices : bool
        Also return the indices ``h * W + w`` of the maxima.
    out : ndarray of shape (N, C, 1, 1), optional

    Returns
    -------
    ndarray of shape (N, C, 1, 1), or a pair with the int64 indices of the same shape

    Raises
    ------
    ValueError, TypeError
        As :func:`adaptive_avg_pool2d`.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[[[1.0, 2.0], [7.0, 6.0]]]])
    >>> global_max_pool2d(x, return_indices=True)
    (array([[[[7.]]]]), array([[[[2]]]]))
    """
    where = "global_max_pool2d"
    check_images(where, input)
    return largest(where, input, adaptive_windows(where, input.shape, 1), return_indices, out)


def global_max_pool2d_backward(grad_output: Array, input: Array, *, grad_input: Array | None = None) -> Array:
    """Return the gradient of :func:`global_max_pool2d`: each plane's gradient goes to its maximum.

    Parameters
    ----------
    grad_output : ndarray of shape (N, C, 1, 1), float32 or float64
    input : ndarray of shape (N, C, H, W)
        As in the forward call: the maxima are found once more.
    grad_input : ndarray of shape (N, C, H, W), optional
        Written over; NCHW shape over NHWC memory.

    Returns
    -------
    ndarray of shape (N, C, H, W)

    Raises
    ------
    ValueError, TypeError
        If shapes or dtypes do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[[[1.0, 2.0], [7.0, 6.0]]]])
    >>> global_max_pool2d_backward(np.array([[[[5.0]]]]), x)
    array([[[[0., 0.],
             [5., 0.]]]])
    """
    where = "global_max_pool2d_backward"
    check_images(where, input)
    return largest_found_again(where, grad_output, input, adaptive_windows(where, input.shape, 1), grad_input)
