"""Loss, accuracy and confusions of a model on a set of batches."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastconv.data import Batches
from fastconv.nn import Module
from fastconv.nn.base import in_mode, turn

Batch = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found.

    Attributes
    ----------
    loss : float
        Mean over all samples, also where the loss itself gives sums; of one that is a mean over elements or pixels, as
        `MSELoss`, over all of them.
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


def labels_of(output: np.ndarray, target: np.ndarray) -> np.ndarray | None:
    """Return a target as int64 where it holds the number of one class for every row of scores; None where not.

    Counts, say, are integers too: one that is the number of no class shows that they are no labels, and accuracy
    has no meaning.
    """
    scores = output.shape[1] if output.ndim == 2 else 0
    if scores < 2 or target.shape != output.shape[:1] or target.dtype.kind not in "biu":
        return None
    if target.size and not (target.min() >= 0 and int(target.max()) < scores):
        return None
    return target.astype(np.int64, copy=False)


def total_loss(loss: Any, value: float, samples: int) -> float:
    """Return the sum of the losses of a batch, of which ``loss`` gave the mean, or with ``reduction="sum"`` the sum."""
    return value if getattr(loss, "reduction", "mean") == "sum" else value * samples


def evaluate(model: Module, loss: Any, batches: Iterable[Batch]) -> Evaluation:
    """Run a model in evaluation mode over batches, without changing it.

    Parameters
    ----------
    model : Module
    loss : callable
        From (output, target) to the mean loss of a batch, a float; the sum where its ``reduction`` is "sum".
    batches : iterable of (input, target)
        Batches without samples count for nothing. Of `fastconv.data.Batches` a whole epoch is seen, whatever was
        taken from it before, and its position stays.

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
    labelled = True
    with in_mode(model, False), turn([loss]):
        for x, y in batches.whole() if isinstance(batches, Batches) else batches:
            if not len(x):
                continue
            output = model(x)
            total += total_loss(loss, float(loss(output, y)), len(x))
            samples += len(x)
            labels = labels_of(output, y)
            labelled = labelled and labels is not None
            if labelled:
                classes = output.shape[1]
                counts = np.bincount(labels * classes + output.argmax(axis=1), minlength=classes * classes)
                counts = counts.reshape(classes, classes)
                confusion = counts if confusion is None else confusion + counts
    if samples == 0:
        raise ValueError("evaluate: no samples in the batches given")
    confusion = confusion if labelled else None
    accuracy = None if confusion is None else int(confusion.trace()) / samples
    return Evaluation(total / samples, accuracy, samples, time.perf_counter() - start, confusion)
