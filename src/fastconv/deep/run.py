"""A run of steps of a deep net, and how a signal ends it.

It does at a whole step: before one changes weights, or after it. The answer comes between two windows of layers, a
fraction of a second apart: what will happen, and when.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from fastconv.deep.training import Training
from fastconv.signals import EndRequest
from fastconv.steps import Abandoned, Report, StepRun

Progress = Callable[[bool | None], AbstractContextManager[Callable[[int], object]]]
"""From whether the step will be a long one, None if nobody knows, to a context that is told of layers walked."""


class DeepRun(StepRun):
    """Some steps of a net in training.

    Parameters
    ----------
    training : Training
    steps : int
        How many more.
    report_every, save_every : int
        In steps; where nothing is saved before the end, ``save_every`` is None.
    report : callable
        ``report(run, last)`` after every ``report_every`` steps and after the last of them; ``last`` is a `Report`.
    record : callable, optional
        ``record(last)`` after every step.
    progress : callable
        Called before a step with whether it will be a long one (None: nobody knows yet); returns a context manager,
        whose value is called with the number of layers walked, again and again during the step.

    Notes
    -----
    ``go()`` takes the steps and saves. Inside ``with run.ending:`` SIGINT and SIGTERM end it after the running step.

    Examples
    --------
    >>> import contextlib, tempfile
    >>> from fastconv import data, deep
    >>> record = deep.Record(width=16, layers=100, alpha=0.1, activation="tanh", inputs=64, classes=10, seed=0)
    >>> def report(run, step):
    ...     print(f"step {step.step}: loss {step.loss:.2f}, accuracy {step.accuracy:.2f}")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     paths = deep.Paths.of(f"{folder}/net")
    ...     deep.create(paths, record)
    ...     with deep.Training(paths, data.load("digits"), batch=100, layer_rate=0.1, head_rate=0.5) as training:
    ...         show = lambda long: contextlib.nullcontext(lambda layers: None)  # no bar
    ...         deep.DeepRun(training, 60, report=report, report_every=20, progress=show).go()
    step 20: loss 0.95, accuracy 0.74
    step 40: loss 0.43, accuracy 0.89
    step 60: loss 0.23, accuracy 0.94
    """

    def __init__(
        self, training: Training, steps: int, *, report: Callable[[StepRun, Report], None], report_every: int,
        progress: Progress, record: Callable[[Report], None] | None = None, save_every: int | None = None,
    ) -> None:  # fmt: skip
        self.training = training
        self.ending = EndRequest(lambda name: f"{name}: stopping {self._when()}")
        self._progress, self._changing = progress, False
        self._began, self._walked = 0.0, 0  # when the step began, and the layers it has walked, of twice the depth
        super().__init__(
            self._step, steps, ending=self.ending, report=report, report_every=report_every, record=record,
            save=training.save, save_every=save_every,
        )  # fmt: skip

    def _step(self) -> Report:
        self._changing, self._began, self._walked = False, time.monotonic(), 0
        with self._progress(self.seconds[-1] > 2.0 if self.seconds else None) as show:

            def watch(layers: int) -> None:
                show(layers)
                self._walked += layers
                if not self._changing:
                    self._stop_here()

            return self.training.step(watch, self._begin_change)

    def _begin_change(self) -> None:
        self._stop_here()
        self._changing = True

    def _stop_here(self) -> None:
        if self.ending.number is not None:
            raise Abandoned

    def _when(self) -> str:
        if not self._changing:
            return "now"
        whole = 2 * self.training.record.layers
        left = (time.monotonic() - self._began) * (whole - self._walked) / max(1, self._walked)
        lost = f"back to step {self.training.saved_step}" if self.training.in_memory else "which leaves the file torn"
        return f"after this step, in about {left:.1f} s (again: at once, {lost})"
