"""Max and mean pooling."""

from typing import Any

import numpy as np

from fastconv._ext import pool
from fastconv._ext.pool import Geometry
from fastconv.functional._check import (
    Array,
    as_nhwc,
    by_dtype,
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
from fastconv.functional._geometry import Windows, adaptive_windows, sliding_windows

_max_pool = by_dtype(pool.max_pool)
_max_pool_backward = by_dtype(pool.max_pool_backward)
_avg_pool = by_dtype(pool.avg_pool)
_avg_pool_backward = by_dtype(pool.avg_pool_backward)

Pair = int | tuple[int, int]

# Positions up to here are exact in float32, in which the kernels carry them.
_MOST_TAPS = 1 << 24


def pool2d_output_shape(
    input_shape: tuple[int, int, int, int],
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
) -> tuple[int, int, int, int]:
    """Return the shape (N, C, P, Q) that pooling an input of this shape gives.

    Along each axis ``P = floor((H + 2*padding - dilation*(kernel_size - 1) - 1) / stride) + 1``;
    ``ceil_mode`` rounds up, but drops a window that would start behind the input.

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


def _argmax_dtype(where: str, g: Windows) -> np.dtype[Any]:
    if g.taps > _MOST_TAPS:
        raise ValueError(f"{where}: a window of {g.taps} taps is too large to index, at most {_MOST_TAPS}")
    return np.dtype(np.uint8 if g.taps <= 255 else np.int32)


def max_pool2d_argmax_like(
    input: Array,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
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
    """
    where = "max_pool2d"  # whose arguments these are
    check_array(where, "input", input)
    check_rank(where, "input", input, 4)
    g = sliding_windows(where, input.shape, kernel_size, stride, padding, dilation, ceil_mode)
    return empty_nhwc(g.shape, _argmax_dtype(where, g))


def _flat_indices(argmax: Array, g: Geometry, width: int) -> Array:
    """Return positions within windows as indices h * width + w of the input plane, int64."""
    r, s = np.divmod(np.arange(g.taps), g.w.kernel)
    taps = r * g.h.step * width + s * g.w.step
    spans = [(np.asarray(axis.spans), axis.step) for axis in (g.h, g.w)]
    rows, cols = (span[:, 0] - span[:, 2] * step for span, step in spans)  # where windows begin
    out = empty_nhwc(argmax.shape, np.int64)
    np.add(taps[memory(argmax)], (rows[:, None] * width + cols)[:, :, None], out=memory(out))
    return out


def max_pool2d(
    input: Array,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
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
    padding : int or pair of int
        At most half the kernel (dilation included). Padding is never chosen.
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
        If the input is not 4-d or empty but for the batch, a parameter is out of range, padding exceeds half
        the kernel, the kernel is larger than the padded input or a window would see only padding.
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
    dtype = same_dtype(where, input=input)
    check_rank(where, "input", input, 4)
    g = sliding_windows(where, input.shape, kernel_size, stride, padding, dilation, ceil_mode)
    out = check_out(where, "out", out, g.shape, dtype)
    if return_indices or argmax is not None:
        argmax = check_out(where, "argmax", argmax, g.shape, _argmax_dtype(where, g))
    check_apart(where, {"out": out, "argmax": argmax}, {"input": input})
    positions, nbytes = _bytes(argmax)
    _max_pool[dtype](memory(as_nhwc(input)), memory(out), positions, nbytes, g.geometry)
    if return_indices:
        assert argmax is not None
        return out, _flat_indices(argmax, g.geometry, input.shape[3])
    return out


def _bytes(argmax: Array | None) -> tuple[Array | None, int]:
    """Return the memory of positions as bytes, and how many one has."""
    if argmax is None:
        return None, 0
    return memory(argmax).view(np.uint8), argmax.itemsize


def max_pool2d_backward(
    grad_output: Array,
    argmax: Array,
    input_shape: tuple[int, int, int, int],
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
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
    """
    where = "max_pool2d_backward"
    dtype = same_dtype(where, grad_output=grad_output)
    shape = image_shape(where, input_shape)
    g = sliding_windows(where, shape, kernel_size, stride, padding, dilation, ceil_mode)
    check_shape(where, "grad_output", grad_output, g.shape)
    check_array(where, "argmax", argmax)
    check_shape(where, "argmax", argmax, g.shape)
    if argmax.dtype != _argmax_dtype(where, g):
        raise TypeError(f"{where}: argmax must be {_argmax_dtype(where, g)} for windows of {g.taps} taps, "
                        f"got {argmax.dtype}")  # fmt: skip
    grad_input = check_out(where, "grad_input", grad_input, shape, dtype)
    check_apart(where, {"grad_input": grad_input}, {"grad_output": grad_output, "argmax": argmax})
    positions, nbytes = _bytes(as_nhwc(argmax))
    _max_pool_backward[dtype](memory(as_nhwc(grad_output)), positions, nbytes, memory(grad_input), g.geometry)
    return grad_input


def avg_pool2d(
    input: Array,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
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
    g = _checked("avg_pool2d", input, kernel_size, stride, padding, 1, ceil_mode, count_include_pad)
    return _mean("avg_pool2d", input, g, out)


def _checked(where: str, input: Array, *windows: Any) -> Windows:
    same_dtype(where, input=input)
    check_rank(where, "input", input, 4)
    return sliding_windows(where, input.shape, *windows)


def _mean(where: str, input: Array, g: Windows, out: Array | None) -> Array:
    dtype = input.dtype.newbyteorder("=")
    out = check_out(where, "out", out, g.shape, dtype)
    check_apart(where, {"out": out}, {"input": input})
    _avg_pool[dtype](memory(as_nhwc(input)), memory(out), g.geometry)
    return out


def avg_pool2d_backward(
    grad_output: Array,
    input_shape: tuple[int, int, int, int],
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    *,
    grad_input: Array | None = None,
) -> Array:
    """Return the gradient of :func:`avg_pool2d`: each window's gradient, divided, goes to all its elements.

    Where windows overlap, an element adds its windows in the order (p, q).

    Parameters
    ----------
    grad_output : ndarray of shape (N, C, P, Q), float32 or float64
    input_shape : (N, C, H, W)
    kernel_size, stride, padding, ceil_mode, count_include_pad
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
    """
    where = "avg_pool2d_backward"
    shape = image_shape(where, input_shape)
    g = sliding_windows(where, shape, kernel_size, stride, padding, 1, ceil_mode, count_include_pad)
    return _mean_backward(where, grad_output, shape, g, grad_input)


def _mean_backward(where: str, grad_output: Array, shape: tuple[int, int, int, int], g: Windows,
                   grad_input: Array | None) -> Array:  # fmt: skip
    dtype = same_dtype(where, grad_output=grad_output)
    check_shape(where, "grad_output", grad_output, g.shape)
    grad_input = check_out(where, "grad_input", grad_input, shape, dtype)
    check_apart(where, {"grad_input": grad_input}, {"grad_output": grad_output})
    _avg_pool_backward[dtype](memory(as_nhwc(grad_output)), memory(grad_input), g.geometry)
    return grad_input


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
    same_dtype(where, input=input)
    check_rank(where, "input", input, 4)
    return _mean(where, input, adaptive_windows(where, input.shape, output_size), out)


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
    """
    where = "adaptive_avg_pool2d_backward"
    same_dtype(where, grad_output=grad_output)
    shape = image_shape(where, input_shape)
    check_rank(where, "grad_output", grad_output, 4)
    g = adaptive_windows(where, shape, grad_output.shape[2:])
    return _mean_backward(where, grad_output, shape, g, grad_input)


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
    """
    where = "global_avg_pool2d"
    same_dtype(where, input=input)
    check_rank(where, "input", input, 4)
    return _mean(where, input, adaptive_windows(where, input.shape, 1), out)


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
    """
    where = "global_avg_pool2d_backward"
    shape = image_shape(where, input_shape)
    return _mean_backward(where, grad_output, shape, adaptive_windows(where, shape, 1), grad_input)
