"""Runs side by side: the few figures by which one is chosen, and what differs between several."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastconv.diagnose.health import judge
from fastconv.train.callbacks import merit
from fastconv.train.run import RunRecord

__all__ = ["Difference", "Summary", "differences", "summarise"]

# Beside the options: what follows from the data set, and what changes no bit of a run.
_NO_OPTION = ("fastconv", "input_shape", "classes", "levels", "light_on_dark", "standardizer", "observed", "table")
_PLACE = ("fastconv", "python", "numpy", "platform", "cpu", "isa", "threads", "host")


@dataclass(frozen=True)
class Summary:
    """What a line about a run says.

    Attributes
    ----------
    path, name, status : str
    health, reason : str
        As `fastconv.diagnose.health.judge` finds.
    accuracy, loss : float or None
        Of the validation images at the best epoch, the one whose weights are kept.
    best_epoch : int or None
    test_accuracy, test_loss : float or None
    epochs, steps : int
        Done.
    asked : int or None
        Epochs that the run was to have.
    seconds : float
        Spent on training, validation apart.
    started : str or None
    options : dict
        Flat: names with dots and plain values.
    metrics : dict of str to float
        Other figures of the validation images at the best epoch, by name.
    """

    path: str
    name: str
    status: str
    health: str
    reason: str
    accuracy: float | None
    loss: float | None
    best_epoch: int | None
    test_accuracy: float | None
    test_loss: float | None
    epochs: int
    asked: int | None
    steps: int
    seconds: float
    started: str | None
    options: dict[str, Any]
    metrics: dict[str, float]

    @property
    def rank(self) -> tuple[float, float]:
        """Sorts the best run first: by validation accuracy, then loss; without validation last."""
        accuracy = -math.inf if self.accuracy is None else self.accuracy
        return -accuracy, math.inf if self.loss is None else self.loss


@dataclass(frozen=True)
class Difference:
    """One thing that runs have in common or not.

    Attributes
    ----------
    part : str
        "options", "environment" or "results".
    name : str
    values : tuple
        One per run; None where it has no such thing.
    """

    part: str
    name: str
    values: tuple[Any, ...]

    @property
    def same(self) -> bool:
        return all(value == self.values[0] for value in self.values)


def summarise(record: RunRecord, name: str | None = None) -> Summary:
    """Return the figures by which a run is chosen; ``name`` in the place of its folder's."""
    options = options_of(record)
    metric = options["metric"] if isinstance(options.get("metric"), str) else None
    judged = [(found, epoch) for epoch in record.history if (found := merit(epoch, metric)) is not None]
    best = max(judged, key=lambda pair: pair[0], default=(None, {}))[1]
    health, result = judge(record), record.result or {}
    asked = options.get("epochs")
    return Summary(
        path=str(record.path),
        name=record.name if name is None else name,
        status=record.status,
        health=health.name,
        reason=health.reason,
        accuracy=best.get("validation_accuracy"),
        loss=best.get("validation_loss"),
        best_epoch=best.get("epoch"),
        test_accuracy=result.get("test_accuracy"),
        test_loss=result.get("test_loss"),
        epochs=len(record.history),
        asked=asked if isinstance(asked, int) else None,
        steps=record.step,
        seconds=math.fsum(epoch.get("seconds") or 0.0 for epoch in record.history),
        started=record.env.get("started"),
        options=options,
        metrics=metrics_of(best),
    )


def metrics_of(epoch: Mapping[str, Any]) -> dict[str, float]:
    """Return the figures of a validation beside loss and accuracy, by name."""
    found = {name.removeprefix("validation_"): value for name, value in epoch.items() if name.startswith("validation_")}
    return {name: float(value) for name, value in found.items()
            if name not in ("loss", "accuracy") and isinstance(value, int | float)}  # fmt: skip


def options_of(record: RunRecord) -> dict[str, Any]:
    """Return what was chosen for a run, flat; a config.json without ``options`` is taken as such itself."""
    chosen = {name: value for name, value in record.config.items() if name not in _NO_OPTION}
    return {name.removeprefix("options."): value for name, value in _flat(chosen)}


def differences(records: Sequence[RunRecord]) -> list[Difference]:
    """Return all that can be compared of runs, in the order of options, environment, results."""
    parts: dict[str, list[dict[str, Any]]] = {
        "options": [options_of(record) for record in records],
        "environment": [{name: record.env.get(name) for name in _PLACE} for record in records],
        "results": [_results(record) for record in records],
    }
    found = []
    for part, columns in parts.items():
        names = dict.fromkeys(name for column in columns for name in column)
        found += [Difference(part, name, tuple(column.get(name) for column in columns)) for name in names]
    return found


def _results(record: RunRecord) -> dict[str, Any]:
    summary = summarise(record)
    return {
        "status": summary.status,
        "health": summary.health,
        "validation accuracy": summary.accuracy,
        "validation loss": summary.loss,
        **{f"validation {name}": value for name, value in summary.metrics.items()},
        "best epoch": summary.best_epoch,
        "test accuracy": summary.test_accuracy,
        "test loss": summary.test_loss,
        "epochs done": summary.epochs,
        "steps": summary.steps,
        "seconds": round(summary.seconds, 2),
        "state sha256": (record.result or {}).get("state_sha256"),
    }


def _flat(value: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, item in value.items():
        if isinstance(item, dict):
            yield from _flat(item, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", item
