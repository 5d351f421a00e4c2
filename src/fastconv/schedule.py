"""Learning-rate schedules: pure functions from the number of steps done to a factor on the base rate.

A schedule holds no counter, so a resumed run needs nothing but the step number::

    trainer = Trainer(model, loss, SGD(model.parameters(), lr=0.1),
                      schedule=Warmup(100, Cosine(2000)))      # lr = 0.1 * schedule(step)
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Constant", "Cosine", "InverseTime", "Schedule", "StepLR", "Warmup"]

Schedule = Callable[[int], float]
"""Maps the number of optimiser steps already done (0 for the first) to a factor on the base rate."""


def _require(good: bool, message: str) -> None:
    if not good:
        raise ValueError(message)


@dataclass(frozen=True)
class Constant:
    """The base rate throughout.

    Examples
    --------
    >>> Constant()(1000)
    1.0
    """

    def __call__(self, step: int) -> float:
        return 1.0


@dataclass(frozen=True)
class StepLR:
    """Multiply the rate by ``gamma`` every ``step_size`` steps: ``gamma ** (step // step_size)``.

    Parameters
    ----------
    step_size : int
        Steps between two drops, at least 1.
    gamma : float
        Factor of one drop, above 0.

    Examples
    --------
    >>> [StepLR(10, gamma=0.5)(t) for t in (0, 9, 10, 25)]
    [1.0, 1.0, 0.5, 0.25]
    """

    step_size: int
    gamma: float = 0.1

    def __post_init__(self) -> None:
        _require(self.step_size >= 1, f"StepLR: step_size must be at least 1, got {self.step_size}")
        _require(self.gamma > 0, f"StepLR: gamma must be above 0, got {self.gamma}")

    def __call__(self, step: int) -> float:
        return float(self.gamma ** (step // self.step_size))


@dataclass(frozen=True)
class InverseTime:
    """``1 / (1 + decay * step)``, the O(1/t) decay of Bengio (2012), equation 12 with tau = 0.

    Parameters
    ----------
    decay : float
        At least 0; the rate is halved after ``1 / decay`` steps.

    References
    ----------
    Y. Bengio, "Practical recommendations for gradient-based training of deep architectures",
    arXiv 1206.5533, section 3.1.1.

    Examples
    --------
    >>> [InverseTime(0.01)(t) for t in (0, 100, 300)]
    [1.0, 0.5, 0.25]
    """

    decay: float

    def __post_init__(self) -> None:
        _require(self.decay >= 0, f"InverseTime: decay must be at least 0, got {self.decay}")

    def __call__(self, step: int) -> float:
        return 1.0 / (1.0 + self.decay * step)


@dataclass(frozen=True)
class Cosine:
    """Fall from 1 to ``final`` over ``total`` steps along half a cosine, then stay.

    Parameters
    ----------
    total : int
        Steps until ``final`` is reached, at least 1.
    final : float
        Factor at the end, at least 0.

    References
    ----------
    I. Loshchilov and F. Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR 2017,
    equation 5 without restarts.

    Examples
    --------
    >>> [round(Cosine(100)(t), 4) for t in (0, 50, 100, 1000)]
    [1.0, 0.5, 0.0, 0.0]
    """

    total: int
    final: float = 0.0

    def __post_init__(self) -> None:
        _require(self.total >= 1, f"Cosine: total must be at least 1, got {self.total}")
        _require(self.final >= 0, f"Cosine: final must be at least 0, got {self.final}")

    def __call__(self, step: int) -> float:
        share = min(step / self.total, 1.0)
        return self.final + (1.0 - self.final) * 0.5 * (1.0 + math.cos(math.pi * share))


@dataclass(frozen=True)
class Warmup:
    """Rise linearly over the first ``steps`` steps, then follow another schedule from its own step 0.

    Parameters
    ----------
    steps : int
        Length of the rise, at least 1; step ``t < steps`` gets the factor ``(t + 1) / (steps + 1)``.
    then : Schedule
        What follows; by default the base rate throughout.

    References
    ----------
    P. Goyal et al., "Accurate, large minibatch SGD: training ImageNet in 1 hour", arXiv 1706.02677,
    section 2.2.

    Examples
    --------
    >>> [Warmup(3)(t) for t in range(5)]
    [0.25, 0.5, 0.75, 1.0, 1.0]
    """

    steps: int
    then: Schedule = Constant()

    def __post_init__(self) -> None:
        _require(self.steps >= 1, f"Warmup: steps must be at least 1, got {self.steps}")

    def __call__(self, step: int) -> float:
        if step < self.steps:
            return (step + 1) / (self.steps + 1) * self.then(0)
        return self.then(step - self.steps)
