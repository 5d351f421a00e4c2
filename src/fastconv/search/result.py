"""What a search found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastconv.search.plan import Plan
from fastconv.search.space import Space, at_edge


@dataclass(frozen=True)
class SearchResult:
    """Trials of a search, and the best.

    Attributes
    ----------
    trials : list of dict
        Those that are over, by number: ``number``, ``stage`` (from 1), ``status`` ("finished"; "cut" by the limit
        on the loss or by the pruner; "diverged"; "failed"), ``value`` (None unless finished), ``params``,
        ``reason``, ``seconds`` and what else the objective noted.
    best : dict or None
        The best of all that finished.
    stages : list of dict
        ``stage``, ``space`` (texts), ``budget``, ``trials``, ``best``.
    warnings : list of str
        What to look at: above all a best value at the edge of its range.
    asked : int
        Trials asked for.
    interrupted : bool
        Whether an interruption ended it; the same search with ``resume=True`` goes on.
    signal : int or None
        The signal that did, where one came.
    direction : {"maximize", "minimize"}
        Which values are better.

    Examples
    --------
    >>> from fastconv.search import search
    >>> found = search(lambda attempt: attempt["x"], {"x": "0:1:linear"}, sampler="grid", trials=3, progress=False)
    >>> found.best["params"], found.best["value"]
    ({'x': 1.0}, 1.0)
    >>> [(row["x"], row["value"]) for row in found.table()]
    [(0.0, 0.0), (0.5, 0.5), (1.0, 1.0)]
    >>> found.warnings
    ['the best x, 1, lies at the upper edge of 0:1:linear: a better one may lie beyond; widen the range']
    """

    trials: list[dict[str, Any]]
    best: dict[str, Any] | None
    stages: list[dict[str, Any]]
    warnings: list[str]
    asked: int
    interrupted: bool
    signal: int | None = None
    direction: str = "maximize"

    def table(self) -> list[dict[str, Any]]:
        """Return the trials as flat rows, hyperparameters beside figures: what `fastconv.viz.search` draws.

        Every row says in which ``direction`` values are better.

        Examples
        --------
        >>> from fastconv.search import search
        >>> found = search(lambda attempt: attempt["x"], {"x": [1, 2]}, sampler="grid", trials=2, progress=False)
        >>> [(row["number"], row["x"], row["value"], row["status"]) for row in found.table()]
        [(1, 1, 1.0, 'finished'), (2, 2, 2.0, 'finished')]
        """
        return [
            {"direction": self.direction, **{key: v for key, v in row.items() if key != "params"}, **row["params"]}
            for row in self.trials
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain JSON values, as ``fastconv search --json`` prints it."""
        return {
            "best_params": None if self.best is None else self.best["params"],
            "best_value": None if self.best is None else self.best["value"],
            "best_trial": None if self.best is None else self.best["number"],
            "warnings": self.warnings,
            "interrupted": self.interrupted,
            "asked": self.asked,
            "stages": self.stages,
            "trials": self.trials,
        }

    def __repr__(self) -> str:
        best = "none finished" if self.best is None else f"best {self.best['value']:g} with {self.best['params']}"
        return f"SearchResult({len(self.trials)} of {self.asked} trials, {best})"


def summary(
    plan: Plan, stages: list[tuple[Space, list[dict[str, Any]]]], interrupted: bool, signal: int | None = None
) -> SearchResult:
    """Make the result of the stages run so far."""
    told, best, space = [], None, None
    for stage, (where, rows) in enumerate(stages):
        first = min((row for row in rows if row["status"] == "finished"), key=plan.better, default=None)
        if first is not None and (best is None or plan.better(first) < plan.better(best)):
            best, space = first, where
        told.append(
            {
                "stage": stage + 1,
                "space": {name: str(d) for name, d in where.items()},
                "budget": plan.budgets[stage],
                "trials": len(rows),
                "best": first,
            }
        )
    rows = [row for _, stage_rows in stages for row in stage_rows]
    warnings = []
    if best is not None and space is not None:
        peers = [row for row in rows if row["stage"] == best["stage"] and row["value"] == best["value"]]
        alike = [row["params"] for row in peers if row.get("validation_loss") == best.get("validation_loss")]
        warnings = at_edge(space, best["params"], plan.space, alike, [row["params"] for row in peers])
    ended_by = signal if interrupted else None
    return SearchResult(rows, best, told, warnings, sum(plan.trials), interrupted, ended_by, plan.direction)
