"""The callback that looks at layers, gradients and updates every so many steps of a run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np

from fastconv.diagnose.advice import Advice
from fastconv.diagnose.statistics import gradient_norms, observe, statistics_of, update_ratios, weights
from fastconv.functional._check import flag, whole
from fastconv.nn import Module
from fastconv.schema import Items, Null, Number, Record, Shape, Text
from fastconv.terminal import put_line
from fastconv.train import Callback, Trainer

__all__ = ["Watch"]


def _say(line: str) -> None:
    put_line(line, sys.stderr)


class Watch(Callback):
    """Look at a run in its first step and every ``every`` steps: figures for each layer, advice where needed.

    It reads only, so a watched run has the bits of one that is not; the steps between cost nothing. Each look is
    logged (``trainer.log``: `RunWriter` keeps it) as a record of kind "step" with ``step``, ``loss``, ``lr`` and
    what was asked for of ``update_ratio``, ``grad_norm`` (by parameter) and ``activations`` (by layer: ``mean``,
    ``std``, ``zeros``, ``saturated``, ``dead``, and in the first step ``layer``, its type), each line of advice as an
    event. Figures may be infinite or NaN.

    Parameters
    ----------
    every : int
        At least 1. A look costs about as much as two steps.
    updates, gradients, activations : bool
        What is looked at.
    say : callable, optional
        Takes a line of advice; standard error by default. A symptom is named when two looks in succession
        show it, and once in a run.

    Attributes
    ----------
    records : list of dict
        All looks.
    advice : list of str
        All lines of advice.

    Raises
    ------
    ValueError
        If ``every`` is below 1, or nothing is to be looked at.

    Examples
    --------
    >>> from fastconv import nn, optim
    >>> x, y = np.eye(4, dtype=np.float32), np.arange(4)
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4))
    >>> watch = Watch(every=10, say=print)
    >>> optimizer = optim.SGD(model.parameters(), lr=0.01)
    >>> trainer = Trainer(model, nn.CrossEntropyLoss(), optimizer, callbacks=[watch], progress=False)
    >>> history = trainer.fit([(x, y)], epochs=20)
    >>> [record["step"] for record in watch.records], list(watch.records[0]["update_ratio"])
    ([1, 10, 20], ['0.weight', '2.weight'])
    """

    def __init__(
        self,
        every: int = 100,
        *,
        updates: bool = True,
        gradients: bool = True,
        activations: bool = True,
        say: Callable[[str], object] = _say,
    ) -> None:
        every = whole("Watch: every", every)
        self.updates = flag("Watch: updates", updates)
        self.gradients = flag("Watch: gradients", gradients)
        self.activations = flag("Watch: activations", activations)
        if not (updates or gradients or activations):
            raise ValueError("Watch: updates, gradients and activations are all False: nothing to look at")
        self.every, self.say = every, say
        self.records: list[dict[str, Any]] = []
        self.advice: list[str] = []
        self._judge = Advice()
        self._looking: ExitStack | None = None
        self._before: dict[str, np.ndarray] = {}
        self._seen: dict[str, dict[str, Any]] = {}
        self._types: dict[str, str] = {}
        self._samples = 0
        self._first = False

    def on_step_start(self, trainer: Trainer) -> None:
        step = trainer.step + 1
        if step != 1 and step % self.every:
            return
        self._looking = ExitStack()
        self._seen, self._first = {}, step == 1
        if self.updates:
            self._before = weights(trainer.model)
        if self.activations:
            self._looking.enter_context(observe(trainer.model, self._look))

    def on_step_end(self, trainer: Trainer) -> None:
        if self._looking is None:
            return
        self._close()
        record: dict[str, Any] = {
            "kind": "step", "step": trainer.step, "loss": trainer.batch_loss, "lr": trainer.optimizer.lr,
        }  # fmt: skip
        if self.updates:
            record["update_ratio"] = update_ratios(self._before, trainer.model)
        if self.gradients:
            record["grad_norm"] = gradient_norms(trainer.model)
        if self.activations:
            record["activations"] = self._seen
        self._before = {}
        self.records.append(record)
        trainer.log(record)
        for line in self._judge(record, self._types, self._samples, trainer.base_lr):
            self.advice.append(line)
            trainer.log({"kind": "event", "step": trainer.step, "event": "advice", "text": line})
            self.say(line)

    def on_fit_end(self, trainer: Trainer) -> None:
        self._close()

    def state_dict(self) -> dict[str, Any]:
        return self._judge.state_dict()

    def state_shape(self, trainer: Trainer) -> Shape:
        return Record({"last": Items(Text()), "said": Items(Text()), "first_loss": Null(Number(nan=True))})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._judge.load_state_dict(state)

    def _look(self, name: str, module: Module, output: np.ndarray) -> None:
        found = statistics_of(module, output)
        self._seen[name] = {**({"layer": found.layer} if self._first else {}), **found.to_dict()}
        self._types[name] = found.layer
        self._samples = len(output)

    def _close(self) -> None:
        if self._looking is not None:
            self._looking.close()
            self._looking = None
