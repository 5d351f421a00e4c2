"""What a net gets wrong in a test: per class, which class for which, and the worst mistakes with their images."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fastconv import data
from fastconv import functional as F
from fastconv.train.metrics import r2

SHOWN = 12
"""Worst mistakes that are kept."""
SIDE = 64
"""Pixels of a kept image's longer side, at most."""
PLOTTED = 2000
"""Rows of which a true and a predicted number are kept."""
_CONFUSED = 100  # classes up to which all confusions are kept


@dataclass(frozen=True)
class Mistake:
    """A sample that a net takes for another class.

    Attributes
    ----------
    row : int
        In the test set.
    label, taken : int
        The class that it is, and the one that the net says.
    own, chance : float
        How likely the net holds either; where pixels have labels, the shares of them that are right and wrong.
    """

    row: int
    label: int
    taken: int
    own: float
    chance: float


@dataclass
class Mistakes:
    """Watches an evaluation, see `fastconv.train.evaluate`, and keeps the worst mistakes.

    Of images with one label these are those whose label is held least likely. Where pixels have labels it is the images
    with the smallest share of them right; `Mistake.own` is that share, and its classes are those of the most frequent
    mistake.

    Attributes
    ----------
    worst : list of Mistake
        The worst first; of equals the first in the set.
    """

    most: int = SHOWN
    worst: list[Mistake] = field(default_factory=list)
    _seen: int = 0

    def __call__(self, scores: np.ndarray, labels: np.ndarray) -> None:
        """Look at a batch: scores (n, classes, ...) and labels (n, ...), -1 where there is none."""
        found = _of_images(scores, labels) if labels.ndim == 1 else _of_pixels(scores, labels)
        self.worst += [replace(mistake, row=self._seen + mistake.row) for mistake in found]
        self.worst = sorted(self.worst, key=lambda mistake: (mistake.own, mistake.row))[: self.most]
        self._seen += len(scores)


def _of_images(scores: np.ndarray, labels: np.ndarray) -> Iterator[Mistake]:
    taken = scores.argmax(axis=1)
    wrong = np.flatnonzero((taken != labels) & (labels >= 0))
    chances = F.softmax(np.ascontiguousarray(scores[wrong])) if len(wrong) else scores[:0]
    for row, chance in zip(wrong.tolist(), chances, strict=True):
        label, other = int(labels[row]), int(taken[row])
        yield Mistake(row, label, other, float(chance[label]), float(chance[other]))


def _of_pixels(scores: np.ndarray, labels: np.ndarray) -> Iterator[Mistake]:
    classes = scores.shape[1]
    for row, (taken, own) in enumerate(zip(scores.argmax(axis=1), labels, strict=True)):
        known, wrong = own >= 0, (taken != own) & (own >= 0)
        if wrong.any():
            pairs, counts = np.unique(own[wrong] * classes + taken[wrong], return_counts=True)
            label, other = divmod(int(pairs[counts.argmax()]), classes)
            share = float(wrong.sum() / known.sum())
            yield Mistake(row, label, other, 1 - share, share)


def by_class(confusion: np.ndarray) -> list[dict[str, Any]]:
    """Return samples (or pixels), right ones, precision, recall and IoU of each class; None where nothing was counted.

    Precision is the share of those taken for the class that are of it, recall the share of its own that are found; IoU
    is the share of the right ones among all that are of the class or taken for it.

    Examples
    --------
    >>> by_class(np.array([[3, 1], [0, 4]]))[0]
    {'samples': 4, 'right': 3, 'precision': 1.0, 'recall': 0.75, 'iou': 0.75}
    """
    found = []
    for label, row in enumerate(confusion):
        total, right, taken = int(row.sum()), int(row[label]), int(confusion[:, label].sum())
        found.append({
            "samples": total, "right": right,
            "precision": right / taken if taken else None, "recall": right / total if total else None,
            "iou": right / (total + taken - right) if total or taken else None,
        })  # fmt: skip
    return found


def name(images: Any, row: int) -> str:
    """Return what to call an image of a set: its file's name where it has one, else its number."""
    return images.name(row) if isinstance(images, data.Pictures) else f"number {row}"


def residuals(true: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Return how far predicted numbers are off: r2, mean absolute error, root mean square, and the mean.

    ``mae_of_mean`` is what always saying the mean would cost.

    Examples
    --------
    >>> residuals(np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 4.0]))["r2"]
    0.5
    """
    errors = predicted - true
    return {
        "r2": r2(true, predicted), "mae": float(np.abs(errors).mean()), "rmse": float(np.sqrt((errors**2).mean())),
        "bias": float(errors.mean()), "mae_of_mean": float(np.abs(true - true.mean()).mean()),
    }  # fmt: skip


def told_numbers(dataset: data.Dataset, predicted: np.ndarray) -> dict[str, Any]:
    """Return test.json of a run that predicts numbers; its shape is `fastconv.train.shapes.TEST_NUMBERS`.

    Of many rows those kept are spread evenly over the set; the worst are among all of them.
    """
    true = dataset.test.labels.astype(np.float64)
    rows = np.unique(np.linspace(0, len(true) - 1, min(len(true), PLOTTED)).round().astype(int))
    order = np.argsort(-np.abs(predicted - true), kind="stable")[:SHOWN]
    return {
        "target": dataset.target, "rows": len(true), "figures": residuals(true, predicted),
        "true": true[rows].tolist(), "predicted": predicted[rows].tolist(),
        "worst": [
            {"image": name(dataset.test.images, row), "true": float(true[row]), "predicted": float(predicted[row])}
            for row in order.tolist()
        ],
    }  # fmt: skip


def told(
    dataset: data.Dataset,
    confusion: np.ndarray,
    mistakes: Mistakes,
    predict: Callable[[np.ndarray], np.ndarray] | None = None,
) -> dict[str, Any]:
    """Return test.json of a run's folder; its shape is `fastconv.train.shapes.TEST`.

    ``predict`` gives scores for images (N, C, H, W); where pixels have labels, a picture is then the image, its mask
    and the predicted one side by side.
    """
    images = dataset.test.images

    def picture(row: int) -> dict[str, Any]:
        image = images[row]
        small = _thumbnail(image, dataset.levels)
        if dataset.per_pixel and predict is not None:
            step = -(-max(image.shape[1:]) // SIDE)
            masks = (dataset.test.labels[row], predict(image[np.newaxis])[0].argmax(axis=0))
            painted_ones = [data.painted(mask[::step, ::step]) for mask in masks]
            small = np.concatenate([np.broadcast_to(small, (*small.shape[:2], 3)), *painted_ones], axis=1)
        return {"shape": list(small.shape), "pixels": base64.b64encode(small.tobytes()).decode("ascii")}

    return {
        "classes": list(dataset.classes),
        "by_class": by_class(confusion),
        "confusion": confusion.tolist() if len(confusion) <= _CONFUSED else None,
        "per_pixel": dataset.per_pixel, "noun": dataset.noun,
        "worst": [
            {
                "image": name(images, mistake.row), "label": mistake.label, "taken": mistake.taken,
                "own": mistake.own, "chance": mistake.chance, **picture(mistake.row),
            }
            for mistake in mistakes.worst
        ],
    }  # fmt: skip


def _thumbnail(image: np.ndarray, levels: float) -> np.ndarray:
    """Return every so many pixels of an image (C, H, W) as bytes (H, W, C); of other than 1 or 3 channels the first."""
    image = image if len(image) in (1, 3) else image[:1]
    step = -(-max(image.shape[1:]) // SIDE)
    small = np.rint(np.clip(image[:, ::step, ::step].astype(np.float64) / levels, 0, 1) * 255)
    return small.astype(np.uint8).transpose(1, 2, 0)
