"""The steps of optimisers on arrays that have been checked: an optimiser, whose arrays stay the same, checks them once.

Numbers are checked in each step.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

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
    short,
)

_ZERO = by_dtype(optim.zero)
_SGD = by_dtype(optim.sgd)
_ADAM = by_dtype(optim.adam)
_RMSPROP = by_dtype(optim.rmsprop)
_ADAGRAD = by_dtype(optim.adagrad)


class Arrays(NamedTuple):
    """What a step reads and writes, flat and apart from each other: parameter, gradient and state by name."""

    param: Array
    grad: Array
    state: dict[str, Array | None]


Checked = Callable[[str], Arrays]
"""Gives arrays that have been checked, to the function of this name."""


def zero(grad: Array) -> None:
    """Set a flat array to zero, whose parts the threads share out as in a step."""
    if grad.size:
        _ZERO[grad.dtype](grad)


def sgd(
    arrays: Checked, buffered: bool, lr: float, momentum: float, dampening: float, weight_decay: float, nesterov: bool,
    first_step: bool,
) -> None:  # fmt: skip
    """`sgd_step` on arrays that are given by a function, checked, with the buffer or without."""
    lr, momentum, dampening, weight_decay = numbers(
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


def adam(
    arrays: Checked, lr: float, beta1: float, beta2: float, eps: float, weight_decay: float, step: int, decoupled: bool
) -> None:
    """`adam_step` on arrays that are given by a function, checked."""
    _check_step("adam_step", step)
    lr, beta1, beta2, eps, weight_decay = numbers(
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


def rmsprop(
    arrays: Checked, buffered: bool, centered: bool, lr: float, alpha: float, eps: float, weight_decay: float,
    momentum: float,
) -> None:  # fmt: skip
    """`rmsprop_step` on arrays that are given by a function, checked, with the buffer and the average or without."""
    lr, alpha, eps, weight_decay, momentum = numbers(
        "rmsprop_step", lr=lr, alpha=alpha, eps=eps, weight_decay=weight_decay, momentum=momentum
    )
    p, g, state = arrays("rmsprop_step")
    if p.size:
        buffer = state["momentum_buffer"] if buffered else None
        average = state["grad_avg"] if centered else None
        _RMSPROP[p.dtype](p, g, state["square_avg"], buffer, average, lr, alpha, eps, weight_decay, momentum)


def adagrad(arrays: Checked, lr: float, lr_decay: float, eps: float, weight_decay: float, step: int) -> None:
    """`adagrad_step` on arrays that are given by a function, checked."""
    _check_step("adagrad_step", step)
    lr, lr_decay, eps, weight_decay = numbers(
        "adagrad_step", lr=lr, lr_decay=lr_decay, eps=eps, weight_decay=weight_decay
    )
    if not lr_decay >= 0:
        raise ValueError(f"adagrad_step: lr_decay must be >= 0, got {lr_decay}")
    p, g, state = arrays("adagrad_step")
    if p.size:
        _ADAGRAD[p.dtype](p, g, *state.values(), lr / (1 + (step - 1) * lr_decay), eps, weight_decay)


def numbers(where: str, **settings: float) -> list[float]:
    return [number(where, name, value) for name, value in settings.items()]


def _check_step(where: str, step: int) -> None:
    if not isinstance(step, int | np.integer):
        raise TypeError(f"{where}: step must be an int, got {short(step)}")
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
