"""The loop over a number of steps of a net that is trained in its file: `fastconv deep train`, `fastconv mlp train`.

A `Trainer` counts in epochs and keeps its runs in folders; here a run is so many steps more of a net that is there, and
its state is the net. What a step is and what a save is, others say.
"""

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from fastconv.signals import EndRequest


@dataclass(frozen=True)
class Report:
    """One step of training: the steps of the net so far, loss and accuracy of the batch, and how long it took.

    Parameters
    ----------
    step : int
    loss, accuracy : float
        Of the batch.
    seconds : float

    Examples
    --------
    >>> import tempfile
    >>> from fastconv import data, deep
    >>> record = deep.Record(width=8, layers=10, alpha=0.3, activation="tanh", inputs=64, classes=10, seed=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     paths = deep.Paths.of(f"{folder}/net")
    ...     deep.create(paths, record)
    ...     with deep.Training(paths, data.load("digits"), batch=50, layer_rate=0.1, head_rate=0.5) as training:
    ...         report = training.step()
    >>> report.step, round(report.loss, 2), report.accuracy, report.seconds < 60
    (1, 2.51, 0.0, True)
    """

    step: int
    loss: float
    accuracy: float
    seconds: float


class Abandoned(Exception):
    """A step was given up before it changed anything, because the run is to end."""


class StepRun:
    """A run of some steps.

    Parameters
    ----------
    take : callable
        Takes a step and reports of it; it may raise `Abandoned` when a signal has come.
    steps : int
    ending : EndRequest
        A signal that it takes note of ends the run after the running step.
    report : callable
        Given this run and the last step after every ``report_every`` steps and after the last of them.
    record : callable, optional
        Given every step. Where what it, or ``report``, writes finds no room, the steps so far are saved first.
    save : callable, optional
        Called after every ``save_every`` steps, if that is given, and at the end.

    Attributes
    ----------
    last : Report or None
        Of the last step.
    seconds : list of float
        Of every step.
    """

    def __init__(
        self, take: Callable[[], Report], steps: int, *, ending: EndRequest,
        report: Callable[["StepRun", Report], None], report_every: int,
        record: Callable[[Report], None] | None = None,
        save: Callable[[], None] | None = None, save_every: int | None = None,
    ) -> None:  # fmt: skip
        self.steps, self.report_every, self.save_every = steps, report_every, save_every
        self.last: Report | None = None
        self.seconds: list[float] = []
        self._take, self._ending, self._report, self._record, self._save = take, ending, report, record, save

    @property
    def done(self) -> int:
        """Steps that this run has taken."""
        return len(self.seconds)

    @property
    def median(self) -> float:
        """Median seconds of a step; NaN before the first."""
        return statistics.median(self.seconds or [float("nan")])

    def go(self) -> None:
        """Take the steps, then save, unless somebody else does."""
        while self.done < self.steps and self._ending.number is None:
            try:
                self.last = self._take()
            except Abandoned:
                break
            self.seconds.append(self.last.seconds)
            try:
                self._tell(self.last)
            except OSError:
                if self._save:
                    self._save()
                raise
            if self._save and self.save_every and self.done % self.save_every == 0:
                self._save()
        if self._save:
            self._save()

    def _tell(self, last: Report) -> None:
        if self._record:
            self._record(last)
        if self.done % self.report_every == 0 or self.done == self.steps:
            self._report(self, last)
