"""Losses of rows of scores, one per class: softmax cross-entropy and the multi-class hinge."""

import fastconv._ext.loss as loss
from fastconv.functional._check import Array, by_dtype, check_apart, check_out, check_shape, number, same_dtype
from fastconv.functional._class_loss import costs, slopes, target_of
from fastconv.functional._loss import IGNORE, Labels, check_rows, labels_of, loss_buffer, reduce, row_scale
from fastconv.functional._views import rows, write_rows

_margin = by_dtype(loss.margin)
_margin_backward = by_dtype(loss.margin_backward)


def cross_entropy(
    input: Array,
    target: Labels | Array,
    reduction: str = "mean",
    *,
    weight: Array | None = None,
    ignore_index: int = IGNORE,
    label_smoothing: float = 0.0,
    sample_weight: Array | None = None,
    probabilities: Array | None = None,
    out: Array | None = None,
) -> float | Array:
    """Return ``-log softmax(input)[target]``, computed as ``log sum exp(x - max) - (x[target] - max)``.

    With weights ``w`` of the classes, label smoothing ``e`` and ``s``, what the sample weighs, a label ``t`` costs
    ``s * ((1 - e) * w[t] * nll[t] + sum over c of e / C * w[c] * nll[c])``, ``nll`` being ``-log softmax(input)``; the
    mean divides by the sum of ``s * w[t]``. Probabilities ``q`` cost ``s * sum over c of w[c] * ((1 - e) * q[c] + e /
    C) * nll[c]``, and their mean divides by the sum of ``s``, which is the number of rows. So does PyTorch; ``s`` is
    1 there. Sums over classes have 16 lanes, those over rows are in double, 16 lanes too.

    Parameters
    ----------
    input : ndarray of shape (N, C), (N, C, L) or (N, C, H, W), float32 or float64
        Scores, not normalised.
    target : ndarray of shape (N,), (N, L) or (N, H, W), any integer dtype; or of the input's shape and dtype
        Labels in [0, C), of two classes also booleans; or a probability of each class.
    reduction : "mean", "sum" or "none"
    weight : ndarray of shape (C,), optional
        Of the classes, finite and at least 0.
    ignore_index : int
        A label that counts for nothing: its row costs 0 and has no gradient, whatever its scores.
    label_smoothing : float
        In [0, 1].
    sample_weight : ndarray of shape (N,) or that of the labels, optional
        Finite and at least 0.
    probabilities : ndarray of the input's shape, optional
        Receives the softmax (zeros in rows that are left out), which saves :func:`cross_entropy_backward` its
        exponentials.
    out : ndarray of the labels' shape, optional
        For "none" only.

    Returns
    -------
    float
        For "mean" (nan where nothing weighs anything, as of an empty batch in PyTorch) and "sum" (0).
    ndarray of the labels' shape
        For "none".

    Raises
    ------
    ValueError
        If a label, a probability or a weight is out of range (naming it and its place), shapes do not fit or
        ``reduction`` is unknown.
    TypeError
        If the labels are no integers (booleans pass where there are two classes), or ``input`` is not float32 or
        float64.

    References
    ----------
    C. Szegedy et al., "Rethinking the inception architecture for computer vision", CVPR 2016, section 7, for label
    smoothing.

    Examples
    --------
    >>> import numpy as np
    >>> round(cross_entropy(np.zeros((2, 10)), np.array([3, 7])), 6)
    2.302585
    """
    where = "cross_entropy"
    dtype, shape = check_rows(where, input, reduction)
    found = target_of(where, input, dtype, target, weight, ignore_index, label_smoothing, sample_weight)
    if probabilities is not None:
        check_out(where, "probabilities", probabilities, input.shape, dtype)
    losses = loss_buffer(where, out, shape, dtype, reduction)
    read = {"input": input, "target": target, "weight": weight, "sample_weight": sample_weight}
    check_apart(where, {"out": losses, "probabilities": probabilities}, read)
    costs(input, found, losses, probabilities)
    return reduce(losses, found.total, reduction)


def cross_entropy_backward(
    grad_output: float | Array,
    input: Array,
    target: Labels | Array,
    reduction: str = "mean",
    *,
    weight: Array | None = None,
    ignore_index: int = IGNORE,
    label_smoothing: float = 0.0,
    sample_weight: Array | None = None,
    probabilities: Array | None = None,
    grad_input: Array | None = None,
) -> Array:
    """Return the gradient of :func:`cross_entropy`, plainly ``(softmax(input) - one_hot(target)) * grad_output / N``.

    Parameters
    ----------
    grad_output : float, or ndarray of the labels' shape for "none"
        Divided, for "mean", by what the mean is divided by.
    input, target, reduction, weight, ignore_index, label_smoothing, sample_weight
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

    Examples
    --------
    >>> import numpy as np
    >>> cross_entropy_backward(1.0, np.zeros((1, 4)), np.array([2]))
    array([[ 0.25,  0.25, -0.75,  0.25]])
    """
    where = "cross_entropy_backward"
    dtype, shape = check_rows(where, input, reduction)
    found = target_of(where, input, dtype, target, weight, ignore_index, label_smoothing, sample_weight)
    same_dtype(where, {"probabilities": probabilities}, input=input)
    grad_input = check_out(where, "grad_input", grad_input, input.shape, dtype)
    scale = row_scale(where, grad_output, shape, dtype, reduction, found.total)
    if probabilities is not None:
        check_shape(where, "probabilities", probabilities, input.shape)
    read = {
        "grad_output": scale, "input": input, "target": target, "probabilities": probabilities, "weight": weight,
        "sample_weight": sample_weight,
    }  # fmt: skip
    check_apart(where, {"grad_input": grad_input}, read, in_place=("input", "probabilities"))
    slopes(scale, input if probabilities is None else probabilities, probabilities is not None, found, grad_input)
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
    dtype, shape = check_rows(where, input, reduction)
    labels = labels_of(where, target, input)
    losses = loss_buffer(where, out, shape, dtype, reduction)
    check_apart(where, {"out": losses}, {"input": input, "target": target})
    margin = number(where, "margin", margin)
    _margin[dtype](rows(input, 1), labels, margin, losses.reshape(-1))
    return reduce(losses, labels.size, reduction)


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

    Examples
    --------
    >>> import numpy as np
    >>> multi_margin_loss_backward(1.0, np.array([[0.0, 0.5, 0.25, 2.0]]), np.array([1]))
    array([[ 0.25, -0.75,  0.25,  0.25]])
    """
    where = "multi_margin_loss_backward"
    dtype, shape = check_rows(where, input, reduction)
    labels = labels_of(where, target, input)
    grad_input = check_out(where, "grad_input", grad_input, input.shape, dtype)
    scale = row_scale(where, grad_output, shape, dtype, reduction, labels.size)
    read = {"grad_output": scale, "input": input, "target": target}
    check_apart(where, {"grad_input": grad_input}, read, in_place=("input",))
    margin = number(where, "margin", margin)
    if not labels.size:
        return grad_input
    x = rows(input, 1)
    write_rows(grad_input, 1, lambda dx: _margin_backward[dtype](scale, x, labels, margin, dx))
    return grad_input
