"""Callbacks that keep a run honest: the best weights, and an early end to a run that explodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fastconv.train.base import Callback, Diverged

if TYPE_CHECKING:
    from fastconv.train.trainer import Trainer


class KeepBest(Callback):
    """Keep the weights of the epoch with the best validation accuracy and put them back at the end.

    Among equal accuracies, and where there is no accuracy, the lower validation loss wins. Without validation
    data the last weights stay.

    Attributes
    ----------
    epoch : int or None
        The epoch kept, counted from 1.
    """

    def __init__(self) -> None:
        self.epoch: int | None = None
        self._merit: tuple[float, float] | None = None
        self._state: dict[str, np.ndarray] = {}

    def on_epoch_end(self, trainer: Trainer) -> None:
        record = trainer.history[-1]
        if record.get("validation_loss") is None:
            return
        merit = (record.get("validation_accuracy") or 0.0, -record["validation_loss"])
        if self._merit is None or merit > self._merit:
            self._merit, self.epoch = merit, record["epoch"]
            self._state = {name: np.copy(array) for name, array in trainer.model.state_dict().items()}

    def on_fit_end(self, trainer: Trainer) -> None:
        if self._state:
            trainer.model.load_state_dict(self._state)


class StopOnExplosion(Callback):
    """End a run by `Diverged` when an epoch's mean loss exceeds ``factor`` times the very first loss.

    Parameters
    ----------
    factor : float
        Above 1.

    References
    ----------
    The limit of three is that of the CS231n lecture on babysitting the learning process.
    """

    def __init__(self, factor: float = 3.0) -> None:
        if not factor > 1:
            raise ValueError(f"StopOnExplosion: factor must be above 1, got {factor}")
        self.factor = factor
        self._first: float | None = None

    def on_step_end(self, trainer: Trainer) -> None:
        if self._first is None:
            self._first = trainer.batch_loss

    def on_epoch_end(self, trainer: Trainer) -> None:
        record = trainer.history[-1]
        if self._first is not None and record["loss"] > self.factor * self._first:
            raise Diverged(
                f"mean loss {record['loss']:.4g} in epoch {record['epoch']} is more than {self.factor:g} "
                f"times the first loss, {self._first:.4g}",
                trainer.step,
            )
