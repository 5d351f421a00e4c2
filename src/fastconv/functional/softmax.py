"""Softmax and its logarithm along an axis."""

from fastconv._ext import loss
from fastconv.functional._check import Array, by_dtype, same_dtype
from fastconv.functional._views import check_batch, gradient_like, output_like, rows, write_rows
from fastconv.graph.operation import axis_of

_softmax = by_dtype(loss.softmax)
_softmax_backward = by_dtype(loss.softmax_backward)


def _normalise(where: str, input: Array, axis: int, out: Array | None, logarithm: bool) -> Array:
    dtype = same_dtype(where, input=input)
    check_batch(where, "input", input)
    axis = axis_of(where, axis, input.shape)
    out = output_like(where, input, out, dtype)
    if input.size:
        x = rows(input, axis)
        write_rows(out, axis, lambda y: _softmax[dtype](x, y, logarithm))
    return out


def _normalise_backward(
    where: str, grad_output: Array, output: Array, axis: int, grad_input: Array | None, logarithm: bool
) -> Array:
    grad_input = gradient_like(where, "output", grad_output, output, grad_input)
    axis = axis_of(where, axis, output.shape)
    if output.size:
        g, y = rows(grad_output, axis), rows(output, axis)
        write_rows(grad_input, axis, lambda dx: _softmax_backward[dx.dtype](g, y, dx, logarithm))
    return grad_input


def softmax(input: Array, axis: int = 1, *, out: Array | None = None) -> Array:
    """Return ``exp(x - max x) / sum exp(x - max x)`` along an axis.

    A row with NaN or +inf, or of -inf alone, is NaN throughout, as in PyTorch. The order of the sum
    depends on neither layout nor axis.

    Parameters
    ----------
    input : ndarray of any shape, float32 or float64
    axis : int
        Rows along another axis than the last, or than 1 where the array is 4-d, are copied first.
    out : ndarray of the same shape, optional
        May be ``input`` itself.

    Returns
    -------
    ndarray of the input's shape; NHWC memory where it is 4-d, else C-contiguous

    Raises
    ------
    TypeError, ValueError
        As :func:`relu`, and if there is no such axis.

    Examples
    --------
    >>> import numpy as np
    >>> softmax(np.array([[0.0, 0.0], [0.0, np.inf]]))
    array([[0.5, 0.5],
           [nan, nan]])
    """
    return _normalise("softmax", input, axis, out, False)


def softmax_backward(
    grad_output: Array, output: Array, axis: int = 1, *, grad_input: Array | None = None
) -> Array:
    """Return the gradient of :func:`softmax`, ``output * (grad_output - sum(grad_output * output))``.

    Parameters
    ----------
    grad_output, output : ndarray of one shape and dtype
    axis : int
    grad_input : ndarray of the same shape, optional

    Returns
    -------
    ndarray of that shape

    Raises
    ------
    TypeError, ValueError
        As :func:`softmax`, and if shapes or dtypes differ.

    Examples
    --------
    >>> import numpy as np
    >>> output = softmax(np.zeros((1, 2)))
    >>> softmax_backward(np.array([[1.0, 0.0]]), output)
    array([[ 0.25, -0.25]])
    """
    return _normalise_backward("softmax_backward", grad_output, output, axis, grad_input, False)


def log_softmax(input: Array, axis: int = 1, *, out: Array | None = None) -> Array:
    """Return ``(x - max x) - log(sum exp(x - max x))`` along an axis.

    Parameters, result and errors are those of :func:`softmax`.

    Examples
    --------
    >>> import numpy as np
    >>> log_softmax(np.zeros((1, 4))).round(4)
    array([[-1.3863, -1.3863, -1.3863, -1.3863]])
    >>> log_softmax(np.array([[0.0, 1000.0]]))
    array([[-1000.,     0.]])
    """
    return _normalise("log_softmax", input, axis, out, True)


def log_softmax_backward(
    grad_output: Array, output: Array, axis: int = 1, *, grad_input: Array | None = None
) -> Array:
    """Return the gradient of :func:`log_softmax`, ``grad_output - exp(output) * sum(grad_output)``.

    Parameters, result and errors are those of :func:`softmax_backward`.

    Examples
    --------
    >>> import numpy as np
    >>> output = log_softmax(np.zeros((1, 2)))
    >>> log_softmax_backward(np.array([[1.0, 0.0]]), output)
    array([[ 0.5, -0.5]])
    """
    return _normalise_backward("log_softmax_backward", grad_output, output, axis, grad_input, True)
