"""What moves elements and computes nothing: reshaping, permuting, padding, joining."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastconv.functional._check import Array, integer, same_dtype
from fastconv.functional._ops import shape as _shape
from fastconv.functional._ops._run import apply, apply_backward


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
    op = _shape.Cat(integer("cat: axis", axis))
    result: Array = apply("cat", op, *_shape.several("cat", arrays))
    return result


def cat_backward(grad_output: Array, arrays: Sequence[Array], axis: int = 0) -> tuple[Array, ...]:
    """Return the gradients of :func:`cat` for all arrays; errors as there.

    Parameters
    ----------
    grad_output : ndarray of the result's shape
    arrays, axis
        As given to the forward call.

    Returns
    -------
    tuple of ndarray
        One for each array, of its shape.

    Raises
    ------
    TypeError, ValueError
        As :func:`cat`, and if ``grad_output`` has another shape than the result.

    Examples
    --------
    >>> import numpy as np
    >>> a, b = np.zeros(1), np.zeros(2)
    >>> cat_backward(np.array([1.0, 2.0, 3.0]), [a, b])
    (array([1.]), array([2., 3.]))
    """
    op = _shape.Cat(integer("cat_backward: axis", axis))
    grads = apply_backward("cat_backward", op, grad_output, *_shape.several("cat_backward", arrays))
    return grads if isinstance(grads, tuple) else (grads,)


def stack(arrays: Sequence[Array], axis: int = 0) -> Array:
    """Return arrays of one shape along a new axis.

    Parameters
    ----------
    arrays : sequence of ndarray of one shape and float dtype
    axis : int
        The new axis in the result; -1 is the last.

    Returns
    -------
    ndarray

    Raises
    ------
    TypeError, ValueError
        If there is none, or dtypes or shapes differ.

    Examples
    --------
    >>> import numpy as np
    >>> stack([np.array([1.0, 2.0]), np.array([3.0, 4.0])], 1)
    array([[1., 3.],
           [2., 4.]])
    """
    same_dtype("stack", **{f"arrays[{i}]": a for i, a in enumerate(_shape.several("stack", arrays))})
    at = _shape.stacked("stack", arrays, axis)
    result: Array = apply("stack", _shape.Cat(at), *(np.expand_dims(a, at) for a in arrays))
    return result


def pad(input: Array, padding: Sequence[int], value: float = 0.0) -> Array:
    """Return an array with a constant around it.

    Parameters
    ----------
    input : ndarray
    padding : sequence of int
        (left, right), or (left, right, top, bottom), ...: pairs from the last axis on, as in PyTorch. Negative
        numbers cut.
    value : float

    Returns
    -------
    ndarray

    Raises
    ------
    ValueError
        If there are more pairs than axes, or more is cut than there is.

    Examples
    --------
    >>> import numpy as np
    >>> pad(np.array([[1.0, 2.0]]), (1, 0, 0, 1))
    array([[0., 1., 2.],
           [0., 0., 0.]])
    >>> pad(np.array([[1.0, 2.0]]), (-1, 0))
    array([[2.]])
    """
    same_dtype("pad", input=input)
    result: Array = apply("pad", _shape.padding_of(input.ndim, padding, value), input)
    return result


def pad_backward(grad_output: Array, input: Array, padding: Sequence[int]) -> Array:
    """Return the gradient of :func:`pad`; arguments and errors as there.

    Returns
    -------
    ndarray of the input's shape

    Raises
    ------
    TypeError, ValueError
        As :func:`pad`, and if ``grad_output`` has another shape than the result.

    Examples
    --------
    >>> import numpy as np
    >>> pad_backward(np.array([[5.0, 6.0, 7.0]]), np.zeros((1, 2)), (1, 0))
    array([[6., 7.]])
    """
    same_dtype("pad_backward", grad_output=grad_output, input=input)
    grad: Array = apply_backward("pad_backward", _shape.padding_of(input.ndim, padding), grad_output, input)
    return grad


def flatten(input: Array, start_dim: int = 0, end_dim: int = -1) -> Array:
    """Return an array in which the axes from one to another are one, read in C order of the shape.

    Parameters
    ----------
    input : ndarray of float32 or float64
    start_dim, end_dim : int
        First and last of the axes that become one; negative ones count from the end.

    Returns
    -------
    ndarray

    Raises
    ------
    ValueError
        If the axes do not exist or are in the wrong order.

    Examples
    --------
    >>> import numpy as np
    >>> flatten(np.zeros((8, 3, 4, 4)), 1).shape
    (8, 48)
    """
    result: Array = apply("flatten", _shape.flattening(start_dim, end_dim), input)
    return result


def reshape(input: Array, *shape: Any) -> Array:
    """Return the elements in another shape, read in C order of both; one size may be -1.

    Parameters
    ----------
    input : ndarray of float32 or float64
    *shape : int, or one tuple of int

    Returns
    -------
    ndarray

    Raises
    ------
    ValueError
        If the numbers of elements differ.

    Examples
    --------
    >>> import numpy as np
    >>> reshape(np.arange(6.0), 2, -1)
    array([[0., 1., 2.],
           [3., 4., 5.]])
    >>> reshape(np.arange(6.0), 4, 2)
    Traceback (most recent call last):
        ...
    ValueError: reshape: an array of shape (6,) cannot have shape (4, 2)
    """
    result: Array = apply("reshape", _shape.Reshape(_shape.shape_of("reshape: shape", shape)), input)
    return result


def permute(input: Array, *axes: Any) -> Array:
    """Return an array with its axes in another order.

    Parameters
    ----------
    input : ndarray of float32 or float64
    *axes : int, or one tuple of int
        Which axis of the input each axis of the result is.

    Returns
    -------
    ndarray

    Raises
    ------
    ValueError
        If the axes are not each axis once.

    Examples
    --------
    >>> import numpy as np
    >>> permute(np.zeros((8, 3, 32, 16)), 0, 2, 3, 1).shape
    (8, 32, 16, 3)
    """
    result: Array = apply("permute", _shape.Permute(_shape.shape_of("permute: axes", axes)), input)
    return result
