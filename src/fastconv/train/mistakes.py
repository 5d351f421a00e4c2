"""What a net gets wrong in a test: per class, which class for which, and the worst mistakes with their images."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastconv import data
from fastconv import functional as F

SHOWN = 12
"""Worst mistakes that are kept."""
SIDE = 64
"""Pixels of a kept image's longer side, at most."""
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
        How likely the net holds either.
    """

    row: int
    label: int
    taken: int
    own: float
    chance: float


@dataclass
class Mistakes:
    """Watches an evaluation, see `fastconv.train.evaluate`, and keeps the worst mistakes: those held least likely.

    Attributes
    ----------
    worst : list of Mistake
        The worst first; of equals the first in the set.
    """

    most: int = SHOWN
    worst: list[Mistake] = field(default_factory=list)
    _seen: int = 0

    def __call__(self, scores: np.ndarray, labels: np.ndarray) -> None:
        """Look at a batch: scores (n, classes) and labels (n,), -1 where there is none."""
        taken = scores.argmax(axis=1)
        wrong = np.flatnonzero((taken != labels) & (labels >= 0))
        chances = F.softmax(np.ascontiguousarray(scores[wrong])) if len(wrong) else scores[:0]
        for row, chance in zip(wrong.tolist(), chances, strict=True):
            own, other = float(chance[labels[row]]), float(chance[taken[row]])
            self.worst.append(Mistake(self._seen + row, int(labels[row]), int(taken[row]), own, other))
        self.worst = sorted(self.worst, key=lambda mistake: (mistake.own, mistake.row))[: self.most]
        self._seen += len(scores)


def by_class(confusion: np.ndarray) -> list[dict[str, Any]]:
    """Return images, right ones, precision and recall of each class; None where nothing was counted.

    Precision is the share of those taken for the class that are of it, recall the share of its own that are found.

    Examples
    --------
    >>> by_class(np.array([[3, 1], [0, 4]]))[0]
    {'images': 4, 'right': 3, 'precision': 1.0, 'recall': 0.75}
    """
    found = []
    for label, row in enumerate(confusion):
        total, right, taken = int(row.sum()), int(row[label]), int(confusion[:, label].sum())
        found.append({
            "images": total, "right": right,
            "precision": right / taken if taken else None, "recall": right / total if total else None,
        })  # fmt: skip
    return found


def name(images: Any, row: int) -> str:
    """Return what to call an image of a set: its file's name where it has one, else its number."""
    return images.name(row) if isinstance(images, data.Pictures) else f"number {row}"


def told(dataset: data.Dataset, confusion: np.ndarray, mistakes: Mistakes) -> dict[str, Any]:
    """Return test.json of a run's folder; its shape is `fastconv.train.shapes.TEST`."""
    images = dataset.test.images
    return {
        "classes": list(dataset.classes),
        "by_class": by_class(confusion),
        "confusion": confusion.tolist() if len(confusion) <= _CONFUSED else None,
        "worst": [
            {
                "image": name(images, mistake.row), "label": mistake.label, "taken": mistake.taken,
                "own": mistake.own, "chance": mistake.chance,
                **_thumbnail(images[mistake.row], dataset.levels),
            }
            for mistake in mistakes.worst
        ],
    }  # fmt: skip


def _thumbnail(image: np.ndarray, levels: float) -> dict[str, Any]:
    """Return an image (C, H, W) as bytes (H, W, C) of every so many pixels; of other than 1 or 3 channels the first."""
    image = image if len(image) in (1, 3) else image[:1]
    step = -(-max(image.shape[1:]) // SIDE)
    small = np.rint(np.clip(image[:, ::step, ::step].astype(np.float64) / levels, 0, 1) * 255)
    pixels = small.astype(np.uint8).transpose(1, 2, 0)
    return {"shape": list(pixels.shape), "pixels": base64.b64encode(pixels.tobytes()).decode("ascii")}
