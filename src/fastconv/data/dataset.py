"""What a data set is: images and labels of a training and a test set, checked once when it is made."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fastconv.data._shuffle import permutation
from fastconv.data.decode import IGNORED
from fastconv.data.pictures import Masks, Pictures
from fastconv.functional._check import as_labels, flag, short, unmasked


class Samples(NamedTuple):
    """Images (N, C, H, W) and their labels (N,) or masks (N, H, W); unpacks as ``images, labels = samples``.

    Of a table, rows (N, columns, 1, 1) and classes or numbers (N,).

    Examples
    --------
    >>> from fastconv import data
    >>> images, labels = data.load("digits").test
    >>> images.shape, labels[:5]
    ((360, 1, 8, 8), array([0, 4, 8, 2, 9]))
    >>> data.Samples(images[:100], labels[:100])
    Samples(images (100, 1, 8, 8) uint8, labels (100,) int64)
    """

    images: np.ndarray
    labels: np.ndarray

    def __repr__(self) -> str:
        """Shapes and dtypes; never the pixels."""
        images, labels = self
        return f"Samples(images {images.shape} {images.dtype}, labels {labels.shape} {labels.dtype})"


@dataclass(frozen=True, eq=False)
class Dataset:
    """A labelled set of images of one shape, or of the rows of a table.

    Parameters
    ----------
    name : str
        What `load` was asked for.
    classes : tuple of str
        Name of each label 0, 1, ...; none where labels are numbers to predict.
    train, test : Samples or (images, labels)
        ``images``: (N, C, H, W), uint8 or a floating type, values 0..levels; ``labels``: (N,), any integer dtype,
        held as int64; or masks (N, H, W) with a class for each pixel, uint8, of which 255 is none; or, without
        classes, numbers (N,) of a floating type.
    levels : int
        Value of a full-scale pixel: 255, or 16 for ``digits``.
    light_on_dark : bool
        True where bright strokes stand on a dark ground (handwritten digits), so that a scan of ink on paper
        must be inverted before a model trained on this set sees it.
    validation : Samples or (images, labels), optional
        Where the set comes with images to validate with.
    damaged : tuple of str
        Which files were left out, and why.
    columns : tuple of str
        Of a table, whose rows are images of one pixel: what their channels are.
    target : str
        Of a table: what is told of a row.

    Raises
    ------
    TypeError
        If a part is no pair of arrays.
    ValueError
        If shapes, dtypes or labels do not fit together.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import data
    >>> images, labels = np.zeros((6, 1, 8, 8), np.uint8), np.array([0, 1, 1, 0, 1, 0])
    >>> dataset = data.Dataset("mine", ("cat", "dog"), (images[:4], labels[:4]), (images[4:], labels[4:]))
    >>> dataset
    Dataset('mine', 2 classes, 4 training and 2 test images of (1, 8, 8))
    >>> dataset.shape, dataset.outputs, dataset.per_pixel
    ((1, 8, 8), 2, False)
    """

    name: str
    classes: tuple[str, ...]
    train: Samples
    test: Samples
    levels: int = 255
    light_on_dark: bool = False
    validation: Samples | None = None
    damaged: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    target: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "light_on_dark", flag(f"Dataset {self.name}: light_on_dark", self.light_on_dark))
        for part in ("train", "test", *(() if self.validation is None else ("validation",))):
            where, pair = f"Dataset {self.name}: {part}", getattr(self, part)
            if not isinstance(pair, tuple | list) or len(pair) != 2:
                raise TypeError(f"{where} must be (images, labels), got {short(pair)}")
            images, labels = pair
            for name, value in (("images", images), ("labels", labels)):
                if not isinstance(value, np.ndarray | Pictures | Masks):
                    raise TypeError(f"{where} {name} must be an array (numpy.array makes one), got {short(value)}")
            object.__setattr__(self, part, Samples(images, labels))
            unmasked(where, "images", images)
            if images.ndim != 4 or 0 in images.shape[1:]:
                raise ValueError(f"{where} images must be (N, C, H, W), got shape {images.shape}")
            if images.dtype != np.uint8 and images.dtype.kind != "f":
                raise ValueError(f"{where} images must be uint8 or floating, got {images.dtype}")
            masks = isinstance(labels, Masks) or (labels.ndim == 3 and labels.dtype == np.uint8)
            if masks and labels.shape != (len(images), *images.shape[2:]):
                raise ValueError(f"{where} masks must be {(len(images), *images.shape[2:])}, got {labels.shape}")
            if masks != self.per_pixel:
                raise ValueError(f"{where} has {'a mask' if masks else 'one label'} an image, train has not")
            if self.numbers:
                if labels.shape != images.shape[:1] or labels.dtype.kind != "f" or self.classes:
                    what = f"{labels.dtype} {labels.shape} and {len(self.classes)} classes"
                    raise ValueError(f"{where} targets must be numbers ({len(images)},) without classes, got {what}")
            elif not masks and (labels.shape != images.shape[:1] or labels.dtype.kind not in "biu"):
                raise ValueError(f"{where} labels must be integers ({len(images)},), got {labels.dtype} {labels.shape}")
            elif not masks:
                labels = as_labels(where, "labels", labels)
            object.__setattr__(self, part, Samples(images, labels))
            if not isinstance(labels, Masks) and not self.numbers:  # masks of a folder were looked at when it was read
                check_labels(labels[labels != IGNORED] if masks else labels, len(self.classes), where)
            if images.shape[1:] != self.train.images.shape[1:]:
                raise ValueError(
                    f"Dataset {self.name}: {self.noun}s of train and {part} differ in shape: "
                    f"{self.train.images.shape[1:]} and {images.shape[1:]}"
                )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    @property
    def per_pixel(self) -> bool:
        """Whether it has masks, a class for each pixel, rather than a class for each image."""
        return self.train.labels.ndim == 3

    @property
    def noun(self) -> str:
        """What a sample is called: a "row" of a table, else an "image"."""
        return "row" if self.columns else "image"

    @property
    def numbers(self) -> bool:
        """Whether what is told of a sample is a number, rather than a class."""
        return self.train.labels.dtype.kind == "f"

    @property
    def outputs(self) -> int:
        """How many outputs a net for it has: a score for each class, or the number."""
        return 1 if self.numbers else len(self.classes)

    def __repr__(self) -> str:
        """Name, sizes and shape; never the pixels."""
        told = f"numbers {self.target}" if self.numbers else f"{len(self.classes)} classes"
        kind = f"{self.noun}s of " + (f"{len(self.columns)} columns" if self.columns else f"{self.shape}")
        return (
            f"Dataset({self.name!r}, {told}, {len(self.train.labels)} training and {len(self.test.labels)} test {kind})"
        )


def check_labels(labels: np.ndarray, classes: int, where: str) -> None:
    """Raise ValueError unless every label is in 0..classes-1."""
    if not labels.size:
        return
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise ValueError(f"{where}: labels must be 0..{classes - 1}, found {low}..{high}")


def split(samples: Samples, validation: float = 0.1, seed: int = 0) -> tuple[Samples, Samples]:
    """Part training samples into (train, validation), at random by seed.

    Parameters
    ----------
    samples : Samples or (images, labels)
        Arrays of equal length N.
    validation : float or int
        How many to set aside: a share in (0, 1), or a count 0 <= validation <= N.
    seed : int
        The same seed and N set the same positions aside.

    Returns
    -------
    train, validation : Samples
        Copies; each keeps the original order. Together they hold every sample once.

    Raises
    ------
    ValueError
        If the lengths differ or ``validation`` is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> train, held_out = split((np.zeros((10, 1, 2, 2)), np.arange(10)), validation=3, seed=1)
    >>> len(train.labels), len(held_out.labels)
    (7, 3)
    """
    images, labels = samples
    n = len(images)
    if len(labels) != n:
        raise ValueError(f"split: {n} images but {len(labels)} labels")
    if isinstance(validation, int | np.integer):
        count = int(validation)
    elif 0.0 < validation < 1.0:
        count = round(n * validation)
    else:
        raise ValueError(f"split: validation must be a count or a share in (0, 1), got {validation}")
    if not 0 <= count <= n:
        raise ValueError(f"split: cannot set aside {count} of {n} samples")
    order = permutation(n, seed, "split")
    kept, held = np.sort(order[count:]), np.sort(order[:count])
    return _take(images, labels, kept), _take(images, labels, held)


def _take(images: np.ndarray, labels: np.ndarray, rows: np.ndarray) -> Samples:
    if isinstance(images, Pictures):
        kept = labels.part(rows) if isinstance(labels, Masks) else np.take(labels, rows, axis=0)
        return Samples(images.part(rows), kept)
    # Images go through their channels-last view, whose order np.take would not keep.
    if images.ndim != 4:
        return Samples(np.take(images, rows, axis=0), np.take(labels, rows, axis=0))
    taken = np.take(images.transpose(0, 2, 3, 1), rows, axis=0).transpose(0, 3, 1, 2)
    return Samples(taken, np.take(labels, rows, axis=0))
