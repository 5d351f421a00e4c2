"""Mixup: images, and what they are, in pairs between two samples; a pure function of (seed, epoch, batch)."""

import math
from dataclasses import dataclass

import numpy as np

from fastconv.data._shuffle import permutation, words
from fastconv.functional._check import number, whole

_ONE = 1 << 16
_MOST = 4.0  # of alpha: beyond, few draws would be accepted
_DRAWN = 64  # words at a time


@dataclass(frozen=True)
class Mixup:
    """Replace each image of a batch by ``share * image + (1 - share) * another`` of it, and labels likewise.

    Targets are then probabilities, (N, classes), as `nn.CrossEntropyLoss` takes them. One share is drawn for a batch,
    from the beta distribution (alpha, alpha), and one order, which says which other (H. Zhang et al., "mixup: beyond
    empirical risk minimization", ICLR 2018, section 2). Accuracy in training is that of the likelier of the two labels;
    it tells less than that of a validation, whose images are not mixed.

    Parameters
    ----------
    alpha : float
        In (0, 4]: 0.1 to 0.4 is usual for large sets. Small ones mix little; at 1 all shares are equally likely.
    classes : int
        How many labels there are.

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    TypeError
        If ``classes`` is no whole number, or ``alpha`` no number.

    Examples
    --------
    >>> x, y = np.zeros((4, 1, 2, 2), np.float32), np.array([0, 1, 1, 2])
    >>> q = np.zeros((4, 3), np.float32)
    >>> Mixup(0.2, 3)(x, y, q, seed=0, epoch=0, index=0)
    >>> bool((q.sum(axis=1) == 1).all())
    True
    """

    alpha: float
    classes: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "alpha", number("Mixup", "alpha", self.alpha))
        object.__setattr__(self, "classes", whole("Mixup: classes", self.classes, 2))
        if not 0 < self.alpha <= _MOST:
            raise ValueError(f"Mixup: alpha must be in (0, {_MOST:g}], got {self.alpha}")

    def draw(self, n: int, seed: int, epoch: int, index: int) -> tuple[float, np.ndarray]:
        """Return the share that each sample of a batch of n keeps, a multiple of 1/65536, and whom it is mixed with.

        Parameters
        ----------
        n : int
            Samples of the batch.
        seed, epoch, index : int
            What the draw is a function of.
        """
        step = (epoch << 32) | index
        return self._share(seed, step), permutation(n, seed, "mixup order", step)

    def _share(self, seed: int, step: int) -> float:
        """Draw by Jöhnk's method: of powers of two uniform numbers whose sum is at most 1, the first one's part.

        Logarithms may differ in their last place from one machine to another: what is drawn is rounded.
        """
        count = _DRAWN
        while True:
            bits = words(count, seed, "mixup", step)[count - _DRAWN :]
            uniform = ((bits >> np.uint64(11)).astype(np.float64) + 0.5) / (1 << 53)
            for u, v in uniform.reshape(-1, 2).tolist():
                one, other = math.log(u) / self.alpha, math.log(v) / self.alpha
                if math.exp(one) + math.exp(other) <= 1:
                    apart = (math.log(v) - math.log(u)) / self.alpha  # infinite for the smallest alphas, no NaN
                    return round(_ONE / (1 + math.exp(min(apart, 700.0)))) / _ONE
            count += _DRAWN

    def __call__(
        self, images: np.ndarray, labels: np.ndarray, targets: np.ndarray, *, seed: int, epoch: int, index: int
    ) -> None:
        """Mix a batch in place.

        Parameters
        ----------
        images : ndarray, floating
            (N, ...); written over.
        labels : ndarray of int
            (N,), in 0..classes-1.
        targets : ndarray, floating, shape (N, classes)
            Receives the probabilities.
        seed, epoch, index : int
            Where in a training the batch is.
        """
        share, order = self.draw(len(images), seed, epoch, index)
        rest = images[order]
        images *= images.dtype.type(share)
        rest *= images.dtype.type(1 - share)
        images += rest
        rows = np.arange(len(labels))
        targets[...] = 0
        targets[rows, labels] = share
        targets[rows, labels[order]] += targets.dtype.type(1 - share)
