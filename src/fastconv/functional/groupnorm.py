"""Normalisation of each sample by its own statistics: group, instance, layer and local response normalisation."""

from typing import Any

from fastconv.functional._check import Array, number, whole
from fastconv.functional._ops import groupnorm as _ops
from fastconv.functional._ops._run import apply, apply_backward


def group_norm(
    input: Array,
    num_groups: int,
    weight: Array | None = None,
    bias: Array | None = None,
    eps: float = 1e-5,
    *,
    out: Array | None = None,
) -> Array:
    """Normalise groups of channels of each sample (Wu and He, "Group normalization", ECCV 2018).

    y = (x - mean) / sqrt(var + eps) * weight + bias, mean and biased variance over a group's channels and pixels.
    A channel's sums run as in :func:`batch_norm`; a group's are made of them in the order of the channels, in float64.
    The values are ``fma(x, scale, shift)``.

    Parameters
    ----------
    input : ndarray of shape (N, C), (N, C, L) or (N, C, H, W), float32 or float64
    num_groups : int
        Divides C.
    weight, bias : ndarray of shape (C,), optional
    eps : float >= 0
    out : ndarray of the input's shape, optional

    Returns
    -------
    ndarray of the input's shape

    Raises
    ------
    TypeError
        If an array is not float32 or float64, or their dtypes differ.
    ValueError
        If a shape does not fit, the groups do not divide the channels, or a group has one value.

    Examples
    --------
    >>> import numpy as np
    >>> group_norm(np.array([[1.0, 3.0, 5.0, 9.0]]), 2, eps=0.0)
    array([[-1.,  1., -1.,  1.]])
    """
    op = _ops.grouped(num_groups, _eps("group_norm", eps))
    result: Array = apply("group_norm", op, input, weight, bias, out=out)
    return result


def group_norm_backward(
    grad_output: Array,
    input: Array,
    num_groups: int,
    weight: Array | None = None,
    bias: Array | None = None,
    eps: float = 1e-5,
) -> tuple[Array, Array | None, Array | None]:
    """Return the gradients of :func:`group_norm` for input, weight and bias (None where there is none).

    Arguments and errors as of the forward call; `grad_output` has the result's shape. Samples are added in order.

    Returns
    -------
    grad_input, grad_weight, grad_bias
        None where there is no such parameter.

    Raises
    ------
    TypeError, ValueError
        As :func:`group_norm`, and if ``grad_output`` has another shape.

    Examples
    --------
    >>> import numpy as np
    >>> x, weight = np.array([[1.0, 3.0]]), np.array([2.0, 2.0])
    >>> dx, dweight, dbias = group_norm_backward(np.array([[1.0, 0.0]]), x, 1, weight, np.zeros(2), eps=0.0)
    >>> dweight, dbias
    (array([-1.,  0.]), array([1., 0.]))
    """
    op = _ops.grouped(num_groups, _eps("group_norm_backward", eps))
    return _three(apply_backward("group_norm_backward", op, grad_output, input, weight, bias))


def instance_norm(
    input: Array,
    weight: Array | None = None,
    bias: Array | None = None,
    eps: float = 1e-5,
    *,
    out: Array | None = None,
) -> Array:
    """Normalise each channel of each sample: :func:`group_norm` with one channel per group.

    (Ulyanov, Vedaldi and Lempitsky, "Instance normalization", arXiv 1607.08022.)

    Parameters
    ----------
    input : ndarray of shape (N, C, L) or (N, C, H, W), float32 or float64
    weight, bias : ndarray of shape (C,), optional
    eps : float >= 0
    out : ndarray of the input's shape, optional

    Returns
    -------
    ndarray of the input's shape

    Raises
    ------
    TypeError, ValueError
        As :func:`group_norm`.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[[1.0, 3.0], [10.0, 50.0]]])
    >>> instance_norm(x, eps=0.0)
    array([[[-1.,  1.],
            [-1.,  1.]]])
    """
    op = _ops.GroupNorm(0, _eps("instance_norm", eps))
    result: Array = apply("instance_norm", op, input, weight, bias, out=out)
    return result


def instance_norm_backward(
    grad_output: Array, input: Array, weight: Array | None = None, bias: Array | None = None, eps: float = 1e-5
) -> tuple[Array, Array | None, Array | None]:
    """Return the gradients of :func:`instance_norm`; arguments and results as of :func:`group_norm_backward`.

    Returns
    -------
    grad_input, grad_weight, grad_bias
        None where there is no such parameter.

    Raises
    ------
    TypeError, ValueError
        As :func:`group_norm`, and if ``grad_output`` has another shape.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[[1.0, 2.0, 3.0]]])
    >>> dx, dweight, dbias = instance_norm_backward(np.array([[[1.0, 0.0, 0.0]]]), x)
    >>> dx.round(3), dweight is None
    (array([[[ 0.204, -0.408,  0.204]]]), True)
    """
    op = _ops.GroupNorm(0, _eps("instance_norm_backward", eps))
    return _three(apply_backward("instance_norm_backward", op, grad_output, input, weight, bias))


def layer_norm(
    input: Array,
    normalized_shape: int | tuple[int, ...],
    weight: Array | None = None,
    bias: Array | None = None,
    eps: float = 1e-5,
    *,
    out: Array | None = None,
) -> Array:
    """Normalise over the last axes (Ba, Kiros and Hinton, "Layer normalization", arXiv 1607.06450).

    The elements of a row are summed in lanes, in an order that the row's length alone decides; where a row is all of
    a sample they are taken as they lie in memory, channels last.

    Parameters
    ----------
    input : ndarray, float32 or float64
    normalized_shape : int or tuple of int
        The sizes of the last axes; the first axis is none of them.
    weight, bias : ndarray of that shape, optional
    eps : float >= 0
    out : ndarray of the input's shape, optional

    Returns
    -------
    ndarray of the input's shape

    Raises
    ------
    TypeError
        If an array is not float32 or float64, or their dtypes differ.
    ValueError
        If a shape does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> layer_norm(np.array([[1.0, 3.0], [5.0, 9.0]]), 2, eps=0.0)
    array([[-1.,  1.],
           [-1.,  1.]])
    """
    op = _ops.LayerNorm(_ops.shape_of(normalized_shape), _eps("layer_norm", eps))
    result: Array = apply("layer_norm", op, input, weight, bias, out=out)
    return result


def layer_norm_backward(
    grad_output: Array,
    input: Array,
    normalized_shape: int | tuple[int, ...],
    weight: Array | None = None,
    bias: Array | None = None,
    eps: float = 1e-5,
) -> tuple[Array, Array | None, Array | None]:
    """Return the gradients of :func:`layer_norm` for input, weight and bias (None where there is none).

    Arguments and errors as of the forward call; `grad_output` has the result's shape.

    Returns
    -------
    grad_input, grad_weight, grad_bias
        None where there is no such parameter.

    Raises
    ------
    TypeError, ValueError
        As :func:`layer_norm`, and if ``grad_output`` has another shape.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[1.0, 2.0, 3.0]])
    >>> dx, dweight, dbias = layer_norm_backward(np.array([[0.0, 1.0, 0.0]]), x, 3, np.ones(3))
    >>> dx.round(4), dbias is None
    (array([[-0.4082,  0.8165, -0.4082]]), True)
    """
    op = _ops.LayerNorm(_ops.shape_of(normalized_shape), _eps("layer_norm_backward", eps))
    return _three(apply_backward("layer_norm_backward", op, grad_output, input, weight, bias))


def layer_norm2d(
    input: Array,
    weight: Array | None = None,
    bias: Array | None = None,
    eps: float = 1e-5,
    *,
    out: Array | None = None,
) -> Array:
    """Normalise each pixel over its channels: :func:`layer_norm` over axis 1.

    (Z. Liu et al., "A ConvNet for the 2020s", CVPR 2022; ``LayerNorm2d`` of torchvision and timm.) Channels lie side by
    side in memory: it has the bits of :func:`layer_norm` with the axis moved to the end, and moves nothing.

    Parameters
    ----------
    input : ndarray of shape (N, C, L) or (N, C, H, W), float32 or float64
    weight, bias : ndarray of shape (C,), optional
    eps : float >= 0
    out : ndarray of the input's shape, optional

    Returns
    -------
    ndarray of the input's shape

    Raises
    ------
    TypeError
        If an array is not float32 or float64, or their dtypes differ.
    ValueError
        If a shape does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> layer_norm2d(np.array([[[1.0, 5.0], [3.0, 9.0]]]), eps=0.0)
    array([[[-1., -1.],
            [ 1.,  1.]]])
    """
    op = _ops.LayerNorm2d(_eps("layer_norm2d", eps))
    result: Array = apply("layer_norm2d", op, input, weight, bias, out=out)
    return result


def layer_norm2d_backward(
    grad_output: Array, input: Array, weight: Array | None = None, bias: Array | None = None, eps: float = 1e-5
) -> tuple[Array, Array | None, Array | None]:
    """Return the gradients of :func:`layer_norm2d` for input, weight and bias (None where there is none).

    Arguments and errors as of the forward call; `grad_output` has the result's shape.

    Returns
    -------
    grad_input, grad_weight, grad_bias
        None where there is no such parameter.

    Raises
    ------
    TypeError, ValueError
        As :func:`layer_norm2d`, and if ``grad_output`` has another shape.

    Examples
    --------
    >>> import numpy as np
    >>> x, grad = np.array([[[1.0], [2.0], [3.0]]]), np.array([[[0.0], [1.0], [0.0]]])
    >>> dx, dweight, dbias = layer_norm2d_backward(grad, x, np.ones(3))
    >>> dx.ravel().round(4), dbias is None
    (array([-0.4082,  0.8165, -0.4082]), True)
    """
    op = _ops.LayerNorm2d(_eps("layer_norm2d_backward", eps))
    return _three(apply_backward("layer_norm2d_backward", op, grad_output, input, weight, bias))


def local_response_norm(
    input: Array, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0, *, out: Array | None = None
) -> Array:
    """Divide by ``(k + alpha / size * sum of squares of neighbouring channels) ** beta``.

    The neighbours of channel c are those from ``c - size // 2`` to ``c + (size - 1) // 2``, summed in this order
    (Krizhevsky, Sutskever and Hinton, "ImageNet classification with deep convolutional neural networks", NIPS 2012,
    section 3.3; there alpha is PyTorch's and ours divided by the size).

    Parameters
    ----------
    input : ndarray of shape (N, C, L) or (N, C, H, W), float32 or float64
    size : int
    alpha, beta, k : float
        What is raised to the power `beta` must be above 0 everywhere, as it is with a positive `k` and `alpha`.
    out : ndarray of the input's shape, optional

    Returns
    -------
    ndarray of the input's shape

    Raises
    ------
    TypeError
        If the input is not float32 or float64.
    ValueError
        If the input is neither 3-d nor 4-d or empty but for the batch, or the size is below 1.

    Examples
    --------
    >>> import numpy as np
    >>> local_response_norm(np.array([[[1.0]], [[2.0]]]), 1, alpha=3.0, beta=1.0).round(6).ravel()
    array([0.25    , 0.153846])
    """
    result: Array = apply("local_response_norm", _response("local_response_norm", size, alpha, beta, k), input, out=out)
    return result


def local_response_norm_backward(
    grad_output: Array, input: Array, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Array:
    """Return the gradient of :func:`local_response_norm`; arguments and errors as there.

    Returns
    -------
    ndarray of the input's shape

    Raises
    ------
    TypeError, ValueError
        As :func:`local_response_norm`, and if ``grad_output`` has another shape.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[[1.0]], [[2.0]]])
    >>> local_response_norm_backward(np.ones((2, 1, 1)), x, 1, alpha=3.0, beta=1.0).round(4).ravel()
    array([-0.125 , -0.0651])
    """
    where = "local_response_norm_backward"
    grad: Array = apply_backward(where, _response(where, size, alpha, beta, k), grad_output, input)
    return grad


def _response(where: str, size: Any, alpha: Any, beta: Any, k: Any) -> _ops.LocalResponseNorm:
    values = (number(where, name, value) for name, value in (("alpha", alpha), ("beta", beta), ("k", k)))
    return _ops.LocalResponseNorm(whole(f"{where}: size", size), *values)


def _eps(where: str, eps: Any) -> float:
    return number(where, "eps", eps)


def _three(grads: Any) -> tuple[Array, Array | None, Array | None]:
    x, weight, bias = grads
    return x, weight, bias
