"""Activations, element by element, and softmax along an axis.

exp and tanh are polynomials evaluated alike on every instruction set; denormal numbers count as zero.
"""

import warnings
from typing import Any

import numpy as np

import fastconv._ext.elementwise as elementwise
import fastconv._ext.loss as loss
from fastconv.functional._check import Array, by_dtype, check_apart, check_out, check_shape, number, same_dtype
from fastconv.functional._views import check_batch, flat, rows, write_rows

_unary = by_dtype(elementwise.unary)
_binary = by_dtype(elementwise.binary)
_scaled = by_dtype(elementwise.scaled)
_softmax = by_dtype(loss.softmax)
_softmax_backward = by_dtype(loss.softmax_backward)


def _output(where: str, input: Array, out: Array | None, dtype: np.dtype[Any]) -> Array:
    """Return where a result of the input's shape goes: ``out``, which may be the input itself, or a new array."""
    out = check_out(where, "out", out, input.shape, dtype)
    check_apart(where, {"out": out}, {"input": input}, in_place=("input",))
    return out


def _map(where: str, input: Array, out: Array | None) -> Array:
    """Write the function named ``where`` of every element."""
    dtype = same_dtype(where, input=input)
    check_batch(where, "input", input)
    out = _output(where, input, out, dtype)
    _unary[dtype](flat(input), flat(out), where)
    return out


def _gradient(where: str, name: str, grad_output: Array, known: Array, grad_input: Array | None) -> Array:
    """Check the arrays of a gradient, and return the one it is written to."""
    dtype = same_dtype(where, grad_output=grad_output, **{name: known})
    check_batch(where, name, known)
    check_shape(where, "grad_output", grad_output, known.shape)
    grad_input = check_out(where, "grad_input", grad_input, known.shape, dtype)
    arrays = {"grad_output": grad_output, name: known}
    check_apart(where, {"grad_input": grad_input}, arrays, in_place=arrays)
    return grad_input


def _map_backward(
    where: str, name: str, grad_output: Array, known: Array, grad_input: Array | None, kernel: str = ""
) -> Array:
    grad_input = _gradient(where, name, grad_output, known, grad_input)
    _binary[grad_input.dtype](flat(grad_output), flat(known), flat(grad_input), kernel or where)
    return grad_input


def relu(input: Array, *, out: Array | None = None) -> Array:
    """Return ``x < 0 ? 0 : x``, which keeps NaN.

    Parameters
    ----------
    input : ndarray of any shape, float32 or float64
    out : ndarray of the same shape, optional
        May be ``input`` itself, here and in every activation.

    Returns
    -------
    ndarray of the input's shape; NHWC memory where it is 4-d, else C-contiguous

    Raises
    ------
    TypeError
        If the dtype is neither float32 nor float64.
    ValueError
        If a dimension other than the first is empty, ``out`` cannot take the result, or it shares memory with the
        input and is not the input.

    Examples
    --------
    >>> import numpy as np
    >>> relu(np.array([-1.0, 0.5, np.nan]))
    array([0. , 0.5, nan])
    """
    return _map("relu", input, out)


def relu_backward(grad_output: Array, output: Array, *, grad_input: Array | None = None) -> Array:
    """Return the gradient of :func:`relu`: ``grad_output``, zero where the output (or the input) is <= 0.

    Parameters
    ----------
    grad_output, output : ndarray of one shape and dtype
    grad_input : ndarray of the same shape, optional
        Written over; may be ``grad_output`` itself, here and in every activation.

    Returns
    -------
    ndarray of that shape

    Raises
    ------
    TypeError, ValueError
        As :func:`relu`, and if shapes or dtypes differ.
    """
    return _map_backward("relu_backward", "output", grad_output, output, grad_input, "relu_mask")


def leaky_relu(input: Array, negative_slope: float = 0.01, *, out: Array | None = None) -> Array:
    """Return ``x > 0 ? x : negative_slope * x``.

    Parameters
    ----------
    input : ndarray of any shape, float32 or float64
    negative_slope : float
    out : ndarray of the same shape, optional

    Returns
    -------
    ndarray of the input's shape

    Raises
    ------
    TypeError, ValueError
        As :func:`relu`.
    """
    dtype = same_dtype("leaky_relu", input=input)
    check_batch("leaky_relu", "input", input)
    negative_slope = number("leaky_relu", "negative_slope", negative_slope)
    out = _output("leaky_relu", input, out, dtype)
    x = flat(input)
    _scaled[dtype](x, x, negative_slope, flat(out), "leaky_relu")
    return out


def leaky_relu_backward(
    grad_output: Array, input: Array, negative_slope: float = 0.01, *, grad_input: Array | None = None
) -> Array:
    """Return the gradient of :func:`leaky_relu`; at 0 it is ``negative_slope``, as in PyTorch.

    Parameters
    ----------
    grad_output, input : ndarray of one shape and dtype
    negative_slope : float
    grad_input : ndarray of the same shape, optional

    Returns
    -------
    ndarray of that shape

    Raises
    ------
    TypeError, ValueError
        As :func:`relu_backward`.
    """
    negative_slope = number("leaky_relu_backward", "negative_slope", negative_slope)
    grad_input = _gradient("leaky_relu_backward", "input", grad_output, input, grad_input)
    _scaled[grad_input.dtype](flat(grad_output), flat(input), negative_slope, flat(grad_input), "leaky_relu")
    return grad_input


def tanh(input: Array, *, out: Array | None = None) -> Array:
    """Return the hyperbolic tangent.

    Parameters, result and errors are those of :func:`relu`. ``-0`` stays ``-0`` and ``+-inf`` gives ``+-1``.
    """
    return _map("tanh", input, out)


def tanh_backward(grad_output: Array, output: Array, *, grad_input: Array | None = None) -> Array:
    """Return the gradient of :func:`tanh`, ``grad_output * (1 - output**2)``.

    Parameters, result and errors are those of :func:`relu_backward`.
    """
    return _map_backward("tanh_backward", "output", grad_output, output, grad_input)


def sigmoid(input: Array, *, out: Array | None = None) -> Array:
    """Return ``1 / (1 + exp(-x))``, computed from ``exp(-|x|)`` so that nothing overflows.

    Parameters, result and errors are those of :func:`relu`.
    """
    return _map("sigmoid", input, out)


def sigmoid_backward(grad_output: Array, output: Array, *, grad_input: Array | None = None) -> Array:
    """Return the gradient of :func:`sigmoid`, ``grad_output * (1 - output) * output``.

    Parameters, result and errors are those of :func:`relu_backward`.
    """
    return _map_backward("sigmoid_backward", "output", grad_output, output, grad_input)


def softsign(input: Array, *, out: Array | None = None) -> Array:
    """Return ``x / (1 + |x|)``; ``+-inf`` gives its limit ``+-1``.

    Parameters, result and errors are those of :func:`relu`.
    """
    return _map("softsign", input, out)


def softsign_backward(grad_output: Array, input: Array, *, grad_input: Array | None = None) -> Array:
    """Return the gradient of :func:`softsign`, ``grad_output / (1 + |input|)**2``.

    Parameters, result and errors are those of :func:`relu_backward`, with the forward call's input.
    """
    return _map_backward("softsign_backward", "input", grad_output, input, grad_input)


def add(a: Array, b: Array, *, out: Array | None = None) -> Array:
    """Return ``a + b`` for arrays of one shape: the joint of a residual block.

    Parameters
    ----------
    a, b : ndarray of one shape and dtype, float32 or float64
    out : ndarray of the same shape, optional
        May be ``a`` or ``b`` itself.

    Returns
    -------
    ndarray of that shape; NHWC memory where it is 4-d, else C-contiguous

    Raises
    ------
    TypeError, ValueError
        As :func:`relu`, and if shapes or dtypes differ.
    """
    dtype = same_dtype("add", a=a, b=b)
    check_batch("add", "a", a)
    check_shape("add", "b", b, a.shape)
    out = check_out("add", "out", out, a.shape, dtype)
    check_apart("add", {"out": out}, {"a": a, "b": b}, in_place=("a", "b"))
    _binary[dtype](flat(a), flat(b), flat(out), "add")
    return out


# --- softmax ----------------------------------------------------------------------------------------------


def _check_axis(where: str, a: Array, axis: int) -> int:
    if not isinstance(axis, int | np.integer):
        raise TypeError(f"{where}: axis must be an int, got {axis!r}")
    if not -a.ndim <= axis < a.ndim:
        raise ValueError(f"{where}: axis {axis} is out of range for shape {a.shape}")
    return int(axis) % a.ndim


def _normalise(where: str, input: Array, axis: int, out: Array | None, logarithm: bool) -> Array:
    dtype = same_dtype(where, input=input)
    check_batch(where, "input", input)
    axis = _check_axis(where, input, axis)
    out = _output(where, input, out, dtype)
    if input.size:
        x = rows(input, axis)
        write_rows(out, axis, lambda y: _softmax[dtype](x, y, logarithm))
    return out


def _normalise_backward(
    where: str, grad_output: Array, output: Array, axis: int, grad_input: Array | None, logarithm: bool
) -> Array:
    grad_input = _gradient(where, "output", grad_output, output, grad_input)
    axis = _check_axis(where, output, axis)
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
    """
    return _normalise_backward("softmax_backward", grad_output, output, axis, grad_input, False)


def log_softmax(input: Array, axis: int = 1, *, out: Array | None = None) -> Array:
    """Return ``(x - max x) - log(sum exp(x - max x))`` along an axis.

    Parameters, result and errors are those of :func:`softmax`.
    """
    return _normalise("log_softmax", input, axis, out, True)


def log_softmax_backward(
    grad_output: Array, output: Array, axis: int = 1, *, grad_input: Array | None = None
) -> Array:
    """Return the gradient of :func:`log_softmax`, ``grad_output - exp(output) * sum(grad_output)``.

    Parameters, result and errors are those of :func:`softmax_backward`.
    """
    return _normalise_backward("log_softmax_backward", grad_output, output, axis, grad_input, True)


# --- exp and log that stay finite -------------------------------------------------------------------------

# The arguments whose exponential is a finite normal number, as in math.inc.h.
_EXP_RANGE: dict[np.dtype[Any], tuple[Any, Any]] = {
    np.dtype(np.float32): (np.float32(-87.33654), np.float32(88.72283)),
    np.dtype(np.float64): (np.float64(-708.3964185322641), np.float64(709.782712893384)),
}
_LOG_RANGE: dict[np.dtype[Any], tuple[Any, Any]] = {
    np.dtype(np.float32): (np.float32(2.0**-126), np.finfo(np.float32).max),
    np.dtype(np.float64): (np.float64(2.0**-1022), np.finfo(np.float64).max),
}
_warned: set[str] = set()


def _clipped(where: str, input: Array, low: Any, high: Any, out: Array | None) -> Array:
    """Write the function named ``where`` of the input clipped to [low, high], with one warning a process."""
    dtype = same_dtype(where, input=input)
    check_batch(where, "input", input)
    out = _output(where, input, out, dtype)
    outside = np.count_nonzero((input < low) | (input > high))
    if outside and where not in _warned:
        _warned.add(where)
        warnings.warn(
            f"{where}: {outside} of {input.size} arguments outside [{low}, {high}] were clipped to it "
            "(warned once)",
            RuntimeWarning,
            stacklevel=3,
        )
    np.clip(input, low, high, out=out)
    _unary[dtype](flat(out), flat(out), where.removeprefix("safe_"))
    return out


def safe_exp(input: Array, *, out: Array | None = None) -> Array:
    """Return exp of the input clipped to where exp is a finite normal number.

    The result lies in [2**-126, largest float32], or in [2**-1022, largest float64]; NaN stays NaN. The first
    clipping in a process is told as a RuntimeWarning. Softmax and cross-entropy subtract the maximum and
    need none of this.

    Parameters, result and errors are those of :func:`relu`.

    Examples
    --------
    >>> import numpy as np
    >>> bool(np.isfinite(safe_exp(np.array([0.0, 700.0]))).all())
    True
    """
    low, high = _EXP_RANGE[same_dtype("safe_exp", input=input)]
    return _clipped("safe_exp", input, low, high, out)


def safe_log(input: Array, *, out: Array | None = None) -> Array:
    """Return the logarithm of the input clipped to the positive normal numbers.

    Zero and negative numbers give log(2**-126) in float32 and log(2**-1022) in float64, +inf the logarithm
    of the largest number; NaN stays NaN. The first clipping in a process is told as a RuntimeWarning.

    Parameters, result and errors are those of :func:`relu`.
    """
    low, high = _LOG_RANGE[same_dtype("safe_log", input=input)]
    return _clipped("safe_log", input, low, high, out)
