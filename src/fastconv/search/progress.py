"""How a search shows itself: a line for every trial that is over, and on a terminal a bar below them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from typing import Any, TextIO

from fastconv.data import is_table
from fastconv.paths import printable
from fastconv.search.plan import Plan
from fastconv.search.space import Space, free, show
from fastconv.terminal import bar, put_line

_BAR = "{desc} {percentage:3.0f} %|{bar:24}| {n_fmt}/{total_fmt} trials, {elapsed} gone, {remaining} left"


def figure_of(objective: Mapping[str, Any]) -> str | None:
    """Return what the values of a training are, by its description; None of other objectives."""
    options = objective.get("options")
    if not isinstance(options, dict):
        return None
    if options.get("metric") or not is_table(str(options.get("dataset"))):
        return options.get("metric") or "accuracy"
    usual = {"classification": "accuracy", "regression": "r2"}  # of a table that alone knows which it is: its score
    return usual.get(str(options.get("task")), "score")


def in_words(figure: str | None, value: float) -> str:
    """Return a value with its name."""
    if figure is None:
        return f"value {value:.6g}"
    return f"val accuracy {100 * value:.1f} %" if figure == "accuracy" else f"val {figure} {value:.4f}"


class Show:
    """Print trials as they come.

    Parameters
    ----------
    plan : Plan
    figure : str or None
        What values are, if it is known: "accuracy", or another metric.
    file : text stream or None
        Where lines go; None prints nothing.
    """

    def __init__(self, plan: Plan, figure: str | None, file: TextIO | None) -> None:
        self._plan, self._figure, self._file = plan, figure, file
        self._shown: set[int] = set()
        self._best: dict[str, Any] | None = None
        self._bar: Any = None

    def stage(self, stage: int, space: Space, old: int) -> None:
        """Begin a stage (from 0), ``old`` of whose trials were done before."""
        plan = self._plan
        self._best = None
        loose = free(space)
        parts = [f"{name} {d}" for name, d in (loose or space).items()]
        spend, unit = plan.budgets[stage], plan.objective.get("unit", "units")
        budget = "" if spend is None else f" of {spend} {unit if spend > 1 else unit[:-1]}"
        of = f" of {len(plan.trials)}" if len(plan.trials) > 1 else ""
        done = f" ({old} done before)" if old else ""
        self.line(f"stage {stage + 1}{of}: {plan.trials[stage]} trials{budget}{done}: {', '.join(parts)}")
        self._names = tuple(loose or space)
        total = sum(plan.trials)
        if self._file is not None:
            self._bar = bar(total=total, initial=plan.before(stage), desc="search", bar_format=_BAR, leave=False)

    def trials(self, rows: Iterable[dict[str, Any]]) -> None:
        """Print the trials not yet printed."""
        for row in rows:
            if row["number"] in self._shown:
                continue
            self._shown.add(row["number"])
            better = row["status"] == "finished" and (
                self._best is None or self._plan.better(row) < self._plan.better(self._best)
            )
            if better:
                self._best = row
            self.line(self.text(row) + ("  *" if better else ""))
            if self._bar is not None:
                self._bar.update()

    def text(self, row: dict[str, Any]) -> str:
        """Return the line of a trial."""
        total = sum(self._plan.trials)
        figures = "  ".join(
            f"{name.replace('_', ' ')} {show(row['params'][name])}" for name in self._names if name in row["params"]
        )
        if row["status"] == "finished":
            what = self.value(row["value"])
        else:
            what = f"{row['status']}: {printable(str(row['reason']))}"
        return f"Try {row['number']:>{len(str(total))}}/{total}  {what}  {figures}"

    def value(self, value: float) -> str:
        """Return a value with its name."""
        return in_words(self._figure, value)

    def end(self) -> None:
        """End a stage."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def line(self, text: str) -> None:
        """Print a line above the bar."""
        if self._file is not None:
            above = nullcontext() if self._bar is None else self._bar.external_write_mode(self._file)
            with above:
                put_line(text, self._file)
