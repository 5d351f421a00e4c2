"""What defines a search: with the same plan and the same code, the same trials."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from fastconv.choices import PRUNERS, SAMPLERS
from fastconv.functional._check import check_name
from fastconv.search.space import Range, Space, free, grid_shape

_LATER = 4  # a stage without a budget of its own has a quarter of the next one's
_CHOSEN = 0.1  # share of a stage's trials around which the next one searches, and at least three


@dataclass(frozen=True)
class Plan:
    """Everything that decides which trials a search makes.

    Attributes
    ----------
    objective : dict
        Describes what a trial does.
    space : dict of Range or Choice
    trials : tuple of int
        By stage.
    budgets : tuple
        What a trial may spend, by stage; None where that is the objective's affair.
    sampler, pruner, direction : str
    seed : int
    """

    objective: dict[str, Any]
    space: Space
    trials: tuple[int, ...]
    budgets: tuple[int | None, ...]
    sampler: str
    pruner: str
    direction: str
    seed: int

    def __post_init__(self) -> None:
        for what, name, known in (
            ("sampler", self.sampler, SAMPLERS),
            ("pruner", self.pruner, PRUNERS),
            ("direction", self.direction, ("maximize", "minimize")),
        ):
            check_name(what, name, known)
        if not 0 <= self.seed < 2**64:
            raise ValueError(f"seed must be in [0, 2**64), got {self.seed}")
        if min(self.trials) < 1:
            raise ValueError(f"every stage needs at least 1 trial, got {_list(self.trials)}")
        if min((b for b in self.budgets if b is not None), default=1) < 1:
            raise ValueError(f"every budget must be at least 1, got {_list(self.budgets)}")
        if len(self.budgets) != len(self.trials):
            raise ValueError(f"{len(self.trials)} stages but {len(self.budgets)} budgets: {_list(self.budgets)}")
        if len(self.trials) > 1 and not free(self.space):
            raise ValueError("every hyperparameter is fixed: there is nothing to search in a second stage")

    def sized(self) -> Plan:
        """Return the plan with as many trials in each stage as a grid of that size has points."""
        if self.sampler != "grid":
            return self
        return replace(self, trials=tuple(math.prod(grid_shape(self.space, n).values()) for n in self.trials))

    def before(self, stage: int) -> int:
        """Return how many trials the stages before one (from 0) have."""
        return sum(self.trials[:stage])

    def better(self, row: dict[str, Any]) -> tuple[float, ...]:
        """Return what sorts trials, the best first: value, then loss, then number."""
        value = -row["value"] if self.direction == "maximize" else row["value"]
        loss = row.get("validation_loss")
        return value, (0.0 if loss is None else loss), row["number"]

    def chosen(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the best of a stage's trials: a tenth, and at least three if so many finished."""
        finished = sorted((row for row in rows if row["status"] == "finished"), key=self.better)
        return finished[: max(3, round(_CHOSEN * len(rows)))]

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain JSON values."""
        space = {
            name: [d.low, d.high, d.log] if isinstance(d, Range) else list(d.values) for name, d in self.space.items()
        }
        kinds = {name: "range" if isinstance(d, Range) else "list" for name, d in self.space.items()}
        plain: dict[str, Any] = json.loads(json.dumps({
            "space": {name: {kinds[name]: what} for name, what in space.items()},
            "trials": self.trials, "budgets": self.budgets, "sampler": self.sampler, "pruner": self.pruner,
            "direction": self.direction, "seed": self.seed, **self.objective,
        }))  # fmt: skip
        return plain


def differences(there: dict[str, Any], asked: dict[str, Any], prefix: str = "") -> list[str]:
    """Say in which entries two plans (as dictionaries) differ."""
    found = []
    for key in dict.fromkeys([*there, *asked]):
        a, b = there.get(key), asked.get(key)
        if isinstance(a, dict) and isinstance(b, dict) and prefix == "":
            found += differences(a, b, f"{key} ")
        elif a != b:
            found.append(f"{prefix}{key} is {_plain(a)} there, {_plain(b)} here")
    return found


def _plain(value: Any) -> str:
    if isinstance(value, dict) and len(value) == 1:
        ((kind, items),) = value.items()
        if isinstance(items, list):
            texts = [f"{item:g}" if kind == "range" and isinstance(item, int | float) else str(item) for item in items]
            return ":".join(texts[:2]) if kind == "range" else ",".join(texts)
    return "missing" if value is None else _list(value) if isinstance(value, list) else str(value)


def _list(values: Sequence[Any]) -> str:
    return ",".join(map(str, values))


def share_out(trials: int | Sequence[int], stages: int) -> tuple[int, ...]:
    """Return trials by stage: as given, or a total shared out evenly.

    Raises
    ------
    ValueError
        If there are fewer trials than stages, or the two do not agree.
    """
    if stages < 1:
        raise ValueError(f"stages must be at least 1, got {stages}")
    if not isinstance(trials, int):
        counts = tuple(trials)
        if len(counts) != stages:
            raise ValueError(f"{stages} stages but {len(counts)} numbers of trials: {_list(counts)}")
        return counts
    if trials < stages:
        raise ValueError(f"{trials} trials are too few for {stages} stages")
    return tuple(trials // stages + (stage < trials % stages) for stage in range(stages))


def spread(budgets: int | Sequence[int], stages: int) -> tuple[int, ...]:
    """Return budgets by stage: as given, or a last one of which earlier stages have a quarter, a sixteenth, ..."""
    if not isinstance(budgets, int):
        return tuple(budgets)
    if budgets < 1:
        raise ValueError(f"every budget must be at least 1, got {budgets}")
    return tuple(max(1, budgets // _LATER ** (stages - 1 - stage)) for stage in range(stages))
