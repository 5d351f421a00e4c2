"""How a run shows itself: a bar while an epoch goes on, one aligned line when it is over."""

from __future__ import annotations

import sys
import warnings
from typing import TYPE_CHECKING, Any, TextIO

from fastconv.terminal import bar, percent, put_line
from fastconv.train.base import Callback

if TYPE_CHECKING:
    from fastconv.train.trainer import Trainer

_BAR = "{desc} {percentage:3.0f} %|{bar:24}| {n_fmt}/{total_fmt} batches, {remaining} left{postfix}"


class Progress(Callback):
    """Print one line per epoch and, last, why a run stopped; on a terminal and in a notebook show a bar, too.

    A stream that takes no more lines (closed, full, its terminal gone) is warned of once, and training goes on.

    Parameters
    ----------
    file : text stream, optional
        Where lines go, standard output by default; it needs ``write`` alone. The bar goes to standard error, and only
        to a terminal.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn, optim
    >>> from fastconv.train import Progress, Trainer
    >>> model, x = nn.Linear(1, 1, bias=False), np.ones((1, 1), np.float32)
    >>> model.weight.data[...] = 1.0
    >>> trainer = Trainer(model, nn.MSELoss(), optim.SGD(model, lr=0.25), callbacks=[Progress()], progress=False)
    >>> _ = trainer.fit(x, 0 * x, epochs=2)  # doctest: +ELLIPSIS, +NORMALIZE_WHITESPACE
    epoch      loss   accuracy         lr   ms/step   seconds
      1/2    1.0000          –       0.25      ...      ...
      2/2    0.2500          –       0.25      ...      ...
    """

    def __init__(self, file: TextIO | None = None) -> None:
        self.file = file
        self._bar: Any = None
        self._head = ""
        self._later: list[str] = []
        self._lost = False

    def on_fit_start(self, trainer: Trainer) -> None:
        self._head, self._lost = "", False

    def on_epoch_start(self, trainer: Trainer) -> None:
        self._bar = bar(
            total=trainer.steps_per_epoch or None,  # a generator does not tell its length
            initial=trainer.batch,
            desc=f"epoch {trainer.epoch + 1}/{trainer.epochs}",
            bar_format=_BAR,
            mininterval=0.25,
            leave=False,
        )

    def on_step_end(self, trainer: Trainer) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(f"loss {trainer.mean_loss:.4f}", refresh=False)
            self._bar.update()

    def on_epoch_end(self, trainer: Trainer) -> None:
        self._close()
        record = trainer.history[-1]
        width = len(str(trainer.epochs))
        columns = {
            f"{'epoch':>{max(5, 2 * width + 1)}}": f"{record['epoch']:>{width}}/{trainer.epochs}",
            f"{'loss':>8}": f"{record['loss']:.4f}",
            f"{'accuracy':>9}": percent(record["accuracy"]),
        }
        if record["validation_loss"] is not None:
            columns |= {
                f"{'val loss':>8}": f"{record['validation_loss']:.4f}",
                f"{'val acc':>9}": percent(record["validation_accuracy"]),
            }
        for name in trainer.metrics:
            value = record[f"validation_{name}"]
            if name != "accuracy" and record["validation_loss"] is not None:
                columns[f"{f'val {name}':>8}"] = "–" if value is None else f"{value:.4f}"
        columns |= {
            f"{'lr':>9}": f"{record['lr']:.3g}",
            f"{'ms/step':>8}": f"{record['step_ms']:.2f}",
            f"{'seconds':>8}": f"{record['seconds']:.2f}",
        }
        if self._head != (head := "  ".join(columns)):
            self._print(head)
            self._head = head
        self._print("  ".join(f"{text:>{len(head)}}" for head, text in columns.items()))

    def on_record(self, trainer: Trainer, record: dict[str, Any]) -> None:
        if record.get("kind") == "event" and record["event"] != "advice":  # whoever gives advice prints it, too
            self._later.append(f"{record['event']}: {record['text']}")

    def on_safe_point(self, trainer: Trainer) -> None:
        for line in self._later:  # after the line of the epoch in which it happened
            self._print(line)
        self._later.clear()

    def on_fit_end(self, trainer: Trainer) -> None:
        self._close()
        self.on_safe_point(trainer)

    def _print(self, line: str) -> None:
        if self._lost:
            return
        try:
            if self._bar is None:
                put_line(line, self.file or sys.stdout)
            else:
                with self._bar.external_write_mode(file=self.file or sys.stdout):
                    put_line(line, self.file or sys.stdout)
        except (OSError, ValueError) as error:
            self._lost = True
            warnings.warn(f"progress is not shown any more: {error}", RuntimeWarning, stacklevel=2)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
