"""The objective of ``fastconv search``: train a net by its options, within a budget; its value is the accuracy."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from typing import Any

from fastconv.data import Batches
from fastconv.functional._check import one_of
from fastconv.search.attempt import Attempt, Cut
from fastconv.search.space import Choice, Range, Space
from fastconv.train import Callback, Diverged, RunWriter, StopOnExplosion, Trainer, evaluate, state_sha256
from fastconv.train.base import ceiling, updates
from fastconv.train.callbacks import merit
from fastconv.train.evaluation import Batch
from fastconv.train.metrics import lower_is_better
from fastconv.train.setup import Options, Setup, Source, check_parts, evaluation_batches, fill, load, prepare

_NUMBERS = ("lr", "l2", "momentum", "weight_decay")
_LISTS = ("batch_size", "warmup", "init", "schedule", "augment")
_AT_A_TIME = 64  # images at least over which a loss is averaged before it is judged
_ORIGINAL = 512  # images that the loss at the start is taken from


@dataclass(frozen=True)
class Training:
    """Train and validate a net.

    The value of a trial is its best validation accuracy, r2 where numbers are predicted, or that of the options'
    metric. A trial is cut off when the loss, averaged over some 64 images, passes ``factor`` times the untrained
    net's, and ends when it is no longer finite. Trials have the same seed, so they differ in nothing but the
    hyperparameters.

    Parameters
    ----------
    options : Options
        Of all trials, apart from what is searched; see `fastconv.train.setup.fill`.
    unit : str
        What a budget counts: "epochs" or "steps" (updates).
    checks : int
        How often a trial of so many steps is validated: pruners see as many figures.
    factor : float
        Above 1.

    Raises
    ------
    ValueError
        If no images are set aside for validation, or a parameter is out of range.

    References
    ----------
    The limit of three times the original loss is that of the CS231n lecture on babysitting the learning process.

    Examples
    --------
    >>> from fastconv.search import Training, search
    >>> from fastconv.train.setup import fill
    >>> training = Training(fill("digits", model="linear"), unit="steps")  # budgets are updates
    >>> found = search(training, {"lr": "1e-4:1"}, sampler="grid", trials=3, budgets=20, progress=False)
    >>> [(round(trial["params"]["lr"], 4), round(trial["value"], 2)) for trial in found.trials]
    [(0.0001, 0.1), (0.01, 0.27), (1.0, 0.6)]
    """

    options: Options
    unit: str = "epochs"
    checks: int = 1
    factor: float = 3.0

    def __post_init__(self) -> None:
        one_of("unit", self.unit, ("epochs", "steps"))
        if self.checks < 1 or not self.factor > 1:
            raise ValueError(f"checks must be at least 1 and factor above 1, got {self.checks} and {self.factor}")
        if not self.options.validation:
            raise ValueError("a search compares validation accuracies: validation must be above 0")
        if self.options.metric and lower_is_better(self.options.metric):
            raise ValueError(f"a search goes for the highest value, and of {self.options.metric} the lowest is best")

    def describe(self) -> dict[str, Any]:
        """Return what stands in the plan."""
        return {"unit": self.unit, "checks": self.checks, "factor": self.factor, "options": asdict(self.options)}

    def check(self, space: Space) -> None:
        """Refuse a space that cannot be searched, whose names or kinds of values are not those of options, and data
        or a net that cannot be loaded, or do not fit together: before anything is written.

        Parameters
        ----------
        space : mapping of str to Range or Choice

        Raises
        ------
        ValueError
            If the space, the data or the net cannot be used.
        OSError, ImportError
            As `fastconv.train.setup.prepare`.
        """
        for name, d in space.items():
            if name not in (*_NUMBERS, *_LISTS):
                raise ValueError(f"unknown hyperparameter {name!r}; known are {', '.join((*_NUMBERS, *_LISTS))}")
            if name in _NUMBERS:
                ends = (d.low,) if isinstance(d, Range) else d.values
                low = 0 if name != "lr" else 5e-324
                if not all(isinstance(v, int | float) and not isinstance(v, bool) and v >= low for v in ends):
                    above = "above 0" if name == "lr" else "of at least 0"
                    raise ValueError(f"{name}: takes numbers {above}, or LOW:HIGH as in 1e-3:1, got {d}")
            elif isinstance(d, Range):
                raise ValueError(f"{name}: takes a list such as {_example(name)}, not a range: {d}")
            elif name in ("batch_size", "warmup"):
                least = int(name == "batch_size")
                if not all(isinstance(v, int) and v >= least for v in d.values):
                    raise ValueError(f"{name}: takes whole numbers of at least {least}, got {d}")
            for value in d.values if isinstance(d, Choice) else ():
                given = {f.name: getattr(self.options, f.name) for f in fields(Options) if f.name != "dataset"}
                fill(self.options.dataset, **given | {name: value})  # names must be known and go together
        prepare(self.options, progress=False, source=_source(self.options))

    def __call__(self, attempt: Attempt) -> float:
        options = replace(self.options, **attempt.params)
        source = _source(options)
        budget = attempt.budget or options.epochs
        if self.unit == "epochs":
            options = replace(options, epochs=budget)
            setup = prepare(options, progress=False, source=source)
            stretch: Any = setup.train
            epochs = budget
        else:
            options = replace(options, epochs=self.checks)
            setup = prepare(options, progress=False, source=source, steps=budget)
            stretch = Stretch(setup.train, budget, self.checks)
            epochs = -(-budget // stretch.part)
        return self._train(attempt, setup, stretch, epochs)

    def _train(self, attempt: Attempt, setup: Setup, batches: Any, epochs: int) -> float:
        trainer = setup.trainer
        kept = [callback for callback in trainer.callbacks if not isinstance(callback, StopOnExplosion)]
        limit = CutOff(self.factor, _original_loss(setup), -(-_AT_A_TIME // setup.options.batch_size))
        trainer.callbacks[:] = [limit, *kept, _Report(attempt)]
        writer = None
        if attempt.folder is not None:
            about = {"trial": attempt.number, "stage": attempt.stage, "budget": attempt.budget, "unit": self.unit}
            writer = RunWriter.start(attempt.folder, {**setup.describe(), "search": about}, setup.model)
            trainer.callbacks.insert(0, writer)
        status, reason = "finished", None
        try:
            trainer.fit(batches, setup.validation, epochs=epochs)
            if trainer.stop_reason is not None:
                status, reason = "stopped", trainer.stop_reason
            return max(_value(record, trainer) for record in trainer.history)
        except Cut as cut:
            status, reason = "stopped", str(cut)
            raise
        except Diverged as error:
            status, reason = "diverged", str(error)
            raise
        except BaseException:
            status = "interrupted"
            raise
        finally:
            attempt.facts |= _figures(trainer)
            if writer is not None:
                result = {
                    "dataset": setup.options.dataset, "model": setup.options.model, "seed": setup.options.seed,
                    "status": status, "reason": reason, **_figures(trainer),
                    "train_seconds": sum(trainer.history["seconds"]), "best_epoch": trainer.best_epoch,
                    "state_sha256": state_sha256(setup.model),
                }  # fmt: skip
                writer.finish(result, setup.model if status != "diverged" else None, made_of=setup.start.made_of)


def _example(name: str) -> str:
    return {"batch_size": "16,32,64", "warmup": "0,100"}.get(name, "A,B")


@lru_cache(maxsize=1)
def _loaded(options: Options) -> Source:
    source = load(options)
    check_parts(options.validation, len(source.kept.labels), 0 if source.aside is None else len(source.aside.labels))
    return source


def _source(options: Options) -> Source:
    named = (
        "validation", "seed", "image_size", "resize", "cache", "target", "task", "model", "pretrained", "normalize",
    )  # fmt: skip
    return _loaded(fill(options.dataset, **{name: getattr(options, name) for name in named}))


def _original_loss(setup: Setup) -> float:
    samples = type(setup.dataset.train)(*(a[:_ORIGINAL] for a in setup.dataset.train))
    return evaluate(setup.model, setup.loss, evaluation_batches(samples, setup.standardizer, setup.scale)).loss


def _value(record: Mapping[str, Any], trainer: Trainer) -> float:
    """Return what an epoch is worth: its validation accuracy, or what the trainer judges by."""
    value = record[f"validation_{trainer.monitor or 'accuracy'}"]
    return -math.inf if value is None else float(value)


def _figures(trainer: Trainer) -> dict[str, Any]:
    figures: dict[str, Any] = {"steps": trainer.step}
    if len(trainer.history):
        best = max(trainer.history, key=lambda record: merit(record, trainer.monitor) or (-math.inf, -math.inf))
        names: Mapping[str, str] = {"validation_accuracy": "validation_accuracy", "validation_loss": "validation_loss",
                                    "train_accuracy": "accuracy", "train_loss": "loss"}  # fmt: skip
        names = {**names, **{f"validation_{name}": f"validation_{name}" for name in trainer.metrics}}
        figures |= {name: best[key] for name, key in names.items()}
    return figures


class Stretch:
    """Some updates' worth of batches, in equal parts with a validation after each; epochs go on underneath.

    Attributes
    ----------
    part : int
        Batches in a part; the last one may be shorter.
    """

    def __init__(self, batches: Batches, steps: int, parts: int) -> None:
        self._batches, self._left = batches, steps
        self.part = -(-steps // min(parts, steps))

    def __len__(self) -> int:
        return min(self.part, self._left)

    def __iter__(self) -> Iterator[Batch]:
        for _ in range(len(self)):
            epoch, index = self._batches.position
            if index >= len(self._batches):
                epoch, index = epoch + 1, 0
            self._batches.position = (epoch, index + 1)
            self._left -= 1
            yield self._batches.batch(epoch, index)


class CutOff(Callback):
    """End a trial by `Cut` when the loss, averaged over some updates, exceeds ``factor`` times the original."""

    def __init__(self, factor: float, original: float, updates: int) -> None:
        self.factor, self.original, self.updates = factor, original, updates
        self._sum, self._count = 0.0, 0

    def on_step_end(self, trainer: Trainer) -> None:
        self._sum += trainer.batch_loss
        self._count += 1
        if self._count < self.updates:
            return
        mean = self._sum / self._count
        self._sum, self._count = 0.0, 0
        if mean > ceiling(self.original, self.factor):
            raise Cut(
                f"loss {mean:.4g} after {updates(trainer.step)}, "
                f"over {self.factor:g} × the original {self.original:.4g}"
            )


class _Report(Callback):
    """Tell the search what every epoch is worth, and end with it."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt

    def on_safe_point(self, trainer: Trainer) -> None:
        self._attempt.safe_point()

    def on_epoch_end(self, trainer: Trainer) -> None:
        self._attempt.report(_value(trainer.history[-1], trainer), trainer.epoch + 1)
