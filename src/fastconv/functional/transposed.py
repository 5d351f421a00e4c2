"""Transposed convolutions."""

from typing import Any

from fastconv.functional._check import Array
from fastconv.functional._ops._run import apply, apply_backward
from fastconv.functional._ops.transposed import transposed


def conv_transpose2d(
    input: Array,
    weight: Array,
    bias: Array | None = None,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    output_padding: int | tuple[int, int] = 0,
    groups: int = 1,
    dilation: int | tuple[int, int] = 1,
    *,
    out: Array | None = None,
) -> Array:
    """Return the transposed convolution: what :func:`conv2d` with this weight makes of its output's gradient.

    Parameters
    ----------
    input : ndarray of shape (N, C, H, W), float32 or float64
    weight : ndarray of shape (C, K/groups, R, S), same dtype
    bias : ndarray of shape (K,), optional
        Added last.
    stride, dilation : int or pair of int
    padding : int or pair of int
        Rows and columns left out at each border.
    output_padding : int or pair of int
        Rows and columns added at the bottom and right; below stride or dilation.
    groups : int
    out : ndarray of shape (N, K, P, Q), optional

    Returns
    -------
    ndarray of shape (N, K, P, Q)
        ``P = (H - 1) * stride - 2 * padding + dilation * (R - 1) + output_padding + 1``, Q alike. Sums run as in the
        input gradient of :func:`conv2d_backward`.

    Raises
    ------
    ValueError
        If shapes and sizes do not fit together.
    TypeError
        If an array is not float32 or float64, or dtypes differ.

    References
    ----------
    V. Dumoulin and F. Visin, "A guide to convolution arithmetic for deep learning", arXiv 1603.07285, section 4.

    Examples
    --------
    >>> import numpy as np
    >>> conv_transpose2d(np.ones((1, 1, 2, 2)), np.ones((1, 1, 2, 2)))[0, 0]
    array([[1., 2., 1.],
           [2., 4., 2.],
           [1., 2., 1.]])
    """
    op = transposed(2, stride, padding, output_padding, groups, dilation)
    result: Array = apply("conv_transpose2d", op, input, weight, bias, out=out)
    return result


def conv_transpose2d_backward(
    grad_output: Array, input: Array, weight: Array, bias: Array | None = None, stride: Any = 1, padding: Any = 0,
    output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
) -> tuple[Array | None, ...]:  # fmt: skip
    """Return the gradients of :func:`conv_transpose2d` for input, weight and bias (None without one).

    Arguments and errors as of the forward call.

    Returns
    -------
    grad_input, grad_weight, grad_bias
        The last is None where there was no bias.

    Raises
    ------
    ValueError, TypeError
        As :func:`conv_transpose2d`, and if ``grad_output`` has another shape than the result.

    Examples
    --------
    >>> import numpy as np
    >>> x, w = np.full((1, 1, 1, 1), 5.0), np.array([[[[1.0, 2.0]]]])
    >>> dx, dw, db = conv_transpose2d_backward(np.ones((1, 1, 1, 2)), x, w, np.zeros(1))
    >>> dx.ravel(), dw.ravel(), db
    (array([3.]), array([5., 5.]), array([2.]))
    """
    op = transposed(2, stride, padding, output_padding, groups, dilation)
    grads: tuple[Array | None, ...] = apply_backward("conv_transpose2d_backward", op, grad_output, input, weight, bias)
    return grads


def conv_transpose1d(
    input: Array,
    weight: Array,
    bias: Array | None = None,
    stride: int = 1,
    padding: int = 0,
    output_padding: int = 0,
    groups: int = 1,
    dilation: int = 1,
    *,
    out: Array | None = None,
) -> Array:
    """Return the transposed convolution of signals (N, C, L): :func:`conv_transpose2d` in one dimension.

    Parameters
    ----------
    input : ndarray of shape (N, C, L), float32 or float64
    weight : ndarray of shape (C, K/groups, S), same dtype
    bias : ndarray of shape (K,), optional
        Added last.
    stride, dilation : int
    padding : int
        Elements left out at each end.
    output_padding : int
        Elements added at the right; below stride or dilation.
    groups : int
    out : ndarray of shape (N, K, Q), optional

    Returns
    -------
    ndarray of shape (N, K, Q)
        ``Q = (L - 1) * stride - 2 * padding + dilation * (S - 1) + output_padding + 1``.

    Raises
    ------
    ValueError, TypeError
        As :func:`conv_transpose2d`.

    Examples
    --------
    >>> import numpy as np
    >>> x, w = np.array([[[1.0, 10.0]]]), np.array([[[1.0, 2.0]]])
    >>> conv_transpose1d(x, w)
    array([[[ 1., 12., 20.]]])
    >>> conv_transpose1d(x, w, stride=2)
    array([[[ 1.,  2., 10., 20.]]])
    """
    op = transposed(1, stride, padding, output_padding, groups, dilation)
    result: Array = apply("conv_transpose1d", op, input, weight, bias, out=out)
    return result


def conv_transpose1d_backward(
    grad_output: Array, input: Array, weight: Array, bias: Array | None = None, stride: Any = 1, padding: Any = 0,
    output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
) -> tuple[Array | None, ...]:  # fmt: skip
    """Return the gradients of :func:`conv_transpose1d`; arguments and errors as of the forward call.

    Returns
    -------
    grad_input, grad_weight, grad_bias
        The last is None where there was no bias.

    Raises
    ------
    ValueError, TypeError
        As :func:`conv_transpose2d`, and if ``grad_output`` has another shape than the result.

    Examples
    --------
    >>> import numpy as np
    >>> x, w = np.array([[[1.0, 10.0]]]), np.array([[[1.0, 2.0]]])
    >>> dx, dw, db = conv_transpose1d_backward(np.ones((1, 1, 3)), x, w)
    >>> dx.ravel(), dw.ravel(), db
    (array([3., 3.]), array([11., 11.]), None)
    """
    op = transposed(1, stride, padding, output_padding, groups, dilation)
    grads: tuple[Array | None, ...] = apply_backward("conv_transpose1d_backward", op, grad_output, input, weight, bias)
    return grads
