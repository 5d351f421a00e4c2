"""Standardisation: (x - mean) / deviation, both taken from training images, per channel or per pixel."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np

from fastconv.data.pictures import Pictures
from fastconv.functional._check import one_of, unmasked

# 256 uint8 images at a time: sums of 256 squares stay below 2**24, so float32 adds them exactly (and fast).
CHUNK = 256
_VALUES = 1 << 23  # and no more numbers than these, where an image is large


class Standardizer:
    """Shift and scale images by fixed statistics.

    Where the deviation is 0 (a pixel that never changes in training) the result is 0: such a pixel has
    nothing to tell, and dividing by a small number instead would turn test noise into huge inputs.

    Parameters
    ----------
    mean, deviation : array_like
        (C, 1, 1) per channel or (C, H, W) per pixel, in the units of the images.

    Raises
    ------
    ValueError
        If shapes differ or are not 3-d, or a value is not finite, or a deviation is negative.

    Examples
    --------
    >>> import numpy as np
    >>> images = np.array([0, 2, 4, 6], np.uint8).reshape(4, 1, 1, 1)
    >>> standardizer = Standardizer.fit(images)
    >>> standardizer.mean.item(), standardizer.deviation.item()
    (3.0, 2.23606797749979)
    >>> standardizer(images).ravel()
    array([-1.3416407, -0.4472136,  0.4472136,  1.3416407], dtype=float32)
    """

    def __init__(self, mean: Any, deviation: Any) -> None:
        self.mean = np.array(mean, np.float64)
        self.deviation = np.array(deviation, np.float64)
        if self.mean.ndim != 3 or self.mean.shape != self.deviation.shape or not self.mean.size:
            raise ValueError(
                f"Standardizer: mean and deviation must have one shape (C, 1, 1) or (C, H, W), "
                f"got {self.mean.shape} and {self.deviation.shape}"
            )
        if not (np.isfinite(self.mean).all() and np.isfinite(self.deviation).all()):
            raise ValueError("Standardizer: mean and deviation must be finite")
        if self.deviation.min() < 0:
            raise ValueError(f"Standardizer: deviation must not be negative, found {self.deviation.min()}")

    @classmethod
    def fit(cls, images: np.ndarray, per: Literal["channel", "pixel"] = "channel") -> "Standardizer":
        """Take mean and deviation (the population's, divided by N) of training images.

        Parameters
        ----------
        images : ndarray
            (N, C, H, W), uint8 or floating, N >= 1. Statistics of uint8 images are exact before one rounding.
        per : {"channel", "pixel"}
            One pair of numbers for each channel, or one for each pixel of each channel. Per pixel, one that
            is hardly ever lit (a corner in MNIST) comes out very large where it is.

        Returns
        -------
        Standardizer

        Raises
        ------
        ValueError
            If there are no images, the shape is not 4-d, or ``per`` is another word.
        TypeError
            If the dtype is neither uint8 nor floating, or the array is masked.

        Examples
        --------
        >>> from fastconv import data
        >>> images = data.load("digits").train.images
        >>> standardizer = data.Standardizer.fit(images)
        >>> standardizer.mean.round(2).ravel(), standardizer.deviation.round(2).ravel()  # grey levels of 0..16
        (array([4.89]), array([6.02]))
        >>> data.Standardizer.fit(images, per="pixel").mean.round()[0, 3]  # a row of the mean digit
        array([ 0.,  2.,  9.,  9., 10.,  8.,  2.,  0.])
        """
        unmasked("Standardizer.fit", "images", images)
        one_of("Standardizer.fit: per", per, ("channel", "pixel"))
        if images.ndim != 4 or 0 in images.shape:
            raise ValueError(
                f"Standardizer.fit: images must be (N, C, H, W) and not empty, got {images.shape}"
            )
        if isinstance(images, Pictures) and per == "channel":
            sums, squares = (a.sum(axis=0).reshape(-1, 1, 1) for a in (images.sums, images.squares))
            return cls(*_of_sums(sums, squares, len(images) * math.prod(images.shape[2:])))
        if images.dtype == np.uint8:
            return cls(*_fit_bytes(images, per))
        if images.dtype.kind == "f":
            return cls(*_fit_floats(images, per))
        raise TypeError(f"Standardizer.fit: images must be uint8 or floating, got {images.dtype}")

    @property
    def per(self) -> Literal["channel", "pixel"]:
        """Whether the statistics are per channel or per pixel."""
        return "channel" if self.mean.shape[1:] == (1, 1) else "pixel"

    def __call__(self, images: np.ndarray, dtype: Any = np.float32) -> np.ndarray:
        """Return standardised images as ``dtype``: (N, C, H, W) over a new channels-last buffer.

        Computed as (x - mean) * (1 / deviation) with mean and factor rounded to ``dtype`` first, so that a
        whole set and any batch of it come out alike to the bit.

        Raises
        ------
        ValueError
            If the images' (C, H, W) does not fit the statistics.
        TypeError
            If the array is masked.
        """
        unmasked("Standardizer", "images", images)
        n, c, h, w = images.shape
        mean, factor = self.expand((c, h, w), dtype)
        out = np.empty((n, h, w, c), dtype)
        apply(images.transpose(0, 2, 3, 1), mean, factor, out)
        return out.transpose(0, 3, 1, 2)

    def expand(self, shape: tuple[int, int, int], dtype: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and 1 / deviation as ``dtype`` arrays (H, W, C) for images of shape (C, H, W).

        Parameters
        ----------
        shape : tuple of int
            (C, H, W).
        dtype : dtype
            float32 or float64.

        Raises
        ------
        ValueError
            If the shape does not fit the statistics.

        Examples
        --------
        >>> from fastconv import data
        >>> mean, factor = data.Standardizer([[[4.0]]], [[[2.0]]]).expand((1, 2, 3), "float32")
        >>> mean.shape, mean[0, 0], factor[0, 0]
        ((2, 3, 1), array([4.], dtype=float32), array([0.5], dtype=float32))
        """
        fits = self.mean.shape == shape if self.per == "pixel" else self.mean.shape[0] == shape[0]
        if not fits:
            raise ValueError(
                f"Standardizer: images of shape {shape} do not fit statistics of shape {self.mean.shape}"
            )
        factor = np.zeros_like(self.deviation)
        np.divide(1.0, self.deviation, out=factor, where=self.deviation > 0)
        full = [np.broadcast_to(a, shape).transpose(1, 2, 0) for a in (self.mean, factor)]
        return full[0].astype(dtype, order="C"), full[1].astype(dtype, order="C")

    def to_dict(self) -> dict[str, list[Any]]:
        """Return the statistics as plain lists, fit for JSON; `from_dict` restores them to the bit.

        Examples
        --------
        >>> from fastconv import data
        >>> data.Standardizer([[[4.0]]], [[[2.0]]]).to_dict()
        {'mean': [[[4.0]]], 'deviation': [[[2.0]]]}
        """
        return {"mean": self.mean.tolist(), "deviation": self.deviation.tolist()}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> "Standardizer":
        """Restore what `to_dict` returned.

        Parameters
        ----------
        state : mapping
            ``{"mean": ..., "deviation": ...}``, nested lists.

        Returns
        -------
        Standardizer

        Raises
        ------
        ValueError
            If a key is missing or the values are not what the constructor takes.

        Examples
        --------
        >>> from fastconv import data
        >>> kept = data.Standardizer([[[4.0]]], [[[2.0]]]).to_dict()
        >>> data.Standardizer.from_dict(kept).mean
        array([[[4.]]])
        """
        missing = [key for key in ("mean", "deviation") if key not in state]
        if missing:
            raise ValueError(f"Standardizer.from_dict: {' and '.join(missing)} missing")
        try:
            return cls(state["mean"], state["deviation"])
        except TypeError as error:
            raise ValueError(f"Standardizer.from_dict: not numbers: {error}") from error

    def __repr__(self) -> str:
        """Granularity and shape."""
        return f"Standardizer(per={self.per!r}, shape={self.mean.shape})"


def apply(images: np.ndarray, mean: np.ndarray, factor: np.ndarray, out: np.ndarray) -> None:
    """Write (images - mean) * factor to ``out``: images and out (N, H, W, C), mean and factor (H, W, C)."""
    np.subtract(images, mean, out=out, casting="same_kind")
    np.multiply(out, factor, out=out)


def _chunks(images: np.ndarray, dtype: Any) -> Iterator[np.ndarray]:
    """Yield the images in order, CHUNK at a time, as writable (n, C, H, W) arrays of ``dtype``."""
    chunk = max(1, min(CHUNK, len(images), _VALUES // math.prod(images.shape[1:])))
    buffer = np.empty((chunk, *images.shape[1:]), dtype)
    for start in range(0, len(images), chunk):
        part = buffer[: len(images) - start]
        np.copyto(part, images[start : start + chunk])
        yield part


def _fit_bytes(images: np.ndarray, per: str) -> tuple[np.ndarray, np.ndarray]:
    """Sum values and squares exactly; variance is (n * sum of squares - sum**2) / n**2 in whole numbers."""
    sums = np.zeros(images.shape[1:], np.int64)
    squares = np.zeros(images.shape[1:], np.int64)
    for part in _chunks(images, np.float32):
        sums += part.sum(axis=0).astype(np.int64)
        squares += np.square(part, out=part).sum(axis=0).astype(np.int64)
    n = len(images)
    if per == "channel":
        n *= sums[0].size
        sums, squares = (a.sum(axis=(1, 2), keepdims=True) for a in (sums, squares))
    return _of_sums(sums, squares, n)


def _of_sums(sums: np.ndarray, squares: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    # Python's integers (dtype object): n * squares may pass 2**63.
    spread = n * squares.astype(object) - sums.astype(object) ** 2
    return sums / n, np.sqrt((spread / n**2).astype(np.float64))


def _fit_floats(images: np.ndarray, per: str) -> tuple[np.ndarray, np.ndarray]:
    """Two passes in float64: the mean, then the mean square distance from it."""
    n = len(images)
    if per == "channel":
        n *= images[0, 0].size

    def mean_of(parts: Iterator[np.ndarray]) -> np.ndarray:
        total = np.zeros(images.shape[1:])
        for part in parts:
            for image in part:  # one image after another: an order of sums that no machine changes
                total += image
        if per == "pixel":
            return total / n
        return np.array([math.fsum(channel.ravel()) for channel in total]).reshape(-1, 1, 1) / n

    mean = mean_of(_chunks(images, np.float64))
    return mean, np.sqrt(mean_of(np.square(part - mean) for part in _chunks(images, np.float64)))
