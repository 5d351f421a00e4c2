"""Losses of single elements: squared, absolute and between the two."""

from typing import cast

import numpy as np

import fastconv._ext.elementwise as elementwise
import fastconv._ext.loss as loss
from fastconv.functional._check import Array, by_dtype, check_apart, check_out, number
from fastconv.functional._element_loss import check_pair, costs, slopes
from fastconv.functional._loss import loss_buffer, reduce, row_scale
from fastconv.functional._views import flat

_squared_error = by_dtype(loss.squared_error)
_scaled = by_dtype(elementwise.scaled)


def mse_loss(
    input: Array,
    target: Array,
    reduction: str = "mean",
    *,
    sample_weight: Array | None = None,
    out: Array | None = None,
) -> float | Array:
    """Return the squared error ``(input - target)**2``, averaged or summed over all elements.

    Blocks of 4096 elements, in the order of memory (NHWC where 4-d), are summed over 16 lanes; the sums of the blocks
    are added in double.

    Parameters
    ----------
    input, target : ndarray of one shape and dtype, float32 or float64
    reduction : "mean", "sum" or "none"
    sample_weight : ndarray of shape (N,) or the input's, optional
        What samples or elements weigh, finite and at least 0; the mean divides by their sum, as with PyTorch's
        ``weight``.
    out : ndarray of the same shape, optional
        For "none" only.

    Returns
    -------
    float
        For "mean" (nan for an empty batch, as in PyTorch) and "sum".
    ndarray of the input's shape
        For "none".

    Raises
    ------
    ValueError
        If the shapes differ or ``reduction`` is unknown.
    TypeError
        If a dtype is neither float32 nor float64, or they differ.

    Examples
    --------
    >>> import numpy as np
    >>> mse_loss(np.array([[1.0, 2.0]]), np.array([[1.0, 4.0]]))
    2.0
    """
    where = "mse_loss"
    if sample_weight is not None:
        return costs(where, "squared", input, target, reduction, 0.0, out, sample_weight)
    dtype = check_pair(where, input, target, reduction)
    if reduction == "none":
        out = check_out(where, "out", out, input.shape, dtype)
        check_apart(where, {"out": out}, {"input": input, "target": target}, in_place=("input", "target"))
        difference = flat(out)
        _scaled[dtype](flat(input), flat(target), 1.0, difference, "difference")
        np.square(difference, out=difference)
        return out
    sums = loss_buffer(where, out, (loss.blocks(input.size),), dtype, reduction)
    _squared_error[dtype](flat(input), flat(target), sums)
    return reduce(sums, input.size, reduction)


def mse_loss_backward(
    grad_output: float | Array,
    input: Array,
    target: Array,
    reduction: str = "mean",
    *,
    sample_weight: Array | None = None,
    grad_input: Array | None = None,
) -> Array:
    """Return the gradient of :func:`mse_loss` for its input, ``2 (input - target) * grad_output / size``.

    Parameters
    ----------
    grad_output : float, or ndarray of the input's shape for "none"
        Divided by the number of elements for "mean".
    input, target, reduction, sample_weight
        As given to the forward call.
    grad_input : ndarray of the same shape, optional
        Written over.

    Returns
    -------
    ndarray of the input's shape

    Raises
    ------
    ValueError, TypeError
        As :func:`mse_loss`.

    Examples
    --------
    >>> import numpy as np
    >>> mse_loss_backward(1.0, np.array([[1.0, 2.0]]), np.array([[1.0, 4.0]]))
    array([[ 0., -2.]])
    """
    where = "mse_loss_backward"
    if sample_weight is not None:
        return slopes(where, "squared", grad_output, input, target, reduction, 0.0, grad_input, sample_weight)
    dtype = check_pair(where, input, target, reduction)
    grad_input = check_out(where, "grad_input", grad_input, input.shape, dtype)
    scale = 2.0
    if reduction == "none":
        row_scale(where, grad_output, input.shape, dtype, reduction, input.size)
        check_apart(where, {"grad_input": grad_input}, {"grad_output": cast(Array, grad_output)})
    else:
        scale = 2.0 * number(where, "grad_output", grad_output) / (max(input.size, 1) if reduction == "mean" else 1)
    check_apart(where, {"grad_input": grad_input}, {"input": input, "target": target}, in_place=("input", "target"))
    _scaled[dtype](flat(input), flat(target), scale, flat(grad_input), "difference")
    if reduction == "none":
        np.multiply(grad_input, grad_output, out=grad_input)
    return grad_input


def l1_loss(
    input: Array,
    target: Array,
    reduction: str = "mean",
    *,
    sample_weight: Array | None = None,
    out: Array | None = None,
) -> float | Array:
    """Return ``|input - target|``, averaged or summed over all elements.

    Parameters
    ----------
    input, target : ndarray of one shape and dtype, float32 or float64
    reduction : "mean", "sum" or "none"
    sample_weight : ndarray of shape (N,) or the input's, optional
        What samples or elements weigh, finite and at least 0; the mean divides by their sum.
    out : ndarray of the same shape, optional
        For "none" only.

    Returns
    -------
    float or ndarray of the input's shape
        As :func:`mse_loss`.

    Raises
    ------
    ValueError, TypeError
        As :func:`mse_loss`.

    Examples
    --------
    >>> import numpy as np
    >>> l1_loss(np.array([[1.0, 2.0]]), np.array([[1.0, 4.0]]))
    1.0
    """
    where = "l1_loss"
    return costs(where, "absolute", input, target, reduction, 0.0, out, sample_weight)


def l1_loss_backward(
    grad_output: float | Array,
    input: Array,
    target: Array,
    reduction: str = "mean",
    *,
    sample_weight: Array | None = None,
    grad_input: Array | None = None,
) -> Array:
    """Return the gradient of :func:`l1_loss` for its input: the sign of the difference, 0 where there is none.

    Parameters
    ----------
    grad_output : float, or ndarray of the input's shape for "none"
        Divided, for "mean", by what the mean is divided by.
    input, target, reduction, sample_weight
        As given to the forward call.
    grad_input : ndarray of the same shape, optional
        Written over.

    Returns
    -------
    ndarray of the input's shape

    Raises
    ------
    ValueError, TypeError
        As :func:`l1_loss`.

    Examples
    --------
    >>> import numpy as np
    >>> l1_loss_backward(1.0, np.array([[1.0, 2.0]]), np.array([[1.0, 4.0]]), "sum")
    array([[ 0., -1.]])
    """
    where = "l1_loss_backward"
    return slopes(where, "absolute", grad_output, input, target, reduction, 0.0, grad_input, sample_weight)


def smooth_l1_loss(
    input: Array,
    target: Array,
    reduction: str = "mean",
    beta: float = 1.0,
    *,
    sample_weight: Array | None = None,
    out: Array | None = None,
) -> float | Array:
    """Return the smooth absolute error, averaged or summed over all elements.

    A loss is ``d**2 / (2 beta)`` where ``d = |input - target|`` is below ``beta``, else ``d - beta / 2``.

    Parameters
    ----------
    input, target : ndarray of one shape and dtype, float32 or float64
    reduction : "mean", "sum" or "none"
    beta : float
        At least 0; 0 gives the absolute error.
    sample_weight : ndarray of shape (N,) or the input's, optional
        What samples or elements weigh, finite and at least 0; the mean divides by their sum.
    out : ndarray of the same shape, optional
        For "none" only.

    Returns
    -------
    float or ndarray of the input's shape
        As :func:`mse_loss`.

    Raises
    ------
    ValueError, TypeError
        As :func:`mse_loss`; ValueError also if ``beta`` is out of its range.

    References
    ----------
    R. Girshick, "Fast R-CNN", ICCV 2015, equation 3.

    Examples
    --------
    >>> import numpy as np
    >>> smooth_l1_loss(np.array([[1.0, 2.0]]), np.array([[1.5, 4.0]]))
    0.8125
    """
    where = "smooth_l1_loss"
    beta = _threshold(where, "beta", beta, 0.0)
    kind = "smooth" if beta else "absolute"
    return costs(where, kind, input, target, reduction, beta, out, sample_weight)


def smooth_l1_loss_backward(
    grad_output: float | Array,
    input: Array,
    target: Array,
    reduction: str = "mean",
    beta: float = 1.0,
    *,
    sample_weight: Array | None = None,
    grad_input: Array | None = None,
) -> Array:
    """Return the gradient of :func:`smooth_l1_loss` for its input.

    Parameters
    ----------
    grad_output : float, or ndarray of the input's shape for "none"
        Divided, for "mean", by what the mean is divided by.
    input, target, reduction, beta, sample_weight
        As given to the forward call.
    grad_input : ndarray of the same shape, optional
        Written over.

    Returns
    -------
    ndarray of the input's shape

    Raises
    ------
    ValueError, TypeError
        As :func:`smooth_l1_loss`.

    Examples
    --------
    >>> import numpy as np
    >>> smooth_l1_loss_backward(1.0, np.array([[1.0, 2.0]]), np.array([[1.5, 4.0]]), "sum")
    array([[-0.5, -1. ]])
    """
    where = "smooth_l1_loss_backward"
    beta = _threshold(where, "beta", beta, 0.0)
    kind = "smooth" if beta else "absolute"
    return slopes(where, kind, grad_output, input, target, reduction, beta, grad_input, sample_weight)


def huber_loss(
    input: Array,
    target: Array,
    reduction: str = "mean",
    delta: float = 1.0,
    *,
    sample_weight: Array | None = None,
    out: Array | None = None,
) -> float | Array:
    """Return the Huber loss, averaged or summed over all elements.

    A loss is ``d**2 / 2`` where ``d = |input - target|`` is at most ``delta``, else ``delta * (d - delta / 2)``.

    Parameters
    ----------
    input, target : ndarray of one shape and dtype, float32 or float64
    reduction : "mean", "sum" or "none"
    delta : float
        Above 0.
    sample_weight : ndarray of shape (N,) or the input's, optional
        What samples or elements weigh, finite and at least 0; the mean divides by their sum.
    out : ndarray of the same shape, optional
        For "none" only.

    Returns
    -------
    float or ndarray of the input's shape
        As :func:`mse_loss`.

    Raises
    ------
    ValueError, TypeError
        As :func:`mse_loss`; ValueError also if ``delta`` is out of its range.

    References
    ----------
    P. Huber, "Robust estimation of a location parameter", Annals of Mathematical Statistics 35, 1964.

    Examples
    --------
    >>> import numpy as np
    >>> huber_loss(np.array([[1.0, 2.0]]), np.array([[1.5, 5.0]]), delta=2.0)
    2.0625
    """
    where = "huber_loss"
    delta = _threshold(where, "delta", delta, np.nextafter(0.0, 1.0))
    return costs(where, "huber", input, target, reduction, delta, out, sample_weight)


def huber_loss_backward(
    grad_output: float | Array,
    input: Array,
    target: Array,
    reduction: str = "mean",
    delta: float = 1.0,
    *,
    sample_weight: Array | None = None,
    grad_input: Array | None = None,
) -> Array:
    """Return the gradient of :func:`huber_loss` for its input.

    Parameters
    ----------
    grad_output : float, or ndarray of the input's shape for "none"
        Divided, for "mean", by what the mean is divided by.
    input, target, reduction, delta, sample_weight
        As given to the forward call.
    grad_input : ndarray of the same shape, optional
        Written over.

    Returns
    -------
    ndarray of the input's shape

    Raises
    ------
    ValueError, TypeError
        As :func:`huber_loss`.

    Examples
    --------
    >>> import numpy as np
    >>> huber_loss_backward(1.0, np.array([[1.0, 2.0]]), np.array([[1.5, 5.0]]), "sum", delta=2.0)
    array([[-0.5, -2. ]])
    """
    where = "huber_loss_backward"
    delta = _threshold(where, "delta", delta, np.nextafter(0.0, 1.0))
    return slopes(where, "huber", grad_output, input, target, reduction, delta, grad_input, sample_weight)


def _threshold(where: str, name: str, value: float, least: float) -> float:
    value = number(where, name, value)
    if not least <= value < np.inf:
        raise ValueError(f"{where}: {name} must be finite and {'above' if least else 'at least'} 0, got {value}")
    return value
