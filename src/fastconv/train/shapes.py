"""What may stand in the JSON files of a run's folder; see `fastconv.train.run` for which files there are.

Who writes a run with a trainer of their own may put anything into its config: `TRAINED` is what the commands that
set up a net from it need.
"""

from typing import Any

from fastconv.schema import Flag, Integer, Items, Names, Null, Number, Record, Text

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

_FIGURES = {
    **dict.fromkeys(("epoch", "steps", "step"), COUNT),
    **dict.fromkeys(
        ("loss", "accuracy", "validation_loss", "validation_accuracy", "lr", "seconds", "penalty", "step_ms",
         "images_per_second"),
        FIGURE,
    ),
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


class _Metric(Record):
    """A line of metrics.jsonl; of kinds beside the three of `fastconv.train.Trainer.log`, anything."""

    def check(self, value: Any, at: str = "it") -> None:
        super().check(value, at)
        if (shape := _KINDS.get(value.get("kind", "epoch"))) is not None:
            shape.check(value, at)


METRIC = _Metric({}, {"kind": Text()})

OPTIONS = Record({
    "dataset": Text(), "model": Text(), "epochs": Integer(1, _MANY), "batch_size": Integer(1, _MANY),
    "lr": Number(0),
}, {
    **dict.fromkeys(("optimizer", "init", "schedule"), Text()),
    **dict.fromkeys(("momentum", "weight_decay"), Null(Number(0))),
    "l2": Number(0), "warmup": Integer(0, _MANY), "augment": Flag(), "validation": Number(0, 1),
    "seed": Integer(0, 2**64 - 1), **dict.fromkeys(("patience", "chill_out"), Null(Integer(1, _MANY))),
}, rest=None)  # fmt: skip
"""`fastconv.train.setup.Options`."""

TRAINED = Record({
    "options": OPTIONS,
    "input_shape": Items(Integer(1, 2**16), 3, 3),
    "classes": Items(Text(), 2),
    "levels": Number(1),
    "light_on_dark": Flag(),
    "standardizer": Record(),  # fastconv.data.Standardizer.from_dict checks it
}, {
    "observed": Record({}, {
        "checkpoint_every": Text(), "tensorboard": Null(Flag()), "watch_every": Null(Integer(1, _MANY)),
    }),
})  # fmt: skip
"""The config of `fastconv train`: `fastconv.train.setup.Setup.describe` and what was observed."""
