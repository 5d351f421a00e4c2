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
) -> Array:
    """Return images in another size: pixel (p, q) is pixel (floor(p * H / P), floor(q * W / Q)) of the input.

    A scale factor's inverse stands in the place of H / P, as in PyTorch, whose float32 arithmetic this is.

    Parameters
    ----------
    input : ndarray of shape (N, C, H, W), float32 or float64
    size : int or pair of int, optional
        (P, Q).
    scale_factor : float or pair of float, optional
        In the place of `size`: P = floor(H * factor).
    mode : {"nearest"}

    Returns
    -------
    ndarray of shape (N, C, P, Q)

    Raises
    ------
    ValueError
        If the input is not 4-d, neither or both sizes are given, or there is no such mode.
    TypeError
        If the input is not float32 or float64.

    Examples
    --------
    >>> import numpy as np
    >>> interpolate(np.array([[[[1.0, 2.0]]]]), scale_factor=2)[0, 0]
    array([[1., 1., 2., 2.],
           [1., 1., 2., 2.]])
    """
    result: Array = apply("interpolate", resampling(size, scale_factor, mode), input)
    return result


def interpolate_backward(grad_output: Array, input: Array, size: Any = None, scale_factor: Any = None,
                         mode: str = "nearest") -> Array:  # fmt: skip
    """Return the gradient of :func:`interpolate`: a pixel's is the sum over its copies, row by row.

    Arguments and errors as of the forward call; `grad_output` has the result's shape.
    """
    grad: Array = apply_backward("interpolate_backward", resampling(size, scale_factor, mode), grad_output, input)
    return grad
