"""From a handful of options to everything a training run on a data set needs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fastconv import data, init, models, nn, optim, random, schedule
from fastconv._version import __version__
from fastconv.choices import ALGORITHMS, INITIALISATIONS, METRICS, SCHEDULES
from fastconv.functional._check import unknown
from fastconv.train import origins, shapes, transfer
from fastconv.train.base import Callback
from fastconv.train.callbacks import ChillOut, Patience, StopOnExplosion
from fastconv.train.evaluation import together
from fastconv.train.looks import augment_of, size
from fastconv.train.non_finite import StopOnNonFinite
from fastconv.train.trainer import Trainer

OPTIMIZERS: dict[str, tuple[type[optim.Optimizer], float]] = {
    "sgd": (optim.SGD, 0.05),
    "adam": (optim.Adam, 0.001),
    "adamw": (optim.AdamW, 0.001),
    "rmsprop": (optim.RMSprop, 0.001),
    "adagrad": (optim.Adagrad, 0.02),
}
"""Class and default learning rate."""


@dataclass(frozen=True)
class Options:
    """What a run was asked for; `fill` completes a partial one with the defaults of its data set.

    Attributes
    ----------
    dataset, model, optimizer, init, schedule : str
        Names of `fastconv.data`, `fastconv.models`, ``OPTIMIZERS``, `fastconv.init` (or "default": that of
        the layers), ``SCHEDULES``.
    epochs, batch_size, seed : int
    lr, momentum, weight_decay, l2 : float
        ``momentum`` and ``weight_decay`` None: the optimiser's own.
    warmup : int
        Updates over which the rate rises at first.
    augment : bool
        Random shifts, and mirroring where a mirrored image keeps its class.
    validation : float
        Share of the training images set aside, 0 for none.
    algorithm : str
        Of convolutions, "auto" or "direct"; the model's layers keep it.
    patience, chill_out : int or None
        Epochs without better validation figures until the run stops (`Patience`), or goes back to its best
        weights and halves the rate (`ChillOut`); None: never.
    label_smoothing : float
        Of the cross-entropy, in [0, 1).
    mixup : float
        Of `fastconv.data.Mixup`, its ``alpha``; 0 for none.
    clip_norm : float or None
        What the norm of the gradients may be at most.
    ema : float or None
        Decay of the average of the weights that is validated and kept.
    decay_bias_norm : bool
        Whether weight decay is for biases and normalisations, too.
    accumulate : int
        Batches per update.
    metric : str or None
        A metric of labels (`fastconv.train.metrics.OF_LABELS`) that is measured, too, and by which epochs are judged.
    image_size, resize : str or None
        Of a folder of images, whose path ``dataset`` then is: "128" or "96x128" (height by width), and "crop", "pad" or
        "stretch".
    flip, shift, scale, rotation, brightness, contrast, saturation, cutout : bool, int or float, or None
        Of `fastconv.data.Augment`; what is None is as ``augment`` has it.
    cache : bool
        Whether a folder's images are kept decoded, see `fastconv.data.load`.
    pretrained : str or None
        A file of weights to begin with, see `fastconv.train.origins.read`. ``model`` may be a file, too.
    freeze : str or None
        "all-but-head", or how many layers, from the input, stay as they are.
    head_lr, backbone_lr : float or None
        Learning rates of the last layer and of all others, ``lr`` by default.
    normalize : str or None
        How images are brought to what the net takes, see `fastconv.train.origins.standardizer_of`; "dataset" for the
        mean and deviation of the training images. None: what the weights expect where that is known, else "dataset".
    """

    dataset: str
    model: str
    epochs: int
    batch_size: int
    lr: float
    optimizer: str = "sgd"
    momentum: float | None = None
    weight_decay: float | None = None
    l2: float = 0.0
    init: str = "default"
    schedule: str = "cosine"
    warmup: int = 0
    augment: bool = False
    validation: float = 0.1
    seed: int = 0
    patience: int | None = None
    chill_out: int | None = None
    label_smoothing: float = 0.0
    clip_norm: float | None = None
    ema: float | None = None
    decay_bias_norm: bool = True
    accumulate: int = 1
    algorithm: str = "auto"
    metric: str | None = None
    image_size: str | None = None
    resize: str | None = None
    cache: bool = False
    flip: bool | None = None
    shift: int | None = None
    scale: float | None = None
    rotation: float | None = None
    brightness: float | None = None
    contrast: float | None = None
    saturation: float | None = None
    cutout: int | None = None
    pretrained: str | None = None
    freeze: str | None = None
    head_lr: float | None = None
    backbone_lr: float | None = None
    normalize: str | None = None
    mixup: float = 0.0

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Options:
        """Return the options that stand in the config of a run.

        One that tells no algorithm is older than the choice: "direct".

        Raises
        ------
        ValueError
            If a name is unknown, a value of another type or out of range, or options do not go together.
        """
        shapes.OPTIONS.check(dict(values), "options")
        _check(values)
        return cls(**{"algorithm": "direct", **values})


DEFAULTS: dict[str, dict[str, Any]] = {
    "digits": {
        "model": "mnist-small",
        "epochs": 40,
        "batch_size": 32,
        "augment": True,
        "weight_decay": 5e-4,
    },
    "mnist": {"model": "lenet5", "epochs": 5, "batch_size": 64},
    "fashion_mnist": {"model": "lenet5", "epochs": 10, "batch_size": 64},
    "cifar10": {"model": "cifar-small", "epochs": 15, "batch_size": 64},
}
FOLDER: dict[str, Any] = {
    "model": "resnet20", "epochs": 20, "batch_size": 32, "augment": True, "image_size": "64", "resize": "crop",
}  # fmt: skip
"""Defaults of a folder of images."""
MASKS: dict[str, Any] = {
    **FOLDER, "model": "unet", "optimizer": "adamw", "batch_size": 8, "metric": "iou",
}  # fmt: skip
"""Of one with masks."""


def fill(dataset: str, **given: Any) -> Options:
    """Return options for a data set: those given that are not None, the rest by default.

    Raises
    ------
    ValueError
        If the data set or a name among the options is unknown, or options do not go together.

    Examples
    --------
    >>> fill("digits", epochs=2).model
    'mnist-small'
    """
    dataset = data.resolve(dataset)
    usual = DEFAULTS[dataset] if dataset in DEFAULTS else MASKS if data.has_masks(dataset) else FOLDER
    asked = {"dataset": dataset, **usual}
    asked |= {name: value for name, value in given.items() if value is not None}
    asked.setdefault("optimizer", "sgd")
    if asked.get("pretrained") is not None:
        asked["pretrained"] = origins.place(asked["pretrained"])
    if asked.get("model") is not None:
        asked["model"] = origins.resolve(asked["model"])
    _check(asked)
    if asked["optimizer"] == "sgd":
        asked.setdefault("momentum", 0.9)
    elif given.get("weight_decay") is None:
        asked.pop("weight_decay", None)  # that default was chosen for sgd
    asked.setdefault("lr", OPTIMIZERS[asked["optimizer"]][1])
    fresh = origins.is_name(asked["model"]) and asked.get("pretrained") is None
    asked.setdefault("init", models.ZOO[asked["model"]].init if fresh else "default")
    return Options(**asked)


def _check(asked: Mapping[str, Any]) -> None:
    """Raise ValueError if a name is unknown, or options do not go together."""
    for what, name, known in (
        ("optimiser", asked.get("optimizer", "sgd"), tuple(OPTIMIZERS)),
        ("initialisation", asked.get("init", "default"), INITIALISATIONS),
        ("schedule", asked.get("schedule", "constant"), SCHEDULES),
        ("algorithm", asked.get("algorithm", "auto"), ALGORITHMS),
        ("metric", asked.get("metric"), (None, *METRICS)),
    ):
        if name not in known:
            raise ValueError(unknown(what, name, known))
    if asked.get("momentum") is not None and asked.get("optimizer", "sgd") not in ("sgd", "rmsprop"):
        raise ValueError(f"{asked['optimizer']} has no momentum option; sgd and rmsprop have")
    folder = asked["dataset"] not in DEFAULTS
    if folder and not os.path.isabs(asked["dataset"]):
        data.resolve(asked["dataset"])
        raise ValueError(f"the data set {asked['dataset']!r} is a folder, and its path is not absolute")
    if folder and asked.get("resize") not in data.RESIZES:
        raise ValueError(unknown("resize", asked.get("resize"), data.RESIZES))
    if folder:
        size(asked.get("image_size"))
    for name in ("image_size", "resize", "cache"):
        if not folder and asked.get(name):
            raise ValueError(f"{name.replace('_', '-')} is for folders of images; {asked['dataset']} has its own")
    _check_start(asked)
    for name in ("patience", "chill_out"):
        if asked.get(name) is not None and asked.get("validation") == 0:
            raise ValueError(f"{name.replace('_', '-')} needs validation images, but none are set aside")


def dataset_of(options: Options) -> data.Dataset:
    """Load the data set of some options, by name or from its folder.

    Raises
    ------
    OSError, ImportError, ValueError
        As `fastconv.data.load`.
    """
    if options.dataset in DEFAULTS:
        return data.load(options.dataset)
    how: Any = options.resize
    return data.load(options.dataset, image_size=size(options.image_size), resize=how, cache=options.cache)


def _check_start(asked: Mapping[str, Any]) -> None:
    """Raise ValueError if what a net is to begin with does not go together."""
    fresh = asked.get("model") in models.ZOO and asked.get("pretrained") is None
    if fresh and asked.get("freeze") is not None:
        raise ValueError("freeze keeps layers as they are, and these have learned nothing yet: pretrained is missing")
    if not fresh and asked.get("init", "default") != "default":
        raise ValueError(f"init {asked['init']} draws weights anew, but they come from a file")
    if asked.get("freeze") == transfer.ALL_BUT_HEAD and asked.get("backbone_lr") is not None:
        raise ValueError("backbone-lr is for layers below the head, and freeze all-but-head trains none of them")


@dataclass(frozen=True)
class Setup:
    """Everything `prepare` made: call ``trainer.fit(train, validation, epochs=options.epochs)``.

    ``trained_on`` and ``set_aside`` count images; ``start`` says where the model comes from.
    """

    options: Options
    dataset: data.Dataset
    standardizer: data.Standardizer
    model: nn.Module
    loss: nn.CrossEntropyLoss
    trainer: Trainer
    train: data.Batches
    validation: data.Batches | None
    test: data.Batches
    trained_on: int
    set_aside: int
    start: transfer.Start

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
        }


@dataclass(frozen=True)
class Source:
    """A data set parted and measured for training; runs that differ in other options share it."""

    dataset: data.Dataset
    kept: data.Samples
    aside: data.Samples | None
    standardizer: data.Standardizer
    origins: transfer.Origins


def load(options: Options) -> Source:
    """Load the data set of some options and set its validation images aside.

    Raises
    ------
    ValueError
        If the share for validation is out of range.
    OSError, ImportError
        If the data set's files, or the package that holds it, are missing.
    """
    dataset = dataset_of(options)
    kept, aside = dataset.train, dataset.validation
    if options.validation and aside is None:
        kept, aside = data.split(dataset.train, options.validation, options.seed)
    found = transfer.Origins.of(options.model, options.pretrained)
    return Source(dataset, kept, aside, _standardizer(options, dataset, kept, found), found)


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
    start = _start(options, source)
    model = start.model
    mixup = data.Mixup(options.mixup, len(dataset.classes)) if options.mixup else None
    train = data.Batches(
        *kept, options.batch_size, options.seed,
        augment=augment_of(options, standardizer), standardize=standardizer, mixup=mixup,
    )  # fmt: skip
    validation = None if aside is None else evaluation_batches(aside, standardizer)
    loss = loss_of(dataset, options.label_smoothing)
    rates = schedule_of(
        options.schedule, steps or -(-len(train) // options.accumulate) * options.epochs, options.warmup
    )
    trainer = Trainer(
        model, loss, _optimizer(options, start), schedule=rates, l2=options.l2,
        callbacks=[*_guards(options), *callbacks], progress=progress, clip_norm=options.clip_norm, ema=options.ema,
        accumulate=options.accumulate, metrics=options.metric, monitor=options.metric,
    )  # fmt: skip
    return Setup(
        options, dataset, standardizer, model, loss, trainer, train, validation,
        test=evaluation_batches(dataset.test, standardizer),
        trained_on=len(kept.labels), set_aside=0 if aside is None else len(aside.labels),
        start=start,
    )  # fmt: skip


def loss_of(dataset: data.Dataset, label_smoothing: float = 0.0) -> nn.CrossEntropyLoss:
    """Return the loss of a data set's labels; what masks say of no class is left out."""
    if dataset.per_pixel:
        return nn.CrossEntropyLoss(ignore_index=data.IGNORED, label_smoothing=label_smoothing)
    return nn.CrossEntropyLoss(label_smoothing=label_smoothing)


def evaluation_batches(samples: data.Samples, standardizer: data.Standardizer) -> data.Batches:
    """Cut samples into batches in their own order."""
    size = together(samples.images.shape[1:], samples.labels.ndim == 3)
    return data.Batches(*samples, size, shuffle=False, standardize=standardizer)


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
    random.manual_seed(options.seed)
    start = transfer.start(
        options.model, source.origins, dataset.shape, len(dataset.classes), options.freeze, dataset.per_pixel
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
