"""Arithmetic with broadcasting, and sums and means over axes."""

from typing import Any

import numpy as np

from fastconv._ext import elementwise
from fastconv.functional._check import Array, by_dtype, check_apart, check_out, same_dtype
from fastconv.functional._ops._run import apply, apply_backward
from fastconv.functional._ops.arithmetic import Arithmetic, reduction
from fastconv.functional._views import check_batch, flat

_kernel = by_dtype(elementwise.binary)


def add(a: Array | float, b: Array | float, *, out: Array | None = None) -> Array:
    """Return ``a + b``, broadcast as by NumPy.

    Parameters, result and errors are those of :func:`sub`. Arrays of one shape, the joint of a residual block, have a
    kernel of their own; then ``out`` may be ``a`` or ``b`` itself, and a signal (N, C, L) comes back in C order.

    Examples
    --------
    >>> import numpy as np
    >>> add(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([10.0, 20.0]))
    array([[11., 22.],
           [13., 24.]])
    """
    if not (isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and a.shape == b.shape):
        return _binary("add", a, b, out)
    dtype = same_dtype("add", a=a, b=b)
    check_batch("add", "a", a)
    out = check_out("add", "out", out, a.shape, dtype)
    check_apart("add", {"out": out}, {"a": a, "b": b}, in_place=("a", "b"))
    _kernel[dtype](flat(a), flat(b), flat(out), "add")
    return out


def sub(a: Array | float, b: Array | float, *, out: Array | None = None) -> Array:
    """Return ``a - b``, broadcast as by NumPy.

    Parameters
    ----------
    a, b : ndarray of float32 or float64, or number
        Of one dtype, of shapes that can be broadcast together.
    out : ndarray of the result's shape, optional

    Returns
    -------
    ndarray
        Channels-last where it has three or four dimensions, else in C order.

    Raises
    ------
    TypeError, ValueError
        If dtypes differ, or shapes do not fit together.

    Examples
    --------
    >>> import numpy as np
    >>> sub(np.array([[1.0, 2.0], [3.0, 4.0]]), 1.0)
    array([[0., 1.],
           [2., 3.]])
    >>> sub(np.ones(2), np.ones(3))
    Traceback (most recent call last):
        ...
    ValueError: sub: shapes (2,) and (3,) cannot be broadcast together
    """
    return _binary("sub", a, b, out)


def mul(a: Array | float, b: Array | float, *, out: Array | None = None) -> Array:
    """Return ``a * b``; parameters, result and errors are those of :func:`sub`.

    Examples
    --------
    >>> import numpy as np
    >>> mul(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[10.0], [0.0]]))
    array([[10., 20.],
           [ 0.,  0.]])
    """
    return _binary("mul", a, b, out)


def div(a: Array | float, b: Array | float, *, out: Array | None = None) -> Array:
    """Return ``a / b``; parameters, result and errors are those of :func:`sub`.

    Examples
    --------
    >>> import numpy as np
    >>> div(np.array([[1.0, -6.0]]), np.array([[4.0], [2.0]]))
    array([[ 0.25, -1.5 ],
           [ 0.5 , -3.  ]])
    """
    return _binary("div", a, b, out)


def _binary(kind: str, a: Any, b: Any, out: Array | None) -> Array:
    result: Array = apply(kind, Arithmetic(kind), a, b, out=out)
    return result


def sub_backward(grad_output: Array, a: Array, b: Array) -> tuple[Array, Array]:
    """Return the gradients of :func:`sub` for both operands, summed over the axes that were broadcast.

    Parameters
    ----------
    grad_output : ndarray of the result's shape
    a, b : ndarray
        As given to the forward call.

    Returns
    -------
    grad_a, grad_b : ndarray
        Of the operands' shapes.

    Raises
    ------
    TypeError, ValueError
        As :func:`sub`, and if ``grad_output`` has another shape than the result.

    Examples
    --------
    >>> import numpy as np
    >>> sub_backward(np.ones((3, 2)), np.zeros((3, 2)), np.zeros(2))
    (array([[1., 1.],
           [1., 1.],
           [1., 1.]]), array([-3., -3.]))
    """
    return _binary_backward("sub", grad_output, a, b)


def mul_backward(grad_output: Array, a: Array, b: Array) -> tuple[Array, Array]:
    """Return the gradients of :func:`mul`; parameters and errors are those of :func:`sub_backward`.

    Returns
    -------
    grad_a, grad_b : ndarray
        Of the operands' shapes.

    Examples
    --------
    >>> import numpy as np
    >>> mul_backward(np.ones(2), np.array([2.0, 3.0]), np.array([5.0, 7.0]))
    (array([5., 7.]), array([2., 3.]))
    """
    return _binary_backward("mul", grad_output, a, b)


def div_backward(grad_output: Array, a: Array, b: Array) -> tuple[Array, Array]:
    """Return the gradients of :func:`div`; parameters and errors are those of :func:`sub_backward`.

    Returns
    -------
    grad_a, grad_b : ndarray
        Of the operands' shapes.

    Examples
    --------
    >>> import numpy as np
    >>> div_backward(np.ones(2), np.array([1.0, 6.0]), np.array([4.0, 2.0]))
    (array([0.25, 0.5 ]), array([-0.0625, -1.5   ]))
    """
    return _binary_backward("div", grad_output, a, b)


def _binary_backward(kind: str, grad_output: Array, a: Array, b: Array) -> tuple[Array, Array]:
    grads: tuple[Array, Array] = apply_backward(f"{kind}_backward", Arithmetic(kind), grad_output, a, b)
    return grads


def mean(input: Array, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Array:
    """Return the mean over one axis, several, or all.

    Parameters
    ----------
    input : ndarray of float32 or float64
    axis : int or tuple of int, optional
        All axes by default.
    keepdims : bool
        Keep the axes, with size 1.

    Returns
    -------
    ndarray
        The sum (in the order of :func:`sum`) divided by the count.

    Raises
    ------
    TypeError, ValueError
        If the dtype is another, or an axis does not exist or is empty.

    Examples
    --------
    >>> import numpy as np
    >>> mean(np.array([[1.0, 2.0], [3.0, 6.0]]), 0)
    array([2., 4.])
    """
    return _reduce("mean", input, axis, keepdims)


def sum(input: Array, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Array:
    """Return the sum over one axis, several, or all.

    The elements of one sum are added in shards that the shape alone cuts, in C order of the summed axes, and the
    shards in a fixed tree, so that neither threads nor instruction set matter.

    Parameters and errors are those of :func:`mean`; no elements sum to 0.

    Returns
    -------
    ndarray
        Without the axes that were summed, or with size 1 there.

    Examples
    --------
    >>> import numpy as np
    >>> sum(np.array([[1.0, 2.0], [3.0, 4.0]]), axis=1, keepdims=True)
    array([[3.],
           [7.]])
    """
    return _reduce("sum", input, axis, keepdims)


def _reduce(kind: str, input: Array, axis: Any, keepdims: bool) -> Array:
    result: Array = apply(kind, reduction(kind, axis, keepdims), input)
    return result


def mean_backward(
    grad_output: Array, input: Array, axis: int | tuple[int, ...] | None = None, keepdims: bool = False
) -> Array:
    """Return the gradient of :func:`mean`: ``grad_output`` divided by the count, at every element.

    Returns
    -------
    ndarray of the input's shape

    Raises
    ------
    TypeError, ValueError
        As :func:`mean`, and if ``grad_output`` has another shape than the result.

    Examples
    --------
    >>> import numpy as np
    >>> mean_backward(np.array([8.0, 4.0]), np.zeros((2, 4)), axis=1)
    array([[2., 2., 2., 2.],
           [1., 1., 1., 1.]])
    """
    return _reduce_backward("mean", grad_output, input, axis, keepdims)


def sum_backward(
    grad_output: Array, input: Array, axis: int | tuple[int, ...] | None = None, keepdims: bool = False
) -> Array:
    """Return the gradient of :func:`sum`: ``grad_output`` at every element; errors as of :func:`mean_backward`.

    Returns
    -------
    ndarray of the input's shape

    Raises
    ------
    TypeError, ValueError
        As :func:`mean_backward`.

    Examples
    --------
    >>> import numpy as np
    >>> sum_backward(np.array([8.0, 4.0]), np.zeros((2, 3)), axis=1)
    array([[8., 8., 8.],
           [4., 4., 4.]])
    """
    return _reduce_backward("sum", grad_output, input, axis, keepdims)


def _reduce_backward(kind: str, grad_output: Array, input: Array, axis: Any, keepdims: bool) -> Array:
    op = reduction(kind, axis, keepdims)
    grad: Array = apply_backward(f"{kind}_backward", op, grad_output, input)
    return grad
