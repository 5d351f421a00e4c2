"""Images in another size."""

from typing import Any

from fastconv.functional._check import Array
from fastconv.functional._ops._run import apply, apply_backward
from fastconv.functional._ops.resampling import resampling


def interpolate(
    input: Array,
    size: int | tuple[int, int] | None = None,
    scale_factor: float | tuple[float, float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
) -> Array:
    """Return images in another size.

    With "nearest" pixel (p, q) is pixel (floor(p * H / P), floor(q * W / Q)) of the input. With "bilinear" it lies
    at ((p + 1/2) * H / P - 1/2, (q + 1/2) * W / Q - 1/2), at least 0, and is the mean of the four pixels around,
    weighted by nearness; columns are weighted first, then rows. With `align_corners` it lies at
    (p * (H - 1) / (P - 1), q * (W - 1) / (Q - 1)).

    A scale factor's inverse stands in the place of H / P, as in PyTorch, whose arithmetic this is: float32 for
    "nearest", the arrays' own precision for "bilinear".

    Parameters
    ----------
    input : ndarray of shape (N, C, H, W), float32 or float64
    size : int or pair of int, optional
        (P, Q).
    scale_factor : float or pair of float, optional
        In the place of `size`: P = floor(H * factor).
    mode : {"nearest", "bilinear"}
    align_corners : bool, optional
        Of "bilinear" alone: the corners of input and output are the same pixels. False by default.

    Returns
    -------
    ndarray of shape (N, C, P, Q)

    Raises
    ------
    ValueError
        If the input is not 4-d, neither or both sizes are given, there is no such mode, or `align_corners` is given
        for "nearest".
    TypeError
        If the input is not float32 or float64.

    Examples
    --------
    >>> import numpy as np
    >>> interpolate(np.array([[[[1.0, 2.0]]]]), scale_factor=2)[0, 0]
    array([[1., 1., 2., 2.],
           [1., 1., 2., 2.]])
    """
    result: Array = apply("interpolate", resampling(size, scale_factor, mode, align_corners), input)
    return result


def interpolate_backward(
    grad_output: Array, input: Array, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
    align_corners: bool | None = None,
) -> Array:  # fmt: skip
    """Return the gradient of :func:`interpolate`.

    With "nearest" a pixel's is the sum over its copies, row by row; with "bilinear" over what it has given to, rows
    first, then columns, each in their order.

    Arguments and errors as of the forward call; `grad_output` has the result's shape.

    Returns
    -------
    ndarray of the input's shape

    Raises
    ------
    ValueError, TypeError
        As :func:`interpolate`, and if ``grad_output`` has another shape than the result.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[[[1.0, 2.0]]]])
    >>> interpolate_backward(np.ones((1, 1, 2, 4)), x, scale_factor=2)
    array([[[[4., 4.]]]])
    """
    op = resampling(size, scale_factor, mode, align_corners)
    grad: Array = apply_backward("interpolate_backward", op, grad_output, input)
    return grad
