"""PReLU, the activation whose slope below zero is learned, one for all elements or one per channel."""

import numpy as np

from fastconv._ext import norm
from fastconv._ext.bias import bias_gradient
from fastconv.functional._channels import check_slopes
from fastconv.functional._check import (
    Array,
    as_contiguous,
    by_dtype,
    check_apart,
    check_grad,
    same_dtype,
    scratch,
)
from fastconv.functional._epilogue import Epilogue, activate_backward, finish
from fastconv.functional._views import check_batch, gradient_like, output_like

_norm_backward = by_dtype(norm.backward)
_column_sums = by_dtype(bias_gradient)


def prelu(input: Array, weight: Array, *, out: Array | None = None) -> Array:
    """Return ``x > 0 ? x : weight * x`` with a learned weight, one for all or one per channel (He et al., 2015, eq. 1).

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
    out = output_like("prelu", input, out, dtype)
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

    Examples
    --------
    >>> import numpy as np
    >>> dx, dw = prelu_backward(np.ones((2, 1)), np.array([[-2.0], [3.0]]), np.array([0.1]))
    >>> dx.ravel(), dw
    (array([0.1, 1. ]), array([-2.]))
    """
    where = "prelu_backward"
    same_dtype(where, grad_output=grad_output, input=input, weight=weight)
    grad_input = gradient_like(where, "input", grad_output, input, grad_input)
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
    """Return the weight of PReLU as one number per channel."""
    channels = check_slopes(where, input, weight)
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
