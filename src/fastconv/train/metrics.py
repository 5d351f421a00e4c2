"""Figures of a validation beside its loss: by name, or any function of (y_true, y_pred), as scikit-learn has many.

Where targets are labels, of samples or of pixels, a function is given the labels and those predicted, (N,) each, of all
samples at once; what the loss leaves out is left out. One with an attribute ``takes = "scores"`` is given the scores,
(N, classes), instead of the predictions. Of other targets it gets targets and outputs as they are, of one number a
sample (N,).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from fastconv.functional._check import nearest, short

Array = np.ndarray
Metric = Callable[[Array, Array], Any]


def accuracy(y_true: Array, y_pred: Array) -> float:
    """Return the share of labels that are predicted right."""
    return float(np.mean(y_true == y_pred))


def top5(y_true: Array, y_score: Array) -> float:
    """Return the share of labels that fewer than five others have a higher score than."""
    own = np.take_along_axis(y_score, y_true[:, None], axis=1)
    return float(np.mean((y_score > own).sum(axis=1) < 5))


def f1_macro(y_true: Array, y_pred: Array) -> float:
    """Return the mean over the classes of 2 hits / (labels + predictions): ``f1_score(average="macro")``."""
    return _f1_of(_counts(y_true, y_pred))


def iou(y_true: Array, y_pred: Array) -> float:
    """Return the mean over the classes of intersection over union: ``jaccard_score(average="macro")``."""
    return _iou_of(_counts(y_true, y_pred))


def _counts(y_true: Array, y_pred: Array, classes: int = 0) -> Array:
    """Return hits, labels and predictions of each class: int64 (3, classes or more)."""
    classes = max(classes, int(max(y_true.max(initial=-1), y_pred.max(initial=-1))) + 1)
    return np.stack([np.bincount(a, minlength=classes) for a in (y_true[y_true == y_pred], y_true, y_pred)])


def _accuracy_of(counts: Array) -> float:
    hits, labels, _ = counts
    return float(hits.sum() / labels.sum())


def _f1_of(counts: Array) -> float:
    hits, labels, predictions = _that_occur(counts)
    return float(np.mean(2 * hits / (labels + predictions)))


def _iou_of(counts: Array) -> float:
    hits, labels, predictions = _that_occur(counts)
    return float(np.mean(hits / (labels + predictions - hits)))


def _that_occur(counts: Array) -> Array:
    return counts[:, counts[1] + counts[2] > 0]


def mae(y_true: Array, y_pred: Array) -> float:
    """Return the mean of the absolute errors."""
    return float(np.mean(np.abs(y_true.astype(np.float64) - y_pred)))


def r2(y_true: Array, y_pred: Array) -> float:
    """Return 1 - squared errors / squared deviations from the mean, of several outputs the mean; as ``r2_score``."""
    target = y_true.astype(np.float64)
    errors = ((target - y_pred) ** 2).sum(axis=0)
    spread = ((target - target.mean(axis=0)) ** 2).sum(axis=0)
    found = np.where(spread > 0, 1 - errors / np.where(spread > 0, spread, 1), np.where(errors > 0, 0.0, 1.0))
    return float(np.mean(found))


top5.takes = "scores"  # type: ignore[attr-defined]

OF_LABELS: dict[str, Metric] = {"accuracy": accuracy, "top5": top5, "f1_macro": f1_macro, "iou": iou}
OF_NUMBERS: dict[str, Metric] = {"mae": mae, "r2": r2}
NAMED = {**OF_LABELS, **OF_NUMBERS}
_OF_COUNTS = {accuracy: _accuracy_of, f1_macro: _f1_of, iou: _iou_of}  # no prediction has to be kept for these
_FOR = {**dict.fromkeys(OF_LABELS.values(), "labels"), **dict.fromkeys(OF_NUMBERS.values(), "numbers")}


def monitored(where: str, name: Any, metrics: Iterable[str]) -> str | None:
    """Return the name of a figure by which epochs are judged, one of those that are measured; None as it is.

    Raises
    ------
    ValueError
        If nothing measures it.
    """
    known = ("accuracy", "loss", *metrics)
    if name is not None and not (isinstance(name, str) and name in known):
        names = ", ".join(known)
        raise ValueError(f"{where}: no figure {short(name)} to monitor; there are {names}; metrics= measures others")
    return name


def named(where: str, given: Any) -> dict[str, Metric]:
    """Return metrics by name.

    Parameters
    ----------
    where : str
        The public function, for messages.
    given : None, str, callable, sequence of them, or mapping of str to callable or str
        A function's own name is its name; a mapping gives others.

    Raises
    ------
    ValueError
        If a name is unknown, or no name for a figure, or occurs twice.
    TypeError
        If something is neither a name nor a function.
    """
    if given is None:
        return {}
    pairs: Iterable[tuple[Any, Any]]
    if isinstance(given, Mapping):
        pairs = given.items()
    else:
        single = isinstance(given, str) or callable(given) or not isinstance(given, Iterable)
        pairs = [(_name_of(where, one), one) for one in ([given] if single else given)]
    found: dict[str, Metric] = {}
    for name, metric in pairs:
        if isinstance(metric, str):
            if metric not in NAMED:
                known = f"there are {', '.join(NAMED)}, or give a function{nearest(metric, NAMED)}"
                raise ValueError(f"{where}: no metric {metric!r}; {known}")
            metric = NAMED[metric]
        if not callable(metric):
            raise TypeError(f"{where}: a metric must be a name or a function of (y_true, y_pred), got {metric!r:.80}")
        if not isinstance(name, str) or not re.fullmatch(r"\w+", name) or name == "loss":
            raise ValueError(f"{where}: {name!r:.80} is no name for a metric; letters, digits and _, and not 'loss'")
        if name in found:
            raise ValueError(f"{where}: two metrics are called {name!r}; give a dict of names")
        found[name] = metric
    return found


def _name_of(where: str, metric: Any) -> Any:
    if isinstance(metric, str):
        return metric
    if not callable(metric):
        raise TypeError(f"{where}: a metric must be a name or a function of (y_true, y_pred), got {metric!r:.80}")
    name = getattr(metric, "__name__", None)
    if name is None or not name.isidentifier():
        raise ValueError(f"{where}: {metric!r:.80} has no name; give a dict, as {{'name': function}}")
    return name


def lower_is_better(name: str) -> bool:
    """Return whether less of a figure is better: by scikit-learn's endings _loss and _error, and the usual names."""
    return name in ("loss", "mae", "mse", "rmse") or name.endswith(("_loss", "_error"))


class Seen:
    """Targets and outputs of a validation, kept until all are there; of what counts tell, these alone."""

    def __init__(self, metrics: Mapping[str, Metric]) -> None:
        self._metrics = metrics
        self._scored = any(getattr(metric, "takes", None) == "scores" for metric in metrics.values())
        self._counted = any(metric in _OF_COUNTS for metric in metrics.values())
        self._kept = any(metric not in _OF_COUNTS for metric in metrics.values())
        self._counts = np.zeros((3, 0), np.int64)
        self._true: list[Array] = []
        self._predicted: list[Array] = []
        self._scores: list[Array] = []
        self._kinds: set[str] = set()

    def add(self, output: Array, target: Array, labels: Array | None) -> None:
        """Take a batch; ``labels`` are numbers of classes for each row of scores, -1 what is left out, or None."""
        self._kinds.add("numbers" if labels is None else "labels")
        if labels is None:
            single = output.ndim == 2 and output.shape[1] == 1
            # copies: the next batch is written where this one lies
            self._true.append(target.reshape(-1).copy() if single and target.size == len(output) else target.copy())
            self._predicted.append(output.reshape(-1).copy() if single else output.copy())
            return
        labels = labels.reshape(-1)
        scores = output if output.ndim == 2 else np.moveaxis(output, 1, -1).reshape(-1, output.shape[1])
        known = labels >= 0
        true, predicted = labels[known], scores.argmax(axis=1)[known]
        if self._counted:
            before, self._counts = self._counts, _counts(true, predicted, max(scores.shape[1], self._counts.shape[1]))
            self._counts[:, : before.shape[1]] += before
        if self._kept:
            self._true.append(true)
            self._predicted.append(predicted)
        if self._scored:
            self._scores.append(scores[known])

    def figures(self, where: str) -> dict[str, float | None]:
        """Return the figures by name; None where one is not finite.

        Raises
        ------
        ValueError
            If targets are not of the kind a named metric is of.
        TypeError
            If a metric gives no number.
        """
        if not self._metrics:
            return {}
        if len(self._kinds) > 1:
            raise ValueError(f"{where}: metrics need targets of one kind, some batches have labels and others not")
        kind = self._kinds.pop()
        true, predicted, scores = (
            np.concatenate(a) if a else None for a in (self._true, self._predicted, self._scores)
        )
        found: dict[str, float | None] = {}
        for name, metric in self._metrics.items():
            own = _FOR.get(metric, kind)
            if own != kind:
                raise ValueError(f"{where}: the metric {name!r} is for {own}, and the targets are {kind}")
            if metric in _OF_COUNTS:
                value: Any = _OF_COUNTS[metric](self._counts) if self._counts.any() else math.nan
            else:
                taken = scores if getattr(metric, "takes", None) == "scores" and scores is not None else predicted
                value = metric(true, taken) if true is not None and taken is not None and len(true) else math.nan
            try:
                number = float(value)
            except (TypeError, ValueError):
                raise TypeError(f"{where}: the metric {name!r} gave {value!r:.80}, which is no number") from None
            found[name] = number if math.isfinite(number) else None
        return found
