"""What may stand in the JSON files of a run's folder; see `fastconv.train.run` for which files there are.

Who writes a run with a trainer of their own may put anything into its config: `TRAINED` is what the commands that
set up a net from it need.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastconv.schema import Choose, Either, Flag, Integer, Items, Names, Null, Number, Record, Shape, Text

_MANY = 2**53  # counts beyond this are not exact in every reader
COUNT, FIGURE, NOTE = Null(Integer(0, _MANY)), Null(Number()), Null(Text())

CONFIG = Record()
ENV = Record({}, {
    **dict.fromkeys(("fastconv", "python", "numpy", "platform", "isa", "cpu", "host", "started"), NOTE),
    **dict.fromkeys(("threads", "cores", "pid"), COUNT),
    "command": Items(Text()),
    "resumed": Items(Record({}, {"step": COUNT, "started": NOTE})),
})  # fmt: skip
RESULT = Record({}, {
    "status": Text(), "reason": NOTE, "steps": COUNT, "epochs": COUNT, "best_epoch": COUNT,
    **dict.fromkeys(("test_accuracy", "test_loss", "train_seconds"), FIGURE),
    "state_sha256": NOTE,
})  # fmt: skip
TEST_CLASSES = Record({
    "classes": Items(Text(), 1, 10_000),
    "by_class": Items(Record(
        {"right": COUNT, "precision": FIGURE, "recall": FIGURE},
        {"samples": COUNT, "images": COUNT, "iou": FIGURE},  # they were called images once, whatever they are
    )),
    "confusion": Null(Items(Items(Integer(0, _MANY), 0, 100), 0, 100)),
    "worst": Items(Record({
        "image": Text(), "label": Integer(0, _MANY), "taken": Integer(0, _MANY), "own": Number(0, 1),
        "chance": Number(0, 1), "shape": Items(Integer(1, 256), 3, 3), "pixels": Text(),
    }), 0, 100),
}, {"per_pixel": Flag(), "noun": Text()})  # fmt: skip
TEST_NUMBERS = Record({
    "target": Text(), "rows": Integer(1, _MANY),
    "figures": Record(dict.fromkeys(("r2", "mae", "rmse", "bias", "mae_of_mean"), Number())),
    **dict.fromkeys(("true", "predicted"), Items(Number(), 1, 10_000)),
    "worst": Items(Record({"image": Text(), "true": Number(), "predicted": Number()}), 0, 100),
})  # fmt: skip
TEST = Choose(lambda value: TEST_NUMBERS if isinstance(value, dict) and "target" in value else TEST_CLASSES)
"""Of classes, or of numbers that were predicted."""

_FIGURES = {
    **dict.fromkeys(("epoch", "steps", "step"), COUNT),
    **dict.fromkeys(
        ("loss", "accuracy", "validation_loss", "validation_accuracy", "lr", "seconds", "penalty", "step_ms",
         "images_per_second", "gradient_norm", "clipped"),
        FIGURE,
    ),
    "batches": Integer(1, 2**31),  # of an epoch that is not over, in a run that counts in steps
}  # fmt: skip
_KINDS = {
    "epoch": Record({}, _FIGURES),
    "step": Record({"step": Integer(0, _MANY)}, {
        **_FIGURES,
        **dict.fromkeys(("update_ratio", "grad_norm"), Names(FIGURE)),
        "activations": Names(Record({}, {"layer": NOTE}, FIGURE)),
    }),
    "event": Record({}, {"step": COUNT, "event": NOTE, "text": NOTE}),
}  # fmt: skip


_KIND = Record({}, {"kind": Text(), "step": COUNT})


def _metric(value: Any) -> Shape:
    return _KINDS.get(value.get("kind", "epoch"), _KIND) if _KIND.fits(value) else _KIND


METRIC = Choose(_metric)
"""A line of metrics.jsonl; of kinds beside the three of `fastconv.train.Trainer.log`, anything but for their step."""

OPTIONS = Record({
    "dataset": Text(), "model": Text(), "epochs": Integer(1, _MANY), "batch_size": Integer(1, _MANY),
    "lr": Number(0),
}, {
    **dict.fromkeys(("optimizer", "init", "schedule", "algorithm"), Text()), "metric": NOTE,
    **dict.fromkeys(("momentum", "weight_decay"), Null(Number(0))),
    "l2": Number(0), "warmup": Integer(0, _MANY), "augment": Flag(), "validation": Number(0, 1),
    "seed": Integer(0, 2**64 - 1), **dict.fromkeys(("patience", "chill_out"), Null(Integer(1, _MANY))),
    "label_smoothing": Number(0, 1), "clip_norm": Null(Number(0)), "ema": Null(Number(0, 1)), "decay_bias_norm": Flag(),
    "mixup": Number(0, 4),
    **dict.fromkeys(("image_size", "resize", "pretrained", "freeze", "normalize", "target", "task"), NOTE),
    "accumulate": Integer(1, _MANY),
    "cache": Flag(), "flip": Null(Flag()), **dict.fromkeys(("shift", "cutout"), Null(Integer(0, 2**16))),
    "scale": Null(Number(0, 1)), "rotation": Null(Number(0, 180)),
    **dict.fromkeys(("brightness", "contrast", "saturation"), Null(Number(0, 1))),
    **dict.fromkeys(("head_lr", "backbone_lr"), Null(Number(0))),
}, rest=None)  # fmt: skip
"""`fastconv.train.setup.Options`."""

TRAINED = Record({
    "options": OPTIONS,
    "input_shape": Items(Integer(1, 2**16), 3, 3),
    "classes": Items(Text()),
    "levels": Number(1),
    "light_on_dark": Flag(),
    "standardizer": Record(),  # fastconv.data.Standardizer.from_dict checks it
}, {
    "per_pixel": Flag(),
    "table": Record(
        {"columns": Items(Text(), 1, 2**16), "target": Text()}, {"mean": Number(), "deviation": Number(5e-324)}
    ),
    "made_of": Record({}, {
        **dict.fromkeys(("layers", "weights"), Record({"file": Text(), "sha256": Text()})),
        "head": Record({"replaced": Items(Text())}, {"outputs": COUNT}), "frozen": COUNT,
    }),
    "observed": Record({}, {
        "checkpoint_every": Text(), "tensorboard": Null(Flag()), "watch_every": Null(Integer(1, _MANY)),
    }),
})  # fmt: skip
"""The config of `fastconv train`: `fastconv.train.setup.Setup.describe` and what was observed."""

STEPPED = Record({
    "command": Text(), "options": OPTIONS, "steps": Integer(1, _MANY),
    "net": Record({"weights": Text()}, {
        "head": Text(), **dict.fromkeys(("hidden", "layers", "width", "train_limit"), Null(Integer(1, 2**48))),
        "alpha": Number(), "activation": Text(), "in_memory": Flag(),
    }),
    **{name: shape for name, shape in TRAINED.must.items() if name != "options"},
}, {"first": Integer(0, _MANY)})  # fmt: skip
"""The config of a run that counts in steps, see `fastconv.train.step_folder`."""


@dataclass(frozen=True)
class Array(Shape):
    """An array of real numbers, of so many dimensions where that is said."""

    ndim: int | None = None

    @property
    def words(self) -> str:  # type: ignore[override]
        return "an array of real numbers" + ("" if self.ndim is None else f" with {self.ndim} dimensions")

    def fits(self, value: Any) -> bool:
        return isinstance(value, np.ndarray) and value.dtype.kind in "fiu" and self.ndim in (None, value.ndim)


_ARRAY = Array()


@dataclass(frozen=True)
class Like(Shape):
    """Arrays with the names, the shapes and the kinds of dtype of others."""

    of: Mapping[str, np.ndarray]

    @property
    def words(self) -> str:  # type: ignore[override]
        return f"arrays {', '.join(f'{name} {a.dtype} {a.shape}' for name, a in self.of.items())}"[:400]

    def fits(self, value: Any) -> bool:
        return (
            isinstance(value, dict)
            and value.keys() == self.of.keys()
            and all(
                _ARRAY.fits(value[name]) and value[name].shape == a.shape and value[name].dtype.kind == a.dtype.kind
                for name, a in self.of.items()
            )
        )


def kept(arrays: Mapping[str, np.ndarray]) -> Shape:
    """Return the shape of copies of some arrays, which may not have been made yet."""
    return Either(Like(arrays), Like({}))


MERIT = Null(Items(Number(), 2, 2))
STATE = Record({
    **dict.fromkeys(("step", "steps_per_epoch", "epoch", "epochs"), Integer(0, _MANY)), "base_lr": Number(),
    **dict.fromkeys(("batch_loss", "batch_penalty", "mean_loss"), Number(nan=True)), "stop_reason": NOTE,
    "position": Null(Items(Shape())),
    "tally": Null(Record({
        "samples": Integer(1, _MANY), "loss": Number(nan=True), "penalty": Number(nan=True),
        "seconds": Number(5e-324), "right": COUNT, "times": Array(1),
    }, {
        "weight": Number(0), "norm": Number(0, nan=True),
        **dict.fromkeys(("known", "clipped", "updates"), Integer(0, _MANY)),
    }, rest=None)),
    "history": Items(Record(
        {"epoch": Integer(1, _MANY), "steps": Integer(0, _MANY), "loss": Number(nan=True), "seconds": Number(0)},
        _FIGURES,
    )),
    "model": Names(Array()), "counters": Names(Integer(0, 2**64 - 1)), "optimizer": Names(Array()),
    "callbacks": Names(Names(Shape())),
}, {"first_epoch": Integer(0, _MANY), "ema": Null(Names(Array())), "algorithm": Text()})  # fmt: skip
"""Of a trainer, apart from its callbacks', each of which says its own (`Callback.state_shape`)."""
