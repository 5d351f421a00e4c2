"""Batch normalisation (Ioffe and Szegedy, 2015), forward and backward."""


import numpy as np

import fastconv._ext.norm as norm
from fastconv.functional._channels import (
    check_channels,
    check_eps,
    check_momentum,
    check_statistics,
    check_values,
)
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
    number,
    reserve,
    same_dtype,
    scratch,
)
from fastconv.functional._epilogue import (
    Activation,
    before_activation,
    epilogue_of,
    known_arrays,
    lying,
    mask_into,
    masking,
)

_FORWARD = by_dtype(norm.forward)
_EVALUATE = by_dtype(norm.evaluate)
_COEFFICIENTS = by_dtype(norm.coefficients)
_BACKWARD = by_dtype(norm.backward)


def batch_norm(
    input: Array,
    running_mean: Array | None,
    running_var: Array | None,
    weight: Array | None = None,
    bias: Array | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    activation: Activation = None,
    add: Array | None = None,
    pre: Array | None = None,
    out: Array | None = None,
    saved: Array | None = None,
) -> Array:
    """Normalise every channel: y = (x - mean) / sqrt(var + eps) * weight + bias.

    In training mean and variance are the batch's (the variance biased), and the running statistics move
    towards them: r = (1 - momentum) * r + momentum * s, where the variance is taken unbiased. In evaluation
    they are the running ones. Either way the values are ``fma(x, scale, shift)`` with the scale and shift of
    :func:`batch_norm_coefficients`.

    Parameters
    ----------
    input : (N, C) or (N, C, H, W) array of float32 or float64
    running_mean, running_var : (C,) arrays or None
        Updated in place in training, where they may be None; required in evaluation.
    weight, bias : (C,) arrays, optional
        1 and 0 where None.
    momentum : float in [0, 1]
    eps : float >= 0
    activation : None, str or tuple
        A name of ``fastconv.functional.ACTIVATIONS``, or a tuple of one and its parameters, as
        ``("leaky_relu", 0.1)``: applied in the same pass, bit-equal to calling it afterwards.
    add : array of input's shape, optional
        Added before the activation, bit-equal to :func:`add`.
    pre : array of input's shape, optional
        Receives what the activation is given, which some activations' gradients are made from. Like ``add`` it
        shares no memory with ``out``.
    out : array of input's shape, optional
    saved : (2, C) array, optional
        Receives the mean and the inverse standard deviation that were used, for :func:`batch_norm_backward`.
    training : bool
        Whether statistics are the batch's, or the running ones.

    Returns
    -------
    array of input's shape

    Raises
    ------
    TypeError
        If an array is not float32 or float64, or their dtypes differ.
    ValueError
        If a shape does not fit, a value is out of range, or training has one value per channel or none.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.functional import batch_norm
    >>> batch_norm(np.array([[1.0], [3.0]]), None, None, training=True, eps=0.0)
    array([[-1.],
           [ 1.]])
    """
    where = "batch_norm"
    running = {"running_mean": running_mean, "running_var": running_var}
    dtype = same_dtype(where, {**running, "weight": weight, "bias": bias, "saved": saved}, input=input)
    check_rank(where, "input", input, (2, 4))
    momentum = check_momentum(where, number(where, "momentum", momentum))
    eps = check_eps(where, number(where, "eps", eps))
    training = flag(f"{where}: training", training)
    weight = _channels(where, "weight", weight, input)
    bias = _channels(where, "bias", bias, input)
    x = _rows(input)
    m, c = x.shape
    out = check_out(where, "out", out, input.shape, dtype)
    if saved is None:
        saved = np.empty((2, c), dtype)
    saved = check_grad(where, "saved", saved, (2, c), dtype)
    epilogue = epilogue_of(where, activation, input.shape, dtype, add=add, pre=pre)
    read = {"input": input, "weight": weight, "bias": bias}
    written = {"out": out, "saved": saved}
    apart = {"weight": weight, "bias": bias, "add": add, **running, **written}
    check_apart(where, {"pre": pre}, {"input": input, **apart})
    check_apart(where, written, {"add": add})
    if training:
        check_values(where, m, input)
        for name, statistic in running.items():
            if statistic is not None:
                _channels(where, name, statistic, input)
                check_grad(where, name, statistic, (c,), dtype)
        check_apart(where, {**written, **running}, read, in_place=("input",))
        check_apart(where, running, {"add": add})
        _FORWARD[dtype](x, weight, bias, running_mean, running_var, momentum, eps, _rows(out), saved, epilogue, scratch)
    else:
        mean, var = _statistics(where, running_mean, running_var, input)
        check_apart(where, written, {**read, **running}, in_place=("input",))
        _EVALUATE[dtype](x, weight, bias, mean, var, eps, _rows(out), saved, epilogue, scratch)
    return out


def batch_norm_coefficients(
    running_mean: Array,
    running_var: Array,
    weight: Array | None = None,
    bias: Array | None = None,
    eps: float = 1e-5,
    *,
    out: Array | None = None,
    saved: Array | None = None,
) -> Array:
    """Return the (2, C) scale and shift of evaluation: ``fma(x, scale, shift)`` has its bits.

    scale = weight / sqrt(var + eps) and shift = bias - mean * scale, computed in float64 and rounded once.
    ``out`` receives them, ``saved`` the mean and the inverse standard deviation. Other parameters are those of
    :func:`batch_norm`.

    Parameters
    ----------
    running_mean, running_var : ndarray of shape (C,)
    weight, bias : ndarray of shape (C,), optional
    out, saved : ndarray of shape (2, C), optional

    Returns
    -------
    ndarray of shape (2, C)

    Raises
    ------
    TypeError, ValueError
        As :func:`batch_norm`.

    Examples
    --------
    >>> import numpy as np
    >>> scale, shift = batch_norm_coefficients(np.array([10.0]), np.array([4.0]), eps=0.0)
    >>> scale, shift
    (array([0.5]), array([-5.]))
    """
    where = "batch_norm_coefficients"
    dtype = same_dtype(where, {"weight": weight, "bias": bias}, running_mean=running_mean, running_var=running_var)
    check_rank(where, "running_mean", running_mean, 1)
    like = np.broadcast_to(running_mean, (1, *running_mean.shape))
    mean, var = _statistics(where, running_mean, running_var, like)
    size = (2, mean.size)
    coefficients = np.empty(size, dtype) if out is None else check_grad(where, "out", out, size, dtype)
    saved = np.empty(size, dtype) if saved is None else check_grad(where, "saved", saved, size, dtype)
    eps = check_eps(where, number(where, "eps", eps))
    read = {"running_mean": mean, "running_var": var, "weight": weight, "bias": bias}
    check_apart(where, {"out": coefficients, "saved": saved}, read)
    _COEFFICIENTS[dtype](
        _channels(where, "weight", weight, like),
        _channels(where, "bias", bias, like),
        mean,
        var,
        eps,
        coefficients,
        saved,
    )()
    return coefficients


def batch_norm_backward(
    grad_output: Array,
    input: Array,
    weight: Array | None,
    saved: Array,
    training: bool,
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
) -> tuple[Array | None, Array | None, Array | None]:
    """Return the gradients of :func:`batch_norm` with respect to input, weight and bias.

    With xhat = (x - mean) * invstd and means over all values of a channel,

        grad_weight += sum(grad_output * xhat)        grad_bias += sum(grad_output)
        grad_input = weight * invstd * (grad_output - mean(grad_output) - xhat * mean(grad_output * xhat))

    where evaluation has the first term of grad_input alone: its statistics are constants.

    Parameters
    ----------
    grad_output, input : (N, C) or (N, C, H, W) arrays
    weight : (C,) array or None
        None also leaves out its gradient.
    saved : (2, C) array
        As the forward pass filled it.
    training : bool
        As in the forward pass.
    bias : bool
        False leaves out the gradient of the bias.
    output, pre_activation : array of input's shape, optional
        What the forward call returned, and wrote to ``pre``; ``activation`` needs one of them, as
        ``ACTIVATIONS[name].known`` says.
    activation : None, str or tuple
        As given to the forward call; one with learned parameters has its own backward call before this one.
    need_input_grad : bool
        False leaves out the gradient of the input.
    grad_input : array of input's shape, optional
    grad_weight, grad_bias : (C,) arrays, optional
        Added to; fresh arrays when None.
    grad_add : array of input's shape, optional
        Written over: the gradient of ``add``, before the activation.

    Returns
    -------
    grad_input, grad_weight, grad_bias
        None where not asked for.

    Raises
    ------
    TypeError, ValueError
        As :func:`batch_norm`.

    Examples
    --------
    >>> import numpy as np
    >>> x, saved = np.array([[1.0], [1.0], [3.0], [3.0]]), np.empty((2, 1))
    >>> y = batch_norm(x, None, None, training=True, eps=0.0, saved=saved)
    >>> dx, dw, db = batch_norm_backward(np.eye(4)[:, :1], x, np.ones(1), saved, True)
    >>> dx.ravel(), dw, db
    (array([ 0.5, -0.5,  0. ,  0. ]), array([-1.]), array([1.]))
    """
    where = "batch_norm_backward"
    dtype = same_dtype(where, {"weight": weight}, grad_output=grad_output, input=input, saved=saved)
    check_rank(where, "input", input, (2, 4))
    check_shape(where, "grad_output", grad_output, input.shape)
    weight = _channels(where, "weight", weight, input)
    x = _rows(input)
    c = x.shape[1]
    check_shape(where, "saved", saved, (2, c))
    training, bias = flag(f"{where}: training", training), flag(f"{where}: bias", bias)
    need_input_grad = flag(f"{where}: need_input_grad", need_input_grad)
    grad_input = check_out(where, "grad_input", grad_input, input.shape, dtype) if need_input_grad else None
    grad_weight = None if weight is None else check_grad(where, "grad_weight", grad_weight, (c,), dtype)
    grad_bias = check_grad(where, "grad_bias", grad_bias, (c,), dtype) if bias else None
    mask = masking(where, activation, grad_output, output, pre_activation)
    read = {"grad_output": grad_output, **known_arrays(mask, output, pre_activation)}
    apart = {"weight": weight, "saved": saved}
    check_apart(where, {"grad_add": grad_add}, {**read, **apart, "input": input}, in_place=read)
    check_apart(
        where,
        {"grad_input": grad_input, "grad_weight": grad_weight, "grad_bias": grad_bias},
        {**read, **apart, "input": input, "grad_add": grad_add},
        in_place=("input", *read),
    )
    masked = before_activation(where, grad_output, grad_add)
    rest = (
        x,
        weight,
        as_contiguous(saved),
        training,
        None if grad_input is None else _rows(grad_input),
        grad_weight,
        grad_bias,
        scratch,
    )
    g = lying(grad_output)
    if mask is None or (activation == "relu" and masked is None):  # the kernel applies ReLU's mask itself
        gradient, known = g, None if mask is None else mask[0].reshape(x.shape)
    else:
        masked = scratch(g.nbytes, "mask")[: g.nbytes].view(dtype).reshape(g.shape) if masked is None else masked
        gradient, known = masked, None
    arguments = (gradient.reshape(x.shape), known, *rest)
    reserve(g.nbytes, (_BACKWARD[dtype], arguments))
    if masked is not None:
        mask_into(g, mask, masked)
    _BACKWARD[dtype](*arguments)
    return grad_input, grad_weight, grad_bias


def _rows(a: Array) -> Array:
    """Return ``a`` as contiguous rows of channels, (N * H * W, C): a view where memory allows."""
    return (memory(as_nhwc(a)) if a.ndim == 4 else as_contiguous(a)).reshape(-1, a.shape[1])


def _channels(where: str, name: str, a: Array | None, input: Array) -> Array | None:
    """Return the per-channel array ``a`` contiguous, after a check that it has input's channels."""
    check_channels(where, name, a, input)
    return None if a is None else as_contiguous(a)


def _statistics(
    where: str, running_mean: Array | None, running_var: Array | None, input: Array
) -> tuple[Array, Array]:
    mean = _channels(where, "running_mean", running_mean, input)
    var = _channels(where, "running_var", running_var, input)
    check_statistics(where, mean, var)
    assert mean is not None
    assert var is not None
    return mean, var
