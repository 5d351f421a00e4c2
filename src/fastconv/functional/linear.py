"""Linear layers and biases: the convolution kernels on images of one pixel."""

from functools import lru_cache

from fastconv._ext.bias import bias_gradient
from fastconv._ext.conv.algorithms import kernel
from fastconv._ext.conv.geometry import Geometry
from fastconv.functional._check import (
    Array,
    as_contiguous,
    as_nhwc,
    by_dtype,
    check_apart,
    check_grad,
    check_out,
    check_rank,
    check_shape,
    flag,
    memory,
    reserve,
    same_dtype,
    scratch,
)
from fastconv.functional._epilogue import (
    Activation,
    before_activation,
    epilogue_of,
    finish,
    known_arrays,
    lying,
    mask_into,
    masking,
)
from fastconv.functional._fused import gradients

_bias_gradient = by_dtype(bias_gradient)


@lru_cache(maxsize=512)
def _geometry(n: int, c: int, k: int) -> Geometry:
    return Geometry(n, c, 1, 1, k, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 1)


def _pixels(a: Array) -> Array:
    """Return (N, D) as images of one pixel in NHWC memory."""
    return a[:, None, None, :]


def _filters(a: Array) -> Array:
    """Return (K, D) as filters of one pixel."""
    return a[:, :, None, None]


def _check_sizes(where: str, input: Array, weight: Array) -> None:
    check_rank(where, "input", input, 2)
    check_rank(where, "weight", weight, 2)
    if input.shape[1] != weight.shape[1]:
        raise ValueError(f"{where}: weight expects {weight.shape[1]} features, input has {input.shape[1]} "
                         f"(input.shape={input.shape}, weight.shape={weight.shape})")  # fmt: skip
    if weight.shape[0] == 0:
        raise ValueError(f"{where}: weight has an empty dimension, shape {weight.shape}")


def linear(
    input: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    coefficients: Array | None = None,
    activation: Activation = None,
    add: Array | None = None,
    pre: Array | None = None,
    out: Array | None = None,
) -> Array:
    """Return ``input @ weight.T + bias``, each output one chain of fused multiply-adds over the features.

    Parameters
    ----------
    input : ndarray of shape (N, D), float32 or float64
    weight : ndarray of shape (K, D), same dtype
    bias : ndarray of shape (K,), optional
    coefficients : ndarray of shape (2, K), optional
        Scale and shift of batch normalisation in evaluation (:func:`batch_norm_coefficients`), applied in the same
        pass before the activation, bit-equal to calling :func:`batch_norm` afterwards.
    activation : None, str or tuple
        A name of ``fastconv.functional.ACTIVATIONS``, or a tuple of one and its parameters, as
        ``("leaky_relu", 0.1)``: applied in the same pass, bit-equal to calling it afterwards.
    add : ndarray of shape (N, K), optional
        Added before the activation, bit-equal to :func:`add`.
    pre : ndarray of shape (N, K), optional
        Receives what the activation is given, which some activations' gradients are made from. Like ``add`` it
        shares no memory with ``out``.
    out : ndarray of shape (N, K), optional

    Returns
    -------
    ndarray of shape (N, K)

    Raises
    ------
    ValueError
        If shapes do not fit together.
    TypeError
        If an array is not float32 or float64, or dtypes differ.

    Examples
    --------
    >>> import numpy as np
    >>> linear(np.array([[1.0, 2.0]]), np.array([[3.0, 4.0]]), np.array([0.5]))
    array([[11.5]])
    """
    dtype = same_dtype("linear", {"bias": bias, "coefficients": coefficients}, input=input, weight=weight)
    _check_sizes("linear", input, weight)
    n, k = input.shape[0], weight.shape[0]
    out = check_out("linear", "out", out, (n, k), dtype)
    check_apart("linear", {"out": out, "pre": pre}, {"input": input, "weight": weight, "bias": bias,
                                                     "coefficients": coefficients, "add": add})  # fmt: skip
    epilogue = epilogue_of(
        "linear", activation, (n, k), dtype, bias=bias, coefficients=coefficients, add=add, pre=pre
    )
    g = _geometry(*input.shape, k)
    run = kernel("forward", g, dtype.itemsize)
    run(_pixels(as_contiguous(input)), _filters(as_contiguous(weight)), _pixels(out), g, epilogue, scratch)
    return out


def linear_backward(
    grad_output: Array,
    input: Array,
    weight: Array,
    *,
    bias: bool = True,
    output: Array | None = None,
    pre_activation: Array | None = None,
    activation: Activation = None,
    need_input_grad: bool = True,
    grad_input: Array | None = None,
    grad_weight: Array | None = None,
    grad_bias: Array | None = None,
    grad_add: Array | None = None,
) -> tuple[Array | None, Array, Array | None]:
    """Return the gradients of :func:`linear` for its input, weight and bias.

    Parameters
    ----------
    grad_output : ndarray of shape (N, K)
    input, weight
        As given to the forward call.
    bias, output, pre_activation, activation, need_input_grad, grad_input, grad_weight, grad_bias, grad_add
        As in :func:`conv2d_backward`: ``grad_input`` is written over, the parameters' gradients are added to.

    Returns
    -------
    grad_input, grad_weight, grad_bias
        None where not asked for.

    Raises
    ------
    ValueError, TypeError
        As :func:`linear`, and if a gradient's shape does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> x, w = np.array([[1.0, 2.0]]), np.array([[3.0, 4.0]])
    >>> linear_backward(np.array([[10.0]]), x, w)
    (array([[30., 40.]]), array([[10., 20.]]), array([10.]))
    """
    where = "linear_backward"
    dtype = same_dtype(where, grad_output=grad_output, input=input, weight=weight)
    _check_sizes(where, input, weight)
    (n, d), k = input.shape, weight.shape[0]
    check_shape(where, "grad_output", grad_output, (n, k))
    bias, need_input_grad = flag(f"{where}: bias", bias), flag(f"{where}: need_input_grad", need_input_grad)
    grad_weight = check_grad(where, "grad_weight", grad_weight, weight.shape, dtype)
    grad_bias = check_grad(where, "grad_bias", grad_bias, (k,), dtype) if bias else None
    grad_input = check_out(where, "grad_input", grad_input, (n, d), dtype) if need_input_grad else None
    mask = masking(where, activation, grad_output, output, pre_activation)
    read = {"grad_output": grad_output, **known_arrays(mask, output, pre_activation)}
    check_apart(where, {"grad_add": grad_add}, {**read, "input": input, "weight": weight}, in_place=read)
    check_apart(where, {"grad_input": grad_input, "grad_weight": grad_weight, "grad_bias": grad_bias},
                {**read, "input": input, "weight": weight, "grad_add": grad_add})  # fmt: skip
    masked = before_activation(where, grad_output, grad_add)
    gradients(
        _pixels(as_contiguous(grad_output)), mask, None if masked is None else _pixels(masked),
        _pixels(as_contiguous(input)), _filters(as_contiguous(weight)), _geometry(n, d, k),
        _filters(grad_weight), grad_bias, None if grad_input is None else _pixels(grad_input),
    )  # fmt: skip
    return grad_input, grad_weight, grad_bias


def _rows(where: str, name: str, a: Array) -> Array:
    """Return (N, C) or (N, C, H, W) as contiguous rows of C channels."""
    check_rank(where, name, a, (2, 4))
    return as_contiguous(a) if a.ndim == 2 else memory(as_nhwc(a)).reshape(-1, a.shape[1])


def bias_add(
    input: Array,
    bias: Array,
    *,
    activation: Activation = None,
    add: Array | None = None,
    pre: Array | None = None,
    out: Array | None = None,
) -> Array:
    """Add ``bias`` along axis 1.

    Parameters
    ----------
    input : ndarray of shape (N, C) or (N, C, H, W), float32 or float64
    bias : ndarray of shape (C,), same dtype
    activation : None, str or tuple
        A name of ``fastconv.functional.ACTIVATIONS``, or a tuple of one and its parameters, as
        ``("leaky_relu", 0.1)``: applied in the same pass, bit-equal to calling it afterwards.
    add : ndarray of the input's shape, optional
        Added before the activation, bit-equal to :func:`add`.
    pre : ndarray of the input's shape, optional
        Receives what the activation is given, which some activations' gradients are made from. Like ``add`` it
        shares no memory with ``out``.
    out : ndarray of the input's shape, optional
        May be ``input`` itself.

    Returns
    -------
    ndarray of the input's shape

    Raises
    ------
    ValueError, TypeError
        If shapes or dtypes do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> bias_add(np.array([[1.0, 2.0]]), np.array([10.0, -5.0]))
    array([[11., -3.]])
    >>> bias_add(np.array([[1.0, 2.0]]), np.array([10.0, -5.0]), activation="relu")
    array([[11.,  0.]])
    """
    dtype = same_dtype("bias_add", input=input, bias=bias)
    rows = _rows("bias_add", "input", input)
    out = check_out("bias_add", "out", out, input.shape, dtype)
    check_apart("bias_add", {"out": out}, {"input": input, "bias": bias, "add": add, "pre": pre}, in_place=("input",))
    check_apart("bias_add", {"pre": pre}, {"input": input, "bias": bias, "add": add})
    target = out if out.ndim == 2 else memory(out).reshape(-1, out.shape[1])
    finish[dtype](rows, target, epilogue_of(
        "bias_add", activation, input.shape, dtype, bias=bias, add=add, pre=pre
    ))  # fmt: skip
    return out


def bias_add_backward(
    grad_output: Array,
    *,
    output: Array | None = None,
    pre_activation: Array | None = None,
    activation: Activation = None,
    grad_input: Array | None = None,
    grad_bias: Array | None = None,
) -> tuple[Array, Array]:
    """Return the gradients of :func:`bias_add` for its input and its bias; that of ``add`` is the input's.

    Parameters
    ----------
    grad_output : ndarray of shape (N, C) or (N, C, H, W)
    output, pre_activation, activation
        As in :func:`conv2d_backward`.
    grad_input : ndarray of the same shape, optional
        Written over.
    grad_bias : ndarray of shape (C,), optional
        Added to.

    Returns
    -------
    grad_input, grad_bias

    Raises
    ------
    ValueError, TypeError
        If shapes or dtypes do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> dx, db = bias_add_backward(np.array([[1.0, 2.0], [3.0, 4.0]]))
    >>> db
    array([4., 6.])
    """
    where = "bias_add_backward"
    dtype = same_dtype(where, grad_output=grad_output)
    check_rank(where, "grad_output", grad_output, (2, 4))
    grad_bias = check_grad(where, "grad_bias", grad_bias, (grad_output.shape[1],), dtype)
    grad_input = check_out(where, "grad_input", grad_input, grad_output.shape, dtype)
    mask = masking(where, activation, grad_output, output, pre_activation)
    read = {"grad_output": grad_output, **known_arrays(mask, output, pre_activation)}
    check_apart(where, {"grad_input": grad_input, "grad_bias": grad_bias}, read, in_place=read)
    call = _bias_gradient[dtype], (_rows(where, "grad_output", grad_input), grad_bias, scratch)
    reserve(grad_output.nbytes, call)
    mask_into(lying(grad_output), mask, lying(grad_input))
    call[0](*call[1])
    return grad_input, grad_bias
