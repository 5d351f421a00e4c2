"""One step of an optimiser, in place, for one parameter: PyTorch's formulas in PyTorch's order; averages and norms.

Each step is one fused pass over parameter, gradient and state. Hyperparameters are rounded once to the
parameter's dtype; where a product is added, product and sum are one fused multiply-add.

Numbers are checked in each step, by `sgd` and its kin, and the arrays by `arrays_of`: an optimiser, whose arrays stay
the same, calls that once.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

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
    number,
    same_dtype,
)

__all__ = ["adagrad_step", "adam_step", "ema_step", "rmsprop_step", "sgd_step", "vector_norm"]

_SGD = by_dtype(optim.sgd)
_ADAM = by_dtype(optim.adam)
_RMSPROP = by_dtype(optim.rmsprop)
_ADAGRAD = by_dtype(optim.adagrad)
_AVERAGE = by_dtype(optim.average)
_powers = by_dtype(loss.powers)
_total = by_dtype(loss.total)


class Arrays(NamedTuple):
    """What a step reads and writes, flat and apart from each other: parameter, gradient and state by name."""

    param: Array
    grad: Array
    state: dict[str, Array | None]


Checked = Callable[[str], Arrays]
"""Gives arrays that have been checked, to the function of this name."""


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
    """
    def arrays(where: str) -> Arrays:
        return arrays_of(where, param, grad, {}, {"momentum_buffer": momentum_buffer})

    sgd(arrays, momentum_buffer is not None, lr, momentum, dampening, weight_decay, nesterov, first_step)


def sgd(
    arrays: Checked, buffered: bool, lr: float, momentum: float, dampening: float, weight_decay: float, nesterov: bool,
    first_step: bool,
) -> None:  # fmt: skip
    """`sgd_step` on arrays that are given by a function, checked, with the buffer or without."""
    lr, momentum, dampening, weight_decay = _numbers(
        "sgd_step", lr=lr, momentum=momentum, dampening=dampening, weight_decay=weight_decay
    )
    if nesterov and (momentum <= 0 or dampening != 0 or not buffered):
        raise ValueError(
            f"sgd_step: nesterov needs a momentum buffer, momentum > 0 and dampening 0, "
            f"got momentum={momentum}, dampening={dampening}"
        )
    p, g, state = arrays("sgd_step")
    if p.size:
        buffer = state["momentum_buffer"] if buffered else None
        _SGD[p.dtype](p, g, buffer, lr, momentum, dampening, weight_decay, nesterov, first_step)


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
    """
    def arrays(where: str) -> Arrays:
        return arrays_of(where, param, grad, {"m": m, "v": v})

    adam(arrays, lr, beta1, beta2, eps, weight_decay, step, decoupled)


def adam(
    arrays: Checked, lr: float, beta1: float, beta2: float, eps: float, weight_decay: float, step: int, decoupled: bool
) -> None:
    """`adam_step` on arrays that are given by a function, checked."""
    _check_step("adam_step", step)
    lr, beta1, beta2, eps, weight_decay = _numbers(
        "adam_step", lr=lr, beta1=beta1, beta2=beta2, eps=eps, weight_decay=weight_decay
    )
    if not (0 <= beta1 < 1 and 0 <= beta2 < 1):
        raise ValueError(f"adam_step: beta1 and beta2 must be in [0, 1), got {beta1} and {beta2}")
    p, g, state = arrays("adam_step")
    if p.size:
        step_size = lr / (1 - beta1**step)
        correction2 = math.sqrt(1 - beta2**step)
        _ADAM[p.dtype](
            p, g, *state.values(), lr, beta1, beta2, eps, weight_decay, step_size, correction2, decoupled
        )


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
    """
    def arrays(where: str) -> Arrays:
        optional = {"momentum_buffer": momentum_buffer, "grad_avg": grad_avg}
        return arrays_of(where, param, grad, {"square_avg": square_avg}, optional)

    given = momentum_buffer is not None, grad_avg is not None
    rmsprop(arrays, *given, lr, alpha, eps, weight_decay, momentum)


def rmsprop(
    arrays: Checked, buffered: bool, centered: bool, lr: float, alpha: float, eps: float, weight_decay: float,
    momentum: float,
) -> None:  # fmt: skip
    """`rmsprop_step` on arrays that are given by a function, checked, with the buffer and the average or without."""
    lr, alpha, eps, weight_decay, momentum = _numbers(
        "rmsprop_step", lr=lr, alpha=alpha, eps=eps, weight_decay=weight_decay, momentum=momentum
    )
    p, g, state = arrays("rmsprop_step")
    if p.size:
        buffer = state["momentum_buffer"] if buffered else None
        average = state["grad_avg"] if centered else None
        _RMSPROP[p.dtype](p, g, state["square_avg"], buffer, average, lr, alpha, eps, weight_decay, momentum)


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
    """
    def arrays(where: str) -> Arrays:
        return arrays_of(where, param, grad, {"state_sum": state_sum})

    adagrad(arrays, lr, lr_decay, eps, weight_decay, step)


def adagrad(arrays: Checked, lr: float, lr_decay: float, eps: float, weight_decay: float, step: int) -> None:
    """`adagrad_step` on arrays that are given by a function, checked."""
    _check_step("adagrad_step", step)
    lr, lr_decay, eps, weight_decay = _numbers(
        "adagrad_step", lr=lr, lr_decay=lr_decay, eps=eps, weight_decay=weight_decay
    )
    if not lr_decay >= 0:
        raise ValueError(f"adagrad_step: lr_decay must be >= 0, got {lr_decay}")
    p, g, state = arrays("adagrad_step")
    if p.size:
        _ADAGRAD[p.dtype](p, g, *state.values(), lr / (1 + (step - 1) * lr_decay), eps, weight_decay)


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
    (decay,) = _numbers("ema_step", decay=decay)
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


def _numbers(where: str, **settings: float) -> list[float]:
    return [number(where, name, value) for name, value in settings.items()]


def _check_step(where: str, step: int) -> None:
    if not isinstance(step, int | np.integer):
        raise TypeError(f"{where}: step must be an int, got {step!r}")
    if step < 1:
        raise ValueError(f"{where}: step counts from 1, got {step}")
    if step >= 1 << 64:
        raise ValueError(f"{where}: step must be below 2**64, got {step}")


def arrays_of(
    where: str, param: Array, grad: Array, state: Mapping[str, Array],
    optional: Mapping[str, Array | None] | None = None,
) -> Arrays:  # fmt: skip
    """Return the checked arrays as flat views: what is updated must already lie in C order.

    The gradient is a copy where it does not.
    """
    dtype = same_dtype(where, optional, param=param, grad=grad, **state)
    check_grad(where, "param", param, param.shape, dtype)
    check_shape(where, "grad", grad, param.shape)
    every = {**state, **(optional or {})}
    flat = {
        name: None if a is None else check_grad(where, name, a, param.shape, dtype).reshape(-1)
        for name, a in every.items()
    }
    check_apart(where, {"param": param, **every}, {"grad": grad})
    return Arrays(param.reshape(-1), as_contiguous(grad).reshape(-1), flat)
