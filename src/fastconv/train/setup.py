"""From a handful of options to everything a training run on a data set needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fastconv import data, init, models, nn, optim, random, schedule
from fastconv._version import __version__
from fastconv.train import origins, transfer
from fastconv.train.base import Callback
from fastconv.train.callbacks import ChillOut, Patience, StopOnExplosion
from fastconv.train.evaluation import together
from fastconv.train.looks import augment_of
from fastconv.train.metrics import OF_LABELS, OF_NUMBERS, Metric, mae, r2
from fastconv.train.non_finite import StopOnNonFinite
from fastconv.train.options import DEFAULTS, FOLDER, MASKS, OPTIMIZERS, TABLE, Options, dataset_of, fill
from fastconv.train.trainer import Trainer

__all__ = [
    "DEFAULTS", "FOLDER", "MASKS", "OPTIMIZERS", "TABLE", "Options", "Setup", "Source", "check_parts", "dataset_of",
    "evaluation_batches", "fill", "load", "loss_of", "metrics_of", "prepare", "scaled", "schedule_of",
]  # fmt: skip

@dataclass(frozen=True)
class Setup:
    """Everything `prepare` made: call ``trainer.fit(train, validation, epochs=options.epochs)``.

    ``trained_on`` and ``set_aside`` count images or rows; ``start`` says where the model comes from; ``scale`` is what
    numbers to predict are scaled by.
    """

    options: Options
    dataset: data.Dataset
    standardizer: data.Standardizer
    model: nn.Module
    loss: nn.CrossEntropyLoss | nn.MSELoss
    trainer: Trainer
    train: data.Batches
    validation: data.Batches | None
    test: data.Batches
    trained_on: int
    set_aside: int
    start: transfer.Start
    scale: data.TargetScale | None = None

    def describe(self) -> dict[str, Any]:
        """Return the config.json of a run: all it takes to use its model or to repeat it."""
        return {
            "fastconv": __version__,
            "options": asdict(self.options),
            "input_shape": list(self.dataset.shape),
            "classes": list(self.dataset.classes),
            "levels": self.dataset.levels,
            "light_on_dark": self.dataset.light_on_dark,
            "standardizer": self.standardizer.to_dict(),
            **({"per_pixel": True} if self.dataset.per_pixel else {}),
            **({"made_of": self.start.made_of} if self.start.made_of else {}),
            **({"table": self._table()} if self.dataset.columns else {}),
        }

    def predicted(self) -> np.ndarray:
        """Return the numbers (N,) that the model predicts for the rows to test on."""
        assert self.scale is not None
        rows = self.standardizer(self.dataset.test.images)
        return self.scale.back(self.model.predict(rows, batch_size=self.test.batch_size))

    def _table(self) -> dict[str, Any]:
        scale = {} if self.scale is None else asdict(self.scale)
        return {"columns": list(self.dataset.columns), "target": self.dataset.target, **scale}


@dataclass(frozen=True)
class Source:
    """A data set parted and measured for training; runs that differ in other options share it."""

    dataset: data.Dataset
    kept: data.Samples
    aside: data.Samples | None
    standardizer: data.Standardizer
    origins: transfer.Origins
    scale: data.TargetScale | None = None


def load(options: Options) -> Source:
    """Load the data set of some options and set its validation images aside.

    Raises
    ------
    ValueError
        If the share for validation is out of range, or leaves nothing to train on.
    OSError, ImportError
        If the data set's files, or the package that holds it, are missing.
    """
    dataset = dataset_of(options)
    kept, aside = dataset.train, dataset.validation
    if options.validation and aside is None:
        kept, aside = data.split(dataset.train, options.validation, options.seed)
        if not len(kept.labels):  # a check does without the other part, but not without this one
            check_parts(options.validation, 0, len(aside.labels))
    found = transfer.Origins.of(options.model, options.pretrained)
    scale = data.TargetScale.fit(kept.labels) if dataset.numbers else None
    return Source(dataset, kept, aside, _standardizer(options, dataset, kept, found), found, scale)


def check_parts(validation: float, kept: int, aside: int) -> None:
    """Refuse a share for validation that leaves a part of the samples empty.

    Parameters
    ----------
    validation : float
        The share that was asked for.
    kept, aside : int
        How many samples it leaves to train on, and sets aside.

    Raises
    ------
    ValueError
        If there are none to train on, or none to validate on although some were asked for.
    """
    if not kept or (validation and not aside):
        raise ValueError(
            f"validation {validation:g} sets {aside} of {kept + aside} samples aside and leaves {kept} to train on: "
            "take another share, or 0 to set none aside"
        )


def prepare(
    options: Options,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
    *,
    source: Source | None = None,
    steps: int | None = None,
) -> Setup:
    """Load data, build the model from the seed, and make batches and a trainer.

    Parameters
    ----------
    options : Options
    callbacks, progress
        For the trainer.
    source : Source, optional
        What `load` gave for the same data set, validation share and seed; loaded anew by default.
    steps : int, optional
        Updates over which the schedule runs; by default those of all epochs.

    Raises
    ------
    ValueError
        If an option is out of its range or the model cannot take the images.
    OSError, ImportError
        If the data set's files, or the package that holds it, are missing.
    """
    source = source or load(options)
    dataset, kept, aside, standardizer = source.dataset, source.kept, source.aside, source.standardizer
    metrics = _metrics(options, source)
    start = _start(options, source)
    model = start.model
    mixup = data.Mixup(options.mixup, len(dataset.classes)) if options.mixup else None
    train = data.Batches(
        *scaled(kept, source.scale), options.batch_size, options.seed,
        augment=augment_of(options, standardizer), standardize=standardizer, mixup=mixup,
    )  # fmt: skip
    validation = None if aside is None else evaluation_batches(aside, standardizer, source.scale)
    loss = loss_of(dataset, options.label_smoothing)
    rates = schedule_of(
        options.schedule, steps or -(-len(train) // options.accumulate) * options.epochs, options.warmup
    )
    trainer = Trainer(
        model, loss, _optimizer(options, start), schedule=rates, l2=options.l2,
        callbacks=[*_guards(options), *callbacks], progress=progress, clip_norm=options.clip_norm, ema=options.ema,
        accumulate=options.accumulate, metrics=metrics, monitor=options.metric or ("r2" if source.scale else None),
    )  # fmt: skip
    return Setup(
        options, dataset, standardizer, model, loss, trainer, train, validation,
        test=evaluation_batches(dataset.test, standardizer, source.scale),
        trained_on=len(kept.labels), set_aside=0 if aside is None else len(aside.labels),
        start=start, scale=source.scale,
    )  # fmt: skip


def metrics_of(scale: data.TargetScale) -> dict[str, Metric]:
    """Return what is measured of predicted numbers, in their own unit although nets learn them scaled."""
    return {"r2": r2, "mae": lambda true, predicted: scale.deviation * mae(true, predicted)}


def _metrics(options: Options, source: Source) -> Any:
    """Return what is measured beside the loss.

    Raises
    ------
    ValueError
        If the options ask for what labels have where targets are numbers, or the other way round.
    """
    scale, metric = source.scale, options.metric
    other = OF_LABELS if scale else OF_NUMBERS
    if metric in other:
        kinds = ("classes", "numbers") if scale else ("numbers", "classes")
        raise ValueError(f"the metric {metric!r} is for {kinds[0]}, and {options.dataset} has {kinds[1]} to predict")
    if scale is None:
        return metric
    for name in ("label_smoothing", "mixup"):
        if getattr(options, name):
            raise ValueError(
                f"{name.replace('_', '-')} is for classes, and {options.dataset} has numbers to predict; "
                "--task classification takes them for classes"
            )
    return metrics_of(scale)


def loss_of(dataset: data.Dataset, label_smoothing: float = 0.0) -> nn.CrossEntropyLoss | nn.MSELoss:
    """Return the loss of a data set's labels, or numbers; what masks say of no class is left out."""
    if dataset.numbers:
        return nn.MSELoss()
    if dataset.per_pixel:
        return nn.CrossEntropyLoss(ignore_index=data.IGNORED, label_smoothing=label_smoothing)
    return nn.CrossEntropyLoss(label_smoothing=label_smoothing)


def scaled(samples: data.Samples, scale: data.TargetScale | None) -> data.Samples:
    """Return samples as a net learns them: numbers to predict, which have a scale, by that."""
    return samples if scale is None else data.Samples(samples.images, scale(samples.labels))


def evaluation_batches(
    samples: data.Samples, standardizer: data.Standardizer, scale: data.TargetScale | None = None
) -> data.Batches:
    """Cut samples into batches in their own order."""
    size = together(samples.images.shape[1:], samples.labels.ndim == 3)
    return data.Batches(*scaled(samples, scale), size, shuffle=False, standardize=standardizer)


def _guards(options: Options) -> list[Callback]:
    guards: list[Callback] = [StopOnExplosion(), StopOnNonFinite()]
    if options.chill_out is not None:
        guards.append(ChillOut(options.chill_out))
    if options.patience is not None:
        guards.append(Patience(options.patience))
    return guards


def _standardizer(
    options: Options, dataset: data.Dataset, kept: data.Samples, found: transfer.Origins
) -> data.Standardizer:
    """Return what was asked for; else what the weights expect, where that is known; else the images' own."""
    word, shape, levels = options.normalize, dataset.shape, dataset.levels
    if word is None and found.newest is not None:
        known = found.newest.standardizer(shape)
        recipe = models.ZOO.get(options.model)
        if known is not None:
            return known
        if recipe is not None and recipe.expects is not None:
            return origins.expected(recipe.expects, shape, levels, options.model)
    if word in (None, "dataset"):
        return data.Standardizer.fit(kept.images)
    return origins.standardizer_of(word, shape, levels)


def _start(options: Options, source: Source) -> transfer.Start:
    dataset = source.dataset
    if options.model in models.ZOO and models.ZOO[options.model].pixels != dataset.per_pixel:
        if dataset.per_pixel:
            pixels = ", ".join(name for name, recipe in models.ZOO.items() if recipe.pixels)
            has = f"{options.dataset} has a class for each pixel: take {pixels}"
            raise ValueError(f"{options.model} gives scores for each image; {has}")
        raise ValueError(f"{options.model} gives scores for each pixel; {options.dataset} has one class an image")
    if dataset.columns and options.model in models.ZOO and not models.ZOO[options.model].rows:
        rows = ", ".join(name for name, recipe in models.ZOO.items() if recipe.rows)
        raise ValueError(f"{options.model} is for images; {options.dataset} is a table: take {rows}")
    random.manual_seed(options.seed)
    start = transfer.start(
        options.model, source.origins, dataset.shape, dataset.outputs, options.freeze, dataset.per_pixel
    )
    model = start.model
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.algorithm = options.algorithm
    if options.init != "default":
        batch = source.standardizer(source.kept.images[: together(dataset.shape)])
        init.apply(model, options.init, options.seed, batch=batch)
    return start


def _optimizer(options: Options, start: transfer.Start) -> optim.Optimizer:
    given: dict[str, Any] = {"lr": options.lr, "momentum": options.momentum, "weight_decay": options.weight_decay}
    make = OPTIMIZERS[options.optimizer][0]
    given = {name: value for name, value in given.items() if value is not None}
    return make(_groups(options, start), **given, decay_bias_norm=options.decay_bias_norm)


def _groups(options: Options, start: transfer.Start) -> Any:
    """Return all parameters, or those of the head and the others where their rates differ."""
    if options.head_lr is None and options.backbone_lr is None:
        return start.model.parameters()
    head = start.head_parameters()
    body = [p for p in start.model.parameters() if p.requires_grad and not any(p is other for other in head)]
    rates = ((body, options.backbone_lr), (head, options.head_lr))
    return [{"params": members, "lr": options.lr if lr is None else lr} for members, lr in rates if members]


def schedule_of(name: str, steps: int, warmup: int = 0) -> schedule.Schedule:
    """Return a schedule of `SCHEDULES` for so many updates, the first ``warmup`` of which the rate rises."""
    total = max(steps - warmup, 1)
    shapes: dict[str, schedule.Schedule] = {
        "constant": schedule.Constant(),
        "step": schedule.StepLR(-(-total // 3)),
        "inverse": schedule.InverseTime(9.0 / total),
        "cosine": schedule.Cosine(total),
        "restarts": schedule.CosineAnnealingWarmRestarts(max(total // 7, 1), 2),  # 1 + 2 + 4 sevenths
        "one-cycle": schedule.OneCycleLR(max(total, 2)),
    }
    return schedule.Warmup(warmup, shapes[name]) if warmup else shapes[name]
