"""The Dice loss: how far what a net marks and what is to be marked do not overlap.

The sums over the pixels of an image are in double: blocks of 4096 pixels, each pixel by pixel, then the blocks from
the first to the last.
"""

from math import prod

import numpy as np

import fastconv._ext.epilogue as epilogue
import fastconv._ext.loss as loss
from fastconv.functional._check import (
    Array,
    as_contiguous,
    by_dtype,
    check_apart,
    check_array,
    check_out,
    check_shape,
    number,
    one_of,
    same_dtype,
    scratch,
    whole,
)
from fastconv.functional._epilogue import alone
from fastconv.functional._loss import (
    IGNORE,
    Labels,
    amounts,
    check_rows,
    check_single,
    is_dense,
    labels_of,
    reduce,
    row_scale,
    total,
)
from fastconv.functional._views import rows, write_rows

_sums = by_dtype(loss.dice_sums)
_backward = by_dtype(loss.dice_backward)
_softmax = by_dtype(loss.softmax)
_softmax_backward = by_dtype(loss.softmax_backward)
_sigmoid = by_dtype(epilogue.finish)
_sigmoid_backward = by_dtype(epilogue.activate_backward)

NORMALIZE = ("softmax", "sigmoid", "none")


def _by_pixel(a: Array) -> tuple[int, int, int]:
    """Return the shape (N, pixels, C)."""
    return a.shape[0], prod(a.shape[2:]), a.shape[1]


def _pixels(a: Array) -> Array:
    """Return (N, C, ...) as (N, pixels, C) in one piece of memory."""
    return rows(a, 1).reshape(_by_pixel(a))


def _targets(where: str, input: Array, target: Array, ignore_index: int) -> tuple[Array | None, Array | None]:
    """Return labels (N, pixels), -1 where they are left out, or masks (N, pixels, C)."""
    ignore = whole(f"{where}: ignore_index", ignore_index, -(2**63))
    pixels = prod(input.shape[2:])
    if is_dense(target, input):
        same_dtype(where, target=target, input=input)
        check_shape(where, "target", target, input.shape)
        return None, _pixels(target)
    labels = labels_of(where, target, input, max(input.shape[1], 2), ignore)
    return labels.reshape(input.shape[0], pixels), None


def _marked(where: str, input: Array, normalize: str, p: Array) -> None:
    """Write what the scores mark, from 0 to 1, to rows ``p``."""
    x = rows(input, 1)
    if normalize == "softmax":
        _softmax[p.dtype](x, p, False)
    elif normalize == "sigmoid":
        _sigmoid[p.dtype](x, p, alone("sigmoid", ()))
    else:
        np.copyto(p, x)


def _check(where: str, input: Array, normalize: str, smooth: float) -> float:
    one_of(f"{where}: normalize", normalize, NORMALIZE)
    if normalize == "softmax" and input.shape[1] == 1:
        raise ValueError(f"{where}: the softmax of one class is 1 whatever its score; take normalize='sigmoid'")
    smooth = number(where, "smooth", smooth)
    if not 0 <= smooth < np.inf:
        raise ValueError(f"{where}: smooth must be finite and at least 0, got {smooth}")
    return smooth


def _shares(where: str, sample_weight: Array | None, input: Array) -> tuple[Array | None, float]:
    """Return what the samples weigh, and what a mean is divided by."""
    if sample_weight is None:
        return None, float(input.shape[0] * input.shape[1])
    check_array(where, "sample_weight", sample_weight)
    check_shape(where, "sample_weight", sample_weight, input.shape[:1])
    found = amounts(where, "sample_weight", sample_weight, input.dtype.newbyteorder("="))
    return found, total(found) * input.shape[1]


def dice_loss(
    input: Array,
    target: Labels | Array,
    reduction: str = "mean",
    *,
    normalize: str = "softmax",
    smooth: float = 1.0,
    ignore_index: int = IGNORE,
    sample_weight: Array | None = None,
    out: Array | None = None,
) -> float | Array:
    """Return ``1 - (2 sum(p t) + smooth) / (sum(p) + sum(t) + smooth)`` of each sample and class, sums over pixels.

    Parameters
    ----------
    input : ndarray of shape (N, C), (N, C, L) or (N, C, H, W), float32 or float64
        Scores; without pixels, (N, C), each sample is one.
    target : ndarray of labels (N,), (N, L) or (N, H, W), any integer dtype; or masks of the input's shape and dtype
        Labels in [0, C), of one class 0 and 1; or how far each pixel is of each class, from 0 to 1.
    reduction : "mean", "sum" or "none"
        Over samples and classes.
    normalize : "softmax", "sigmoid" or "none"
        What makes ``p`` of the scores.
    smooth : float
        At least 0; with 0 a class that neither is there nor is marked has no loss: nan.
    ignore_index : int
        Pixels of this label count for nothing.
    sample_weight : ndarray of shape (N,), optional
        Multiplies the losses; the mean divides by its sum, times the classes.
    out : ndarray of shape (N, C), optional
        For "none" only.

    Returns
    -------
    float
        For "mean" (nan for an empty batch) and "sum".
    ndarray of shape (N, C)
        For "none".

    Raises
    ------
    ValueError
        If shapes do not fit, a label or a setting is out of its range.
    TypeError
        If labels are no integers, or ``input`` is not float32 or float64.

    References
    ----------
    F. Milletari et al., "V-Net", 3DV 2016, section 3, with sums of p and t in the place of their squares as in
    M. Drozdzal et al., "The importance of skip connections in biomedical image segmentation", 2016.

    Examples
    --------
    >>> import numpy as np
    >>> round(dice_loss(np.zeros((1, 2, 4)), np.array([[0, 0, 1, 1]])), 6)
    0.4
    """
    where = "dice_loss"
    dtype, _ = check_rows(where, input, reduction)
    smooth = _check(where, input, normalize, smooth)
    labels, dense = _targets(where, input, target, ignore_index)
    share, count = _shares(where, sample_weight, input)
    check_single(where, out, reduction)
    losses = check_out(where, "out", out, input.shape[:2], dtype)
    check_apart(where, {"out": losses}, {"input": input, "target": target, "sample_weight": sample_weight})
    p = _workspace(input, dtype)
    _marked(where, input, normalize, p)
    sums = _overlaps(input, p, labels, dense)
    with np.errstate(invalid="ignore", divide="ignore"):
        losses[...] = 1 - (2 * sums[:, 0] + smooth) / (sums[:, 1] + sums[:, 2] + smooth)
    if share is not None:
        losses *= share[:, None]
    return reduce(losses if reduction == "none" else losses.reshape(-1), count, reduction)


def _workspace(input: Array, dtype: np.dtype) -> Array:
    size = input.size * dtype.itemsize
    return scratch(size, "losses")[:size].view(dtype).reshape(-1, input.shape[1])


def _overlaps(input: Array, p: Array, labels: Array | None, dense: Array | None) -> np.ndarray:
    sums = np.zeros((input.shape[0], 3, input.shape[1]))
    _sums[p.dtype](p.reshape(_by_pixel(input)), labels, dense, sums)
    return sums


def dice_loss_backward(
    grad_output: float | Array,
    input: Array,
    target: Labels | Array,
    reduction: str = "mean",
    *,
    normalize: str = "softmax",
    smooth: float = 1.0,
    ignore_index: int = IGNORE,
    sample_weight: Array | None = None,
    grad_input: Array | None = None,
) -> Array:
    """Return the gradient of :func:`dice_loss` for its input.

    Parameters
    ----------
    grad_output : float, or ndarray of shape (N, C) for "none"
        Divided, for "mean", by what the mean is divided by.
    input, target, reduction, normalize, smooth, ignore_index, sample_weight
        As given to the forward call.
    grad_input : ndarray of the input's shape, optional
        Written over; may be ``input`` itself.

    Returns
    -------
    ndarray of the input's shape

    Raises
    ------
    ValueError, TypeError
        As :func:`dice_loss`.

    Examples
    --------
    >>> import numpy as np
    >>> dice_loss_backward(1.0, np.zeros((1, 2, 2)), np.array([[0, 1]])).round(4)
    array([[[-0.0833,  0.0833],
            [ 0.0833, -0.0833]]])
    """
    where = "dice_loss_backward"
    dtype, _ = check_rows(where, input, reduction)
    smooth = _check(where, input, normalize, smooth)
    labels, dense = _targets(where, input, target, ignore_index)
    share, count = _shares(where, sample_weight, input)
    grad_input = check_out(where, "grad_input", grad_input, input.shape, dtype)
    scale = row_scale(where, grad_output, input.shape[:2], dtype, reduction, count)
    read = {"grad_output": scale, "input": input, "target": target, "sample_weight": sample_weight}
    check_apart(where, {"grad_input": grad_input}, read, in_place=("input",))
    if not input.shape[0]:
        return grad_input
    p = _workspace(input, dtype)
    _marked(where, input, normalize, p)
    sums = _overlaps(input, p, labels, dense)
    g = np.broadcast_to(scale.reshape(-1, input.shape[1] if scale.size > 1 else 1), input.shape[:2]).astype(np.float64)
    if share is not None:
        g = g * share[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        whole_ = sums[:, 1] + sums[:, 2] + smooth
        u = as_contiguous((-2 * g / whole_).astype(dtype))
        v = as_contiguous((g * (2 * sums[:, 0] + smooth) / (whole_ * whole_)).astype(dtype))

    def write(dx: Array) -> None:
        shaped = dx.reshape(_by_pixel(input))
        _backward[dtype](p.reshape(shaped.shape), labels, dense, u, v, shaped)
        if normalize == "softmax":
            _softmax_backward[dtype](dx, p, dx, False)
        elif normalize == "sigmoid":
            _sigmoid_backward[dtype](dx, p, dx, alone("sigmoid", ()))

    write_rows(grad_input, 1, write)
    return grad_input
