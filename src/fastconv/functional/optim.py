"""One step of an optimiser, in place, for one parameter: PyTorch's formulas in PyTorch's order; averages and norms.

Each step is one fused pass over parameter, gradient and state. Hyperparameters are rounded once to the
parameter's dtype; where a product is added, product and sum are one fused multiply-add.
"""

import math

import numpy as np

import fastconv._ext.loss as loss
import fastconv._ext.optim as optim
from fastconv.functional._check import (
    Array,
    as_contiguous,
    by_dtype,
    check_apart,
    check_grad,
    check_shape,
    flag,
    number,
    same_dtype,
)
from fastconv.functional._optim import Arrays, adagrad, adam, arrays_of, numbers, rmsprop, sgd

_AVERAGE = by_dtype(optim.average)
_powers = by_dtype(loss.powers)
_total = by_dtype(loss.total)


def sgd_step(
    param: Array,
    grad: Array,
    momentum_buffer: Array | None,
    lr: float,
    momentum: float = 0.0,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    *,
    first_step: bool = False,
) -> None:
    """Gradient descent with momentum, as ``torch.optim.SGD`` (Sutskever et al., 2013).

    ::

        g = grad + weight_decay * param
        buffer = momentum * buffer + (1 - dampening) * g
        param -= lr * (g + momentum * buffer  if nesterov else  buffer)

    Parameters
    ----------
    param : C-contiguous array of float32 or float64
        Updated in place.
    grad : array of param's shape
    momentum_buffer : array of param's shape or None
        Updated in place; None is plain gradient descent, whatever ``momentum``.
    lr, momentum, dampening, weight_decay : float
    nesterov : bool
    first_step : bool
        Sets the buffer to g, undampened, as PyTorch does the first time.

    Raises
    ------
    TypeError
        If an array is not float32 or float64, or their dtypes differ.
    ValueError
        If shapes differ, an array that is updated is not writable and C-contiguous or shares memory with another,
        or ``nesterov`` is asked for without momentum or with dampening.

    Examples
    --------
    >>> import numpy as np
    >>> param, buffer = np.array([1.0]), np.zeros(1)
    >>> for _ in range(2):
    ...     sgd_step(param, np.array([1.0]), buffer, lr=0.1, momentum=0.5)
    >>> param.round(4), buffer
    (array([0.75]), array([1.5]))
    """
    def arrays(where: str) -> Arrays:
        return arrays_of(where, param, grad, {}, {"momentum_buffer": momentum_buffer})

    nesterov, first_step = flag("sgd_step: nesterov", nesterov), flag("sgd_step: first_step", first_step)
    sgd(arrays, momentum_buffer is not None, lr, momentum, dampening, weight_decay, nesterov, first_step)


def adam_step(
    param: Array,
    grad: Array,
    m: Array,
    v: Array,
    lr: float = 1e-3,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    step: int = 1,
    decoupled: bool = False,
) -> None:
    """Adam (Kingma and Ba, 2015), or with ``decoupled`` AdamW (Loshchilov and Hutter, 2019), as PyTorch's.

    ::

        g = grad + weight_decay * param          (Adam)
        param *= 1 - lr * weight_decay           (AdamW)
        m = m + (1 - beta1) * (g - m)
        v = beta2 * v + (1 - beta2) * g^2
        param -= lr / (1 - beta1^step) * m / (sqrt(v) / sqrt(1 - beta2^step) + eps)

    Parameters
    ----------
    param : C-contiguous array of float32 or float64
        Updated in place.
    grad : array of param's shape
    m, v : arrays of param's shape
        Averages of the gradient and of its square, updated in place; zeros before the first step.
    lr, eps, weight_decay : float
    beta1, beta2 : float in [0, 1)
    step : int >= 1
        The number of this step, the first being 1.
    decoupled : bool

    Raises
    ------
    TypeError, ValueError
        As :func:`sgd_step`; ValueError also for ``step``, ``beta1`` or ``beta2`` out of range.

    Examples
    --------
    >>> import numpy as np
    >>> param, m, v = np.array([1.0, 1.0]), np.zeros(2), np.zeros(2)
    >>> adam_step(param, np.array([100.0, -0.01]), m, v, lr=0.1)
    >>> param.round(4)
    array([0.9, 1.1])
    """
    def arrays(where: str) -> Arrays:
        return arrays_of(where, param, grad, {"m": m, "v": v})

    adam(arrays, lr, beta1, beta2, eps, weight_decay, step, flag("adam_step: decoupled", decoupled))


def rmsprop_step(
    param: Array,
    grad: Array,
    square_avg: Array,
    momentum_buffer: Array | None = None,
    grad_avg: Array | None = None,
    lr: float = 1e-2,
    alpha: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
) -> None:
    """RMSprop (Hinton, Coursera lecture 6e, 2012; centred: Graves, 2013), as ``torch.optim.RMSprop``.

    ::

        g = grad + weight_decay * param
        square_avg = alpha * square_avg + (1 - alpha) * g^2
        grad_avg = grad_avg + (1 - alpha) * (g - grad_avg)                   (centred)
        scaled = g / (sqrt(square_avg - grad_avg^2) + eps)
        momentum_buffer = momentum * momentum_buffer + scaled
        param -= lr * momentum_buffer

    Parameters
    ----------
    param : C-contiguous array of float32 or float64
        Updated in place.
    grad : array of param's shape
    square_avg : array of param's shape
        Updated in place, as the next two; zeros before the first step.
    momentum_buffer : array of param's shape or None
        None is no momentum, whatever ``momentum``.
    grad_avg : array of param's shape or None
        None is not centred.
    lr, alpha, eps, weight_decay, momentum : float

    Raises
    ------
    TypeError, ValueError
        As :func:`sgd_step`.

    Examples
    --------
    >>> import numpy as np
    >>> param, square_avg = np.array([1.0]), np.zeros(1)
    >>> rmsprop_step(param, np.array([2.0]), square_avg, lr=0.1, alpha=0.75)
    >>> param.round(4), square_avg
    (array([0.8]), array([1.]))
    """
    def arrays(where: str) -> Arrays:
        optional = {"momentum_buffer": momentum_buffer, "grad_avg": grad_avg}
        return arrays_of(where, param, grad, {"square_avg": square_avg}, optional)

    given = momentum_buffer is not None, grad_avg is not None
    rmsprop(arrays, *given, lr, alpha, eps, weight_decay, momentum)


def adagrad_step(
    param: Array,
    grad: Array,
    state_sum: Array,
    lr: float = 1e-2,
    lr_decay: float = 0.0,
    eps: float = 1e-10,
    weight_decay: float = 0.0,
    step: int = 1,
) -> None:
    """Adagrad (Duchi, Hazan, Singer, 2011), as ``torch.optim.Adagrad``.

    ::

        g = grad + weight_decay * param
        state_sum += g^2
        param -= lr / (1 + (step - 1) * lr_decay) * g / (sqrt(state_sum) + eps)

    Parameters
    ----------
    param : C-contiguous array of float32 or float64
        Updated in place.
    grad : array of param's shape
    state_sum : array of param's shape
        Updated in place.
    lr, lr_decay, eps, weight_decay : float
    step : int >= 1
        The number of this step, the first being 1.

    Raises
    ------
    TypeError, ValueError
        As :func:`sgd_step`; ValueError also for ``step`` < 1 and ``lr_decay`` < 0.

    Examples
    --------
    >>> import numpy as np
    >>> param, state_sum = np.array([1.0]), np.zeros(1)
    >>> adagrad_step(param, np.array([3.0]), state_sum, lr=0.1, step=1)
    >>> adagrad_step(param, np.array([4.0]), state_sum, lr=0.1, step=2)
    >>> param.round(4), state_sum
    (array([0.82]), array([25.]))
    """
    def arrays(where: str) -> Arrays:
        return arrays_of(where, param, grad, {"state_sum": state_sum})

    adagrad(arrays, lr, lr_decay, eps, weight_decay, step)


def ema_step(average: Array, param: Array, decay: float = 0.999) -> None:
    """Move an exponential average towards a parameter, ``average += (1 - decay) * (param - average)``, in place.

    As ``torch.lerp``: from the nearer end, so that a decay of 0 gives the parameter itself.

    Parameters
    ----------
    average : C-contiguous array of float32 or float64
        Updated in place.
    param : array of average's shape
    decay : float in [0, 1]

    Raises
    ------
    TypeError, ValueError
        As :func:`sgd_step`; ValueError also for ``decay`` out of range.

    References
    ----------
    B. Polyak and A. Juditsky, "Acceleration of stochastic approximation by averaging", SIAM Journal on Control and
    Optimization 30, 1992, for why averages of weights generalise; M. Tan and Q. Le, "EfficientNet", ICML 2019, section
    5.2, for exponential ones.

    Examples
    --------
    >>> average = np.zeros(2)
    >>> ema_step(average, np.array([1.0, 2.0]), 0.75)
    >>> average
    array([0.25, 0.5 ])
    """
    (decay,) = numbers("ema_step", decay=decay)
    if not 0 <= decay <= 1:
        raise ValueError(f"ema_step: decay must be in [0, 1], got {decay}")
    dtype = same_dtype("ema_step", average=average, param=param)
    check_grad("ema_step", "average", average, average.shape, dtype)
    check_shape("ema_step", "param", param, average.shape)
    check_apart("ema_step", {"average": average}, {"param": param})
    if average.size:
        _AVERAGE[dtype](as_contiguous(param).reshape(-1), average.reshape(-1), decay)


def vector_norm(x: Array, ord: float = 2) -> float:
    """Return the norm of all numbers of an array: the root of the sum of squares, the sum of sizes, or the largest.

    Blocks of 4096 numbers, in C order, are summed over 16 lanes in the array's own dtype; the sums of the blocks are
    added in double, 16 lanes again.

    Parameters
    ----------
    x : ndarray of any shape, float32 or float64
    ord : 1, 2 or inf

    Returns
    -------
    float
        0 for an empty array, nan where a number is.

    Raises
    ------
    TypeError
        If the dtype is neither float32 nor float64.
    ValueError
        If ``ord`` is another number.

    Examples
    --------
    >>> vector_norm(np.array([3.0, -4.0])), vector_norm(np.array([3.0, -4.0]), np.inf)
    (5.0, 4.0)
    """
    dtype = same_dtype("vector_norm", x=x)
    order = number("vector_norm", "ord", ord)
    if order not in (1, 2, math.inf):
        raise ValueError(f"vector_norm: ord must be 1, 2 or inf, got {ord!r}")
    if not x.size:
        return 0.0
    sums = np.empty(loss.blocks(x.size), dtype)
    _powers[dtype](as_contiguous(x).reshape(-1), 0 if order == math.inf else int(order), sums)
    if order == math.inf:
        return float(sums.max())
    total: float = _total[dtype](sums)
    return math.sqrt(total) if order == 2 else total
