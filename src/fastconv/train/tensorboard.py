"""Records of a run as TensorBoard event files, through tensorboardX (``pip install 'fastconv[tensorboard]'``)."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from fastconv.train.base import Callback

if TYPE_CHECKING:
    from fastconv.train.trainer import Trainer

# What an epoch's figures are called, so that TensorBoard draws training and validation into one group.
_EPOCH = {
    "loss": "loss/training",
    "validation_loss": "loss/validation",
    "accuracy": "accuracy/training",
    "validation_accuracy": "accuracy/validation",
    "penalty": "loss/penalty",
    "lr": "learning_rate",
    "step_ms": "speed/step_ms",
    "images_per_second": "speed/images_per_second",
}


class TensorBoard(Callback):
    """Write the scalars of all epoch and step records, and events as texts, over the number of updates.

    Parameters
    ----------
    folder : path-like
        Where event files go: give it, or one above it, to ``tensorboard --logdir``.

    Raises
    ------
    ImportError
        If tensorboardX is not installed.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> from fastconv import nn, optim
    >>> from fastconv.train import TensorBoard, Trainer
    >>> model, x = nn.Linear(1, 1), np.ones((4, 1), np.float32)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     trainer = Trainer(model, nn.MSELoss(), optim.SGD(model), callbacks=[TensorBoard(folder)], progress=False)
    ...     _ = trainer.fit(x, x, epochs=2)
    ...     os.listdir(folder)[0].split(".")[:3]
    ['events', 'out', 'tfevents']
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        try:
            import tensorboardX
        except ImportError as error:
            raise ImportError("TensorBoard files need tensorboardX: pip install 'fastconv[tensorboard]'") from error
        self.folder = os.path.expanduser(folder)
        self._make = tensorboardX.SummaryWriter
        self._writer: Any = None

    def on_fit_start(self, trainer: Trainer) -> None:
        # A killed run may have written steps beyond its checkpoint; they are taken back.
        self._writer = self._make(self.folder, purge_step=trainer.step + 1 if trainer.step else None)

    def on_record(self, trainer: Trainer, record: dict[str, Any]) -> None:
        if self._writer is None:
            return
        if record.get("kind") == "event":
            self._writer.add_text(record["event"], record["text"], record["step"])
            return
        for name, value in scalars(record):
            self._writer.add_scalar(name, value, trainer.step)

    def on_epoch_end(self, trainer: Trainer) -> None:
        self._writer.flush()

    def on_fit_end(self, trainer: Trainer) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def scalars(record: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield (tag, value) of the finite figures in a record of an epoch or a step."""
    for tag, value in _figures(record):
        if value is not None and math.isfinite(value):
            yield tag, float(value)


def _figures(record: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    if record.get("kind", "epoch") == "epoch":
        yield from ((tag, record.get(name)) for name, tag in _EPOCH.items())
        for name, value in record.items():
            if name.startswith("validation_") and name not in _EPOCH and isinstance(value, int | float):
                yield f"{name.removeprefix('validation_')}/validation", value
        return
    yield from ((f"step/{name}", record.get(name)) for name in ("loss", "lr"))
    for group in ("update_ratio", "grad_norm"):
        yield from ((f"{group}/{name}", value) for name, value in record.get(group, {}).items())
    for module, figures in record.get("activations", {}).items():
        for name, value in figures.items():
            if name != "layer":
                yield f"activations_{name}/{module or 'model'}", value
