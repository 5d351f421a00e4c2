"""What a training run is asked for: its options, the defaults of each kind of data set, and what goes together."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from fastconv import data, models, optim
from fastconv.choices import ALGORITHMS, INITIALISATIONS, METRICS, SCHEDULES, TASKS
from fastconv.functional._check import check_name, flag, no_argument
from fastconv.train import origins, shapes, transfer
from fastconv.train.looks import AUGMENTATION, size

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
        A metric of `fastconv.train.metrics.NAMED` that is measured, too, and by which epochs are judged; of numbers to
        predict r2 by default.
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
    target, task : str or None
        Of a table, whose path ``dataset`` then is, see `fastconv.data.read_table`.
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
    target: str | None = None
    task: str | None = None

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
TABLE: dict[str, Any] = {"model": "mlp", "epochs": 40, "batch_size": 32, "optimizer": "adamw"}
"""Of a table."""


def fill(dataset: str, **given: Any) -> Options:
    """Return options for a data set: those given that are not None, the rest by default.

    Raises
    ------
    TypeError
        If there is no such option.
    ValueError
        If the data set or a name among the options is unknown, or options do not go together.

    Examples
    --------
    >>> fill("digits", epochs=2).model
    'mnist-small'
    """
    known = [f.name for f in fields(Options)]
    for name in given:
        if name not in known:
            raise no_argument("fill", name, known, "option")
    dataset = data.resolve(dataset)
    asked = {"dataset": dataset, **_usual(dataset)}
    asked |= {name: value for name, value in given.items() if value is not None}
    flags = [option.name for option in fields(Options) if option.type in ("bool", "bool | None")]
    asked |= {name: flag(f"fill: {name}", asked[name]) for name in flags if asked.get(name) is not None}
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


def _usual(dataset: str) -> dict[str, Any]:
    """Return the defaults of a data set."""
    if dataset in DEFAULTS:
        return DEFAULTS[dataset]
    return TABLE if data.is_table(dataset) else MASKS if data.has_masks(dataset) else FOLDER


def _check(asked: Mapping[str, Any]) -> None:
    """Raise ValueError if a name is unknown, or options do not go together."""
    for what, name, known in (
        ("optimiser", asked.get("optimizer", "sgd"), tuple(OPTIMIZERS)),
        ("initialisation", asked.get("init", "default"), INITIALISATIONS),
        ("schedule", asked.get("schedule", "constant"), SCHEDULES),
        ("algorithm", asked.get("algorithm", "auto"), ALGORITHMS),
        ("metric", asked.get("metric"), (None, *METRICS)),
        ("task", asked.get("task"), (None, *TASKS)),
    ):
        check_name(what, name, known)
    if asked.get("momentum") is not None and asked.get("optimizer", "sgd") not in ("sgd", "rmsprop"):
        raise ValueError(f"{asked['optimizer']} has no momentum option; sgd and rmsprop have")
    table = data.is_table(asked["dataset"])
    folder = asked["dataset"] not in DEFAULTS and not table
    if (folder or table) and not os.path.isabs(asked["dataset"]):
        data.resolve(asked["dataset"])
        raise ValueError(f"the path of the data set {asked['dataset']!r} is not absolute")
    if folder:
        check_name("resize", asked.get("resize"), data.RESIZES)
        size(asked.get("image_size"))
    for name in ("image_size", "resize", "cache"):
        if not folder and asked.get(name):
            has = "is a table" if table else "has its own"
            raise ValueError(f"{name.replace('_', '-')} is for folders of images; {asked['dataset']} {has}")
    for name in (*AUGMENTATION, "augment", "normalize") if table else ("target", "task"):
        if asked.get(name):
            kind = ("a table", "images") if table else ("no table", "tables")
            raise ValueError(f"{name} is for {kind[1]}; {asked['dataset']} is {kind[0]}")
    _check_start(asked)
    for name in ("patience", "chill_out"):
        if asked.get(name) is not None and asked.get("validation") == 0:
            what = "rows" if table else "images"
            raise ValueError(f"{name.replace('_', '-')} needs validation {what}, but none are set aside")


def dataset_of(options: Options) -> data.Dataset:
    """Load the data set of some options, by name, from its folder or its table.

    Raises
    ------
    OSError, ImportError, ValueError
        As `fastconv.data.load`.
    """
    if options.dataset in DEFAULTS:
        return data.load(options.dataset)
    if data.is_table(options.dataset):
        return data.load(options.dataset, target=options.target, task=options.task)
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
