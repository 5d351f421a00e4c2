"""Who chooses the hyperparameters of a trial.

Random and grid points are pure functions of (seed, number of the trial), so it does not matter which worker takes
which trial, or in which order. Optuna's TPE looks at the trials before it; its own random numbers are seeded by
(seed, number), so with one worker its trials are repeatable too, also after an interruption.
"""

from __future__ import annotations

from typing import Any

from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial

from fastconv import random
from fastconv.search.plan import Plan
from fastconv.search.space import Choice, Dimension, Range, Space, Value, grid_point, grid_shape


def random_point(space: Space, seed: int, number: int) -> dict[str, Value]:
    """Return the random point of trial ``number`` (from 1): a pure function of the arguments."""

    def draw(name: str, d: Dimension) -> Value:
        bits = int(random.generator(seed, f"search {name}", number).bit_generator.random_raw()) >> 11
        return d.values[bits * len(d.values) >> 53] if isinstance(d, Choice) else d.value(bits / 2**53)

    return {name: draw(name, d) for name, d in space.items()}


class _Pointwise(BaseSampler):
    """Gives the parameters of a point that is known beforehand."""

    def __init__(self, point: dict[str, Value]) -> None:
        self._point = point

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._point[param_name]


def sampler(plan: Plan, space: Space, stage: int, index: int) -> BaseSampler:
    """Return the sampler of trial ``index`` of a stage (both from 0)."""
    number = plan.before(stage) + index + 1
    if plan.sampler == "random":
        return _Pointwise(random_point(space, plan.seed, number))
    if plan.sampler == "grid":
        return _Pointwise(grid_point(space, grid_shape(space, plan.trials[stage]), index))
    bits = int(random.generator(plan.seed, "search tpe", number).bit_generator.random_raw())
    return TPESampler(seed=bits >> 32)


def pruner(name: str) -> BasePruner:
    """Return one of Optuna's pruners."""
    return {"none": NopPruner, "median": MedianPruner, "halving": SuccessiveHalvingPruner}[name]()


def suggest(trial: Trial, space: Space) -> None:
    """Have a trial's sampler choose all hyperparameters; those it has from a former try stay."""
    for name, d in space.items():
        if isinstance(d, Range):
            trial.suggest_float(name, d.low, d.high, log=d.log)
        else:
            trial.suggest_categorical(name, d.values)
