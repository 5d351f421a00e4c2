"""Losses over a batch. Their sums run in an order that the shapes alone decide, in double."""

from math import nan, prod
from typing import cast

import numpy as np
import numpy.typing as npt

import fastconv._ext.elementwise as elementwise
import fastconv._ext.loss as loss
from fastconv.functional._check import (
    Array,
    as_contiguous,
    as_labels,
    by_dtype,
    check_apart,
    check_array,
    check_out,
    check_rank,
    check_shape,
    number,
    same_dtype,
    scratch,
)
from fastconv.functional._views import check_batch, flat, rows, write_rows

_cross_entropy = by_dtype(loss.cross_entropy)
_cross_entropy_backward = by_dtype(loss.cross_entropy_backward)
_softmax = by_dtype(loss.softmax)
_margin = by_dtype(loss.margin)
_margin_backward = by_dtype(loss.margin_backward)
_squared_error = by_dtype(loss.squared_error)
_total = by_dtype(loss.total)
_scaled = by_dtype(elementwise.scaled)

Labels = npt.NDArray[np.integer | np.bool_]


def _check_reduction(where: str, reduction: str) -> None:
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"{where}: reduction must be 'mean', 'sum' or 'none', got {reduction!r}")


def _labels(where: str, target: Labels, input: Array) -> Array:
    """Return the labels as a flat int64 array, one a row of ``input`` along axis 1."""
    if isinstance(target, np.ndarray):  # before its numbers are read: a view may have any number of them
        check_array(where, "target", target)
        check_shape(where, "target", target, (input.shape[0], *input.shape[2:]))
    numbers = as_labels(where, "target", target, booleans=input.shape[1] == 2)
    labels = as_contiguous(numbers).reshape(-1)
    first = loss.first_outside(labels, input.shape[1])
    if first >= 0:
        place = np.unravel_index(first, target.shape)
        raise ValueError(
            f"{where}: target[{', '.join(map(str, place))}] is {target[place]}, but labels must lie in "
            f"[0, {input.shape[1]})"
        )
    return labels


def _loss_buffer(
    where: str, out: Array | None, shape: tuple[int, ...], dtype: np.dtype, reduction: str
) -> Array:
    """Return where the losses of the rows go: the result itself for "none", else scratch memory."""
    if reduction == "none":
        return check_out(where, "out", out, shape, dtype)
    if out is not None:
        raise ValueError(f"{where}: out is for reduction='none'; {reduction!r} returns a float")
    count = prod(shape)
    return scratch(count * dtype.itemsize, "losses")[: count * dtype.itemsize].view(dtype)


def _reduce(losses: Array, count: int, reduction: str) -> float | Array:
    if reduction == "none":
        return losses
    total: float = _total[losses.dtype](losses)
    if reduction == "sum":
        return total
    return total / count if count else nan


def _scale(where: str, grad_output: float | Array, shape: tuple[int, ...], dtype: np.dtype, reduction: str,
           count: int) -> Array:  # fmt: skip
    """Return what the gradients of the rows are multiplied by: one number, or one a row for "none"."""
    if reduction == "none":
        if not isinstance(grad_output, np.ndarray):
            raise TypeError(f"{where}: with reduction='none' grad_output must be an array of shape {shape}")
        same_dtype(where, grad_output=grad_output, input=np.empty(0, dtype))
        check_shape(where, "grad_output", grad_output, shape)
        return as_contiguous(grad_output).reshape(-1)
    return np.array([number(where, "grad_output", grad_output) / (max(count, 1) if reduction == "mean" else 1)], dtype)


def _check_rows(where: str, input: Array, reduction: str) -> tuple[np.dtype, tuple[int, ...]]:
    """Return the dtype and the shape of the losses of ``input``, which has classes along axis 1."""
    _check_reduction(where, reduction)
    dtype = same_dtype(where, input=input)
    check_rank(where, "input", input, (2, 3, 4))
    return dtype, (input.shape[0], *input.shape[2:])


def cross_entropy(
    input: Array,
    target: Labels,
    reduction: str = "mean",
    *,
    probabilities: Array | None = None,
    out: Array | None = None,
) -> float | Array:
    """Return ``-log softmax(input)[target]``, computed as ``log sum exp(x - max) - (x[target] - max)``.

    Parameters
    ----------
    input : ndarray of shape (N, C), (N, C, L) or (N, C, H, W), float32 or float64
        Scores, not normalised.
    target : ndarray of shape (N,), (N, L) or (N, H, W), any integer dtype
        Labels in [0, C); of two classes also booleans.
    reduction : "mean", "sum" or "none"
    probabilities : ndarray of the input's shape, optional
        Receives the softmax, which saves :func:`cross_entropy_backward` its exponentials.
    out : ndarray of the target's shape, optional
        For "none" only.

    Returns
    -------
    float
        For "mean" (nan for an empty batch, as in PyTorch) and "sum" (0).
    ndarray of the target's shape
        For "none".

    Raises
    ------
    ValueError
        If a label is out of range (naming it and its place), shapes do not fit or ``reduction`` is unknown.
    TypeError
        If the labels are no integers (booleans pass where there are two classes), or ``input`` is not float32 or
        float64.

    Examples
    --------
    >>> import numpy as np
    >>> round(cross_entropy(np.zeros((2, 10)), np.array([3, 7])), 6)
    2.302585
    """
    where = "cross_entropy"
    dtype, shape = _check_rows(where, input, reduction)
    labels = _labels(where, target, input)
    if probabilities is not None:
        check_out(where, "probabilities", probabilities, input.shape, dtype)
    losses = _loss_buffer(where, out, shape, dtype, reduction)
    check_apart(where, {"out": losses, "probabilities": probabilities}, {"input": input, "target": target})
    x = rows(input, 1)
    if probabilities is None:
        _cross_entropy[dtype](x, labels, losses.reshape(-1), None)
    else:
        write_rows(probabilities, 1, lambda p: _cross_entropy[dtype](x, labels, losses.reshape(-1), p))
    return _reduce(losses, labels.size, reduction)


def cross_entropy_backward(
    grad_output: float | Array,
    input: Array,
    target: Labels,
    reduction: str = "mean",
    *,
    probabilities: Array | None = None,
    grad_input: Array | None = None,
) -> Array:
    """Return the gradient of :func:`cross_entropy`, ``(softmax(input) - one_hot(target)) * grad_output / N``.

    Parameters
    ----------
    grad_output : float, or ndarray of the target's shape for "none"
        Divided by the number of labels for "mean".
    input, target, reduction
        As given to the forward call.
    probabilities : ndarray of the input's shape, optional
        What the forward call left there; without it the softmax is computed again, to the same bits.
    grad_input : ndarray of the input's shape, optional
        Written over; may be ``probabilities`` or ``input`` itself.

    Returns
    -------
    ndarray of the input's shape

    Raises
    ------
    ValueError, TypeError
        As :func:`cross_entropy`.
    """
    where = "cross_entropy_backward"
    dtype, shape = _check_rows(where, input, reduction)
    labels = _labels(where, target, input)
    same_dtype(where, {"probabilities": probabilities}, input=input)
    grad_input = check_out(where, "grad_input", grad_input, input.shape, dtype)
    scale = _scale(where, grad_output, shape, dtype, reduction, labels.size)
    if probabilities is not None:
        check_shape(where, "probabilities", probabilities, input.shape)
    read = {"grad_output": scale, "input": input, "target": target, "probabilities": probabilities}
    check_apart(where, {"grad_input": grad_input}, read, in_place=("input", "probabilities"))
    if not labels.size:
        return grad_input
    known = rows(input if probabilities is None else probabilities, 1)

    def write(dx: Array) -> None:
        if probabilities is None:
            _softmax[dtype](known, dx, False)
        p = dx if probabilities is None else known
        _cross_entropy_backward[dtype](scale, p, labels, dx)

    write_rows(grad_input, 1, write)
    return grad_input


def multi_margin_loss(
    input: Array, target: Labels, margin: float = 1.0, reduction: str = "mean", *, out: Array | None = None
) -> float | Array:
    """Return the multi-class hinge, ``sum over c != target of max(0, margin - x[target] + x[c]) / C``.

    The definition is PyTorch's (``p=1``, no weights): the sum is divided by the number of classes. NaN among
    the scores gives NaN.

    Parameters
    ----------
    input : ndarray of shape (N, C), (N, C, L) or (N, C, H, W), float32 or float64
    target : ndarray of shape (N,), (N, L) or (N, H, W), any integer dtype
        Labels in [0, C); of two classes also booleans.
    margin : float
    reduction : "mean", "sum" or "none"
    out : ndarray of the target's shape, optional
        For "none" only.

    Returns
    -------
    float or ndarray of the target's shape
        As :func:`cross_entropy`.

    Raises
    ------
    ValueError, TypeError
        As :func:`cross_entropy`.

    Examples
    --------
    >>> import numpy as np
    >>> multi_margin_loss(np.array([[0.0, 0.5, 0.25, 2.0]]), np.array([1]))
    0.9375
    """
    where = "multi_margin_loss"
    dtype, shape = _check_rows(where, input, reduction)
    labels = _labels(where, target, input)
    losses = _loss_buffer(where, out, shape, dtype, reduction)
    check_apart(where, {"out": losses}, {"input": input, "target": target})
    margin = number(where, "margin", margin)
    _margin[dtype](rows(input, 1), labels, margin, losses.reshape(-1))
    return _reduce(losses, labels.size, reduction)


def multi_margin_loss_backward(
    grad_output: float | Array,
    input: Array,
    target: Labels,
    margin: float = 1.0,
    reduction: str = "mean",
    *,
    grad_input: Array | None = None,
) -> Array:
    """Return the gradient of :func:`multi_margin_loss`; at a kink it is 0, as in PyTorch.

    Parameters
    ----------
    grad_output : float, or ndarray of the target's shape for "none"
        Divided by the number of labels for "mean".
    input, target, margin, reduction
        As given to the forward call.
    grad_input : ndarray of the input's shape, optional
        Written over.

    Returns
    -------
    ndarray of the input's shape

    Raises
    ------
    ValueError, TypeError
        As :func:`cross_entropy`.
    """
    where = "multi_margin_loss_backward"
    dtype, shape = _check_rows(where, input, reduction)
    labels = _labels(where, target, input)
    grad_input = check_out(where, "grad_input", grad_input, input.shape, dtype)
    scale = _scale(where, grad_output, shape, dtype, reduction, labels.size)
    read = {"grad_output": scale, "input": input, "target": target}
    check_apart(where, {"grad_input": grad_input}, read, in_place=("input",))
    margin = number(where, "margin", margin)
    if not labels.size:
        return grad_input
    x = rows(input, 1)
    write_rows(grad_input, 1, lambda dx: _margin_backward[dtype](scale, x, labels, margin, dx))
    return grad_input


def mse_loss(
    input: Array, target: Array, reduction: str = "mean", *, out: Array | None = None
) -> float | Array:
    """Return the squared error ``(input - target)**2``, averaged or summed over all elements.

    Blocks of 4096 elements, in the order of memory (NHWC where 4-d), are summed over 16 lanes; the sums
    of the blocks are added in double.

    Parameters
    ----------
    input, target : ndarray of one shape and dtype, float32 or float64
    reduction : "mean", "sum" or "none"
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
    dtype = _check_pair(where, input, target, reduction)
    if reduction == "none":
        out = check_out(where, "out", out, input.shape, dtype)
        check_apart(where, {"out": out}, {"input": input, "target": target}, in_place=("input", "target"))
        difference = flat(out)
        _scaled[dtype](flat(input), flat(target), 1.0, difference, "difference")
        np.square(difference, out=difference)
        return out
    sums = _loss_buffer(where, out, (loss.blocks(input.size),), dtype, reduction)
    _squared_error[dtype](flat(input), flat(target), sums)
    return _reduce(sums, input.size, reduction)


def mse_loss_backward(
    grad_output: float | Array,
    input: Array,
    target: Array,
    reduction: str = "mean",
    *,
    grad_input: Array | None = None,
) -> Array:
    """Return the gradient of :func:`mse_loss` for its input, ``2 (input - target) * grad_output / size``.

    Parameters
    ----------
    grad_output : float, or ndarray of the input's shape for "none"
        Divided by the number of elements for "mean".
    input, target, reduction
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
    """
    where = "mse_loss_backward"
    dtype = _check_pair(where, input, target, reduction)
    grad_input = check_out(where, "grad_input", grad_input, input.shape, dtype)
    scale = 2.0
    if reduction == "none":
        _scale(where, grad_output, input.shape, dtype, reduction, input.size)
        check_apart(where, {"grad_input": grad_input}, {"grad_output": cast(Array, grad_output)})
    else:
        scale = 2.0 * number(where, "grad_output", grad_output) / (max(input.size, 1) if reduction == "mean" else 1)
    check_apart(where, {"grad_input": grad_input}, {"input": input, "target": target}, in_place=("input", "target"))
    _scaled[dtype](flat(input), flat(target), scale, flat(grad_input), "difference")
    if reduction == "none":
        np.multiply(grad_input, grad_output, out=grad_input)
    return grad_input


def _check_pair(where: str, input: Array, target: Array, reduction: str) -> np.dtype:
    _check_reduction(where, reduction)
    dtype = same_dtype(where, input=input, target=target)
    check_batch(where, "input", input)
    check_shape(where, "target", target, input.shape)
    return dtype
