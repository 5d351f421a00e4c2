"""Activations, element by element.

exp and tanh are polynomials evaluated alike on every instruction set; denormal numbers count as zero.
"""

from fastconv.functional._check import Array
from fastconv.functional._epilogue import gelu_name, run_activation, run_activation_backward


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
    return run_activation("relu", input, out)


def relu_backward(grad_output: Array, output: Array, *, grad_input: Array | None = None) -> Array:
    """Return the gradient of :func:`relu`: ``grad_output``, zero where the output (or the input) is <= 0.

    Parameters
    ----------
    grad_output : ndarray of the output's shape and dtype
    output : ndarray of any shape, float32 or float64
        What the forward call returned.
    grad_input : ndarray of the same shape, optional
        Written over; may be ``grad_output`` itself, here and in every activation.

    Returns
    -------
    ndarray of that shape

    Raises
    ------
    TypeError, ValueError
        As :func:`relu`, and if shapes or dtypes differ.

    Examples
    --------
    >>> import numpy as np
    >>> relu_backward(np.array([5.0, 5.0, 5.0]), relu(np.array([-1.0, 0.0, 2.0])))
    array([0., 0., 5.])
    """
    return run_activation_backward("relu", "output", grad_output, output, grad_input)


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

    Examples
    --------
    >>> import numpy as np
    >>> leaky_relu(np.array([-2.0, 3.0]), 0.1)
    array([-0.2,  3. ])
    """
    return run_activation("leaky_relu", input, out, negative_slope)


def leaky_relu_backward(
    grad_output: Array, input: Array, negative_slope: float = 0.01, *, grad_input: Array | None = None
) -> Array:
    """Return the gradient of :func:`leaky_relu`; at 0 it is ``negative_slope``, as in PyTorch.

    Parameters
    ----------
    grad_output : ndarray of the input's shape and dtype
    input : ndarray of any shape, float32 or float64
        As given to the forward call.
    negative_slope : float
    grad_input : ndarray of the same shape, optional

    Returns
    -------
    ndarray of that shape

    Raises
    ------
    TypeError, ValueError
        As :func:`relu_backward`.

    Examples
    --------
    >>> import numpy as np
    >>> leaky_relu_backward(np.ones(3), np.array([-2.0, 0.0, 3.0]), 0.1)
    array([0.1, 0.1, 1. ])
    """
    return run_activation_backward("leaky_relu", "input", grad_output, input, grad_input, negative_slope)


def relu6(input: Array, *, out: Array | None = None) -> Array:
    """Return ``min(max(x, 0), 6)``, which keeps NaN.

    Parameters, result and errors are those of :func:`relu`.

    Examples
    --------
    >>> import numpy as np
    >>> relu6(np.array([-1.0, 4.0, 8.0]))
    array([0., 4., 6.])
    """
    return run_activation("relu6", input, out)


def relu6_backward(grad_output: Array, output: Array, *, grad_input: Array | None = None) -> Array:
    """Return the gradient of :func:`relu6`: ``grad_output`` where the output lies between 0 and 6, else zero.

    Parameters, result and errors are those of :func:`relu_backward`; the input serves as well.

    Examples
    --------
    >>> import numpy as np
    >>> relu6_backward(np.ones(3), relu6(np.array([-1.0, 4.0, 8.0])))
    array([0., 1., 0.])
    """
    return run_activation_backward("relu6", "output", grad_output, output, grad_input)


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

    Examples
    --------
    >>> import numpy as np
    >>> hardtanh(np.array([-3.0, 0.5, 3.0]))
    array([-1. ,  0.5,  1. ])
    >>> hardtanh(np.array([-3.0, 0.5, 3.0]), 1.0, -1.0)
    Traceback (most recent call last):
        ...
    ValueError: hardtanh: min_val must be less than max_val, got 1.0, -1.0
    """
    return run_activation("hardtanh", input, out, min_val, max_val)


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

    Examples
    --------
    >>> import numpy as np
    >>> hardtanh_backward(np.ones(3), hardtanh(np.array([-3.0, 0.5, 3.0])))
    array([0., 1., 0.])
    """
    return run_activation_backward("hardtanh", "output", grad_output, output, grad_input, min_val, max_val)


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

    Examples
    --------
    >>> import numpy as np
    >>> elu(np.array([-np.inf, -1.0, 2.0])).round(4)
    array([-1.    , -0.6321,  2.    ])
    """
    return run_activation("elu", input, out, alpha)


def elu_backward(
    grad_output: Array, output: Array, alpha: float = 1.0, *, grad_input: Array | None = None
) -> Array:
    """Return the gradient of :func:`elu`, ``grad_output * (y > 0 ? 1 : y + alpha)``.

    Parameters, result and errors are those of :func:`relu_backward`.

    Examples
    --------
    >>> import numpy as np
    >>> output = elu(np.array([-np.inf, -1.0, 2.0]))
    >>> elu_backward(np.ones(3), output).round(4)
    array([0.    , 0.3679, 1.    ])
    """
    return run_activation_backward("elu", "output", grad_output, output, grad_input, alpha)


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
    return run_activation(gelu_name("gelu", approximate), input, out)


def gelu_backward(
    grad_output: Array, input: Array, approximate: str = "none", *, grad_input: Array | None = None
) -> Array:
    """Return the gradient of :func:`gelu`, ``grad_output * (Phi(x) + x * phi(x))``, or of its approximation.

    Parameters, result and errors are those of :func:`relu_backward`, with the forward call's input.

    Examples
    --------
    >>> import numpy as np
    >>> gelu_backward(np.ones(3), np.array([-1.0, 0.0, 1.0])).round(4)
    array([-0.0833,  0.5   ,  1.0833])
    """
    return run_activation_backward(gelu_name("gelu_backward", approximate), "input", grad_output, input, grad_input)


def silu(input: Array, *, out: Array | None = None) -> Array:
    """Return ``x * sigmoid(x)``, also known as swish; ``-inf`` gives its limit 0.

    Parameters, result and errors are those of :func:`relu`.

    Examples
    --------
    >>> import numpy as np
    >>> silu(np.array([-np.inf, 0.0, 10.0])).round(4)
    array([-0.    ,  0.    ,  9.9995])
    """
    return run_activation("silu", input, out)


def silu_backward(grad_output: Array, input: Array, *, grad_input: Array | None = None) -> Array:
    """Return the gradient of :func:`silu`, ``grad_output * s * (1 + x * (1 - s))`` with s = sigmoid(x).

    Parameters, result and errors are those of :func:`relu_backward`, with the forward call's input.

    Examples
    --------
    >>> import numpy as np
    >>> silu_backward(np.ones(3), np.array([-2.0, 0.0, 2.0])).round(4)
    array([-0.0908,  0.5   ,  1.0908])
    """
    return run_activation_backward("silu", "input", grad_output, input, grad_input)


def mish(input: Array, *, out: Array | None = None) -> Array:
    """Return ``x * tanh(log(1 + exp(x)))`` (Misra, 2019); ``-inf`` gives its limit 0.

    Parameters, result and errors are those of :func:`relu`.

    Examples
    --------
    >>> import numpy as np
    >>> mish(np.array([-np.inf, -1.0, 10.0])).round(4)
    array([-0.    , -0.3034, 10.    ])
    """
    return run_activation("mish", input, out)


def mish_backward(grad_output: Array, input: Array, *, grad_input: Array | None = None) -> Array:
    """Return the gradient of :func:`mish`, ``grad_output * (w + x * (1 - w**2) * sigmoid(x))`` with w = mish(x) / x.

    Parameters, result and errors are those of :func:`relu_backward`, with the forward call's input.

    Examples
    --------
    >>> import numpy as np
    >>> mish_backward(np.ones(3), np.array([-2.0, 0.0, 10.0])).round(4)
    array([-0.1084,  0.6   ,  1.    ])
    """
    return run_activation_backward("mish", "input", grad_output, input, grad_input)


def hardswish(input: Array, *, out: Array | None = None) -> Array:
    """Return ``x * hardsigmoid(x)`` (Howard et al., 2019); ``-inf`` gives its limit 0.

    Parameters, result and errors are those of :func:`relu`.

    Examples
    --------
    >>> import numpy as np
    >>> hardswish(np.array([-4.0, -1.5, 3.0, 4.0]))
    array([-0.   , -0.375,  3.   ,  4.   ])
    """
    return run_activation("hardswish", input, out)


def hardswish_backward(grad_output: Array, input: Array, *, grad_input: Array | None = None) -> Array:
    """Return the gradient of :func:`hardswish`: ``grad_output * (x / 3 + 1 / 2)`` where ``-3 < x < 3``.

    Parameters, result and errors are those of :func:`relu_backward`, with the forward call's input.

    Examples
    --------
    >>> import numpy as np
    >>> hardswish_backward(np.ones(4), np.array([-4.0, -1.5, 0.0, 4.0]))
    array([0. , 0. , 0.5, 1. ])
    """
    return run_activation_backward("hardswish", "input", grad_output, input, grad_input)


def hardsigmoid(input: Array, *, out: Array | None = None) -> Array:
    """Return ``min(max(x + 3, 0), 6) / 6``, which keeps NaN.

    Parameters, result and errors are those of :func:`relu`.

    Examples
    --------
    >>> import numpy as np
    >>> hardsigmoid(np.array([-4.0, 0.0, 1.5, 4.0]))
    array([0.  , 0.5 , 0.75, 1.  ])
    """
    return run_activation("hardsigmoid", input, out)


def hardsigmoid_backward(grad_output: Array, input: Array, *, grad_input: Array | None = None) -> Array:
    """Return the gradient of :func:`hardsigmoid`: ``grad_output / 6`` where ``-3 < x < 3``, else zero.

    Parameters, result and errors are those of :func:`relu_backward`, with the forward call's input.

    Examples
    --------
    >>> import numpy as np
    >>> hardsigmoid_backward(np.full(3, 6.0), np.array([-4.0, 0.0, 4.0]))
    array([0., 1., 0.])
    """
    return run_activation_backward("hardsigmoid", "input", grad_output, input, grad_input)


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

    Examples
    --------
    >>> import numpy as np
    >>> softplus(np.array([-5.0, 0.0, 5.0])).round(4)
    array([0.0067, 0.6931, 5.0067])
    >>> softplus(np.array([30.0]))
    array([30.])
    """
    return run_activation("softplus", input, out, beta, threshold)


def softplus_backward(
    grad_output: Array, input: Array, beta: float = 1.0, threshold: float = 20.0, *, grad_input: Array | None = None
) -> Array:
    """Return the gradient of :func:`softplus`, ``grad_output * sigmoid(beta * x)``, or itself beyond the threshold.

    Parameters, result and errors are those of :func:`relu_backward`, with the forward call's input.

    Examples
    --------
    >>> import numpy as np
    >>> softplus_backward(np.ones(3), np.array([-5.0, 0.0, 30.0])).round(4)
    array([0.0067, 0.5   , 1.    ])
    """
    return run_activation_backward("softplus", "input", grad_output, input, grad_input, beta, threshold)


def softsign(input: Array, *, out: Array | None = None) -> Array:
    """Return ``x / (1 + |x|)``; ``+-inf`` gives its limit ``+-1``.

    Parameters, result and errors are those of :func:`relu`.

    Examples
    --------
    >>> import numpy as np
    >>> softsign(np.array([-3.0, 1.0, np.inf]))
    array([-0.75,  0.5 ,  1.  ])
    """
    return run_activation("softsign", input, out)


def softsign_backward(grad_output: Array, input: Array, *, grad_input: Array | None = None) -> Array:
    """Return the gradient of :func:`softsign`, ``grad_output / (1 + |input|)**2``.

    Parameters, result and errors are those of :func:`relu_backward`, with the forward call's input.

    Examples
    --------
    >>> import numpy as np
    >>> softsign_backward(np.ones(3), np.array([-3.0, 0.0, 1.0]))
    array([0.0625, 1.    , 0.25  ])
    """
    return run_activation_backward("softsign", "input", grad_output, input, grad_input)
