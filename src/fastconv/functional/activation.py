"""Activations, element by element.

exp and tanh are polynomials evaluated alike on every instruction set; denormal numbers count as zero.
"""

from fastconv.functional._check import Array, same_dtype
from fastconv.functional._epilogue import Epilogue, activate_backward, alone, finish, parse
from fastconv.functional._views import check_batch, flat, gradient_like, output_like


def _column(a: Array) -> Array:
    """Return the elements in the order of their memory, as pixels of one channel."""
    return flat(a).reshape(-1, 1)


def _alone(where: str, name: str, params: tuple[float, ...]) -> Epilogue:
    """Return the epilogue that is an activation with these parameters, checked, and nothing else."""
    return alone(name, parse(where, (name, *params) if params else name)[1])


def _map(name: str, input: Array, out: Array | None, *params: float) -> Array:
    """Write the activation of every element."""
    where = name.removesuffix("_tanh")
    dtype = same_dtype(where, input=input)
    check_batch(where, "input", input)
    out = output_like(where, input, out, dtype)
    finish[dtype](_column(input), _column(out), _alone(where, name, params))
    return out


def _map_backward(
    name: str, what: str, grad_output: Array, known: Array, grad_input: Array | None, *params: float
) -> Array:
    """Write the gradient of an activation, made from its ``what``: its output or its input."""
    where = name.removesuffix("_tanh") + "_backward"
    grad_input = gradient_like(where, what, grad_output, known, grad_input)
    dtype = grad_input.dtype
    activate_backward[dtype](_column(grad_output), _column(known), _column(grad_input), _alone(where, name, params))
    return grad_input


def relu(input: Array, *, out: Array | None = None) -> Array:
    """Return ``x < 0 ? 0 : x``, which keeps NaN.

    Parameters
    ----------
    input : ndarray of any shape, float32 or float64
    out : ndarray of the same shape, optional
        May be ``input`` itself, here and in every activation.

    Returns
    -------
    ndarray of the input's shape; NHWC memory where it is 4-d, else C-contiguous

    Raises
    ------
    TypeError
        If the dtype is neither float32 nor float64.
    ValueError
        If a dimension other than the first is empty, ``out`` cannot take the result, or it shares memory with the
        input and is not the input.

    Examples
    --------
    >>> import numpy as np
    >>> relu(np.array([-1.0, 0.5, np.nan]))
    array([0. , 0.5, nan])
    """
    return _map("relu", input, out)


def relu_backward(grad_output: Array, output: Array, *, grad_input: Array | None = None) -> Array:
    """Return the gradient of :func:`relu`: ``grad_output``, zero where the output (or the input) is <= 0.

    Parameters
    ----------
    grad_output, output : ndarray of one shape and dtype
    grad_input : ndarray of the same shape, optional
        Written over; may be ``grad_output`` itself, here and in every activation.

    Returns
    -------
    ndarray of that shape

    Raises
    ------
    TypeError, ValueError
        As :func:`relu`, and if shapes or dtypes differ.
    """
    return _map_backward("relu", "output", grad_output, output, grad_input)


def leaky_relu(input: Array, negative_slope: float = 0.01, *, out: Array | None = None) -> Array:
    """Return ``x > 0 ? x : negative_slope * x``.

    Parameters
    ----------
    input : ndarray of any shape, float32 or float64
    negative_slope : float
    out : ndarray of the same shape, optional

    Returns
    -------
    ndarray of the input's shape

    Raises
    ------
    TypeError, ValueError
        As :func:`relu`.
    """
    return _map("leaky_relu", input, out, negative_slope)


def leaky_relu_backward(
    grad_output: Array, input: Array, negative_slope: float = 0.01, *, grad_input: Array | None = None
) -> Array:
    """Return the gradient of :func:`leaky_relu`; at 0 it is ``negative_slope``, as in PyTorch.

    Parameters
    ----------
    grad_output, input : ndarray of one shape and dtype
    negative_slope : float
    grad_input : ndarray of the same shape, optional

    Returns
    -------
    ndarray of that shape

    Raises
    ------
    TypeError, ValueError
        As :func:`relu_backward`.
    """
    return _map_backward("leaky_relu", "input", grad_output, input, grad_input, negative_slope)


def relu6(input: Array, *, out: Array | None = None) -> Array:
    """Return ``min(max(x, 0), 6)``, which keeps NaN.

    Parameters, result and errors are those of :func:`relu`.
    """
    return _map("relu6", input, out)


def relu6_backward(grad_output: Array, output: Array, *, grad_input: Array | None = None) -> Array:
    """Return the gradient of :func:`relu6`: ``grad_output`` where the output lies between 0 and 6, else zero.

    Parameters, result and errors are those of :func:`relu_backward`; the input serves as well.
    """
    return _map_backward("relu6", "output", grad_output, output, grad_input)


def hardtanh(input: Array, min_val: float = -1.0, max_val: float = 1.0, *, out: Array | None = None) -> Array:
    """Return ``min(max(x, min_val), max_val)``, which keeps NaN.

    Parameters
    ----------
    input : ndarray of any shape, float32 or float64
    min_val, max_val : float
        The first less than the second.
    out : ndarray of the same shape, optional

    Returns
    -------
    ndarray of the input's shape

    Raises
    ------
    TypeError, ValueError
        As :func:`relu`, and if the bounds do not ascend.
    """
    return _map("hardtanh", input, out, min_val, max_val)


def hardtanh_backward(
    grad_output: Array,
    output: Array,
    min_val: float = -1.0,
    max_val: float = 1.0,
    *,
    grad_input: Array | None = None,
) -> Array:
    """Return the gradient of :func:`hardtanh`: ``grad_output`` where the output lies between the bounds, else zero.

    Parameters, result and errors are those of :func:`relu_backward`; the input serves as well.
    """
    return _map_backward("hardtanh", "output", grad_output, output, grad_input, min_val, max_val)


def elu(input: Array, alpha: float = 1.0, *, out: Array | None = None) -> Array:
    """Return ``x > 0 ? x : alpha * (exp(x) - 1)`` (Clevert et al., 2015, eq. 15).

    Parameters
    ----------
    input : ndarray of any shape, float32 or float64
    alpha : float
        At least 0, so that the output tells the gradient.
    out : ndarray of the same shape, optional

    Returns
    -------
    ndarray of the input's shape

    Raises
    ------
    TypeError, ValueError
        As :func:`relu`, and if alpha is negative.
    """
    return _map("elu", input, out, alpha)


def elu_backward(
    grad_output: Array, output: Array, alpha: float = 1.0, *, grad_input: Array | None = None
) -> Array:
    """Return the gradient of :func:`elu`, ``grad_output * (y > 0 ? 1 : y + alpha)``.

    Parameters, result and errors are those of :func:`relu_backward`.
    """
    return _map_backward("elu", "output", grad_output, output, grad_input, alpha)


def _gelu_name(where: str, approximate: str) -> str:
    if approximate not in ("none", "tanh"):
        raise ValueError(f"{where}: approximate must be 'none' or 'tanh', got {approximate!r}")
    return "gelu" if approximate == "none" else "gelu_tanh"


def gelu(input: Array, approximate: str = "none", *, out: Array | None = None) -> Array:
    """Return ``x * Phi(x)``, Phi the normal distribution (Hendrycks and Gimpel, 2016).

    Parameters
    ----------
    input : ndarray of any shape, float32 or float64
    approximate : {"none", "tanh"}
        "tanh" returns ``x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3)))``. As activation of another
        operation it is called "gelu_tanh".
    out : ndarray of the same shape, optional

    Returns
    -------
    ndarray of the input's shape; small results are as accurate as large ones, and ``-inf`` gives 0

    Raises
    ------
    TypeError, ValueError
        As :func:`relu`, and if the approximation is unknown.

    Examples
    --------
    >>> import numpy as np
    >>> gelu(np.array([-1.0, 0.0, 1.0])).round(4)
    array([-0.1587,  0.    ,  0.8413])
    """
    return _map(_gelu_name("gelu", approximate), input, out)


def gelu_backward(
    grad_output: Array, input: Array, approximate: str = "none", *, grad_input: Array | None = None
) -> Array:
    """Return the gradient of :func:`gelu`, ``grad_output * (Phi(x) + x * phi(x))``, or of its approximation.

    Parameters, result and errors are those of :func:`relu_backward`, with the forward call's input.
    """
    return _map_backward(_gelu_name("gelu_backward", approximate), "input", grad_output, input, grad_input)


def silu(input: Array, *, out: Array | None = None) -> Array:
    """Return ``x * sigmoid(x)``, also known as swish; ``-inf`` gives its limit 0.

    Parameters, result and errors are those of :func:`relu`.
    """
    return _map("silu", input, out)


def silu_backward(grad_output: Array, input: Array, *, grad_input: Array | None = None) -> Array:
    """Return the gradient of :func:`silu`, ``grad_output * s * (1 + x * (1 - s))`` with s = sigmoid(x).

    Parameters, result and errors are those of :func:`relu_backward`, with the forward call's input.
    """
    return _map_backward("silu", "input", grad_output, input, grad_input)


def mish(input: Array, *, out: Array | None = None) -> Array:
    """Return ``x * tanh(log(1 + exp(x)))`` (Misra, 2019); ``-inf`` gives its limit 0.

    Parameters, result and errors are those of :func:`relu`.
    """
    return _map("mish", input, out)


def mish_backward(grad_output: Array, input: Array, *, grad_input: Array | None = None) -> Array:
    """Return the gradient of :func:`mish`, ``grad_output * (w + x * (1 - w**2) * sigmoid(x))`` with w = mish(x) / x.

    Parameters, result and errors are those of :func:`relu_backward`, with the forward call's input.
    """
    return _map_backward("mish", "input", grad_output, input, grad_input)


def hardswish(input: Array, *, out: Array | None = None) -> Array:
    """Return ``x * hardsigmoid(x)`` (Howard et al., 2019); ``-inf`` gives its limit 0.

    Parameters, result and errors are those of :func:`relu`.
    """
    return _map("hardswish", input, out)


def hardswish_backward(grad_output: Array, input: Array, *, grad_input: Array | None = None) -> Array:
    """Return the gradient of :func:`hardswish`: ``grad_output * (x / 3 + 1 / 2)`` where ``-3 < x < 3``.

    Parameters, result and errors are those of :func:`relu_backward`, with the forward call's input.
    """
    return _map_backward("hardswish", "input", grad_output, input, grad_input)


def hardsigmoid(input: Array, *, out: Array | None = None) -> Array:
    """Return ``min(max(x + 3, 0), 6) / 6``, which keeps NaN.

    Parameters, result and errors are those of :func:`relu`.
    """
    return _map("hardsigmoid", input, out)


def hardsigmoid_backward(grad_output: Array, input: Array, *, grad_input: Array | None = None) -> Array:
    """Return the gradient of :func:`hardsigmoid`: ``grad_output / 6`` where ``-3 < x < 3``, else zero.

    Parameters, result and errors are those of :func:`relu_backward`, with the forward call's input.
    """
    return _map_backward("hardsigmoid", "input", grad_output, input, grad_input)


def softplus(input: Array, beta: float = 1.0, threshold: float = 20.0, *, out: Array | None = None) -> Array:
    """Return ``log(1 + exp(beta * x)) / beta``, and x itself where ``beta * x > threshold``.

    Parameters
    ----------
    input : ndarray of any shape, float32 or float64
    beta : float
        Greater than 0.
    threshold : float
    out : ndarray of the same shape, optional

    Returns
    -------
    ndarray of the input's shape

    Raises
    ------
    TypeError, ValueError
        As :func:`relu`, and if beta is not positive.
    """
    return _map("softplus", input, out, beta, threshold)


def softplus_backward(
    grad_output: Array, input: Array, beta: float = 1.0, threshold: float = 20.0, *, grad_input: Array | None = None
) -> Array:
    """Return the gradient of :func:`softplus`, ``grad_output * sigmoid(beta * x)``, or itself beyond the threshold.

    Parameters, result and errors are those of :func:`relu_backward`, with the forward call's input.
    """
    return _map_backward("softplus", "input", grad_output, input, grad_input, beta, threshold)


def tanh(input: Array, *, out: Array | None = None) -> Array:
    """Return the hyperbolic tangent.

    Parameters, result and errors are those of :func:`relu`. ``-0`` stays ``-0`` and ``+-inf`` gives ``+-1``.
    """
    return _map("tanh", input, out)


def tanh_backward(grad_output: Array, output: Array, *, grad_input: Array | None = None) -> Array:
    """Return the gradient of :func:`tanh`, ``grad_output * (1 - output**2)``.

    Parameters, result and errors are those of :func:`relu_backward`.
    """
    return _map_backward("tanh", "output", grad_output, output, grad_input)


def sigmoid(input: Array, *, out: Array | None = None) -> Array:
    """Return ``1 / (1 + exp(-x))``, computed from ``exp(-|x|)`` so that nothing overflows.

    Parameters, result and errors are those of :func:`relu`.
    """
    return _map("sigmoid", input, out)


def sigmoid_backward(grad_output: Array, output: Array, *, grad_input: Array | None = None) -> Array:
    """Return the gradient of :func:`sigmoid`, ``grad_output * (1 - output) * output``.

    Parameters, result and errors are those of :func:`relu_backward`.
    """
    return _map_backward("sigmoid", "output", grad_output, output, grad_input)


def softsign(input: Array, *, out: Array | None = None) -> Array:
    """Return ``x / (1 + |x|)``; ``+-inf`` gives its limit ``+-1``.

    Parameters, result and errors are those of :func:`relu`.
    """
    return _map("softsign", input, out)


def softsign_backward(grad_output: Array, input: Array, *, grad_input: Array | None = None) -> Array:
    """Return the gradient of :func:`softsign`, ``grad_output / (1 + |input|)**2``.

    Parameters, result and errors are those of :func:`relu_backward`, with the forward call's input.
    """
    return _map_backward("softsign", "input", grad_output, input, grad_input)


def exp(input: Array, *, out: Array | None = None) -> Array:
    """Return the exponential; ``-inf`` gives 0, and what is too large ``inf``, as :func:`safe_exp` does not.

    Parameters, result and errors are those of :func:`relu`.
    """
    return _map("exp", input, out)


def exp_backward(grad_output: Array, output: Array, *, grad_input: Array | None = None) -> Array:
    """Return the gradient of :func:`exp`, ``grad_output * output``.

    Parameters, result and errors are those of :func:`relu_backward`.
    """
    return _map_backward("exp", "output", grad_output, output, grad_input)


def log(input: Array, *, out: Array | None = None) -> Array:
    """Return the natural logarithm: of 0 ``-inf``, of negative numbers NaN, as :func:`safe_log` does not.

    Parameters, result and errors are those of :func:`relu`.
    """
    return _map("log", input, out)


def log_backward(grad_output: Array, input: Array, *, grad_input: Array | None = None) -> Array:
    """Return the gradient of :func:`log`, ``grad_output / input``.

    Parameters, result and errors are those of :func:`relu_backward`, with the forward call's input.
    """
    return _map_backward("log", "input", grad_output, input, grad_input)


def sqrt(input: Array, *, out: Array | None = None) -> Array:
    """Return the square root, correctly rounded; of negative numbers NaN.

    Parameters, result and errors are those of :func:`relu`.
    """
    return _map("sqrt", input, out)


def sqrt_backward(grad_output: Array, output: Array, *, grad_input: Array | None = None) -> Array:
    """Return the gradient of :func:`sqrt`, ``grad_output / (2 * output)``; it is infinite at 0.

    Parameters, result and errors are those of :func:`relu_backward`.
    """
    return _map_backward("sqrt", "output", grad_output, output, grad_input)


def erf(input: Array, *, out: Array | None = None) -> Array:
    """Return the error function, the integral of ``2 / sqrt(pi) * exp(-t**2)`` from 0 to the input.

    Parameters, result and errors are those of :func:`relu`.
    """
    return _map("erf", input, out)


def erf_backward(grad_output: Array, input: Array, *, grad_input: Array | None = None) -> Array:
    """Return the gradient of :func:`erf`, ``grad_output * 2 / sqrt(pi) * exp(-input**2)``.

    Parameters, result and errors are those of :func:`relu_backward`, with the forward call's input.
    """
    return _map_backward("erf", "input", grad_output, input, grad_input)
