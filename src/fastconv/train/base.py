"""What trainer, callbacks and progress share: the callback's hook points and the error of a lost run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastconv.train.trainer import Trainer


class Callback:
    """Something that watches a training run; override the hooks you need.

    Every hook gets the `Trainer`, whose public attributes (``model``, ``optimizer``, ``epoch``, ``step``,
    ``batch_loss``, ``history``, ...) say where the run stands; ``trainer.stop(reason)`` ends it after the
    running step. Hooks run in the order of the trainer's ``callbacks``.

    Examples
    --------
    >>> class Patience(Callback):
    ...     def on_epoch_end(self, trainer):
    ...         losses = trainer.history["validation_loss"]
    ...         if len(losses) > 5 and min(losses[-5:]) > min(losses):
    ...             trainer.stop("no progress in five epochs")
    """

    def on_fit_start(self, trainer: Trainer) -> None:
        """Before the first step."""

    def on_epoch_start(self, trainer: Trainer) -> None:
        """Before an epoch's first step; ``trainer.epoch`` counts from 0."""

    def on_step_start(self, trainer: Trainer) -> None:
        """Before an update, the batch at hand: ``trainer.step`` are done."""

    def on_step_end(self, trainer: Trainer) -> None:
        """After an update: ``trainer.step`` are done, ``trainer.batch_loss`` is the loss of the last."""

    def on_epoch_end(self, trainer: Trainer) -> None:
        """After an epoch and its validation; its record is ``trainer.history[-1]``."""

    def on_record(self, trainer: Trainer, record: dict[str, Any]) -> None:
        """When somebody has called ``trainer.log(record)``, as the trainer does after every epoch."""

    def on_fit_end(self, trainer: Trainer) -> None:
        """After the last step, also when the run ends by an exception."""


class Diverged(ArithmeticError):
    """The loss or a parameter is no longer finite, or the loss has exploded.

    Attributes
    ----------
    step : int
        Updates done when it was noticed.
    """

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step
