"""What an objective gets: the hyperparameters of one trial, and the way to report how it goes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


class Cut(Exception):
    """Ends a trial that is not worth going on with; its message is the trial's reason.

    Examples
    --------
    >>> from fastconv.search import Cut, search
    >>> def objective(attempt):
    ...     if attempt["x"] < 0:
    ...         raise Cut("negative")
    ...     return attempt["x"]
    >>> found = search(objective, {"x": [-1, 2]}, sampler="grid", trials=2, progress=False)
    >>> [(trial["params"], trial["status"], trial["value"]) for trial in found.trials]
    [({'x': -1}, 'cut', None), ({'x': 2}, 'finished', 2.0)]
    """


class Attempt:
    """One trial, as its objective sees it: ``attempt["lr"]`` is a hyperparameter.

    Parameters
    ----------
    report : callable
        Told (value, step) of what the trial reports.
    ending : object
        Tells whether the run is to end.

    Attributes
    ----------
    number, stage : int
        Both from 1; numbers go through all stages.
    params : dict
        All hyperparameters by name.
    budget : int or None
        What the trial may spend, by stage of the search.
    folder : Path or None
        Where its run may be kept; not there yet.
    facts : dict
        Figures to keep beside the value, plain JSON; ``validation_loss`` decides between equal values.

    Examples
    --------
    >>> from fastconv.search import search
    >>> def objective(attempt):
    ...     for step in range(1, 4):
    ...         attempt.report(attempt["x"] * step, step)  # a pruner may end it here
    ...     attempt.facts["steps"] = step
    ...     return attempt["x"] * step
    >>> found = search(objective, {"x": [2, 3]}, sampler="grid", trials=2, progress=False)
    >>> found.best["params"], found.best["value"], found.best["steps"]
    ({'x': 3}, 9.0, 3)
    """

    def __init__(
        self,
        number: int,
        stage: int,
        params: dict[str, Any],
        budget: int | None,
        folder: Path | None,
        report: Callable[[float, int], bool],
        ending: Callable[[], bool] = lambda: False,
    ) -> None:
        self.number, self.stage, self.params, self.budget, self.folder = number, stage, params, budget, folder
        self.facts: dict[str, Any] = {}
        self._report, self._ending = report, ending

    def __getitem__(self, name: str) -> Any:
        return self.params[name]

    def report(self, value: float, step: int) -> None:
        """Say how good the trial is after some steps (whole numbers, rising).

        Parameters
        ----------
        value : float
            What the search is for: the larger the better, or the smaller.
        step : int

        Raises
        ------
        Cut
            If the search's pruner gives the trial up.
        KeyboardInterrupt
            As `safe_point`.

        Examples
        --------
        >>> from fastconv.search import search
        >>> def objective(attempt):
        ...     for step in range(1, 11):
        ...         attempt.report(attempt["x"] * step, step)
        ...     return attempt["x"] * step
        >>> found = search(objective, {"x": "0.1:1"}, trials=12, pruner="median", progress=False)
        >>> "cut" in [trial["status"] for trial in found.trials]  # one that went worse than most before it
        True
        """
        self.safe_point()
        if self._report(float(value), int(step)):
            raise Cut(f"given up by the pruner at step {step}, value {value:.4g}")

    def safe_point(self) -> None:
        """Say that this is a good moment to end, should Ctrl-C or SIGTERM have asked the search to.

        Raises
        ------
        KeyboardInterrupt
            If so. The trial waits again.
        """
        if self._ending():
            raise KeyboardInterrupt

    def __repr__(self) -> str:
        return f"Attempt({self.number}, {self.params})"
