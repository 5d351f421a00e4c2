"""Elementary functions, element by element: exp, log, sqrt, erf, tanh and sigmoid, which are activations, too.

All but sqrt are polynomials evaluated alike on every instruction set; denormal numbers count as zero.
"""

from fastconv.functional._check import Array
from fastconv.functional._epilogue import run_activation, run_activation_backward


def tanh(input: Array, *, out: Array | None = None) -> Array:
    """Return the hyperbolic tangent.

    Parameters, result and errors are those of :func:`relu`. ``-0`` stays ``-0`` and ``+-inf`` gives ``+-1``.

    Examples
    --------
    >>> import numpy as np
    >>> tanh(np.array([-np.inf, 0.0, 0.5])).round(4)
    array([-1.    ,  0.    ,  0.4621])
    """
    return run_activation("tanh", input, out)


def tanh_backward(grad_output: Array, output: Array, *, grad_input: Array | None = None) -> Array:
    """Return the gradient of :func:`tanh`, ``grad_output * (1 - output**2)``.

    Parameters, result and errors are those of :func:`relu_backward`.

    Examples
    --------
    >>> import numpy as np
    >>> tanh_backward(np.ones(3), np.array([-1.0, 0.0, 0.5]))
    array([0.  , 1.  , 0.75])
    """
    return run_activation_backward("tanh", "output", grad_output, output, grad_input)


def sigmoid(input: Array, *, out: Array | None = None) -> Array:
    """Return ``1 / (1 + exp(-x))``, computed from ``exp(-|x|)`` so that nothing overflows.

    Parameters, result and errors are those of :func:`relu`.

    Examples
    --------
    >>> import numpy as np
    >>> sigmoid(np.array([-1000.0, 0.0, 1000.0]))
    array([0. , 0.5, 1. ])
    """
    return run_activation("sigmoid", input, out)


def sigmoid_backward(grad_output: Array, output: Array, *, grad_input: Array | None = None) -> Array:
    """Return the gradient of :func:`sigmoid`, ``grad_output * (1 - output) * output``.

    Parameters, result and errors are those of :func:`relu_backward`.

    Examples
    --------
    >>> import numpy as np
    >>> sigmoid_backward(np.ones(3), np.array([0.0, 0.5, 0.9])).round(4)
    array([0.  , 0.25, 0.09])
    """
    return run_activation_backward("sigmoid", "output", grad_output, output, grad_input)


def exp(input: Array, *, out: Array | None = None) -> Array:
    """Return the exponential; ``-inf`` gives 0, and what is too large ``inf``, as :func:`safe_exp` does not.

    Parameters, result and errors are those of :func:`relu`.

    Examples
    --------
    >>> import numpy as np
    >>> exp(np.array([-np.inf, 0.0, 1.0, 1000.0])).round(4)
    array([0.    , 1.    , 2.7183,    inf])
    """
    return run_activation("exp", input, out)


def exp_backward(grad_output: Array, output: Array, *, grad_input: Array | None = None) -> Array:
    """Return the gradient of :func:`exp`, ``grad_output * output``.

    Parameters, result and errors are those of :func:`relu_backward`.

    Examples
    --------
    >>> import numpy as np
    >>> exp_backward(np.array([1.0, 1.0]), exp(np.array([0.0, 1.0]))).round(4)
    array([1.    , 2.7183])
    """
    return run_activation_backward("exp", "output", grad_output, output, grad_input)


def log(input: Array, *, out: Array | None = None) -> Array:
    """Return the natural logarithm: of 0 ``-inf``, of negative numbers NaN, as :func:`safe_log` does not.

    Parameters, result and errors are those of :func:`relu`.

    Examples
    --------
    >>> import numpy as np
    >>> log(np.array([1.0, np.e, 0.0, -1.0]))
    array([  0.,   1., -inf,  nan])
    """
    return run_activation("log", input, out)


def log_backward(grad_output: Array, input: Array, *, grad_input: Array | None = None) -> Array:
    """Return the gradient of :func:`log`, ``grad_output / input``.

    Parameters, result and errors are those of :func:`relu_backward`, with the forward call's input.

    Examples
    --------
    >>> import numpy as np
    >>> log_backward(np.ones(3), np.array([1.0, 4.0, 0.0]))
    array([1.  , 0.25,  inf])
    """
    return run_activation_backward("log", "input", grad_output, input, grad_input)


def sqrt(input: Array, *, out: Array | None = None) -> Array:
    """Return the square root, correctly rounded; of negative numbers NaN.

    Parameters, result and errors are those of :func:`relu`.

    Examples
    --------
    >>> import numpy as np
    >>> sqrt(np.array([4.0, 2.0, -1.0])).round(4)
    array([2.    , 1.4142,    nan])
    """
    return run_activation("sqrt", input, out)


def sqrt_backward(grad_output: Array, output: Array, *, grad_input: Array | None = None) -> Array:
    """Return the gradient of :func:`sqrt`, ``grad_output / (2 * output)``; it is infinite at 0.

    Parameters, result and errors are those of :func:`relu_backward`.

    Examples
    --------
    >>> import numpy as np
    >>> sqrt_backward(np.ones(3), sqrt(np.array([4.0, 1.0, 0.0])))
    array([0.25, 0.5 ,  inf])
    """
    return run_activation_backward("sqrt", "output", grad_output, output, grad_input)


def erf(input: Array, *, out: Array | None = None) -> Array:
    """Return the error function, the integral of ``2 / sqrt(pi) * exp(-t**2)`` from 0 to the input.

    Parameters, result and errors are those of :func:`relu`.

    Examples
    --------
    >>> import numpy as np
    >>> erf(np.array([-np.inf, 0.0, 1.0])).round(4)
    array([-1.    ,  0.    ,  0.8427])
    """
    return run_activation("erf", input, out)


def erf_backward(grad_output: Array, input: Array, *, grad_input: Array | None = None) -> Array:
    """Return the gradient of :func:`erf`, ``grad_output * 2 / sqrt(pi) * exp(-input**2)``.

    Parameters, result and errors are those of :func:`relu_backward`, with the forward call's input.

    Examples
    --------
    >>> import numpy as np
    >>> erf_backward(np.ones(2), np.array([0.0, 1.0])).round(4)
    array([1.1284, 0.4151])
    """
    return run_activation_backward("erf", "input", grad_output, input, grad_input)
