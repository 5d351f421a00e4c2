"""Learning-rate schedules: pure functions from the number of steps done to a factor on the base rate.

A schedule holds no counter, so a resumed run needs nothing but the step number::

    trainer = Trainer(model, loss, SGD(model.parameters(), lr=0.1),
                      schedule=Warmup(100, Cosine(2000)))      # lr = 0.1 * schedule(step)
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from fastconv.functional._check import one_of

__all__ = [
    "Constant", "Cosine", "CosineAnnealingWarmRestarts", "InverseTime", "OneCycleLR", "Schedule", "StepLR", "Warmup",
]  # fmt: skip

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
class CosineAnnealingWarmRestarts:
    """Fall from 1 to ``final`` along half a cosine, again and again: over ``T_0`` steps, then ``T_mult`` times as many.

    Parameters
    ----------
    T_0 : int
        Steps of the first fall, at least 1.
    T_mult : int
        At least 1.
    final : float
        Factor that a fall ends at, at least 0; PyTorch's ``eta_min`` over the base rate.

    References
    ----------
    I. Loshchilov and F. Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR 2017, equation 5.

    Examples
    --------
    >>> [round(CosineAnnealingWarmRestarts(10, 2)(t), 4) for t in (0, 5, 10, 20, 30)]
    [1.0, 0.5, 1.0, 0.5, 1.0]
    """

    T_0: int
    T_mult: int = 1
    final: float = 0.0

    def __post_init__(self) -> None:
        name = type(self).__name__
        _require(self.T_0 >= 1, f"{name}: T_0 must be at least 1, got {self.T_0}")
        _require(self.T_mult >= 1, f"{name}: T_mult must be at least 1, got {self.T_mult}")
        _require(self.final >= 0, f"{name}: final must be at least 0, got {self.final}")

    def __call__(self, step: int) -> float:
        length = self.T_0
        if self.T_mult == 1:
            step %= length
        while step >= length:
            step, length = step - length, length * self.T_mult
        return Cosine(length, self.final)(step)


@dataclass(frozen=True)
class OneCycleLR:
    """Rise to the base rate along half a cosine, then fall far below where it began, all within ``total`` steps.

    The base rate is PyTorch's ``max_lr``. The momentum stays: PyTorch's ``cycle_momentum=False``.

    Parameters
    ----------
    total : int
        Steps of the cycle, at least 2; later ones stay at its end.
    pct_start : float
        Share of the steps that rise, in (0, 1).
    div_factor : float
        How far below the base rate the cycle begins, at least 1.
    final_div_factor : float
        How far below that beginning it ends, at least 1.
    anneal_strategy : "cos" or "linear"

    References
    ----------
    L. Smith and N. Topin, "Super-convergence: very fast training of neural networks using large learning rates",
    arXiv 1708.07120.

    Examples
    --------
    >>> [round(OneCycleLR(100)(t), 4) for t in (0, 29, 99)]
    [0.04, 1.0, 0.0]
    """

    total: int
    pct_start: float = 0.3
    div_factor: float = 25.0
    final_div_factor: float = 1e4
    anneal_strategy: str = "cos"

    def __post_init__(self) -> None:
        _require(self.total >= 2, f"OneCycleLR: total must be at least 2, got {self.total}")
        _require(0 < self.pct_start < 1, f"OneCycleLR: pct_start must be in (0, 1), got {self.pct_start}")
        _require(self.div_factor >= 1, f"OneCycleLR: div_factor must be at least 1, got {self.div_factor}")
        _require(
            self.final_div_factor >= 1, f"OneCycleLR: final_div_factor must be at least 1, got {self.final_div_factor}"
        )
        one_of("OneCycleLR: anneal_strategy", self.anneal_strategy, ("cos", "linear"))

    def __call__(self, step: int) -> float:
        last, low = self.total - 1, 1.0 / self.div_factor
        top = self.pct_start * self.total - 1
        step = min(step, last)
        if step <= top and top > 0:
            return self._between(low, 1.0, step / top)
        return self._between(1.0, low / self.final_div_factor, (step - top) / (last - top))

    def _between(self, start: float, end: float, share: float) -> float:
        if self.anneal_strategy == "linear":
            return start + (end - start) * share
        return end + (start - end) / 2.0 * (1.0 + math.cos(math.pi * share))


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
