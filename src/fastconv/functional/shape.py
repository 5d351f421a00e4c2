"""What moves elements and computes nothing: reshaping, permuting, padding, joining."""

from collections.abc import Sequence
from typing import Any

from fastconv.functional._check import Array, check_array
from fastconv.functional._ops import shape as _shape
from fastconv.functional._ops._run import apply, apply_backward
from fastconv.graph.operation import axis_of


def cat(arrays: Sequence[Array], axis: int = 0) -> Array:
    """Return arrays one behind the other along an axis.

    Parameters
    ----------
    arrays : sequence of ndarray of one float dtype
        Equal shapes but for that axis.
    axis : int

    Returns
    -------
    ndarray
        Channels-last where it has three or four dimensions, else in C order; so do all functions here.

    Raises
    ------
    TypeError, ValueError
        If there is none, or dtypes or shapes do not fit together.

    Examples
    --------
    >>> import numpy as np
    >>> cat([np.ones((2, 1)), np.zeros((2, 2))], 1)
    array([[1., 0., 0.],
           [1., 0., 0.]])
    """
    if not len(arrays):
        raise ValueError("cat: there is no array")
    result: Array = apply("cat", _shape.Cat(int(axis)), *arrays)
    return result


def cat_backward(grad_output: Array, arrays: Sequence[Array], axis: int = 0) -> tuple[Array, ...]:
    """Return the gradients of :func:`cat` for all arrays; errors as there.

    Parameters
    ----------
    grad_output : ndarray of the result's shape
    arrays, axis
        As given to the forward call.
    """
    grads = apply_backward("cat_backward", _shape.Cat(int(axis)), grad_output, *arrays)
    return grads if isinstance(grads, tuple) else (grads,)


def stack(arrays: Sequence[Array], axis: int = 0) -> Array:
    """Return arrays of one shape along a new axis; errors as of :func:`cat`."""
    if not len(arrays):
        raise ValueError("stack: there is no array")
    for a in arrays:
        check_array("stack", "an array", a)
    at = axis_of("stack", axis, arrays[0].shape, 1)
    return cat([a.reshape(*a.shape[:at], 1, *a.shape[at:]) for a in arrays], at)


def pad(input: Array, padding: Sequence[int], value: float = 0.0) -> Array:
    """Return an array with a constant around it.

    Parameters
    ----------
    input : ndarray
    padding : sequence of int
        (left, right), or (left, right, top, bottom), ...: pairs from the last axis on, as in PyTorch. Negative
        numbers cut.
    value : float

    Raises
    ------
    ValueError
        If there are more pairs than axes, or more is cut than there is.
    """
    result: Array = apply("pad", _shape.Pad(_shape.widths_of(input.ndim, padding), float(value)), input)
    return result


def pad_backward(grad_output: Array, input: Array, padding: Sequence[int]) -> Array:
    """Return the gradient of :func:`pad`; arguments and errors as there."""
    op = _shape.Pad(_shape.widths_of(input.ndim, padding), 0.0)
    grad: Array = apply_backward("pad_backward", op, grad_output, input)
    return grad


def flatten(input: Array, start_dim: int = 0, end_dim: int = -1) -> Array:
    """Return an array in which the axes from one to another are one, read in C order of the shape.

    Raises
    ------
    ValueError
        If the axes do not exist or are in the wrong order.
    """
    result: Array = apply("flatten", _shape.Flatten(int(start_dim), int(end_dim)), input)
    return result


def reshape(input: Array, *shape: Any) -> Array:
    """Return the elements in another shape, read in C order of both; one size may be -1.

    Raises
    ------
    ValueError
        If the numbers of elements differ.
    """
    result: Array = apply("reshape", _shape.Reshape(_shape.shape_of(shape)), input)
    return result


def permute(input: Array, *axes: Any) -> Array:
    """Return an array with its axes in another order.

    Raises
    ------
    ValueError
        If the axes are not each axis once.
    """
    result: Array = apply("permute", _shape.Permute(_shape.shape_of(axes)), input)
    return result
