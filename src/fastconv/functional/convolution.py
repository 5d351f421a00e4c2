"""Convolution in one and two dimensions."""

from typing import Any

import numpy as np

from fastconv._ext.conv.algorithms import kernel
from fastconv._ext.conv.geometry import Geometry
from fastconv.functional._algorithm import asked
from fastconv.functional._check import (
    Array,
    OfSignals,
    as_contiguous,
    as_image,
    as_nhwc,
    check_apart,
    check_grad,
    check_out,
    check_rank,
    check_shape,
    flag,
    image_shape,
    memory,
    same_dtype,
    scratch,
)
from fastconv.functional._epilogue import (
    NOTHING,
    Activation,
    before_activation,
    epilogue_of,
    known_arrays,
    lying,
    masking,
)
from fastconv.functional._fused import gradients
from fastconv.functional._geometry import Padding, convolution, length_1d, padding_1d


def conv2d(
    input: Array,
    weight: Array,
    bias: Array | None = None,
    stride: int | tuple[int, int] = 1,
    padding: Padding = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    *,
    coefficients: Array | None = None,
    activation: Activation = None,
    add: Array | None = None,
    pre: Array | None = None,
    out: Array | None = None,
    algorithm: str | None = None,
) -> Array:
    """Correlate images with filters (the "convolution" of neural networks: the kernel is not flipped).

    ``out[n, k, p, q] = sum over c, r, s of input[n, c, p*stride + r*dilation - padding, ...] * weight[k, c, r, s]
    + bias[k]``. By the algorithm "direct" each output is one chain of fused multiply-adds in the order (r, s, c), the
    bias added last; ``docs/numerics.md`` tells the others'.

    Parameters
    ----------
    input : ndarray of shape (N, C, H, W), float32 or float64
    weight : ndarray of shape (K, C/groups, R, S), same dtype
    bias : ndarray of shape (K,), optional
    stride, dilation : int or pair of int
        Vertical, horizontal; at least 1.
    padding : int, pair of int, ((top, bottom), (left, right)), "same" or "valid"
        Zeros around the image. "same" keeps the size and needs stride 1; an odd total puts the extra zero
        at the bottom and right.
    groups : int
        Output channel k sees the input channels of its group alone; ``groups == C == K`` is depthwise.
    coefficients : ndarray of shape (2, K), optional
        Scale and shift of batch normalisation in evaluation (:func:`batch_norm_coefficients`), applied in the same
        pass before the activation, bit-equal to calling :func:`batch_norm` afterwards.
    activation : None, str or tuple
        A name of ``fastconv.functional.ACTIVATIONS``, or a tuple of one and its parameters, as
        ``("leaky_relu", 0.1)``: applied in the same pass, bit-equal to calling it afterwards.
    add : ndarray of shape (N, K, P, Q), optional
        Added before the activation, bit-equal to :func:`add`.
    pre : ndarray of shape (N, K, P, Q), optional
        Receives what the activation is given, which some activations' gradients are made from. Like ``add`` it
        shares no memory with ``out``.
    out : ndarray, optional
        Result buffer: NCHW shape over NHWC memory.
    algorithm : {"auto", "winograd", "direct"}, optional
        "winograd" needs a 3x3 or 5x5 kernel, stride 1 and one group; "auto" takes what pays, by shape and dtype
        alone. As ``fastconv.config.algorithm`` says where it is None.

    Returns
    -------
    ndarray of shape (N, K, P, Q)
        Over NHWC memory.

    Raises
    ------
    ValueError
        If shapes, stride, padding, dilation or groups do not fit together, the kernel is larger than the
        padded input, or the algorithm cannot compute such a convolution.
    TypeError
        If an array is not float32 or float64, or dtypes differ.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.arange(9, dtype=np.float32).reshape(1, 1, 3, 3)
    >>> conv2d(x, np.ones((1, 1, 2, 2), np.float32))[0, 0]
    array([[ 8., 12.],
           [20., 24.]], dtype=float32)
    """
    dtype = same_dtype("conv2d", {"bias": bias, "coefficients": coefficients}, input=input, weight=weight)
    check_rank("conv2d", "input", input, 4)
    check_rank("conv2d", "weight", weight, 4)
    g = convolution("conv2d", input.shape, weight.shape, stride, padding, dilation, groups)
    return _run_forward("conv2d", g, dtype, input, weight, bias, coefficients, activation, add, pre, out,
                        asked("conv2d", g, dtype.itemsize, algorithm))  # fmt: skip


def _run_forward(where: str, g: Geometry, dtype: np.dtype[Any], input: Array, weight: Array, bias: Array | None,
                 coefficients: Array | None, activation: Activation, add: Array | None, pre: Array | None,
                 out: Array | None, algorithm: str) -> Array:  # fmt: skip
    shape = (g.n, g.k, g.p, g.q)
    out = check_out(where, "out", out, shape, dtype)
    check_apart(where, {"out": out, "pre": pre}, {"input": input, "weight": weight, "bias": bias,
                                                  "coefficients": coefficients, "add": add})  # fmt: skip
    epilogue = epilogue_of(
        where, activation, shape, dtype, bias=bias, coefficients=coefficients, add=add, pre=pre
    )
    run = kernel("forward", g, dtype.itemsize, algorithm)
    run(memory(as_nhwc(input)), as_contiguous(weight), memory(out), g, epilogue, scratch)
    return out


def conv2d_backward(
    grad_output: Array,
    input: Array,
    weight: Array,
    stride: int | tuple[int, int] = 1,
    padding: Padding = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
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
    algorithm: str | None = None,
) -> tuple[Array | None, Array, Array | None]:
    """Return the gradients of :func:`conv2d` for its input, weight and bias.

    Parameters
    ----------
    grad_output : ndarray of shape (N, K, P, Q)
    input, weight, stride, padding, dilation, groups
        As given to the forward call.
    bias : bool
        Whether the forward call had a bias.
    output, pre_activation : ndarray of shape (N, K, P, Q), optional
        What the forward call returned, and wrote to ``pre``; ``activation`` needs one of them, as
        ``ACTIVATIONS[name].known`` says.
    activation : None, str or tuple
        As given to the forward call; one with learned parameters has its own backward call before this one.
    need_input_grad : bool
        False spares the gradient of the input (the first layer of a net), and None is returned for it.
    grad_input : ndarray of shape (N, C, H, W), optional
        Written over.
    grad_weight, grad_bias : ndarray of the parameters' shapes, optional
        *Added to*; fresh zeros when not given.
    grad_add : ndarray of shape (N, K, P, Q), optional
        Written over: the gradient of ``add``, before the activation.
    algorithm : {"auto", "winograd", "direct"}, optional
        As :func:`conv2d` takes it.

    Returns
    -------
    grad_input, grad_weight, grad_bias
        None where not asked for.

    Raises
    ------
    ValueError, TypeError
        As :func:`conv2d`, and if a gradient's shape does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> x, w = np.array([[[[1.0, 2.0, 3.0]]]]), np.array([[[[10.0, 20.0]]]])
    >>> dx, dw, db = conv2d_backward(np.ones((1, 1, 1, 2)), x, w)
    >>> dx.ravel(), dw.ravel(), db
    (array([10., 30., 20.]), array([3., 5.]), array([2.]))
    """
    where = "conv2d_backward"
    dtype = same_dtype(where, grad_output=grad_output, input=input, weight=weight)
    check_rank(where, "input", input, 4)
    check_rank(where, "weight", weight, 4)
    g = convolution(where, input.shape, weight.shape, stride, padding, dilation, groups)
    check_shape(where, "grad_output", grad_output, (g.n, g.k, g.p, g.q))
    return _run_backward(where, g, dtype, grad_output, input, weight, bias, output, pre_activation, activation,
                         need_input_grad, grad_input, grad_weight, grad_bias, grad_add,
                         asked(where, g, dtype.itemsize, algorithm))  # fmt: skip


def _run_backward(where: str, g: Geometry, dtype: np.dtype[Any], grad_output: Array, input: Array, weight: Array,
                  bias: bool, output: Array | None, pre_activation: Array | None, activation: Activation,
                  need_input_grad: bool, grad_input: Array | None, grad_weight: Array | None,
                  grad_bias: Array | None, grad_add: Array | None, algorithm: str
                  ) -> tuple[Array | None, Array, Array | None]:  # fmt: skip
    bias, need_input_grad = flag(f"{where}: bias", bias), flag(f"{where}: need_input_grad", need_input_grad)
    grad_weight = check_grad(where, "grad_weight", grad_weight, weight.shape, dtype)
    if bias:
        grad_bias = check_grad(where, "grad_bias", grad_bias, (g.k,), dtype)
    if need_input_grad:
        grad_input = check_out(where, "grad_input", grad_input, (g.n, g.c, g.h, g.w), dtype)
    mask = masking(where, activation, grad_output, output, pre_activation)
    grad_bias = grad_bias if bias else None
    grad_input = grad_input if need_input_grad else None
    read = {"grad_output": grad_output, **known_arrays(mask, output, pre_activation)}
    check_apart(where, {"grad_add": grad_add}, {**read, "input": input, "weight": weight}, in_place=read)
    check_apart(where, {"grad_input": grad_input, "grad_weight": grad_weight, "grad_bias": grad_bias},
                {**read, "input": input, "weight": weight, "grad_add": grad_add})  # fmt: skip
    masked = before_activation(where, grad_output, grad_add)
    gradients(
        lying(grad_output), mask, masked, memory(as_nhwc(input)), as_contiguous(weight), g, grad_weight, grad_bias,
        None if grad_input is None else memory(grad_input), algorithm,
    )  # fmt: skip
    return grad_input, grad_weight, grad_bias


def conv2d_input_grad(
    grad_output: Array,
    input_shape: tuple[int, int, int, int],
    weight: Array,
    stride: int | tuple[int, int] = 1,
    padding: Padding = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    *,
    out: Array | None = None,
    algorithm: str | None = None,
) -> Array:
    """Return the gradient of :func:`conv2d` for its input alone (transposed convolution).

    Parameters
    ----------
    grad_output : ndarray of shape (N, K, P, Q)
    input_shape : tuple of int
        (N, C, H, W) of the forward call.
    weight, stride, padding, dilation, groups
        As given to the forward call.
    out : ndarray of shape (N, C, H, W), optional
    algorithm : {"auto", "winograd", "direct"}, optional
        As :func:`conv2d` takes it.

    Returns
    -------
    ndarray of shape (N, C, H, W)

    Raises
    ------
    ValueError, TypeError
        As :func:`conv2d_backward`.

    Examples
    --------
    >>> import numpy as np
    >>> w = np.array([[[[10.0, 20.0]]]])
    >>> conv2d_input_grad(np.ones((1, 1, 1, 2)), (1, 1, 1, 3), w)
    array([[[[10., 30., 20.]]]])
    """
    where = "conv2d_input_grad"
    dtype = same_dtype(where, grad_output=grad_output, weight=weight)
    check_rank(where, "weight", weight, 4)
    g = convolution(where, image_shape(where, input_shape), weight.shape, stride, padding, dilation, groups)
    check_shape(where, "grad_output", grad_output, (g.n, g.k, g.p, g.q))
    out = check_out(where, "out", out, (g.n, g.c, g.h, g.w), dtype)
    check_apart(where, {"out": out}, {"grad_output": grad_output, "weight": weight})
    run = kernel("input_gradient", g, dtype.itemsize, asked(where, g, dtype.itemsize, algorithm))
    run(memory(as_nhwc(grad_output)), as_contiguous(weight), memory(out), g, NOTHING, scratch)
    return out


def conv1d(
    input: Array,
    weight: Array,
    bias: Array | None = None,
    stride: int = 1,
    padding: int | str | tuple[int, int] = 0,
    dilation: int = 1,
    groups: int = 1,
    *,
    coefficients: Array | None = None,
    activation: Activation = None,
    add: Array | None = None,
    pre: Array | None = None,
    out: Array | None = None,
) -> Array:
    """Correlate signals with filters: :func:`conv2d` in one dimension.

    Parameters
    ----------
    input : ndarray of shape (N, C, L), float32 or float64
    weight : ndarray of shape (K, C/groups, S)
    bias : ndarray of shape (K,), optional
    padding : int, (left, right), "same" or "valid"
    coefficients, activation, add, pre
        As in :func:`conv2d`, arrays as ``out``.
    out : ndarray of shape (N, K, Q), optional
        As an earlier call returned it: a view over memory of shape (N, Q, K).
    stride, dilation, groups : int
        As in :func:`conv2d`.

    Returns
    -------
    ndarray of shape (N, K, Q)

    Raises
    ------
    ValueError, TypeError
        As :func:`conv2d`.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[[1.0, 2.0, 4.0, 8.0]]])
    >>> conv1d(x, np.array([[[-1.0, 1.0]]]))
    array([[[1., 2., 4.]]])
    """
    where = OfSignals("conv1d")
    dtype = same_dtype(where, {"bias": bias, "coefficients": coefficients}, input=input, weight=weight)
    check_rank(where, "input", input, 3)
    check_rank(where, "weight", weight, 3)
    x, w = input[:, :, None, :], weight[:, :, None, :]
    g = convolution(where, x.shape, w.shape, length_1d(where, "stride", stride), padding_1d(where, padding),
                 length_1d(where, "dilation", dilation), groups)  # fmt: skip
    out = _run_forward(where, g, dtype, x, w, bias, coefficients, activation, as_image(where, "add", add),
                       as_image(where, "pre", pre), as_image(where, "out", out), "direct")  # fmt: skip
    return out[:, :, 0, :]


def conv1d_backward(
    grad_output: Array,
    input: Array,
    weight: Array,
    stride: int = 1,
    padding: int | str | tuple[int, int] = 0,
    dilation: int = 1,
    groups: int = 1,
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
    """Return the gradients of :func:`conv1d` for its input, weight and bias.

    Parameters
    ----------
    grad_output : ndarray of shape (N, K, Q)
    input, weight, stride, padding, dilation, groups
        As given to the forward call.
    bias : bool
        Whether the forward call had a bias.
    output, pre_activation : ndarray of shape (N, K, Q), optional
    activation : None, str or tuple
    need_input_grad : bool
        These four as in :func:`conv2d_backward`.
    grad_input : ndarray of shape (N, C, L), optional
        Written over.
    grad_weight, grad_bias : ndarray of the parameters' shapes, optional
        *Added to*; fresh zeros when not given.
    grad_add : ndarray of shape (N, K, Q), optional
        Written over: the gradient of ``add``, before the activation.

    Returns
    -------
    grad_input, grad_weight, grad_bias
        None where not asked for.

    Raises
    ------
    ValueError, TypeError
        As :func:`conv2d_backward`.

    Examples
    --------
    >>> import numpy as np
    >>> x, w = np.array([[[1.0, 2.0, 3.0]]]), np.array([[[10.0, 20.0]]])
    >>> dx, dw, db = conv1d_backward(np.ones((1, 1, 2)), x, w)
    >>> dx.ravel(), dw.ravel(), db
    (array([10., 30., 20.]), array([3., 5.]), array([2.]))
    """
    where = OfSignals("conv1d_backward")
    dtype = same_dtype(where, grad_output=grad_output, input=input, weight=weight)
    check_rank(where, "input", input, 3)
    check_rank(where, "weight", weight, 3)
    x, w = input[:, :, None, :], weight[:, :, None, :]
    g = convolution(where, x.shape, w.shape, length_1d(where, "stride", stride), padding_1d(where, padding),
                 length_1d(where, "dilation", dilation), groups)  # fmt: skip
    check_shape(where, "grad_output", grad_output, (g.n, g.k, g.q))
    grad_weight = check_grad(where, "grad_weight", grad_weight, weight.shape, dtype)
    output, pre_activation = as_image(where, "output", output), as_image(where, "pre_activation", pre_activation)
    grad_input, grad_add = as_image(where, "grad_input", grad_input), as_image(where, "grad_add", grad_add)
    gx, _, gb = _run_backward(where, g, dtype, grad_output[:, :, None, :], x, w, bias, output, pre_activation,
                              activation, need_input_grad, grad_input, grad_weight[:, :, None, :], grad_bias,
                              grad_add, "direct")  # fmt: skip
    return (None if gx is None else gx[:, :, 0, :]), grad_weight, gb
