"""The logistic loss of yes or no, element by element."""

from fastconv.functional._check import Array
from fastconv.functional._element_loss import costs, slopes


def binary_cross_entropy_with_logits(
    input: Array,
    target: Array,
    reduction: str = "mean",
    *,
    weight: Array | None = None,
    pos_weight: Array | None = None,
    sample_weight: Array | None = None,
    out: Array | None = None,
) -> float | Array:
    """Return ``-(p t log s + (1 - t) log(1 - s))``, ``s = sigmoid(input)``, averaged or summed over all elements.

    It is computed as ``(1 - t) x + (1 + (p - 1) t) (log(1 + exp(-|x|)) + max(-x, 0))``, times the weights.

    Parameters
    ----------
    input, target : ndarray of one shape and dtype, float32 or float64
        Scores, and how far each answer is yes, in [0, 1].
    reduction : "mean", "sum" or "none"
    weight : ndarray that goes with the input's shape by NumPy's rules, optional
        Multiplies the losses; the mean divides by their number all the same, as PyTorch's does.
    pos_weight : ndarray that goes with the input's shape, optional
        ``p``, what a yes weighs beside a no: of shape (C,) for an input (N, C), of (C, 1, 1) for an image.
    sample_weight : ndarray of shape (N,) or the input's, optional
        Multiplies the losses, too; the mean divides by the sum of these.
    out : ndarray of the same shape, optional
        For "none" only.

    Returns
    -------
    float or ndarray of the input's shape
        As :func:`mse_loss`.

    Raises
    ------
    ValueError
        If shapes do not fit, a weight is negative or not finite, or ``reduction`` is unknown.
    TypeError
        If a dtype is neither float32 nor float64, or they differ.

    Examples
    --------
    >>> import numpy as np
    >>> round(binary_cross_entropy_with_logits(np.zeros((2, 1)), np.array([[1.0], [0.0]])), 6)
    0.693147
    """
    where = "binary_cross_entropy_with_logits"
    return costs(where, "logistic", input, target, reduction, 0.0, out, sample_weight, weight, pos_weight)


def binary_cross_entropy_with_logits_backward(
    grad_output: float | Array,
    input: Array,
    target: Array,
    reduction: str = "mean",
    *,
    weight: Array | None = None,
    pos_weight: Array | None = None,
    sample_weight: Array | None = None,
    grad_input: Array | None = None,
) -> Array:
    """Return the gradient of :func:`binary_cross_entropy_with_logits` for its input, ``(1 + (p - 1) t) s - p t``.

    Parameters
    ----------
    grad_output : float, or ndarray of the input's shape for "none"
        Divided, for "mean", by what the mean is divided by.
    input, target, reduction, weight, pos_weight, sample_weight
        As given to the forward call.
    grad_input : ndarray of the same shape, optional
        Written over.

    Returns
    -------
    ndarray of the input's shape

    Raises
    ------
    ValueError, TypeError
        As :func:`binary_cross_entropy_with_logits`.

    Examples
    --------
    >>> import numpy as np
    >>> input, target = np.array([[0.0, 0.0]]), np.array([[1.0, 0.0]])
    >>> binary_cross_entropy_with_logits_backward(1.0, input, target, "sum")
    array([[-0.5,  0.5]])
    """
    where = "binary_cross_entropy_with_logits_backward"
    return slopes(
        where, "logistic", grad_output, input, target, reduction, 0.0, grad_input, sample_weight, weight, pos_weight
    )
