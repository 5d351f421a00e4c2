"""Callbacks that keep a run honest: the best weights, and an end to a run that gets nowhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv import schema
from fastconv.functional._check import whole
from fastconv.train.base import SMALL, Callback, Diverged, ceiling
from fastconv.train.history import Record
from fastconv.train.metrics import lower_is_better
from fastconv.train.shapes import COUNT, FIGURE, MERIT, Array, kept

if TYPE_CHECKING:
    from fastconv.train.trainer import Trainer

Merit = tuple[float, float]


def merit(record: Record, monitor: str | None = None) -> Merit | None:
    """Return what makes the record of an epoch better than another, or None without validation, or such a figure.

    The better figure of those monitored wins, by default the higher accuracy; among equal ones, and where there is
    none, the lower validation loss.
    """
    if record.get("validation_loss") is None:
        return None
    if monitor is not None:
        value = record.get(f"validation_{monitor}")
        if not isinstance(value, int | float):
            return None
        return (-value if lower_is_better(monitor) else value), -record["validation_loss"]
    return record.get("validation_accuracy") or 0.0, -record["validation_loss"]


class KeepBest(Callback):
    """Keep the weights of the epoch with the best validation accuracy and put them back at the end.

    Or with the best of the figure that the trainer monitors. Among equal ones, and where there is no accuracy, the
    lower validation loss wins. Without validation data the last weights stay. `Trainer` has one by default
    (``keep_best``).

    Attributes
    ----------
    epoch : int or None
        The epoch kept, counted from 1.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn, optim
    >>> from fastconv.train import KeepBest, Trainer
    >>> model, x, best = nn.Linear(1, 1, bias=False), np.ones((1, 1), np.float32), KeepBest()
    >>> model.weight.data[...] = 1.0  # and should become 0; a rate of 1.5 is too high
    >>> options = {"callbacks": [best], "keep_best": False, "progress": False}
    >>> trainer = Trainer(model, nn.MSELoss(), optim.SGD(model, lr=1.5), **options)
    >>> trainer.fit(x, 0 * x, validation=(x, 0 * x), epochs=3)["validation_loss"]
    [4.0, 16.0, 64.0]
    >>> best.epoch, model.weight.data  # as after epoch 1
    (1, array([[-2.]], dtype=float32))
    """

    def __init__(self) -> None:
        self.epoch: int | None = None
        self._merit: Merit | None = None
        self._weights: dict[str, np.ndarray] = {}

    def on_epoch_end(self, trainer: Trainer) -> None:
        record = trainer.history[-1]
        found = merit(record, trainer.monitor)
        if found is not None and (self._merit is None or found > self._merit):
            self._merit, self.epoch = found, record["epoch"]
            self._weights = trainer.validated_state()

    def on_fit_end(self, trainer: Trainer) -> None:
        if self._weights:
            trainer.model.load_state_dict(self._weights)

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "merit": self._merit, "weights": self._weights}

    def state_shape(self, trainer: Trainer) -> schema.Shape:
        weights = kept(dict(trainer.model.named_state()))
        return schema.Record({"epoch": COUNT, "merit": MERIT, "weights": weights})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch, self._weights = state["epoch"], state["weights"]
        self._merit = None if state["merit"] is None else tuple(state["merit"])


class StopOnExplosion(Callback):
    """End a run by `Diverged` when an epoch's mean loss exceeds ``factor`` times the first loss of the fit.

    A first loss below ln 2, also zero or negative, is no measure: see `fastconv.train.base.ceiling`.

    Parameters
    ----------
    factor : float
        Above 1.

    Raises
    ------
    ValueError
        If a parameter is out of its range.

    References
    ----------
    The limit of three is that of the CS231n lecture on babysitting the learning process.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn, optim
    >>> from fastconv.train import StopOnExplosion, Trainer
    >>> model, x = nn.Linear(1, 1, bias=False), np.ones((1, 1), np.float32)
    >>> model.weight.data[...] = 1.0  # and should become 0; a rate of 1.5 is too high
    >>> trainer = Trainer(model, nn.MSELoss(), optim.SGD(model, lr=1.5), callbacks=[StopOnExplosion()], progress=False)
    >>> trainer.fit(x, 0 * x, epochs=100)
    Traceback (most recent call last):
        ...
    fastconv.train.base.Diverged: mean loss 4 in epoch 2 is more than 3 times the first loss, 1
    """

    def __init__(self, factor: float = 3.0) -> None:
        if not factor > 1:
            raise ValueError(f"StopOnExplosion: factor must be above 1, got {factor}")
        self.factor = float(factor)
        self._first: float | None = None

    def on_step_end(self, trainer: Trainer) -> None:
        if self._first is None:
            self._first = trainer.mean_loss

    def on_epoch_end(self, trainer: Trainer) -> None:
        record = trainer.history[-1]
        if self._first is None or record["loss"] <= (limit := ceiling(self._first, self.factor)):
            return
        many = f"{self.factor:g} times the first loss, {self._first:.4g}"
        if self._first < SMALL:
            many = f"{limit:.4g}, after a first loss of {self._first:.4g}"
        raise Diverged(f"mean loss {record['loss']:.4g} in epoch {record['epoch']} is more than {many}", trainer.step)

    def state_dict(self) -> dict[str, Any]:
        return {"first": self._first}

    def state_shape(self, trainer: Trainer) -> schema.Shape:
        return schema.Record({"first": FIGURE})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._first = state["first"]


class Patience(Callback):
    """Stop when the validation figures have not improved for ``epochs`` epochs.

    What counts as better is the same as for `KeepBest`. It remembers nothing of its own: the history of the fit tells.

    Parameters
    ----------
    epochs : int
        At least 1.

    References
    ----------
    L. Prechelt, "Early stopping - but when?", 1998; Y. Bengio, "Practical recommendations for gradient-based
    training of deep architectures", arXiv 1206.5533, section 3.1.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn, optim
    >>> from fastconv.train import Patience, Trainer
    >>> model, x = nn.Linear(1, 1, bias=False), np.ones((1, 1), np.float32)
    >>> trainer = Trainer(model, nn.MSELoss(), optim.SGD(model, lr=0.0), callbacks=[Patience(epochs=3)], progress=False)
    >>> history = trainer.fit(x, 0 * x, validation=(x, 0 * x), epochs=100)  # without a rate nothing gets better
    >>> len(history), trainer.stop_reason
    (4, 'validation figures have not improved for 3 epochs, since epoch 1')
    """

    def __init__(self, epochs: int = 10) -> None:
        self.epochs = whole("Patience: epochs", epochs)

    def on_epoch_end(self, trainer: Trainer) -> None:
        records = [record for record in trainer.history if record["epoch"] > trainer.first_epoch]
        merits = [(merit(record, trainer.monitor), record["epoch"]) for record in records]
        judged = [(found, epoch) for found, epoch in merits if found is not None]
        best = max(judged, key=lambda pair: pair[0], default=None)  # the first wins among equals
        if best is not None and len(judged) - 1 - judged.index(best) >= self.epochs:
            trainer.stop(f"validation figures have not improved for {self.epochs} epochs, since epoch {best[1]}")


EarlyStopping = Patience
"""What other libraries call it."""


class ReduceLROnPlateau(Callback):
    """Lower the learning rate when the validation loss (without validation the training loss) stops improving.

    The base rate is multiplied by ``factor`` after ``patience`` epochs without a loss below ``1 - threshold`` times the
    best one; of a best that is zero or negative, below it by ``threshold`` times its size. It remembers the best of
    one fit. PyTorch's scheduler of this name, with ``threshold_mode="rel"`` and ``mode="min"``.

    Parameters
    ----------
    factor : float
        In (0, 1).
    patience, cooldown : int
        Epochs without improvement that are borne; epochs after a fall in which none are counted.
    threshold : float
        At least 0.
    min_lr : float
        What the base rate does not fall below.

    Raises
    ------
    ValueError
        If a parameter is out of its range.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn, optim
    >>> from fastconv.train import ReduceLROnPlateau, Trainer
    >>> model, x, lower = nn.Linear(1, 1, bias=False), np.ones((1, 1), np.float32), ReduceLROnPlateau(0.5, patience=1)
    >>> model.weight.data[...] = 1.0  # with a rate of 1 it becomes -1, 1, -1, ...
    >>> trainer = Trainer(model, nn.MSELoss(), optim.SGD(model, lr=1.0), callbacks=[lower], progress=False)
    >>> history = trainer.fit(x, 0 * x, epochs=5)
    >>> history["lr"], history["loss"]
    ([1.0, 1.0, 1.0, 0.5, 0.5], [1.0, 1.0, 1.0, 1.0, 0.0])
    """

    def __init__(
        self, factor: float = 0.1, patience: int = 10, threshold: float = 1e-4, cooldown: int = 0, min_lr: float = 0.0
    ) -> None:
        name = type(self).__name__
        if not 0 < factor < 1:
            raise ValueError(f"{name}: factor must be in (0, 1), got {factor}")
        for what, value in (("threshold", threshold), ("min_lr", min_lr)):
            if not value >= 0:
                raise ValueError(f"{name}: {what} must be at least 0, got {value}")
        self.factor, self.threshold, self.min_lr = float(factor), float(threshold), float(min_lr)
        self.patience, self.cooldown = whole(f"{name}: patience", patience, 0), whole(f"{name}: cooldown", cooldown, 0)
        self._best: float | None = None
        self._bad = self._cooling = 0

    def on_epoch_end(self, trainer: Trainer) -> None:
        record = trainer.history[-1]
        loss = record["loss"] if record.get("validation_loss") is None else record["validation_loss"]
        if self._best is None or loss < self._best - self.threshold * abs(self._best):
            self._best, self._bad = loss, 0
        else:
            self._bad += 1
        if self._cooling:
            self._cooling, self._bad = self._cooling - 1, 0
        if self._bad > self.patience:
            rate = max(trainer.base_lr * self.factor, self.min_lr)
            self._cooling, self._bad = self.cooldown, 0
            if rate < trainer.base_lr:
                trainer.base_lr = rate
                text = f"loss has not improved on {self._best:.4g}: base learning rate {rate:.3g}"
                trainer.log({"kind": "event", "step": trainer.step, "event": "plateau", "text": text})

    def state_dict(self) -> dict[str, Any]:
        return {"best": self._best, "bad": self._bad, "cooling": self._cooling}

    def state_shape(self, trainer: Trainer) -> schema.Shape:
        count = schema.Integer(0, 2**53)
        return schema.Record({"best": FIGURE, "bad": count, "cooling": count})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._best, self._bad, self._cooling = state["best"], state["bad"], state["cooling"]


class ChillOut(Callback):
    """Go back to the best parameters and lower the learning rate when the validation loss gets worse.

    That is: at once when it is more than ``regress`` times the best (of a best that is zero or negative, more than
    `fastconv.train.base.ceiling` has it), or when it has not improved for ``checks`` epochs. Parameters, running
    statistics and the optimiser's state become those of the epoch with the lowest validation loss, and the base
    learning rate is multiplied by ``factor``; the schedule goes on from where it is.

    Parameters
    ----------
    checks : int
        At least 1.
    factor : float
        In (0, 1).
    regress : float
        At least 1.

    Attributes
    ----------
    count : int
        How often it has done so.

    Raises
    ------
    ValueError
        If a parameter is out of its range.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn, optim
    >>> from fastconv.train import ChillOut, Trainer
    >>> model, x, chill = nn.Linear(1, 1, bias=False), np.ones((1, 1), np.float32), ChillOut(factor=0.4)
    >>> model.weight.data[...] = 1.0  # and should become 0; a rate of 1.25 is too high
    >>> trainer = Trainer(model, nn.MSELoss(), optim.SGD(model, lr=1.25), callbacks=[chill], progress=False)
    >>> history = trainer.fit(x, 0 * x, validation=(x, 0 * x), epochs=3)
    >>> history["lr"], history["validation_loss"], chill.count  # epoch 2 was worse, 3 began where 1 had ended
    ([1.25, 1.25, 0.5], [2.25, 5.0625, 0.0], 1)
    """

    def __init__(self, checks: int = 3, factor: float = 0.5, regress: float = 1.5) -> None:
        checks = whole("ChillOut: checks", checks)
        if not 0 < factor < 1:
            raise ValueError(f"ChillOut: factor must be in (0, 1), got {factor}")
        if not regress >= 1:
            raise ValueError(f"ChillOut: regress must be at least 1, got {regress}")
        self.checks, self.factor, self.regress = checks, float(factor), float(regress)
        self.count = 0
        self._loss: float | None = None
        self._epoch = self._since = 0
        self._weights: dict[str, np.ndarray] = {}
        self._optimizer: dict[str, np.ndarray] = {}
        self._ema: dict[str, np.ndarray] = {}

    def on_epoch_end(self, trainer: Trainer) -> None:
        record = trainer.history[-1]
        loss = record.get("validation_loss")
        if loss is None:
            return
        if self._loss is None or loss < self._loss:
            self._loss, self._epoch, self._since = loss, record["epoch"], 0
            self._weights, self._optimizer = trainer.model.state_dict(), trainer.optimizer.state_dict()
            self._ema = {} if trainer.ema is None else trainer.ema.state_dict()
            return
        self._since += 1
        if loss > (self.regress * self._loss if self._loss > 0 else ceiling(self._loss, self.regress)):
            times = f"{self.regress:g} times " if self._loss > 0 else ""
            why = f"validation loss {loss:.4g} is {'' if times else 'much '}more than {times}the best, {self._loss:.4g}"
        elif self._since >= self.checks:
            why = f"validation loss has not improved on {self._loss:.4g} for {self._since} epochs"
        else:
            return
        self._go_back(trainer, why)

    def _go_back(self, trainer: Trainer, why: str) -> None:
        trainer.model.load_state_dict(self._weights)
        trainer.optimizer.load_state_dict(self._optimizer)
        if trainer.ema is not None:
            trainer.ema.load_state_dict(self._ema)
        trainer.base_lr *= self.factor
        self.count, self._since = self.count + 1, 0
        text = f"{why}: back to epoch {self._epoch}, base learning rate {trainer.base_lr:.3g}"
        trainer.log({"kind": "event", "step": trainer.step, "event": "chill out", "text": text})

    def state_dict(self) -> dict[str, Any]:
        return {
            "count": self.count, "loss": self._loss, "epoch": self._epoch, "since": self._since,
            "weights": self._weights, "optimizer": self._optimizer, "ema": self._ema,
        }  # fmt: skip

    def state_shape(self, trainer: Trainer) -> schema.Shape:
        number, weights = schema.Integer(0, 2**53), kept(dict(trainer.model.named_state()))
        return schema.Record({
            "count": number, "loss": FIGURE, "epoch": number, "since": number, "weights": weights,
            "optimizer": kept(trainer.optimizer.state_dict()),
        }, {"ema": schema.Names(Array())})  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count, self._loss = state["count"], state["loss"]
        self._epoch, self._since = state["epoch"], state["since"]
        self._weights, self._optimizer, self._ema = state["weights"], state["optimizer"], state.get("ema", {})
