"""Loss, accuracy and confusions of a model on a set of batches."""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastconv import _html
from fastconv.data import Batches
from fastconv.functional._check import flag
from fastconv.functional._loss import is_dense
from fastconv.nn import CrossEntropyLoss, Module
from fastconv.nn.base import in_mode, turn
from fastconv.train.given import unpacked
from fastconv.train.metrics import Seen, named

Batch = tuple[np.ndarray, ...]

_SHOWN = 20  # classes of a table of confusions
_TOGETHER, _PIXELS = 256, 1 << 20
MOST_CONFUSED = 1000
"""Classes up to which confusions are counted unasked: 8 MB."""


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found.

    Attributes
    ----------
    loss : float
        Mean over all samples, also where the loss itself gives sums; of one that is a mean over elements or pixels, as
        `MSELoss`, over all of them.
    accuracy : float or None
        Share of samples, or of pixels where these have labels, whose highest score is their label; None where targets
        are not labels.
    samples : int
    seconds : float
    confusion : ndarray of int64, shape (classes, classes), or None
        ``confusion[label, prediction]`` counts samples, or pixels. None where targets are not labels, and of more than
        a thousand classes unless asked for.
    metrics : dict of str to float
        Those asked for, by name; None where one is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> from fastconv.train import evaluate
    >>> scores = np.array([[2, 0, 0], [0, 2, 0], [0, 2, 0], [0, 0, 2]], np.float32)
    >>> found = evaluate(nn.Identity(), nn.CrossEntropyLoss(), [(scores, np.array([0, 1, 2, 2]))])
    >>> found, found.accuracy
    (Evaluation(loss=0.7395, accuracy=0.75, samples=4), 0.75)
    >>> found.confusion  # of the two of class 2, one was taken for class 1
    array([[1, 0, 0],
           [0, 1, 0],
           [0, 1, 1]])
    """

    loss: float
    accuracy: float | None
    samples: int
    seconds: float
    confusion: np.ndarray | None
    metrics: dict[str, float | None] = field(default_factory=dict)

    def __repr__(self) -> str:
        figures = {"loss": self.loss, "accuracy": self.accuracy, **self.metrics}
        told = ", ".join(f"{name}={value:.4g}" for name, value in figures.items() if value is not None)
        return f"Evaluation({told}, samples={self.samples})"

    def _repr_html_(self) -> str:
        """The figures, and of up to twenty classes the confusions."""
        figures = {"loss": self.loss, "accuracy": self.accuracy, **self.metrics}
        names = [name for name, value in figures.items() if value is not None]
        head = _html.table("", [[*names, "samples"], [*(f"{figures[n]:.4g}" for n in names), f"{self.samples:,}"]], 0)
        if self.confusion is None or len(self.confusion) > _SHOWN:
            return head
        share = self.confusion / np.maximum(self.confusion.sum(axis=1, keepdims=True), 1)
        rows = [["label", *map(str, range(len(share)))]]
        rows += [[str(i), *map(str, row)] for i, row in enumerate(self.confusion)]

        def shade(row: int, column: int) -> str:
            if not column or not share[row, column - 1]:
                return ""
            colour = "44,160,44" if row == column - 1 else "214,39,40"
            return f"background:rgba({colour},{0.15 + 0.6 * share[row, column - 1]:.2f})"

        return head + _html.table("Predictions (columns) of each label (rows)", rows, 1, shade)


def labels_of(output: np.ndarray, target: np.ndarray, loss: Any = None) -> np.ndarray | None:
    """Return as int64 which class each row of scores, or each pixel of (N, C, H, W), should have; None without such.

    Counts, say, are integers too: one that is the number of no class shows that they are no labels, and accuracy
    has no meaning. Labels that the loss leaves out are -1. Of probabilities for a cross-entropy it is the likeliest
    class.
    """
    scores = output.shape[1] if output.ndim > 1 else 0
    if scores > 1 and isinstance(loss, CrossEntropyLoss) and is_dense(target, output):
        return target.argmax(axis=1)
    if scores < 2 or target.shape != (len(output), *output.shape[2:]) or target.dtype.kind not in "biu":
        return None
    ignore = getattr(loss, "ignore_index", None)
    left_out = np.zeros(target.shape, bool) if ignore is None else target == ignore
    known = target[~left_out] if left_out.any() else target
    if known.size and not (known.min() >= 0 and int(known.max()) < scores):
        return None
    return target.astype(np.int64, copy=False) if known is target else np.where(left_out, -1, target).astype(np.int64)


def hits(output: np.ndarray, target: np.ndarray, loss: Any) -> tuple[int, int] | None:
    """Return how many labels are predicted right, and of how many; None where targets are not labels."""
    labels = labels_of(output, target, loss)
    return None if labels is None else (int((output.argmax(axis=1) == labels).sum()), int((labels >= 0).sum()))


def together(shape: tuple[int, ...], per_pixel: bool = False) -> int:
    """Return how many images (C, H, W) are looked at at once: of large ones fewer, whose arrays would need gigabytes.

    A fourth of them where each pixel has scores.
    """
    return max(1, min(_TOGETHER, _PIXELS // (shape[1] * shape[2] * (4 if per_pixel else 1))))


def total_loss(loss: Any, value: float, samples: int) -> tuple[float, float]:
    """Return the sum of the losses of a batch, of which ``loss`` gave the mean, or with ``reduction="sum"`` the sum.

    And what a mean over such sums is divided by: the samples, or what they weigh.
    """
    amount = getattr(loss, "amount", None)
    weight = float(samples) if amount is None else amount
    if getattr(loss, "reduction", "mean") == "sum":
        return value, weight
    return (value * weight if weight else 0.0), weight


def check_reduction(where: str, loss: Any) -> None:
    """Raise ValueError if a loss gives no number for a batch."""
    if getattr(loss, "reduction", "mean") == "none":
        raise ValueError(f"{where}: a loss with reduction='none' gives an array; take 'mean' or 'sum'")


def evaluate(
    model: Module,
    loss: Any,
    batches: Iterable[Batch],
    confusion: bool | None = None,
    *,
    metrics: Any = None,
    watch: Callable[[np.ndarray, np.ndarray], None] | None = None,
) -> Evaluation:
    """Run a model in evaluation mode over batches, without changing it.

    Parameters
    ----------
    model : Module
    loss : callable
        From (output, target) to the mean loss of a batch, a float; the sum where its ``reduction`` is "sum".
    batches : iterable of (input, target) or (input, target, weights)
        Batches without samples count for nothing. Of `fastconv.data.Batches` a whole epoch is seen, whatever was
        taken from it before, and its position stays.
    confusion : bool, optional
        Whether to count which class is taken for which, in classes² numbers; by default for up to a thousand classes.
    metrics : str, function, sequence or dict of them, optional
        What else to measure: "accuracy", "top5", "f1_macro", "iou", "mae", "r2", or functions of (y_true, y_pred) as
        those of scikit-learn; see `fastconv.train.metrics`. Functions keep the predictions for all samples.
    watch : callable, optional
        Called for each batch with scores (n, classes, ...) and labels (n, ...), -1 for those that the loss leaves out,
        where targets are labels. The scores are the model's until its next call.

    Returns
    -------
    Evaluation

    Raises
    ------
    ValueError
        If there are no samples, the loss gives no number for a batch, confusions are asked for and batches differ in
        their number of classes, or a metric is unknown or not for such targets.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> from fastconv import data, nn, optim
    >>> from fastconv.train import Trainer, evaluate
    >>> digits = data.load("digits")
    >>> (x, y), (x_test, y_test) = ((images / np.float32(16), labels) for images, labels in (digits.train, digits.test))
    >>> fastconv.manual_seed(0)
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    >>> _ = Trainer(model, nn.CrossEntropyLoss(), optim.Adam(model, lr=0.01), progress=False).fit(x, y, epochs=10)
    >>> found = evaluate(model, nn.CrossEntropyLoss(), [(x_test, y_test)], metrics="top5")
    >>> found
    Evaluation(loss=0.2973, accuracy=0.9278, top5=0.9944, samples=360)
    >>> found.confusion[8]  # what eights were taken for
    array([ 0,  3,  0,  0,  0,  0,  0,  0, 30,  1])
    """
    confusion = None if confusion is None else flag("evaluate: confusion", confusion)
    check_reduction("evaluate", loss)
    measured = named("evaluate", metrics)
    seen = Seen(measured)
    start = time.perf_counter()
    total, weight, samples, right, judged = 0.0, 0.0, 0, 0, 0
    counts: np.ndarray | None = None
    labelled = True
    with in_mode(model, False), turn([loss]):
        for batch in batches.whole() if isinstance(batches, Batches) else batches:
            x, y, weights = unpacked(batch)
            if not len(x):
                continue
            output = model(x)
            part, share = total_loss(loss, float(loss(output, y, *weights)), len(x))
            total, weight, samples = total + part, weight + share, samples + len(x)
            labels = labels_of(output, y, loss)
            if measured:
                seen.add(output, y, labels)
            if labels is None:
                labelled = False
            elif labelled:
                if watch is not None:
                    watch(output, labels)
                predicted, classes = output.argmax(axis=1), output.shape[1]
                if not (known := labels >= 0).all():
                    labels, predicted = labels[known], predicted[known]
                right, judged = right + int(np.count_nonzero(predicted == labels)), judged + labels.size
                if confusion is None:
                    confusion = classes <= MOST_CONFUSED
                if confusion:
                    counts = np.zeros((classes, classes), np.int64) if counts is None else counts
                    if len(counts) != classes:
                        raise ValueError(f"evaluate: confusions of batches with {len(counts)} and {classes} classes")
                    pairs, times = np.unique(labels.reshape(-1) * classes + predicted.reshape(-1), return_counts=True)
                    counts.reshape(-1)[pairs] += times
    if samples == 0:
        raise ValueError("evaluate: no samples in the batches given")
    accuracy = right / judged if labelled and judged else None
    seconds = time.perf_counter() - start
    mean = total / weight if weight else math.nan
    return Evaluation(mean, accuracy, samples, seconds, counts if labelled else None, seen.figures("evaluate"))
