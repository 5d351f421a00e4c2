"""What is checked: a model, its loss and its data, and fresh copies of them for steps to spoil."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from fastconv import random
from fastconv.data import IGNORED, Batches, Masks, Standardizer
from fastconv.diagnose.report import IMAGES, ROWS, Finding, Words
from fastconv.functional._check import as_labels, unmasked
from fastconv.nn import (
    CrossEntropyLoss,
    Dropout,
    Dropout2d,
    HuberLoss,
    L1Loss,
    Module,
    MSELoss,
    SmoothL1Loss,
    StochasticDepth,
)  # fmt: skip
from fastconv.optim import SGD, Optimizer
from fastconv.train import Callback, Diverged, History, Trainer
from fastconv.train.base import ceiling
from fastconv.train.hold import into_training

__all__ = ["Inputs", "Subject"]

_CHUNK = 256  # images
_LEAST = 8  # images looked at, however slow a model is
_ABOVE = 5  # updates running with an exploded loss that end a run


class Inputs:
    """Samples as the net sees them: images, standardised when asked for, and their targets.

    Parameters
    ----------
    images : ndarray, shape (N, ...)
    targets : ndarray, shape (N, ...)
        Class numbers of any integer dtype, or booleans, are held as int64.
    standardize : Standardizer, optional

    Raises
    ------
    ValueError
        If the lengths differ.
    TypeError
        If an array is masked.
    """

    def __init__(self, images: np.ndarray, targets: np.ndarray, standardize: Standardizer | None = None) -> None:
        if len(images) != len(targets):
            raise ValueError(f"check: {len(images)} images but {len(targets)} labels")
        unmasked("check", "images", images)
        unmasked("check", "labels", targets)
        if targets.dtype.kind in "biu" and not isinstance(targets, Masks):
            targets = as_labels("check", "labels", targets)
        self.images, self.targets, self.standardize = images, targets, standardize

    @classmethod
    def of(cls, data: Any) -> Inputs:
        """Take `Batches`, or a tuple of two arrays."""
        if isinstance(data, Batches):
            return cls(*data.samples, data.standardize)
        images, targets = data
        return cls(np.asanyarray(images), np.asanyarray(targets))

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def labelled(self) -> bool:
        """Whether every target is one class number."""
        return self.targets.ndim == 1 and self.targets.dtype == np.int64

    @property
    def masked(self) -> bool:
        """Whether every target is a class number for each pixel."""
        return self.targets.ndim == 3 and self.targets.dtype.kind in "iu"

    @property
    def words(self) -> Words:
        """What samples are called: rows where they are numbers, (N, columns), or images of one pixel."""
        return ROWS if self.images.ndim == 2 or self.images.shape[2:] == (1, 1) else IMAGES

    def class_counts(self, classes: int) -> np.ndarray:
        """Return how many images, or pixels where these have classes, are of each class."""
        if isinstance(self.targets, Masks):
            return self.targets.counts()[:classes]
        known = self.targets[(self.targets >= 0) & (self.targets < classes)]
        return np.bincount(known, minlength=classes)

    def seen(self, rows: Any, dtype: Any = np.float32) -> np.ndarray:
        """Return images as the net sees them."""
        images = self.images[rows]
        return self.standardize(images, dtype) if self.standardize else images.astype(dtype)

    def chunks(self) -> Iterator[np.ndarray]:
        """Yield all images as the net sees them, some hundred at a time."""
        for start in range(0, len(self), _CHUNK):
            yield self.seen(slice(start, start + _CHUNK))

    @cached_property
    def finite(self) -> np.ndarray:
        """Which images hold no NaN and no infinity: bool (N,)."""
        if self.images.dtype.kind != "f":
            return np.ones(len(self), bool)
        return np.concatenate([np.isfinite(part).reshape(len(part), -1).all(axis=1) for part in self.raw_chunks()])

    def raw_chunks(self) -> Iterator[np.ndarray]:
        """Yield all images as they are stored."""
        for start in range(0, max(len(self), 1), _CHUNK):
            yield self.images[start : start + _CHUNK]


class _Stop(Callback):
    """End a run after an epoch when ``reached(record)``; as lost when losses stay ``factor`` times the first.

    What counts as that of a loss that is small, zero or negative by nature, `fastconv.train.base.ceiling` says.
    """

    def __init__(self, reached: Callable[[dict[str, Any]], bool], factor: float) -> None:
        self.reached, self.factor = reached, factor
        self.first: float | None = None
        self.above = 0

    def on_step_end(self, trainer: Trainer) -> None:
        self.first = trainer.batch_loss if self.first is None else self.first
        self.above = self.above + 1 if trainer.batch_loss > ceiling(self.first, self.factor) else 0
        if self.above == _ABOVE:
            raise Diverged(f"the loss rose from {self.first:.3g} to {trainer.batch_loss:.3g}", trainer.step)

    def on_epoch_end(self, trainer: Trainer) -> None:
        if self.reached(trainer.history[-1]):
            trainer.stop("reached")


@dataclass
class Subject:
    """A model with all it is trained by; none of it is changed, every method gives copies.

    Attributes
    ----------
    model : Module
    loss : callable with ``backward``
    train, validation : Inputs
    optimizer : Optimizer or None
    l2 : float
    batch_size : int
    seed : int
        Of every sample that a step draws.
    seconds : float
        What a single step may take where it could go on; large nets are looked at less closely then.
    """

    model: Module
    loss: Any
    train: Inputs
    validation: Inputs | None
    optimizer: Optimizer | None = None
    l2: float = 0.0
    batch_size: int = 64
    seed: int = 0
    seconds: float = 10.0

    # ---- the model

    def copy(self, dtype: Any = None) -> Module:
        """Return the model as it is, in training mode as `Trainer.fit` has it: what is frozen stays so."""
        twin = copy.deepcopy(self.model)
        into_training(twin, [])
        return twin if dtype is None else twin.astype(dtype)

    def calm(self, dtype: Any = None) -> Module:
        """Return the model without what regularises it: dropout lets everything pass."""
        twin = self.copy(dtype)
        for module in twin.modules():
            if isinstance(module, Dropout | Dropout2d | StochasticDepth):
                module.p = 0.0
        return twin

    def fresh_loss(self) -> Any:
        return copy.deepcopy(self.loss)

    def calm_loss(self) -> Any:
        """Return the loss without what keeps it above 0: labels are not smoothed."""
        loss = self.fresh_loss()
        if isinstance(loss, CrossEntropyLoss):
            loss.label_smoothing = 0.0
        return loss

    def finding(self, step: str, title: str) -> Finding:
        """Return what a step found, nothing so far; it calls samples what they are."""
        return Finding(step, title, words=self.train.words)

    @cached_property
    def dtype(self) -> np.dtype:
        parameter = next(self.model.parameters(), None)
        return np.dtype(np.float32) if parameter is None else parameter.data.dtype

    @cached_property
    def scores(self) -> tuple[int, ...]:
        """Shape of what the model returns for one image; raises what the model raises."""
        first = np.flatnonzero(self.train.finite)[:2]
        return self.calm()(self.train.seen(first, self.dtype)).shape[1:]

    @cached_property
    def pace(self) -> float:
        """Seconds that the model takes forward for an image, once it is compiled."""
        model, x = self.calm(), self.train.seen(np.flatnonzero(self.train.finite)[:2], self.dtype)
        model(x)
        started = time.perf_counter()
        model(x)
        return (time.perf_counter() - started) / max(len(x), 1)

    def affordable(self, count: int, passes: int) -> int:
        """Return how many images, at most ``count``, a step may look at in so many times forward; eight at least."""
        return max(_LEAST, min(count, int(self.seconds / (passes * max(self.pace, 1e-9)))))

    @property
    def classes(self) -> int | None:
        """How many classes the model tells apart; None where targets are not labels."""
        return self.scores[0] if self.train.labelled and len(self.scores) == 1 else None

    def flat(self, scores: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return scores (n, classes) and their targets, of the pixels that count where each has a class."""
        if not self.pixels:
            return scores, targets
        known = targets != getattr(self.loss, "ignore_index", IGNORED)
        return np.moveaxis(scores, 1, -1)[known], targets[known].astype(np.int64)

    @property
    def chance(self) -> float | None:
        """ln(classes), the cross-entropy of equal chances; None for other losses and targets."""
        # A loss of someone's own is taken for a cross-entropy, those of the house are known.
        house = type(self.loss).__module__.startswith("fastconv.nn.")
        other = house and not isinstance(self.loss, CrossEntropyLoss)
        classes = self.scores[0] if self.pixels else self.classes
        return None if other or classes is None else float(np.log(classes))

    def constant_loss(self, y: np.ndarray) -> float | None:
        """Return the loss of always saying the best number, output by output; None where targets are no numbers.

        Under `MSELoss` that is the mean of targets y (n, ...), and the loss their variance; under the others that take
        numbers their median or their mean, whichever costs less.
        """
        if not isinstance(self.loss, MSELoss | L1Loss | SmoothL1Loss | HuberLoss) or y.dtype.kind != "f":
            return None
        said = (np.broadcast_to(middle(y.astype(np.float64), axis=0), y.shape) for middle in (np.mean, np.median))
        return min(float(self.fresh_loss()(np.ascontiguousarray(constant, y.dtype), y)) for constant in said)

    def level(self, y: np.ndarray) -> float | None:
        """Return the loss of a net that knows nothing of the images of targets y; None where that is not known."""
        return self.constant_loss(y) if self.chance is None else self.chance

    @property
    def pixels(self) -> bool:
        """Whether each pixel has scores and a class."""
        return self.train.masked and len(self.scores) == 3

    # ---- the data

    @cached_property
    def usable(self) -> np.ndarray:
        """Which training samples the later steps draw from: finite images, labels the model has a score for."""
        rows = self.train.finite
        if self.classes is not None:
            rows = rows & (self.train.targets >= 0) & (self.train.targets < self.classes)
        elif self.train.targets.dtype.kind == "f":
            rows = rows & np.isfinite(self.train.targets).reshape(len(rows), -1).all(axis=1)
        return np.flatnonzero(rows)

    def sample(self, count: int, purpose: str, rows: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Draw up to ``count`` usable training samples (or of ``rows``) without replacement."""
        rows = self.usable if rows is None else rows
        if len(rows) > count:
            rng = random.generator(self.seed, f"check.{purpose}")
            rows = rows[np.sort(rng.choice(len(rows), count, replace=False))]
        return self.train.seen(rows, self.dtype), self.train.targets[rows]

    # ---- training

    def optimize(self, model: Module, lr: float) -> Optimizer:
        """Return the subject's optimiser, new, for a copy of its model; SGD with momentum where it has none."""
        if self.optimizer is None:
            return SGD(model.parameters(), lr, momentum=0.9)
        names = {id(param): name for name, param in self.model.named_parameters()}
        twins = dict(model.named_parameters())
        return self.optimizer.rebuilt([twins.get(names.get(id(param), "")) for param in self.optimizer.params], lr)

    def run(
        self,
        model: Module,
        optimizer: Optimizer,
        batches: Any,
        *,
        epochs: int = 1,
        l2: float = 0.0,
        until: Callable[[dict[str, Any]], bool] = lambda record: False,
        factor: float = 3.0,
        loss: Any = None,
    ) -> tuple[History, str | None]:
        """Train a copy; return its history and, when it was lost, why.

        Parameters
        ----------
        batches : list of (input, target)
        until : callable
            Ends the run after an epoch when it is true of the epoch's record.
        factor : float
            Losses that stay above that times the first one end the run as lost; the lecture's three.
        loss : callable, optional
            In the place of the subject's own.
        """
        trainer = Trainer(
            model, self.fresh_loss() if loss is None else loss, optimizer, l2=l2, callbacks=[_Stop(until, factor)],
            keep_best=False, progress=False,
        )  # fmt: skip
        try:
            trainer.fit(batches, epochs=epochs)
        except Diverged as error:
            return trainer.history, str(error)
        return trainer.history, None

    def deadline(self, share: float = 1.0) -> Callable[[], bool]:
        """Return a function that says whether ``share`` of the step's time is used up from now on."""
        end = time.perf_counter() + share * self.seconds
        return lambda: time.perf_counter() > end
