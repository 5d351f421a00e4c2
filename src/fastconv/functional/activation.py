"""Activations, element by element, and softmax along an axis.

exp and tanh are polynomials evaluated alike on every instruction set; denormal numbers count as zero.
"""

import warnings
from typing import Any

import numpy as np

import fastconv._ext.elementwise as elementwise
import fastconv._ext.loss as loss
import fastconv._ext.norm as norm
from fastconv._ext.bias import bias_gradient
from fastconv.functional._check import (
    Array,
    as_contiguous,
    by_dtype,
    check_apart,
    check_grad,
    check_out,
    check_shape,
    same_dtype,
    scratch,
)
from fastconv.functional._epilogue import (
    Epilogue,
    activate_backward,
    alone,
    finish,
    parse,
)
from fastconv.functional._views import check_batch, flat, rows, write_rows

_unary = by_dtype(elementwise.unary)
_binary = by_dtype(elementwise.binary)
_softmax = by_dtype(loss.softmax)
_softmax_backward = by_dtype(loss.softmax_backward)
_norm_backward = by_dtype(norm.backward)
_column_sums = by_dtype(bias_gradient)


def _output(where: str, input: Array, out: Array | None, dtype: np.dtype[Any]) -> Array:
    """Return where a result of the input's shape goes: ``out``, which may be the input itself, or a new array."""
    out = check_out(where, "out", out, input.shape, dtype)
    check_apart(where, {"out": out}, {"input": input}, in_place=("input",))
    return out


def _column(a: Array) -> Array:
    """Return the elements in the order of their memory, as pixels of one channel."""
    return flat(a).reshape(-1, 1)


def _alone(where: str, name: str, params: tuple[float, ...]) -> Epilogue:
    """Return the epilogue that is an activation with these parameters, checked, and nothing else."""
    return alone(name, parse(where, (name, *params) if params else name)[1])


def _map(name: str, input: Array, out: Array | None, *params: float) -> Array:
    """Write the activation of every element."""
    where = name.removesuffix("_tanh")
    dtype = same_dtype(where, input=input)
    check_batch(where, "input", input)
    out = _output(where, input, out, dtype)
    finish[dtype](_column(input), _column(out), _alone(where, name, params))
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
    name: str, what: str, grad_output: Array, known: Array, grad_input: Array | None, *params: float
) -> Array:
    """Write the gradient of an activation, made from its ``what``: its output or its input."""
    where = name.removesuffix("_tanh") + "_backward"
    grad_input = _gradient(where, what, grad_output, known, grad_input)
    dtype = grad_input.dtype
    activate_backward[dtype](_column(grad_output), _column(known), _column(grad_input), _alone(where, name, params))
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
    return _map_backward("relu", "output", grad_output, output, grad_input)


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
    return _map("leaky_relu", input, out, negative_slope)


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
    return _map_backward("leaky_relu", "input", grad_output, input, grad_input, negative_slope)


def prelu(input: Array, weight: Array, *, out: Array | None = None) -> Array:
    """Return ``x > 0 ? x : weight * x`` with a learned weight, one for all or one a channel (He et al., 2015, eq. 1).

    Parameters
    ----------
    input : ndarray of any shape, float32 or float64
        Axis 1 is that of the channels; arrays of one axis have one channel.
    weight : ndarray of shape (1,) or (C,), same dtype
    out : ndarray of the input's shape, optional

    Returns
    -------
    ndarray of the input's shape

    Raises
    ------
    TypeError, ValueError
        As :func:`relu`, and if the weight's shape or dtype does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> prelu(np.array([[-2.0, -2.0, 3.0]]), np.array([0.1, 0.5, 0.5]))
    array([[-0.2, -1. ,  3. ]])
    """
    dtype = same_dtype("prelu", input=input, weight=weight)
    check_batch("prelu", "input", input)
    slopes = _slopes("prelu", input, weight)
    out = _output("prelu", input, out, dtype)
    check_apart("prelu", {"out": out}, {"weight": weight})
    x, y = _channel_rows(input), _channel_rows(out)
    finish[dtype](x, y, Epilogue("prelu", (slopes,)))
    if not np.may_share_memory(y, out):
        _channel_view(out)[...] = y.reshape(_channel_view(out).shape)
    return out


def prelu_backward(
    grad_output: Array,
    input: Array,
    weight: Array,
    *,
    grad_input: Array | None = None,
    grad_weight: Array | None = None,
) -> tuple[Array, Array]:
    """Return the gradients of :func:`prelu` for its input and its weight.

    The weight's is the sum of ``grad_output * min(input, 0)`` over each channel, in the order of batch
    normalisation's sums; a single weight's is the sum of the channels'.

    Parameters
    ----------
    grad_output, input : ndarray of one shape and dtype
    weight : ndarray of shape (1,) or (C,)
    grad_input : ndarray of the input's shape, optional
        Written over.
    grad_weight : ndarray of the weight's shape, optional
        *Added to*; fresh zeros when not given.

    Returns
    -------
    grad_input, grad_weight

    Raises
    ------
    TypeError, ValueError
        As :func:`prelu`, and if shapes or dtypes differ.
    """
    where = "prelu_backward"
    same_dtype(where, grad_output=grad_output, input=input, weight=weight)
    grad_input = _gradient(where, "input", grad_output, input, grad_input)
    dtype = grad_input.dtype
    slopes = _slopes(where, input, weight)
    grad_weight = check_grad(where, "grad_weight", grad_weight, weight.shape, dtype)
    known = {"grad_output": grad_output, "input": input}
    check_apart(where, {"grad_input": grad_input}, {**known, "weight": weight}, in_place=known)
    check_apart(where, {"grad_weight": grad_weight}, {**known, "weight": weight, "grad_input": grad_input})
    g, x, dx = _channel_rows(grad_output), _channel_rows(input), _channel_rows(grad_input)
    _add_slope_sums(g, x, grad_weight)
    activate_backward[dtype](g, x, dx, Epilogue("prelu", (slopes,)))
    if not np.may_share_memory(dx, grad_input):
        _channel_view(grad_input)[...] = dx.reshape(_channel_view(grad_input).shape)
    return grad_input, grad_weight


def _channel_view(a: Array) -> Array:
    """Return the array with its channels, axis 1, as the last axis."""
    return a[..., None] if a.ndim < 2 else np.moveaxis(a, 1, -1)


def _channel_rows(a: Array) -> Array:
    """Return the array as contiguous rows of channels (pixels, C): a view where its memory allows."""
    view = _channel_view(a)
    return as_contiguous(view).reshape(-1, view.shape[-1])


def _slopes(where: str, input: Array, weight: Array) -> Array:
    """Return the weight of PReLU as one number a channel."""
    channels = input.shape[1] if input.ndim > 1 else 1
    if weight.shape not in ((1,), (channels,)):
        raise ValueError(
            f"{where}: weight must have shape (1,) or ({channels},), one a channel of the input of shape "
            f"{input.shape}, got {weight.shape}"
        )
    if weight.shape == (channels,):
        return as_contiguous(weight)
    return np.full(channels, weight[0], weight.dtype.newbyteorder("="))


def _add_slope_sums(g: Array, x: Array, grad_weight: Array) -> None:
    """Add to the gradient of PReLU's weight: batch normalisation's sum of g * (x - 0) over x cut off above 0."""
    channels, dtype = x.shape[1], x.dtype
    below = scratch(x.nbytes, "mask")[: x.nbytes].view(dtype).reshape(x.shape)
    finish[dtype](x.reshape(-1, 1), below.reshape(-1, 1), Epilogue("hardtanh", (-np.inf, 0.0)))
    plain = np.array([[0.0] * channels, [1.0] * channels], dtype)  # mean and inverse standard deviation
    sums = grad_weight if grad_weight.size == channels else np.zeros(channels, dtype)
    _norm_backward[dtype](g, None, below, None, plain, False, None, sums, None, scratch)
    if sums is not grad_weight:
        _column_sums[dtype](sums.reshape(-1, 1), grad_weight, scratch)



def relu6(input: Array, *, out: Array | None = None) -> Array:
    """Return ``min(max(x, 0), 6)``, which keeps NaN.

    Parameters, result and errors are those of :func:`relu`.
    """
    return _map("relu6", input, out)


def relu6_backward(grad_output: Array, output: Array, *, grad_input: Array | None = None) -> Array:
    """Return the gradient of :func:`relu6`: ``grad_output`` where the output lies between 0 and 6, else zero.

    Parameters, result and errors are those of :func:`relu_backward`; the input serves as well.
    """
    return _map_backward("relu6", "output", grad_output, output, grad_input)


def hardtanh(input: Array, min_val: float = -1.0, max_val: float = 1.0, *, out: Array | None = None) -> Array:
    """Return ``min(max(x, min_val), max_val)``, which keeps NaN.

    Parameters
    ----------
    input : ndarray of any shape, float32 or float64
    min_val, max_val : float
        The first less than the second.
    out : ndarray of the same shape, optional

    Returns
    -------
    ndarray of the input's shape

    Raises
    ------
    TypeError, ValueError
        As :func:`relu`, and if the bounds do not ascend.
    """
    return _map("hardtanh", input, out, min_val, max_val)


def hardtanh_backward(
    grad_output: Array,
    output: Array,
    min_val: float = -1.0,
    max_val: float = 1.0,
    *,
    grad_input: Array | None = None,
) -> Array:
    """Return the gradient of :func:`hardtanh`: ``grad_output`` where the output lies between the bounds, else zero.

    Parameters, result and errors are those of :func:`relu_backward`; the input serves as well.
    """
    return _map_backward("hardtanh", "output", grad_output, output, grad_input, min_val, max_val)


def elu(input: Array, alpha: float = 1.0, *, out: Array | None = None) -> Array:
    """Return ``x > 0 ? x : alpha * (exp(x) - 1)`` (Clevert et al., 2015, eq. 15).

    Parameters
    ----------
    input : ndarray of any shape, float32 or float64
    alpha : float
        At least 0, so that the output tells the gradient.
    out : ndarray of the same shape, optional

    Returns
    -------
    ndarray of the input's shape

    Raises
    ------
    TypeError, ValueError
        As :func:`relu`, and if alpha is negative.
    """
    return _map("elu", input, out, alpha)


def elu_backward(
    grad_output: Array, output: Array, alpha: float = 1.0, *, grad_input: Array | None = None
) -> Array:
    """Return the gradient of :func:`elu`, ``grad_output * (y > 0 ? 1 : y + alpha)``.

    Parameters, result and errors are those of :func:`relu_backward`.
    """
    return _map_backward("elu", "output", grad_output, output, grad_input, alpha)


def _gelu_name(where: str, approximate: str) -> str:
    if approximate not in ("none", "tanh"):
        raise ValueError(f"{where}: approximate must be 'none' or 'tanh', got {approximate!r}")
    return "gelu" if approximate == "none" else "gelu_tanh"


def gelu(input: Array, approximate: str = "none", *, out: Array | None = None) -> Array:
    """Return ``x * Phi(x)``, Phi the normal distribution (Hendrycks and Gimpel, 2016).

    Parameters
    ----------
    input : ndarray of any shape, float32 or float64
    approximate : {"none", "tanh"}
        "tanh" returns ``x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3)))``. As activation of another
        operation it is called "gelu_tanh".
    out : ndarray of the same shape, optional

    Returns
    -------
    ndarray of the input's shape; small results are as accurate as large ones, and ``-inf`` gives 0

    Raises
    ------
    TypeError, ValueError
        As :func:`relu`, and if the approximation is unknown.

    Examples
    --------
    >>> import numpy as np
    >>> gelu(np.array([-1.0, 0.0, 1.0])).round(4)
    array([-0.1587,  0.    ,  0.8413])
    """
    return _map(_gelu_name("gelu", approximate), input, out)


def gelu_backward(
    grad_output: Array, input: Array, approximate: str = "none", *, grad_input: Array | None = None
) -> Array:
    """Return the gradient of :func:`gelu`, ``grad_output * (Phi(x) + x * phi(x))``, or of its approximation.

    Parameters, result and errors are those of :func:`relu_backward`, with the forward call's input.
    """
    return _map_backward(_gelu_name("gelu_backward", approximate), "input", grad_output, input, grad_input)


def silu(input: Array, *, out: Array | None = None) -> Array:
    """Return ``x * sigmoid(x)``, also known as swish; ``-inf`` gives its limit 0.

    Parameters, result and errors are those of :func:`relu`.
    """
    return _map("silu", input, out)


def silu_backward(grad_output: Array, input: Array, *, grad_input: Array | None = None) -> Array:
    """Return the gradient of :func:`silu`, ``grad_output * s * (1 + x * (1 - s))`` with s = sigmoid(x).

    Parameters, result and errors are those of :func:`relu_backward`, with the forward call's input.
    """
    return _map_backward("silu", "input", grad_output, input, grad_input)


def mish(input: Array, *, out: Array | None = None) -> Array:
    """Return ``x * tanh(log(1 + exp(x)))`` (Misra, 2019); ``-inf`` gives its limit 0.

    Parameters, result and errors are those of :func:`relu`.
    """
    return _map("mish", input, out)


def mish_backward(grad_output: Array, input: Array, *, grad_input: Array | None = None) -> Array:
    """Return the gradient of :func:`mish`, ``grad_output * (w + x * (1 - w**2) * sigmoid(x))`` with w = mish(x) / x.

    Parameters, result and errors are those of :func:`relu_backward`, with the forward call's input.
    """
    return _map_backward("mish", "input", grad_output, input, grad_input)


def hardswish(input: Array, *, out: Array | None = None) -> Array:
    """Return ``x * hardsigmoid(x)`` (Howard et al., 2019); ``-inf`` gives its limit 0.

    Parameters, result and errors are those of :func:`relu`.
    """
    return _map("hardswish", input, out)


def hardswish_backward(grad_output: Array, input: Array, *, grad_input: Array | None = None) -> Array:
    """Return the gradient of :func:`hardswish`: ``grad_output * (x / 3 + 1 / 2)`` where ``-3 < x < 3``.

    Parameters, result and errors are those of :func:`relu_backward`, with the forward call's input.
    """
    return _map_backward("hardswish", "input", grad_output, input, grad_input)


def hardsigmoid(input: Array, *, out: Array | None = None) -> Array:
    """Return ``min(max(x + 3, 0), 6) / 6``, which keeps NaN.

    Parameters, result and errors are those of :func:`relu`.
    """
    return _map("hardsigmoid", input, out)


def hardsigmoid_backward(grad_output: Array, input: Array, *, grad_input: Array | None = None) -> Array:
    """Return the gradient of :func:`hardsigmoid`: ``grad_output / 6`` where ``-3 < x < 3``, else zero.

    Parameters, result and errors are those of :func:`relu_backward`, with the forward call's input.
    """
    return _map_backward("hardsigmoid", "input", grad_output, input, grad_input)


def softplus(input: Array, beta: float = 1.0, threshold: float = 20.0, *, out: Array | None = None) -> Array:
    """Return ``log(1 + exp(beta * x)) / beta``, and x itself where ``beta * x > threshold``.

    Parameters
    ----------
    input : ndarray of any shape, float32 or float64
    beta : float
        Greater than 0.
    threshold : float
    out : ndarray of the same shape, optional

    Returns
    -------
    ndarray of the input's shape

    Raises
    ------
    TypeError, ValueError
        As :func:`relu`, and if beta is not positive.
    """
    return _map("softplus", input, out, beta, threshold)


def softplus_backward(
    grad_output: Array, input: Array, beta: float = 1.0, threshold: float = 20.0, *, grad_input: Array | None = None
) -> Array:
    """Return the gradient of :func:`softplus`, ``grad_output * sigmoid(beta * x)``, or itself beyond the threshold.

    Parameters, result and errors are those of :func:`relu_backward`, with the forward call's input.
    """
    return _map_backward("softplus", "input", grad_output, input, grad_input, beta, threshold)


def tanh(input: Array, *, out: Array | None = None) -> Array:
    """Return the hyperbolic tangent.

    Parameters, result and errors are those of :func:`relu`. ``-0`` stays ``-0`` and ``+-inf`` gives ``+-1``.
    """
    return _map("tanh", input, out)


def tanh_backward(grad_output: Array, output: Array, *, grad_input: Array | None = None) -> Array:
    """Return the gradient of :func:`tanh`, ``grad_output * (1 - output**2)``.

    Parameters, result and errors are those of :func:`relu_backward`.
    """
    return _map_backward("tanh", "output", grad_output, output, grad_input)


def sigmoid(input: Array, *, out: Array | None = None) -> Array:
    """Return ``1 / (1 + exp(-x))``, computed from ``exp(-|x|)`` so that nothing overflows.

    Parameters, result and errors are those of :func:`relu`.
    """
    return _map("sigmoid", input, out)


def sigmoid_backward(grad_output: Array, output: Array, *, grad_input: Array | None = None) -> Array:
    """Return the gradient of :func:`sigmoid`, ``grad_output * (1 - output) * output``.

    Parameters, result and errors are those of :func:`relu_backward`.
    """
    return _map_backward("sigmoid", "output", grad_output, output, grad_input)


def softsign(input: Array, *, out: Array | None = None) -> Array:
    """Return ``x / (1 + |x|)``; ``+-inf`` gives its limit ``+-1``.

    Parameters, result and errors are those of :func:`relu`.
    """
    return _map("softsign", input, out)


def softsign_backward(grad_output: Array, input: Array, *, grad_input: Array | None = None) -> Array:
    """Return the gradient of :func:`softsign`, ``grad_output / (1 + |input|)**2``.

    Parameters, result and errors are those of :func:`relu_backward`, with the forward call's input.
    """
    return _map_backward("softsign", "input", grad_output, input, grad_input)


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
