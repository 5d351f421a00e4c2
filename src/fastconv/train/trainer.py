"""The training loop, and nothing else: what watches it is a callback."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from fastconv.data import Batches
from fastconv.nn import Module
from fastconv.optim import Optimizer
from fastconv.schedule import Constant, Schedule
from fastconv.train.base import Callback, Diverged
from fastconv.train.callbacks import KeepBest
from fastconv.train.evaluation import Batch, evaluate, has_labels
from fastconv.train.history import History
from fastconv.train.progress import Progress


class Batched(Protocol):
    """What ``fit`` trains on: a length and, once an epoch, its batches."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Batch]: ...


class Loss(Protocol):
    """What is minimised."""

    def __call__(self, output: np.ndarray, target: np.ndarray) -> float: ...
    def backward(self) -> np.ndarray: ...


class Trainer:
    """Train a model by minibatches.

    Parameters
    ----------
    model : Module
    loss : callable with ``backward``
        ``loss(output, target)`` gives a float, ``loss.backward()`` the gradient of the output.
    optimizer : Optimizer
        Its learning rate at this moment is the base rate of the schedule.
    schedule : callable
        From the number of updates done to a factor on the base rate, see `fastconv.schedule`.
    l2 : float
        Adds ``l2 / 2 * sum(w ** 2)`` over all weights of two or more dimensions to what is minimised; the
        figures called loss stay those of the data alone, the penalty has its own.
    callbacks : sequence of Callback
        Called in this order, before the two that the next options add.
    keep_best : bool
        Whether the weights of the epoch with the best validation figures are put back at the end.
    progress : bool
        Whether a bar and a line an epoch are shown.

    Attributes
    ----------
    epoch, epochs : int
        The running epoch, from 0, and the epoch at which ``fit`` ends.
    step, steps_per_epoch : int
        Updates done since the trainer was made; batches of an epoch.
    batch_loss, mean_loss : float
        Loss of the last batch; mean over the epoch so far.
    history : History

    Raises
    ------
    ValueError
        If ``l2`` is negative.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> from fastconv import nn, optim
    >>> from fastconv.train import Trainer
    >>> fastconv.manual_seed(0)
    >>> x = np.random.default_rng(0).normal(size=(64, 2)).astype(np.float32)
    >>> batches = [(x, (x[:, 0] > x[:, 1]).astype(np.int64))]
    >>> model = nn.Sequential(nn.Linear(2, 2))
    >>> trainer = Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=1.0), progress=False)
    >>> trainer.fit(batches, epochs=50)[-1]["accuracy"] > 0.95
    True
    """

    def __init__(
        self,
        model: Module,
        loss: Loss,
        optimizer: Optimizer,
        *,
        schedule: Schedule | None = None,
        l2: float = 0.0,
        callbacks: Sequence[Callback] = (),
        keep_best: bool = True,
        progress: bool = True,
    ) -> None:
        if not 0 <= l2 < math.inf:
            raise ValueError(f"Trainer: l2 must be finite and at least 0, got {l2}")
        self.model, self.loss, self.optimizer = model, loss, optimizer
        self.schedule = schedule or Constant()
        self.base_lr = optimizer.lr
        self.l2 = l2
        self.callbacks: list[Callback] = list(callbacks)
        if keep_best:
            self.callbacks.append(KeepBest())
        if progress:
            self.callbacks.append(Progress())
        self.history = History()
        self.epoch = self.epochs = self.step = self.steps_per_epoch = 0
        self.batch_loss = self.batch_penalty = self.mean_loss = math.nan
        self.stop_reason: str | None = None

    def fit(
        self,
        train: Batched | Batch,
        validation: Iterable[Batch] | Batch | None = None,
        *,
        epochs: int,
        batch_size: int = 64,
        seed: int = 0,
    ) -> History:
        """Train for some epochs more.

        Parameters
        ----------
        train : collection of (input, target) batches, or a tuple of two arrays
            The former has a length and is iterated once an epoch, as `fastconv.data.Batches`; the latter is
            cut into such minibatches.
        validation : iterable of batches, or a tuple of two arrays, optional
            Evaluated after every epoch.
        epochs : int
            At least 1.
        batch_size, seed : int
            How arrays are cut and shuffled; of no effect on batches.

        Returns
        -------
        History
            Of all epochs since the trainer was made.

        Raises
        ------
        Diverged
            If the loss or a parameter is not finite any more.
        ValueError
            If there is nothing to train on.
        """
        if epochs < 1:
            raise ValueError(f"Trainer.fit: epochs must be at least 1, got {epochs}")
        if isinstance(train, tuple):
            x, y = train
            train = Batches(x, y, batch_size, seed, dtype=self._dtype())
        if isinstance(validation, tuple):
            x, y = validation
            validation = Batches(x, y, batch_size, shuffle=False, dtype=self._dtype())
        self.steps_per_epoch = len(train)
        if self.steps_per_epoch == 0:
            raise ValueError("Trainer.fit: the training data have no batch")
        self.epochs = self.epoch + epochs
        self.stop_reason = None
        training = self.model.training
        self._notify("on_fit_start")
        try:
            while self.epoch < self.epochs and self.stop_reason is None:
                self._run_epoch(train, validation)
                self.epoch += 1
        finally:
            self.model.train(training)
            self._notify("on_fit_end")
        return self.history

    @property
    def best_epoch(self) -> int | None:
        """The epoch, from 1, whose weights are kept; None without validation or ``keep_best``."""
        return next((callback.epoch for callback in self.callbacks if isinstance(callback, KeepBest)), None)

    def stop(self, reason: str) -> None:
        """End the run after the running step; ``reason`` is kept in ``stop_reason``."""
        self.stop_reason = reason

    def log(self, record: dict[str, Any]) -> None:
        """Hand a record to all callbacks that keep or show records (`Callback.on_record`).

        Parameters
        ----------
        record : dict
            ``kind`` says what it is: "epoch" (the trainer's own, as in the history), "step" (figures of one step:
            ``step``, ``loss``, ``lr``, ...) or "event" (``step``, ``event``, ``text``).
        """
        for callback in self.callbacks:
            callback.on_record(self, record)

    def _dtype(self) -> np.dtype:
        return next(iter(self.model.parameters())).data.dtype

    def _notify(self, hook: str) -> None:
        for callback in self.callbacks:
            getattr(callback, hook)(self)

    def _run_epoch(self, train: Batched, validation: Iterable[Batch] | None) -> None:
        self._notify("on_epoch_start")
        self.model.train()
        tally = _Tally()
        fetched = time.perf_counter()
        for x, y in train:
            self._notify("on_step_start")
            started = time.perf_counter()
            right = self._train_step(x, y)
            ended = time.perf_counter()
            tally.add(len(x), self.batch_loss, self.batch_penalty, right)
            tally.times.append(ended - started)
            tally.seconds += ended - fetched
            self.mean_loss = tally.loss / tally.samples
            self._notify("on_step_end")
            if self.stop_reason is not None:
                break
            fetched = time.perf_counter()
        if not all(np.isfinite(param.data).all() for param in self.model.parameters()):
            raise self._diverged("a parameter is no longer finite")
        record = {"epoch": self.epoch + 1, "steps": self.step, "lr": self.optimizer.lr, **tally.figures()}
        found = None if validation is None else evaluate(self.model, self.loss, validation)
        if found is not None and not math.isfinite(found.loss):
            raise self._diverged(f"the validation loss is {found.loss}")
        record["validation_loss"] = None if found is None else found.loss
        record["validation_accuracy"] = None if found is None else found.accuracy
        self.history.append(record)
        self.log({"kind": "epoch", **record})
        self._notify("on_epoch_end")

    def _train_step(self, x: np.ndarray, y: np.ndarray) -> int | None:
        """Do one update; return how many labels were predicted right, None where targets are not labels."""
        self.optimizer.lr = self.base_lr * self.schedule(self.step)
        self.optimizer.zero_grad()
        output = self.model(x)
        self.batch_loss = float(self.loss(output, y))
        if not math.isfinite(self.batch_loss):
            raise self._diverged(f"the loss is {self.batch_loss}")
        right = int((output.argmax(axis=1) == y).sum()) if has_labels(output, y) else None
        self.model.backward(self.loss.backward())
        self.batch_penalty = self._penalise()
        self.optimizer.step()
        self.step += 1
        return right

    def _penalise(self) -> float:
        """Add the gradient of the L2 penalty; return the penalty."""
        if self.l2 == 0:
            return 0.0
        squares = 0.0
        for param in self.model.parameters():
            if param.data.ndim >= 2 and param.requires_grad:
                param.grad += self.l2 * param.data
                squares += float(np.square(param.data, dtype=np.float64).sum())
        return 0.5 * self.l2 * squares

    def _diverged(self, what: str) -> Diverged:
        return Diverged(
            f"{what} after {self.step} updates, in epoch {self.epoch + 1} (learning rate {self.optimizer.lr:g})",
            self.step,
        )


class _Tally:
    """Sums over the steps of one epoch."""

    def __init__(self) -> None:
        self.samples = 0
        self.loss = self.penalty = self.seconds = 0.0
        self.right: int | None = 0
        self.times: list[float] = []

    def add(self, samples: int, loss: float, penalty: float, right: int | None) -> None:
        self.samples += samples
        self.loss += loss * samples
        self.penalty += penalty * samples
        self.right = None if right is None or self.right is None else self.right + right

    def figures(self) -> dict[str, Any]:
        return {
            "loss": self.loss / self.samples,
            "accuracy": None if self.right is None else self.right / self.samples,
            "penalty": self.penalty / self.samples,
            "seconds": self.seconds,
            "step_ms": 1e3 * statistics.median(self.times),
            "images_per_second": self.samples / self.seconds,
        }
