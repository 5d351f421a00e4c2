"""The trainer: what a run is made of, and where it stands; what watches it is a callback."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Sequence, Sized
from typing import Any

import numpy as np

from fastconv.functional._check import Keywords, flag, number, whole
from fastconv.nn import Module
from fastconv.optim import EMA, Optimizer
from fastconv.schedule import Constant, Schedule
from fastconv.train.base import Callback, Called, remembering
from fastconv.train.callbacks import KeepBest
from fastconv.train.epoch import run_epoch
from fastconv.train.evaluation import Batch, check_reduction
from fastconv.train.given import Batched, Loss, as_given, parted
from fastconv.train.history import History
from fastconv.train.hold import frozen, held
from fastconv.train.metrics import monitored, named
from fastconv.train.progress import Progress
from fastconv.train.state import restore, state_of
from fastconv.train.tally import Tally
from fastconv.train.update import add_gradients, update


class Trainer(Keywords):
    """Train a model by minibatches.

    Parameters
    ----------
    model : Module
    loss : callable with ``backward``
        ``loss(output, target)`` gives a float, ``loss.backward()`` the gradient of the output. The float is the mean
        over the samples, or where ``loss.reduction`` is "sum" their sum; an epoch's figures are means all the same.
    optimizer : Optimizer
        Its learning rate at this moment is the base rate of the schedule.
    schedule : callable
        From the number of updates done to a factor on the base rate, see `fastconv.schedule`.
    l2 : float
        Adds ``l2 / 2 * sum(w ** 2)`` over all weights of two or more dimensions to what is minimised; the
        figures called loss stay those of the data alone, the penalty has its own.
    callbacks : sequence of Callback or function
        Called in this order, after the `KeepBest` and before the `Progress` that the next options add. A function is
        called with the trainer after every epoch.
    keep_best : bool
        Whether the weights of the epoch with the best validation figures are put back at the end.
    progress : bool
        Whether a bar and a line per epoch are shown.
    clip_norm, clip_value : float, optional
        What the norm of all gradients, penalty included, and then the size of each number in them may be at most. The
        history has ``gradient_norm``, the mean of the norms before, and ``clipped``, the share of them that was cut.
    ema : EMA or float, optional
        An average of the weights, or its decay: validation is done with it, and the model has it when a fit ends.
    metrics : str, function, sequence or dict of them, optional
        What every validation measures beside the loss, as `evaluate` takes it; ``validation_NAME`` in the history.
    monitor : str, optional
        The figure of a validation by which epochs are judged, by `KeepBest`, `Patience` and `Checkpoint`: the name of a
        metric, "accuracy" or "loss". Less is better of "loss", "mae", "mse", "rmse" and what ends in _loss or _error.
        By default the accuracy, among equal ones the loss.
    accumulate : int
        Batches per update, whose gradients are averaged; the last one of an epoch may have fewer. Layers that train
        themselves take a step in every batch.

    Attributes
    ----------
    epoch, epochs, first_epoch : int
        The running epoch, from 0, the epoch at which ``fit`` ends, and the one at which it began.
    step, batch, steps_per_epoch : int
        Updates done since the trainer was made, and in the running epoch; batches of an epoch.
    base_lr : float
        What the schedule's factor is applied to; may be set at any time.
    stop_reason : str or None
        Why `fit` ended before its last epoch.
    batch_loss, mean_loss : float
        Loss of the last batch, as the loss gave it; mean over the samples of the epoch so far.
    history : History

    Raises
    ------
    ValueError
        If ``l2`` is negative, a metric is unknown, or there is no figure to monitor.

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
        callbacks: Sequence[Callback | Callable[[Trainer], Any]] = (),
        keep_best: bool = True,
        progress: bool = True,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        ema: EMA | float | None = None,
        accumulate: int = 1,
        metrics: Any = None,
        monitor: str | None = None,
    ) -> None:
        l2 = float(l2)
        if not 0 <= l2 < math.inf:
            raise ValueError(f"Trainer: l2 must be finite and at least 0, got {l2}")
        for name, bound in (("clip_norm", clip_norm), ("clip_value", clip_value)):
            if bound is not None and not number("Trainer", name, bound) > 0:
                raise ValueError(f"Trainer: {name} must be above 0, got {bound}")
        keep_best, progress = flag("Trainer: keep_best", keep_best), flag("Trainer: progress", progress)
        check_reduction("Trainer", loss)
        self.clip_norm, self.clip_value = clip_norm, clip_value
        self.accumulate = whole("Trainer: accumulate", accumulate)
        self.metrics = named("Trainer", metrics)
        self.monitor = monitored("Trainer", monitor, self.metrics)
        self.ema = EMA(model, ema) if isinstance(ema, int | float) else ema
        self.model, self.loss, self.optimizer = model, loss, optimizer
        self.schedule = schedule or Constant()
        self.base_lr = optimizer.lr
        self.l2 = l2
        # KeepBest comes first, so that it sees the weights of the record, whatever a later callback does to them.
        self.callbacks: list[Callback] = [KeepBest()] if keep_best else []
        self.callbacks += [callback if isinstance(callback, Callback) else Called(callback) for callback in callbacks]
        if progress:
            self.callbacks.append(Progress())
        self.history = History()
        self.epoch = self.epochs = self.first_epoch = self.step = self.steps_per_epoch = 0
        self.batch_loss = self.batch_penalty = self.mean_loss = math.nan
        self.stop_reason: str | None = None
        self._squares = 0.0  # sum over the weights that take their steps in backward
        self._tally: Tally | None = None  # figures of the running epoch
        self._train: Batched | None = None
        self._position: Any = None  # where the batches stand, while there is no `_train`
        self._frozen: list[Module] = []
        self._modules: list[Module] = []  # the model's, during `fit`

    def fit(
        self, train: Any, *more: Any, epochs: int, validation: Any = None, batch_size: int = 64, seed: int = 0
    ) -> History:
        """Train for some epochs more.

        What callbacks remember (the best weights, patience) is of one fit: they begin anew. Layers that are in
        evaluation mode while the model is in training mode stay so (a frozen `BatchNorm`); of a model in evaluation
        mode all are trained. Afterwards every layer has the mode it had.

        Parameters
        ----------
        train : collection of (input, target) batches, or (inputs, targets)
            The former has a length and is iterated once an epoch, as `fastconv.data.Batches`; or it is a generator,
            for one epoch, or a function that makes one. The latter, arrays, lists or tensors, are cut into minibatches
            whose order goes on from fit to fit; they may be two arguments, ``fit(X, Y, epochs=9)``. Batches without
            samples are left out. A third part, of a batch or beside the targets, is what the samples weigh.
        validation : iterable of batches, or (inputs, targets), optional
            Evaluated after every epoch; also the argument behind the training data.
        epochs : int
            At least 1.
        batch_size, seed : int
            How arrays are cut and shuffled; of no effect on batches.
        *more : iterable of batches, or arrays
            Targets, or validation data, given behind ``train``.

        Returns
        -------
        History
            Of all epochs since the trainer was made.

        Raises
        ------
        Diverged
            If the loss or a parameter is not finite any more.
        ValueError
            If there is nothing to train on, or to validate with.
        RuntimeError
            If another fit, in another thread, trains this model, or uses these batches or callbacks.

        Examples
        --------
        >>> import numpy as np, fastconv
        >>> from fastconv import data, nn, optim
        >>> from fastconv.train import Trainer
        >>> digits = data.load("digits")
        >>> (x, y), validation = ((images / np.float32(16), labels) for images, labels in (digits.train, digits.test))
        >>> fastconv.manual_seed(0)
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
        >>> trainer = Trainer(model, nn.CrossEntropyLoss(), optim.Adam(model, lr=0.01), progress=False)
        >>> history = trainer.fit(x, y, validation=validation, epochs=3)
        >>> [round(accuracy, 3) for accuracy in history["validation_accuracy"]]
        [0.819, 0.903, 0.928]
        >>> len(trainer.fit(x, y, epochs=2))  # two epochs more
        5
        """
        epochs = whole("Trainer.fit: epochs", epochs)
        batches = self._cut(*parted(train, more, validation), epochs, batch_size, seed)
        with held(self, *batches):
            for _, callback in remembering(self.callbacks):
                callback._forget()
            self.first_epoch, self.epochs = self.epoch, self.epoch + epochs
            self.stop_reason = None
            if self._position is not None:  # a state was loaded, and a fit begins with a whole epoch
                self._position, self._tally = (self._position[0], 0), None
            return self._go(*batches)

    def resume(self, train: Any, *more: Any, validation: Any = None, batch_size: int = 64, seed: int = 0) -> History:
        """Go on, after `load_state_dict`, to where the interrupted `fit` was to end; to the same bits.

        All but ``epochs`` is given as to that `fit`. Batches with a settable ``position``, as those of
        `fastconv.data.Batches`, go on where they were; of others the ones seen in the running epoch are skipped.

        Parameters
        ----------
        train, *more, validation, batch_size, seed
            As given to `fit`.

        Returns
        -------
        History
            Of all epochs since the trainer was made.

        Raises
        ------
        Diverged
            As in `fit`.
        ValueError
            If an epoch has not as many batches as before.
        RuntimeError
            As in `fit`.

        Examples
        --------
        >>> import tempfile
        >>> import numpy as np
        >>> from fastconv import nn, optim
        >>> from fastconv.train import Checkpoint, Trainer, load_latest
        >>> model, x = nn.Linear(1, 1), np.arange(8, dtype=np.float32)[:, np.newaxis]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     options = {"callbacks": [Checkpoint(folder, steps=5)], "progress": False}
        ...     trainer = Trainer(model, nn.MSELoss(), optim.SGD(model, lr=0.01), **options)
        ...     losses = trainer.fit(x, x, epochs=2, batch_size=2)["loss"]  # eight updates
        ...     trainer.load_state_dict(load_latest(folder)[0])  # back to after the fifth
        ...     print(trainer.epoch, trainer.batch, trainer.resume(x, x, batch_size=2)["loss"] == losses)
        1 1 True
        """
        before = self.steps_per_epoch
        batches = self._cut(*parted(train, more, validation), self.epochs - self.epoch, batch_size, seed)
        if self.steps_per_epoch != before:
            raise ValueError(f"Trainer.resume: {self.steps_per_epoch} batches per epoch, the run so far had {before}")
        with held(self, *batches):
            return self._go(*batches)

    def _cut(
        self, train: Any, validation: Any, epochs: int, batch_size: int, seed: int
    ) -> tuple[Batched, Iterable[Batch] | None]:
        """Return batches, made of arrays where such are given."""
        check_reduction("Trainer.fit", self.loss)
        dtype = next(iter(self.model.parameters())).data.dtype
        batches, validation = as_given(train, validation, epochs, batch_size, seed, dtype, self.epoch)
        self.steps_per_epoch = len(batches) if isinstance(batches, Sized) else 0
        return batches, validation

    def _go(self, train: Batched, validation: Iterable[Batch] | None) -> History:
        self._train = train
        if self._position is not None and hasattr(train, "position"):
            setattr(train, "position", self._position)  # noqa: B010  (not part of the protocol)
        self._frozen, self._modules = frozen(self.model), list(self.model.modules())
        with contextlib.ExitStack() as ending:
            ending.callback(self._close)
            started: list[Callback] = []
            ending.callback(self._end, started)
            for callback in self.callbacks:
                callback.on_fit_start(self)
                started.append(callback)
            over = self.stop_reason is not None  # a run that goes on may be over already
            while self.epoch < self.epochs and self.stop_reason is None:
                run_epoch(self, train, validation)
                self.epoch += 1
                self._notify("on_safe_point")
            if self.ema is not None:
                self.ema.copy_to(self.model)
            if self.stop_reason is not None and not over:
                self.log({"kind": "event", "step": self.step, "event": "stopped", "text": self.stop_reason})
        return self.history

    def __repr__(self) -> str:
        loss = getattr(self.loss, "__name__", type(self.loss).__name__)
        best = "" if self.best_epoch is None else f", best epoch {self.best_epoch}"
        return (
            f"Trainer({type(self.model).__name__}, {loss}, {type(self.optimizer).__name__} lr={self.base_lr:g}: "
            f"{self.epoch} epochs, {self.step} steps{best})"
        )

    def _close(self) -> None:
        self._train = self._position = self._tally = None
        self._frozen, self._modules = [], []

    def _end(self, started: list[Callback]) -> None:
        """Tell all callbacks that the fit is over, in their order, also when one of them fails at it."""
        with contextlib.ExitStack() as ending:
            for callback in reversed(started):
                ending.callback(callback.on_fit_end, self)

    @property
    def base_lr(self) -> float:
        """What the schedule's factor is applied to."""
        return self._base_lr

    @base_lr.setter
    def base_lr(self, value: float) -> None:
        self._base_lr = float(value)

    @property
    def best_epoch(self) -> int | None:
        """The epoch, from 1, whose weights are kept; None without validation or ``keep_best``."""
        return next((callback.epoch for callback in self.callbacks if isinstance(callback, KeepBest)), None)

    @property
    def batch(self) -> int:
        """Updates done in the running epoch, 0 between two epochs."""
        return 0 if self._tally is None else self._tally.batches

    def stop(self, reason: str) -> None:
        """End the run after the running step; ``reason`` is kept in ``stop_reason``.

        Parameters
        ----------
        reason : str

        Examples
        --------
        >>> import numpy as np
        >>> from fastconv import nn, optim
        >>> from fastconv.train import Trainer
        >>> def enough(trainer):
        ...     if trainer.history[-1]["loss"] < 0.1:
        ...         trainer.stop("good enough")
        >>> model, x = nn.Linear(1, 1, bias=False), np.ones((1, 1), np.float32)
        >>> model.weight.data[...] = 1.0
        >>> trainer = Trainer(model, nn.MSELoss(), optim.SGD(model, lr=0.25), callbacks=[enough], progress=False)
        >>> trainer.fit(x, 0 * x, epochs=100)["loss"], trainer.stop_reason
        ([1.0, 0.25, 0.0625], 'good enough')
        """
        self.stop_reason = reason

    def state_dict(self) -> dict[str, Any]:
        """Return all that a run is at this moment, as dicts and lists of arrays and values with a JSON form.

        Taken at a safe point (`Callback.on_safe_point`), a trainer made alike goes on from it to the same bits:
        see `load_state_dict` and `resume`. Outside of `fit` it lacks the position of the batches.

        Examples
        --------
        >>> from fastconv import nn, optim
        >>> from fastconv.train import Trainer
        >>> model = nn.Linear(2, 1)
        >>> state = Trainer(model, nn.MSELoss(), optim.SGD(model, lr=0.1), progress=False).state_dict()
        >>> state["step"], sorted(state["model"]), state["optimizer"]["lr"].item()
        (0, ['bias', 'weight'], 0.1)
        """
        return state_of(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` returned, in a trainer made with like arguments, before `resume` or `fit`.

        `resume` goes on with what callbacks remember and in the running epoch, `fit` begins anew with both.

        Parameters
        ----------
        state : dict

        Raises
        ------
        ValueError
            If model, optimiser or callbacks are not like those of the state; the trainer is then good for nothing.

        Examples
        --------
        >>> import numpy as np
        >>> from fastconv import nn, optim
        >>> from fastconv.train import Trainer
        >>> def make():
        ...     model = nn.Linear(1, 1)
        ...     return Trainer(model, nn.MSELoss(), optim.SGD(model, lr=0.1), progress=False)
        >>> x, first, second = np.ones((4, 1), np.float32), make(), make()
        >>> _ = first.fit(x, x, epochs=2)
        >>> second.load_state_dict(first.state_dict())
        >>> second.step, bool(second.model.weight.data == first.model.weight.data)
        (2, True)
        >>> second.fit(x, x, epochs=1)[-1]["epoch"]  # goes on counting
        3
        """
        restore(self, state)

    def validated_state(self) -> dict[str, np.ndarray]:
        """Return the state that validation sees: the model's own, or with its averages.

        Examples
        --------
        >>> import numpy as np
        >>> from fastconv import nn, optim
        >>> from fastconv.train import Trainer
        >>> def show(trainer):
        ...     print(trainer.model.weight.data.item(), trainer.validated_state()["weight"].item())
        >>> model, x = nn.Linear(1, 1, bias=False), np.ones((1, 1), np.float32)
        >>> model.weight.data[...] = 1.0
        >>> trainer = Trainer(model, nn.MSELoss(), optim.SGD(model, lr=0.25), ema=0.5, callbacks=[show], progress=False)
        >>> _ = trainer.fit(x, 0 * x, epochs=3)  # the average lags behind
        0.5 0.5
        0.25 0.375
        0.125 0.25
        """
        with self._averaged():
            return self.model.state_dict()

    def _averaged(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext() if self.ema is None else self.ema.applied()

    def log(self, record: dict[str, Any]) -> None:
        """Hand a record to all callbacks that keep or show records (`Callback.on_record`).

        Parameters
        ----------
        record : dict
            ``kind`` says what it is: "epoch" (the trainer's own, as in the history), "step" (figures of one step:
            ``step``, ``loss``, ``lr``, ...) or "event" (``step``, ``event``, ``text``).

        Examples
        --------
        >>> import numpy as np
        >>> from fastconv import nn, optim
        >>> from fastconv.train import Callback, Trainer
        >>> class Print(Callback):
        ...     def on_record(self, trainer, record):
        ...         print({key: record[key] for key in record if key in ("kind", "step", "event", "text")})
        >>> model, x = nn.Linear(1, 1), np.ones((4, 1), np.float32)
        >>> trainer = Trainer(model, nn.MSELoss(), optim.SGD(model), callbacks=[Print()], progress=False)
        >>> trainer.log({"kind": "event", "step": 0, "event": "note", "text": "new data"})  # a RunWriter keeps it
        {'kind': 'event', 'step': 0, 'event': 'note', 'text': 'new data'}
        >>> _ = trainer.fit(x, x, epochs=1)  # its own record
        {'kind': 'epoch'}
        """
        for callback in self.callbacks:
            callback.on_record(self, record)

    def _notify(self, hook: str) -> None:
        for callback in self.callbacks:
            getattr(callback, hook)(self)

    def take_step(self, x: np.ndarray, y: np.ndarray) -> int | None:
        """Do one update by one batch, as `fit` does; return how many labels were predicted right.

        Outside of `fit`, for loops of another kind: of the callbacks `on_gradients` alone is told, and nothing is added
        up. None is returned where targets are not labels.

        Parameters
        ----------
        x : ndarray, or what the model takes
            The batch's input (n, ...).
        y : ndarray
            Its target, (n,) labels or as the loss takes it.

        Raises
        ------
        Diverged
            If the loss is not finite; nothing was updated then.

        Examples
        --------
        >>> import numpy as np
        >>> from fastconv import nn, optim
        >>> from fastconv.train import Trainer
        >>> model, x = nn.Linear(1, 1, bias=False), np.ones((1, 1), np.float32)
        >>> model.weight.data[...] = 1.0
        >>> trainer = Trainer(model, nn.MSELoss(), optim.SGD(model, lr=0.25), progress=False)
        >>> for _ in range(3):  # a loop of your own
        ...     trainer.take_step(x, 0 * x)
        ...     print(trainer.step, trainer.batch_loss, model.weight.data.item())
        1 1.0 0.5
        2 0.25 0.25
        3 0.0625 0.125
        """
        right = add_gradients(self, x, y, (), begins=True)
        update(self, 1, len(x))
        return None if right is None else right[0]
