"""Loss, accuracy and confusions of a model on a set of batches."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastconv.nn import Module
from fastconv.nn.base import in_mode

Batch = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found.

    Attributes
    ----------
    loss : float
        Mean over all samples.
    accuracy : float or None
        Share of samples whose highest score is their label; None where targets are not labels.
    samples : int
    seconds : float
    confusion : ndarray of int64, shape (classes, classes), or None
        ``confusion[label, prediction]`` counts samples.
    """

    loss: float
    accuracy: float | None
    samples: int
    seconds: float
    confusion: np.ndarray | None


def has_labels(output: np.ndarray, target: np.ndarray) -> bool:
    """Whether a target holds one class number for every row of scores, so that accuracy means something."""
    return output.ndim == 2 and target.ndim == 1 and target.dtype.kind in "iu"


def evaluate(model: Module, loss: Any, batches: Iterable[Batch]) -> Evaluation:
    """Run a model in evaluation mode over batches, without changing it.

    Parameters
    ----------
    model : Module
    loss : callable
        From (output, target) to the mean loss of a batch, a float.
    batches : iterable of (input, target)

    Returns
    -------
    Evaluation

    Raises
    ------
    ValueError
        If there are no samples.
    """
    start = time.perf_counter()
    total, samples = 0.0, 0
    confusion: np.ndarray | None = None
    with in_mode(model, False):
        for x, y in batches:
            output = model(x)
            total += float(loss(output, y)) * len(x)
            samples += len(x)
            if has_labels(output, y):
                classes = output.shape[1]
                counts = np.bincount(y * classes + output.argmax(axis=1), minlength=classes * classes)
                counts = counts.reshape(classes, classes)
                confusion = counts if confusion is None else confusion + counts
    if samples == 0:
        raise ValueError("evaluate: no samples in the batches given")
    accuracy = None if confusion is None else int(confusion.trace()) / samples
    return Evaluation(total / samples, accuracy, samples, time.perf_counter() - start, confusion)
