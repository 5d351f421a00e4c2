"""Minibatches: a batch is a pure function of (seed, epoch, index), made in buffers that are used again."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from fastconv.data._shuffle import permutation
from fastconv.data.augment import Augment
from fastconv.data.dataset import Samples, check_labels
from fastconv.data.decode import IGNORED
from fastconv.data.mixup import Mixup
from fastconv.data.pictures import Masks, Pictures
from fastconv.data.standardize import Standardizer, apply
from fastconv.functional._check import as_labels, flag, unmasked, whole

_AHEAD = 32  # samples at least that are decoded ahead of their batch


class Batches:
    """Cut a set into minibatches, in a new random order every epoch.

    Any batch can be made again from (seed, epoch, index) without the ones before it; iterating goes on from
    `position` where that was set, so a resumed run needs two integers; else it begins an epoch, also after one that
    was left in the middle. A batch belongs to this object until it makes the next:
    copy what must stay.

    Parameters
    ----------
    images : ndarray
        (N, C, H, W), or (N, ...) of another rank. Copied once when 4-d and not channels-last in memory. Those of a
        folder are decoded for each batch, while the step before it runs.
    labels : ndarray
        (N,) classes of any integer dtype, or booleans, which come out as int64, or (N, ...) floating targets, which
        keep their dtype. Of classes for each pixel, (N, H, W), augmentation moves those with their pixels; what is of
        no image, from outside of it or covered, is of class 255, which a loss has to leave out (``ignore_index``).
    batch_size : int
        The last batch of an epoch may be smaller.
    seed : int
        Orders of different epochs and seeds are unrelated.
    shuffle : bool
        False keeps the order of ``images`` in every epoch.
    drop_last : bool
        Leave out a last batch that is smaller.
    augment : Augment, optional
        Applied to each image before it is standardised.
    standardize : Standardizer, optional
        Applied to each image; without it values are only converted to ``dtype``.
    dtype : float32 or float64
        Of the batches.
    mixup : Mixup, optional
        Applied to each batch of images with one label, last of all; labels come out as probabilities (n, classes).
    sample_weight : ndarray, optional
        (N,) or of the targets' shape: what samples weigh. Batches are then (images, labels, weights).

    Attributes
    ----------
    position : tuple of int
        (epoch, index) of the batch that the iteration at hand gives next. May be set: to where the next one starts.

    Raises
    ------
    ValueError
        If lengths differ, ``batch_size`` < 1, or an option does not fit the images' shape.
    TypeError
        If ``batch_size`` is no whole number, ``dtype`` is not float32 or float64, or images or labels are not of a real
        dtype, or masked.

    Examples
    --------
    >>> import numpy as np
    >>> batches = Batches(np.zeros((10, 1, 8, 8), np.uint8), np.arange(10), batch_size=4, seed=1)
    >>> [x.shape[0] for x, y in batches]
    [4, 4, 2]
    >>> batches.position
    (1, 0)
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = False,
        augment: Augment | None = None,
        *,
        standardize: Standardizer | None = None,
        dtype: Any = np.float32,
        sample_weight: np.ndarray | None = None,
        mixup: Mixup | None = None,
    ) -> None:
        if len(images) != len(labels):
            raise ValueError(f"Batches: {len(images)} images but {len(labels)} labels")
        batch_size = whole("Batches: batch_size", batch_size)
        if np.dtype(dtype) not in (np.dtype(np.float32), np.dtype(np.float64)):
            raise TypeError(f"Batches: dtype must be float32 or float64, got {np.dtype(dtype)}")
        unmasked("Batches", "images", images)
        unmasked("Batches", "labels", labels)
        if images.dtype.kind not in "buif" or labels.dtype.kind not in "biuf":
            raise TypeError(f"Batches: images and labels must be real, got {images.dtype} and {labels.dtype}")
        if images.ndim != 4 and (augment or standardize):
            raise ValueError(f"Batches: augment and standardize need images (N, C, H, W), got {images.shape}")

        self.batch_size, self.seed = batch_size, seed
        self.shuffle, self.drop_last = flag("Batches: shuffle", shuffle), flag("Batches: drop_last", drop_last)
        self.augment, self.standardize = augment, standardize
        self._position = (0, 0)
        self._set = False  # whether the next iteration starts at an index that was set
        self._masked = labels.ndim == 3 and labels.dtype.kind != "f" and labels.shape[1:] == images.shape[2:]
        kept = labels.dtype.kind == "f" or (self._masked and labels.dtype == np.uint8)
        self._labels: Any = labels if kept else as_labels("Batches", "labels", labels)
        if isinstance(labels, Masks) and not labels.of(images):
            raise ValueError("Batches: masks of a folder go with the images of the same rows")
        room = min(self.batch_size, max(len(images), 1))
        self._files: Any = images if isinstance(images, Pictures) else None
        self._images: np.ndarray
        if self._files is not None:  # a batch of them is decoded to here, then cut like any
            channels, height, width = self._files.files.shape
            self._images = np.empty((room, height, width, channels), np.uint8)
        else:
            # From here on images are (N, H, W, C): a batch is then gathered and written front to back.
            self._images = np.ascontiguousarray(images.transpose(0, 2, 3, 1) if images.ndim == 4 else images)
        shape = (*images.shape[2:], images.shape[1]) if images.ndim == 4 else images.shape[1:]
        self._x = np.empty((room, *shape), dtype)
        self._y = np.empty((room, *labels.shape[1:]), self._labels.dtype if labels.dtype.kind == "f" else np.int64)
        self.mixup = mixup
        if mixup is not None:
            if self._labels.ndim != 1 or self._labels.dtype != np.int64 or sample_weight is not None:
                raise ValueError(
                    f"Batches: mixup is for images with one label (N,) and no sample_weight, got labels {labels.dtype} "
                    f"{labels.shape}"
                )
            check_labels(self._labels, mixup.classes, "Batches: mixup")
            self._mixed = np.empty((room, mixup.classes), dtype)
        self._views: dict[int, tuple[np.ndarray, ...]] = {}
        self._weight = self._w = None
        if sample_weight is not None:
            unmasked("Batches", "sample_weight", sample_weight)
            weight = np.asarray(sample_weight)
            if len(weight) != len(images) or weight.dtype.kind not in "biuf":
                got = f"{weight.dtype} of shape {weight.shape}"
                raise ValueError(f"Batches: sample_weight must hold {len(images)} numbers, got {got}")
            self._weight = weight.astype(dtype)
            self._w = np.empty((room, *weight.shape[1:]), dtype)
        same = images.dtype == self._x.dtype
        self._gathered = self._x if same else np.empty(self._x.shape, self._images.dtype)
        if augment:
            augment.check(images)
        if standardize:
            _, channels, height, width = images.shape
            self._mean, self._factor = standardize.expand((channels, height, width), dtype)
        self._epoch: int | None = None  # whose order and draws are at hand
        self._order = np.arange(len(images), dtype=np.int64)
        self._next: tuple[int | None, np.ndarray] = (None, self._order)  # of an epoch whose images are begun
        self._drawn = np.empty((3, 0), np.int64)

    @property
    def samples(self) -> Samples:
        """What the batches are cut from, as it was given; of images a view."""
        if self._files is not None:
            return Samples(self._files, self._labels)
        images = self._images
        return Samples(images.transpose(0, 3, 1, 2) if images.ndim == 4 else images, self._labels)

    @property
    def position(self) -> tuple[int, int]:
        return self._position

    @position.setter
    def position(self, value: tuple[int, int]) -> None:
        epoch, index = value
        self._position, self._set = (int(epoch), int(index)), True

    def __repr__(self) -> str:
        images = self.samples.images
        parts = [f"{len(self)} batches of {self.batch_size}", f"{images.shape} {images.dtype}", f"seed={self.seed}"]
        parts += [] if self.shuffle else ["shuffle=False"]
        parts += ["augmented"] * bool(self.augment) + ["standardized"] * bool(self.standardize)
        return f"Batches({', '.join(parts)})"

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        whole, rest = divmod(len(self._labels), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[tuple[np.ndarray, ...]]:
        """Give the batches of an epoch, of one whose `position` was set the rest; leaves `position` at the next."""
        epoch, first = self._position
        if not self._set:  # what is left of an iteration that was broken off is of no account
            first = 0
        self._set = False
        for index in range(first, len(self)):
            self._position = (epoch, index + 1)
            yield self.batch(epoch, index)
        self._position = (epoch + 1, 0)

    def whole(self) -> Iterator[tuple[np.ndarray, ...]]:
        """Give all batches of the epoch at hand, from its first; `position` stays.

        Examples
        --------
        >>> import numpy as np
        >>> from fastconv import data
        >>> batches = data.Batches(np.zeros((10, 3)), np.arange(10), batch_size=4)
        >>> _ = next(iter(batches))
        >>> [len(labels) for _, labels in batches.whole()], batches.position
        ([4, 4, 2], (0, 1))
        """
        epoch = self._position[0]
        for index in range(len(self)):
            yield self.batch(epoch, index)

    def indices(self, epoch: int, index: int) -> np.ndarray:
        """Return which samples batch ``index`` of ``epoch`` holds: int64 (n,).

        Parameters
        ----------
        epoch, index : int
            From 0.

        Raises
        ------
        IndexError
            If an epoch has no such batch.

        Examples
        --------
        >>> import numpy as np
        >>> from fastconv import data
        >>> batches = data.Batches(np.zeros((6, 3)), np.arange(6), batch_size=4, seed=1)
        >>> batches.indices(epoch=0, index=0), batches.indices(epoch=1, index=0)
        (array([1, 0, 5, 3]), array([1, 3, 0, 2]))
        """
        if not 0 <= index < len(self):
            raise IndexError(f"Batches: an epoch has batches 0..{len(self) - 1}, got {index}")
        if epoch != self._epoch:
            self._order = self._order_of(epoch)
            if self.augment:
                self._drawn = self.augment.draws(len(self._labels), self.seed, epoch)
            self._epoch = epoch
        return self._order[index * self.batch_size : (index + 1) * self.batch_size]

    def _order_of(self, epoch: int) -> np.ndarray:
        if not self.shuffle:
            return self._order
        if self._next[0] != epoch:
            self._next = (epoch, permutation(len(self._labels), self.seed, "shuffle", epoch))
        return self._next[1]

    def _following(self, epoch: int, index: int) -> np.ndarray:
        """Return the samples that come after a batch, as many as are worth decoding ahead."""
        count, used = max(self.batch_size, _AHEAD), min(len(self) * self.batch_size, len(self._labels))
        rows = self._order[(index + 1) * self.batch_size : used][:count]
        if len(rows) < count:
            rows = np.concatenate([rows, self._order_of(epoch + 1)[: min(count - len(rows), used)]])
        return rows

    def batch(self, epoch: int, index: int) -> tuple[np.ndarray, ...]:
        """Make one batch; `position` stays.

        Parameters
        ----------
        epoch, index : int
            From 0.

        Returns
        -------
        images : ndarray
            (n, C, H, W) of ``dtype`` over a channels-last buffer (other ranks: (n, ...), C-contiguous).
        labels : ndarray
            (n,) int64 or (n, ...) floating; with `mixup` probabilities (n, classes).
        weights : ndarray
            Where the samples have weights: what these weigh, (n,) or of the labels' shape.

        Raises
        ------
        IndexError
            If an epoch has no batch ``index``.

        Examples
        --------
        >>> import numpy as np
        >>> from fastconv import data
        >>> batches = data.Batches(np.arange(6)[:, np.newaxis] * 10, np.arange(6), batch_size=4, seed=1)
        >>> x, y = batches.batch(epoch=0, index=1)  # again at any time, without those before it
        >>> x, y
        (array([[40.],
               [20.]], dtype=float32), array([4, 2]))
        """
        rows = self.indices(epoch, index)
        n = len(rows)
        if n not in self._views:  # the same array objects for batches of one size: a model knows them again
            x, weights = self._x[:n], () if self._w is None else (self._w[:n],)
            targets = self._y[:n] if self.mixup is None else self._mixed[:n]
            self._views[n] = (x.transpose(0, 3, 1, 2) if x.ndim == 4 else x, targets, *weights)
        made, x, y, gathered = self._views[n], self._x[:n], self._y[:n], self._gathered[:n]
        if self._weight is not None:
            np.take(self._weight, rows, axis=0, out=made[2], mode="clip")
        images, labels, at, of = self._images, self._labels, rows, rows
        if self._files is not None:
            images, at = images[:n], np.arange(n)
            self._files.fetch(rows, images, self._following(epoch, index))
            if isinstance(labels, Masks):
                images, labels, of = images[..., :-1], images[..., -1], at
        # mode="clip" writes straight to out ("raise" would go through a copy); rows are in range.
        if self.augment and self._masked:
            self.augment.place_masks(labels, of, self._drawn[:, rows], y, IGNORED)
        elif self._masked:
            y[...] = labels[of]
        else:
            np.take(labels, of, axis=0, out=y, mode="clip")
        if self.augment:
            self.augment.place(images, at, self._drawn[:, rows], gathered)
        else:
            np.take(images, at, axis=0, out=gathered, mode="clip")
        if self.standardize:
            apply(gathered, self._mean, self._factor, x)
        elif self._gathered is not self._x:
            np.copyto(x, gathered)
        if self.mixup:
            self.mixup(x, y, made[1], seed=self.seed, epoch=epoch, index=index)
        return made
