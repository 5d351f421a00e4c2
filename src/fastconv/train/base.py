"""What trainer, callbacks and progress share: the callback's hook points and how a run may be lost."""

from __future__ import annotations

import copy
import math
import signal
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from fastconv.functional._check import Keywords
from fastconv.schema import Shape

if TYPE_CHECKING:
    from fastconv.train.evaluation import Batch
    from fastconv.train.trainer import Trainer


SMALL = math.log(2)
"""Losses below are small, zero or negative by nature: of a net that has learned, of a regression, of a likelihood. It
is what guessing between two classes costs; of such a loss no multiple says that a run is lost."""


def ceiling(loss: float, factor: float) -> float:
    """Return above what a loss that began at ``loss`` has exploded.

    That is ``factor`` times as much; where that is below `SMALL`, as far above it as if it had the size of `SMALL`, or
    its own size where it is negative.
    """
    return factor * loss if loss >= SMALL else loss + (factor - 1) * max(-loss, SMALL)


def updates(count: int) -> str:
    """Return "1 update", "2 updates" and so on."""
    return f"{count} update{'' if count == 1 else 's'}"


class Callback(Keywords):
    """Something that watches a training run; override the hooks you need.

    Every hook gets the `Trainer`, whose public attributes (``model``, ``optimizer``, ``epoch``, ``step``,
    ``batch_loss``, ``history``, ...) say where the run stands; ``trainer.stop(reason)`` ends it after the
    running step. Hooks run in the order of the trainer's ``callbacks``.

    A callback that remembers something from step to step also has `state_dict` and `load_state_dict`, so that a
    resumed run goes on as if never stopped. What it remembers is of one fit: where another begins, the trainer loads
    the state from before the first.

    Examples
    --------
    >>> class Goal(Callback):
    ...     def on_epoch_end(self, trainer):
    ...         if trainer.history[-1]["validation_accuracy"] > 0.99:
    ...             trainer.stop("99 % are enough")
    """

    _fresh: dict[str, Any] | None = None  # the state before any fit

    def on_fit_start(self, trainer: Trainer) -> None:
        """Before the first step. If it raises, the fit ends by that, and `on_fit_end` of those before it is called.

        Parameters
        ----------
        trainer : Trainer
        """

    def on_epoch_start(self, trainer: Trainer) -> None:
        """Before an epoch's first step, or where a resumed run goes on in it; ``trainer.epoch`` counts from 0.

        Parameters
        ----------
        trainer : Trainer
        """

    def on_step_start(self, trainer: Trainer) -> None:
        """Before an update, the batch at hand: ``trainer.step`` are done.

        Parameters
        ----------
        trainer : Trainer
        """

    def on_gradients(self, trainer: Trainer) -> None:
        """Between backward and step: the gradients as the update will take them, penalty and clipping included.

        What is written to ``Parameter.grad`` here, the update takes.

        Parameters
        ----------
        trainer : Trainer

        Examples
        --------
        >>> import numpy as np
        >>> from fastconv import nn, optim
        >>> from fastconv.train import Callback, Trainer
        >>> class FreezeBias(Callback):
        ...     def on_gradients(self, trainer):
        ...         trainer.model.bias.grad[...] = 0.0
        >>> model, x = nn.Linear(1, 1), np.ones((4, 1), np.float32)
        >>> model.bias.data[...] = 0.5
        >>> trainer = Trainer(model, nn.MSELoss(), optim.SGD(model), callbacks=[FreezeBias()], progress=False)
        >>> _ = trainer.fit(x, 9 * x, epochs=2)
        >>> model.bias.data
        array([0.5], dtype=float32)
        """

    def on_step_end(self, trainer: Trainer) -> None:
        """After an update: ``trainer.step`` are done, ``trainer.batch_loss`` is the loss of the last.

        Parameters
        ----------
        trainer : Trainer

        Examples
        --------
        >>> import numpy as np
        >>> from fastconv import nn, optim
        >>> from fastconv.train import Callback, Trainer
        >>> class Show(Callback):
        ...     def on_step_end(self, trainer):
        ...         print(trainer.step, trainer.batch_loss)
        >>> model, x = nn.Linear(1, 1, bias=False), np.ones((4, 1), np.float32)
        >>> model.weight.data[...] = 1.0
        >>> trainer = Trainer(model, nn.MSELoss(), optim.SGD(model, lr=0.25), callbacks=[Show()], progress=False)
        >>> _ = trainer.fit(x, 0 * x, epochs=1, batch_size=2)
        1 1.0
        2 0.25
        """

    def on_non_finite(self, trainer: Trainer, batch: Batch | None) -> None:
        """When the loss of a batch is NaN or infinite, or (None) that of the validation data or a parameter.

        The trainer raises `Diverged` next; a callback may raise one that says more.

        Parameters
        ----------
        trainer : Trainer
        batch : tuple of ndarray, or None
            Input (n, ...) and target (n, ...), and what the samples weigh where they do.
        """

    def on_epoch_end(self, trainer: Trainer) -> None:
        """After an epoch and its validation; its record is ``trainer.history[-1]``.

        Parameters
        ----------
        trainer : Trainer
        """

    def on_safe_point(self, trainer: Trainer) -> None:
        """When all callbacks have seen a step and, after an epoch's last step, the epoch's end.

        What ``trainer.state_dict()`` returns here is the whole run: another trainer goes on from it to the bit.

        Parameters
        ----------
        trainer : Trainer
        """

    def on_record(self, trainer: Trainer, record: dict[str, Any]) -> None:
        """When somebody has called ``trainer.log(record)``, as the trainer does after every epoch.

        Parameters
        ----------
        trainer : Trainer
        record : dict
            As `History` and `RunRecord` have it.
        """

    def on_fit_end(self, trainer: Trainer) -> None:
        """After the last step, also when the run ends by an exception, or that of another callback does.

        Parameters
        ----------
        trainer : Trainer
        """

    def state_dict(self) -> dict[str, Any]:
        """Return what the callback remembers: values with a JSON form, arrays, dicts and lists of these."""
        return {}

    def state_shape(self, trainer: Trainer) -> Shape:
        """Return what a state must look like; it is checked before `load_state_dict` gets one from a file.

        Parameters
        ----------
        trainer : Trainer
        """
        return Shape()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` returned.

        Parameters
        ----------
        state : dict
        """

    def _keep_fresh(self) -> None:
        if self._fresh is None:
            self._fresh = copy.deepcopy(self.state_dict())

    def _forget(self) -> None:
        """Go back to the state before any fit."""
        self._keep_fresh()
        self.load_state_dict(copy.deepcopy(self._fresh or {}))


class Called(Callback):
    """A plain function as a callback: called with the trainer after every epoch."""

    def __init__(self, function: Callable[[Trainer], Any]) -> None:
        self.function = function

    def on_epoch_end(self, trainer: Trainer) -> None:
        self.function(trainer)


class Diverged(ArithmeticError):
    """The loss or a parameter is no longer finite, or the loss has exploded.

    Parameters
    ----------
    message : str

    Attributes
    ----------
    step : int
        Updates done when it was noticed.
    layer, tensor : str or None
        Which layer, and what of it, was the first to go wrong, where that is known.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn, optim
    >>> from fastconv.train import Diverged, Trainer
    >>> model, x = nn.Linear(1, 1), np.ones((4, 1), np.float32)
    >>> trainer = Trainer(model, nn.MSELoss(), optim.SGD(model, lr=1e30), progress=False)
    >>> try:
    ...     trainer.fit(x, 2 * x, epochs=9)
    ... except Diverged as error:
    ...     print(error.step, error)
    1 the loss is inf after 1 update, in epoch 2 (learning rate 1e+30)
    """

    def __init__(self, message: str, step: int, layer: str | None = None, tensor: str | None = None) -> None:
        super().__init__(message)
        self.step, self.layer, self.tensor = step, layer, tensor


class Interrupted(KeyboardInterrupt):
    """A signal has ended the run, at a step of which there is a checkpoint to load and go on from.

    Parameters
    ----------
    number : int
        Of the signal.

    Attributes
    ----------
    signal : signal.Signals
    step : int
        Updates done.

    Examples
    --------
    >>> import signal, tempfile
    >>> import numpy as np
    >>> from fastconv import nn, optim
    >>> from fastconv.train import Checkpoint, Interrupted, Trainer
    >>> model, x = nn.Linear(1, 1), np.ones((4, 1), np.float32)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     callbacks = [lambda trainer: signal.raise_signal(signal.SIGINT), Checkpoint(folder)]  # Ctrl-C in epoch 1
    ...     trainer = Trainer(model, nn.MSELoss(), optim.SGD(model), callbacks=callbacks, progress=False)
    ...     try:
    ...         trainer.fit(x, x, epochs=9)
    ...     except Interrupted as error:
    ...         print(error.signal.name, error.step)
    SIGINT 1
    """

    def __init__(self, number: int, step: int) -> None:
        self.signal, self.step = signal.Signals(number), step
        super().__init__(f"{self.signal.name} at step {step}")


def lost(
    trainer: Trainer, what: str, batch: Batch | None, layer: str | None = None, tensor: str | None = None
) -> Diverged:  # fmt: skip
    """Tell callbacks that numbers are not finite any more, which may find out where; return the error of it."""
    for callback in trainer.callbacks:
        callback.on_non_finite(trainer, batch)
    return diverged(trainer, what, layer, tensor)


def diverged(trainer: Trainer, what: str, layer: str | None = None, tensor: str | None = None) -> Diverged:
    """Return the error that says when a run was lost, and by what."""
    where = f"after {updates(trainer.step)}, in epoch {trainer.epoch + 1} (learning rate {trainer.optimizer.lr:g})"
    return Diverged(f"{what} {where}", trainer.step, layer, tensor)


def remembering(callbacks: Iterable[Callback]) -> Iterator[tuple[str, Callback]]:
    """Yield the callbacks that have a state, by name of class; a second one of a class gets a number."""
    seen: dict[str, int] = {}
    for callback in callbacks:
        kind = type(callback)
        if kind.state_dict is not Callback.state_dict:
            seen[kind.__name__] = seen.get(kind.__name__, 0) + 1
            number = seen[kind.__name__]
            yield kind.__name__ if number == 1 else f"{kind.__name__} {number}", callback
